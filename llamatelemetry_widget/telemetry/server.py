"""Figures of a llama.cpp server that somebody runs: its health, slots and counters, as far as it tells them.

In: the server's address. Out: samples; what it does not tell is named with the flag that turns it on.
"""

from __future__ import annotations

import json
import math
import re
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from ..errors import LlamaTelemetryError
from .samples import Polled, Sample

_SECONDS = 2.0  # a server that does not answer within this counts as silent
_MOST_BYTES = 4_000_000
_FLAGS = {"/metrics": "--metrics", "/slots": "--slots", "/props": "--props"}
_COUNTER = re.compile(r"^llamacpp:(\w+)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
_OF_METRICS = ("prefill_tps", "tokens_written", "tokens_read", "requests_running", "requests_waiting")
_OF_SLOTS = ("slots_busy", "slots", "context_used", "context_size")


class Telemetry(Polled):
    """A llama.cpp server (``llama-server``) as a source of live figures.

    Nothing is asked before somebody reads or subscribes, and only four GET requests are ever made: ``/health``,
    ``/props``, ``/slots``, ``/metrics``. Prompts and texts that a server may tell there are not kept.

    Parameters
    ----------
    url : str
        E.g. ``"http://127.0.0.1:8080"``; a path before the end points (``--api-prefix``) is kept.
    api_key : str, optional
        What the server was started with as ``--api-key``. Sent to this address only; never shown.
    every : float
        Seconds between two readings while somebody listens.

    Attributes
    ----------
    facts : dict
        ``model``, ``file``, ``build``, ``slots``, ``context`` of the server, as far as it tells them; empty until it
        was read, and after it was lost.

    Raises
    ------
    LlamaTelemetryError
        The address is none of a server.

    Examples
    --------
    >>> server = lt.Telemetry("http://127.0.0.1:8080")  # doctest: +SKIP
    >>> server.read().values["decode_tps"]  # doctest: +SKIP
    """

    def __init__(self, url: str = "http://127.0.0.1:8080", api_key: str | None = None, *, every: float = 0.5) -> None:
        super().__init__(every)
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if host is None or parts.scheme not in ("http", "https") or parts.username is not None:
            raise LlamaTelemetryError(f"{url!r} is no server's address: write e.g. http://127.0.0.1:8080")
        self._secure, self._host, self._port, self._prefix = parts.scheme == "https", host, port, parts.path.rstrip("/")
        self._key = api_key
        self.url = f"{parts.scheme}://{parts.netloc}{self._prefix}"
        self.facts: dict[str, str] = {}
        self._before: tuple[float, dict[tuple[int, int], float], dict[str, float]] | None = None

    def __repr__(self) -> str:
        return f"<Telemetry: {self.title}>"

    @property
    def title(self) -> str:
        """The server's address, and its model once that is known."""
        return " · ".join([f"llama.cpp server {self.url}", *([self.facts["model"]] if "model" in self.facts else [])])

    def read(self) -> Sample:
        """Ask the server now. A server that is silent, loads its model or wants a key gives None and says so."""
        values: dict[str, float | None] = dict.fromkeys(("decode_tps", *_OF_METRICS, *_OF_SLOTS))
        notes: dict[str, str] = {}
        kind = HTTPSConnection if self._secure else HTTPConnection
        connection = kind(self._host, self._port, timeout=_SECONDS)
        try:
            status, _ = self._get(connection, "/health")
            if status != 200:
                raise _Silent("it is loading its model" if status == 503 else f"/health answers {status}, not 200")
            if not self.facts:
                self._learn(connection, notes)
            slots = self._slots(connection, values, notes)
            counters = self._counters(connection, values, notes)
            if off := dict.fromkeys(note for note in notes.values() if note.startswith("/")):  # whole end points
                notes[""] = "; ".join(off)
            self._rates(slots, counters, values, notes)
        except (OSError, HTTPException, _Silent) as error:
            self.facts, self._before = {}, None
            values = dict.fromkeys(values)
            notes = {"": f"{self.url}: {_reason(error)}"}
        finally:
            connection.close()
        return Sample(time.time(), values, notes)

    def _get(self, connection: HTTPConnection, path: str) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key is not None else {}
        connection.request("GET", self._prefix + path, headers=headers)
        answer = connection.getresponse()
        data = answer.read(_MOST_BYTES)
        if not answer.isclosed():
            raise _Silent(f"{path} answers more than {_MOST_BYTES // 1_000_000} MB: is it a llama.cpp server?")
        return answer.status, data.decode("utf-8", "replace")

    def _json(self, connection: HTTPConnection, path: str, notes: dict[str, str], figures: tuple[str, ...]) -> Any:
        """What an end point tells; None where it does not, which is noted of these figures."""
        status, text = self._get(connection, path)
        if status == 200:
            try:
                return json.loads(text)
            except ValueError:
                status = -1
        notes |= dict.fromkeys(figures, _why(path, status, self._key is not None))
        return None

    def _learn(self, connection: HTTPConnection, notes: dict[str, str]) -> None:
        props = self._json(connection, "/props", notes, ("model",))
        if not isinstance(props, dict):
            return
        settings = props.get("default_generation_settings")
        path, alias = props.get("model_path"), props.get("model_alias")
        told = {
            "model": alias if alias and alias != path else str(path or "").replace("\\", "/").rpartition("/")[2],
            "file": props.get("model_path"),
            "build": props.get("build_info"),
            "slots": props.get("total_slots"),
            "context": settings.get("n_ctx") if isinstance(settings, dict) else None,
        }
        self.facts = {name: str(value)[:300] for name, value in told.items() if value not in (None, "")}

    def _slots(
        self, connection: HTTPConnection, values: dict[str, float | None], notes: dict[str, str]
    ) -> dict[tuple[int, int], float] | None:
        """Tokens written by each (slot, task) that is at work."""
        told = self._json(connection, "/slots", notes, _OF_SLOTS)
        if not isinstance(told, list):
            return None
        slots = [slot for slot in told if isinstance(slot, dict)]
        busy = [slot for slot in slots if slot.get("is_processing")]
        values["slots"], values["slots_busy"] = float(len(slots)), float(len(busy))
        values["context_size"] = sum(_number(slot.get("n_ctx")) or 0.0 for slot in slots)
        used = [_number(slot.get("n_prompt_tokens")) for slot in slots]
        if any(one is not None for one in used):  # idle slots need not tell what their cache still holds
            values["context_used"] = sum(one or 0.0 for one in used)
        else:
            notes["context_used"] = "no slot tells how full it is"
        written: dict[tuple[int, int], float] = {}
        for slot in busy:
            state = slot.get("next_token")
            state = state[0] if isinstance(state, list) and state else state
            decoded = _number(state.get("n_decoded")) if isinstance(state, dict) else None
            if decoded is not None:
                written[int(_number(slot.get("id")) or 0), int(_number(slot.get("id_task")) or 0)] = decoded
        return written

    def _counters(
        self, connection: HTTPConnection, values: dict[str, float | None], notes: dict[str, str]
    ) -> dict[str, float] | None:
        status, text = self._get(connection, "/metrics")
        if status != 200:
            notes |= dict.fromkeys(_OF_METRICS, _why("/metrics", status, self._key is not None))
            return None
        found = {name: value for name, text in _COUNTER.findall(text) if (value := _number(text)) is not None}
        told = {
            "tokens_written": "tokens_predicted_total",
            "tokens_read": "prompt_tokens_total",
            "requests_running": "requests_processing",
            "requests_waiting": "requests_deferred",
        }
        values |= {name: found.get(theirs) for name, theirs in told.items()}
        return found

    def _rates(
        self,
        slots: dict[tuple[int, int], float] | None,
        counters: dict[str, float] | None,
        values: dict[str, float | None],
        notes: dict[str, str],
    ) -> None:
        """Tokens per second: written, from what the slots have gained; else of the requests that have just ended."""
        now = time.monotonic()
        before, self._before = self._before, (now, slots or {}, counters or {})
        if before is None:
            notes.setdefault("prefill_tps", "the first reading: a rate needs two")
            notes["decode_tps"] = "the first reading: a rate needs two"
            return
        then, slots_then, counters_then = before
        if slots is not None:
            gained = sum(max(n - slots_then.get(task, 0.0), 0.0) for task, n in slots.items())
            values["decode_tps"] = gained / (now - then) if slots else None
            if not slots:
                notes["decode_tps"] = "nothing is being written"
        elif counters is not None:
            ended = _ended(counters, counters_then, "tokens_predicted_total", "tokens_predicted_seconds")
            which = "no request" if ended is None else "of requests that"
            values["decode_tps"] = ended
            notes["decode_tps"] = f"{which} ended since the last reading; start it with --slots for all"
        else:
            notes["decode_tps"] = "start the server with --slots or --metrics"
        if counters is not None:
            read = _ended(counters, counters_then, "prompt_tokens_total", "prompt_seconds")
            values["prefill_tps"] = read
            which = "no prompt was" if read is None else "of prompts that were"
            notes["prefill_tps"] = f"{which} read since the last reading"


class _Silent(Exception):
    """The server cannot be read now."""


def _ended(now: dict[str, float], then: dict[str, float], tokens: str, seconds: str) -> float | None:
    """Tokens per second between two readings of two counters; None where they stood still or began anew."""
    n = now.get(tokens, 0.0) - then.get(tokens, math.inf)
    took = now.get(f"{seconds}_total", 0.0) - then.get(f"{seconds}_total", math.inf)
    return n / took if n > 0 and took > 0 else None


def _why(path: str, status: int, has_key: bool) -> str:
    if status in (401, 403):
        return f"{path}: the server wants {'another' if has_key else 'an'} API key: Telemetry(url, api_key=…)"
    if status in (404, 501):
        return f"{path} is off: start the server with {_FLAGS[path]}"
    return f"{path} answers no JSON" if status == -1 else f"{path} answers {status}"


def _reason(error: Exception) -> str:
    if isinstance(error, _Silent):
        return str(error)
    if isinstance(error, ConnectionRefusedError):
        return "nothing answers; waiting for it"
    return f"{str(error) or type(error).__name__}; waiting for it"


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
