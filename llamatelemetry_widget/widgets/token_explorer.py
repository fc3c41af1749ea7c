"""`TokenExplorer`: the next token over the whole vocabulary, llama.cpp's sampler chain by hand, and what follows.

In: a model and a prompt. Out: an interactive widget, its settings as traits, a tree of continuations, and the same data
as HTML, PNG, SVG and pandas.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import traitlets

from ..errors import LlamaTelemetryError
from ..model import Model
from ..trace import Trace, display_token
from .attention_facts import day, details
from .base import Heard, Message, TelemetryWidget
from .continuations import ROOT, Continuations
from .traits import Buffers, Tokens

if TYPE_CHECKING:
    import pandas as pd

    from ..engine.generation import Generation
    from ..export.page import Part
    from ..model import Prompt

Array = np.ndarray[Any, Any]

_KEPT = 16  # distributions that stay in memory
_PAGE_BYTES = 4_000_000  # of them in an exported page, the shown one first
_WORDS = 256  # likeliest tokens whose text the browser gets
_TOP = 5  # alternatives that are told with each token
_MOST = 256  # tokens that one press may write
#: The filters in llama.cpp's order, and the setting that switches each off.
FILTERS = {"top_k": 0, "typical_p": 1.0, "top_p": 1.0, "min_p": 0.0}
SETTINGS = ("repeat_penalty", *FILTERS, "temperature")


class TokenExplorer(TelemetryWidget):
    """The distribution of the next token, what each sampler cuts from it, and a tree of continuations.

    The logits of the last token come from llama.cpp, whole. The chain is llama.cpp's own, in its own order: repeat
    penalty, top-k, typical, top-p, min-p, temperature. Moving a slider computes nothing in the kernel.

    Parameters
    ----------
    model : Model
        It stays in use for as long as the widget is.
    prompt : str, sequence of int, or sequence of mapping
        A text, token ids, or chat messages for the model's own template.
    **traits
        Any of the attributes below.

    Attributes
    ----------
    temperature : float
        0 takes the likeliest token, whatever the filters. Default 0.8.
    top_k : int
        Only so many of the likeliest tokens; 0 = all. Default 40.
    typical_p, top_p, min_p : float
        llama.cpp's samplers of these names; 1, 1 and 0 switch them off. Default 1, 0.95 and 0.05.
    repeat_penalty : float
        Divides what the last 64 tokens speak for; 1 = off. Default 1.
    seed : int
        Of `sample`. The same seed at the same place gives the same token. Default 0.
    node : int
        Whose next token is shown: 0 is the prompt, others stand in `nodes`. Default 0.
    leaf : int
        The end of the continuation that is shown. Default 0.
    selected_tokens : list of int
        Tokens of the prompt that are marked, as a linked widget chose them. Default ``[]``.
    theme : {"auto", "light", "dark"}
        ``auto`` follows the host. Default ``"auto"``.

    Examples
    --------
    >>> explorer = TokenExplorer(model, "The old lighthouse keeper lit the")  # doctest: +SKIP
    >>> explorer.sample(8)  # doctest: +SKIP
    """

    bundle = "token_explorer"

    temperature = traitlets.Float(0.8, min=0.0, max=100.0).tag(sync=True)
    top_k = traitlets.Int(40, min=0).tag(sync=True)
    typical_p = traitlets.Float(1.0, min=0.0, max=1.0).tag(sync=True)
    top_p = traitlets.Float(0.95, min=0.0, max=1.0).tag(sync=True)
    min_p = traitlets.Float(0.05, min=0.0, max=1.0).tag(sync=True)
    repeat_penalty = traitlets.Float(1.0, min=1.0, max=10.0).tag(sync=True)
    seed = traitlets.Int(0, min=0).tag(sync=True)
    node = traitlets.Int(ROOT, min=0).tag(sync=True)
    leaf = traitlets.Int(ROOT, min=0).tag(sync=True)
    selected_tokens = Tokens().tag(sync=True)
    theme = traitlets.Enum(("auto", "light", "dark"), "auto").tag(sync=True)

    facts = traitlets.Dict().tag(sync=True)
    nodes: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    words = traitlets.Dict().tag(sync=True)
    here = traitlets.List(traitlets.Int()).tag(sync=True)
    logits = Buffers()

    def __init__(self, model: Model, prompt: Prompt, **traits: Any) -> None:
        if not isinstance(model, Model):
            raise LlamaTelemetryError(f"TokenExplorer asks a Model (open_model(…)), not {type(model).__name__}")
        self._model = model
        self._ids, self._decoder = model._prompt_ids(prompt, None)
        pieces, kinds = model._pieces(self._decoder or self._ids)
        self._tree = Continuations(b"".join(pieces))
        self._logits: OrderedDict[int, Array] = OrderedDict()
        self._own_words: dict[str, list[str]] = {}
        self._writing: Generation | None = None
        self._trace = self._run(ROOT)
        self._speed: dict[str, float] = {}
        tokens = {"tokens": [display_token(piece) for piece in pieces], "kinds": kinds}
        self._prompt_facts = {**tokens, "ids": self._decoder or self._ids, "added": self._added(prompt, kinds)}
        self._note_words(self._decoder or self._ids)
        super().__init__(facts=self._facts(), nodes=self._plain(), **traits)
        self._show(self.node)

    def __repr__(self) -> str:
        return f"<TokenExplorer: {self.facts['provenance']} · {len(self.nodes) - 1} tokens written>"

    def _facts(self) -> dict[str, Any]:
        info = self._trace.info
        model = " ".join(str(x) for x in (info.get("model"), info.get("quant_type")) if x)
        device = f"{info.get('device', 'CPU')}, {info.get('n_threads')} threads"
        return {
            "title": "Next token",
            "model": info.get("model") or "",
            "provenance": f"llama.cpp logits · {model} · {device}",
            "details": details(self._trace),
            "live": True,
            "saved": day(self._trace),
            "n_words": len(self._logits[next(iter(self._logits))]),
            "speed": self._speed,
            **self._prompt_facts,
        }

    def _added(self, prompt: Prompt, kinds: list[str]) -> str:
        """Which special tokens were put around the prompt, and by whom."""
        if not isinstance(prompt, (str, bytes)):
            return "special tokens are those of the model's chat template" if _is_chat(prompt) else ""
        plain = len(self._model.tokenize(prompt, add_special=False)) if prompt else 0
        more = len(self._ids) - plain
        return f"{more} special token{'s' if more > 1 else ''} added by the tokenizer" if more else ""

    # ------------------------------------------------------------------------- running

    @property
    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SETTINGS}

    def _given(self, node: int) -> dict[str, Any]:
        """What llama.cpp is to run for the token after a node."""
        more = self._tree.ids(node)
        if self._decoder:
            return {"prompt": self._ids, "decoder_prompt": [*self._decoder, *more]}
        return {"prompt": [*self._ids, *more]}

    def _before(self, node: int) -> list[int]:
        return [*(self._decoder or self._ids), *self._tree.ids(node)]

    def _run(self, node: int) -> Trace:
        trace = self._model._resumed(**self._given(node))
        self._keep(node, trace.logits[-1])
        return trace

    def _keep(self, node: int, logits: Array) -> None:
        self._logits[node] = np.ascontiguousarray(logits, "<f4").copy()
        self._logits.move_to_end(node)
        while len(self._logits) > _KEPT:
            self._logits.popitem(last=False)

    def _need(self, node: int) -> Array:
        """float32 (vocab,): the logits after a node, computed where they are not here."""
        if node not in self._logits:
            self._run(node)
        self._logits.move_to_end(node)
        return self._logits[node]

    def _note_words(self, ids: list[int]) -> None:
        missing = [i for i in dict.fromkeys(ids) if str(i) not in self._own_words]
        if missing:
            pieces, kinds = self._model._pieces(missing)
            for i, piece, kind in zip(missing, pieces, kinds, strict=True):
                self._own_words[str(i)] = [display_token(piece), kind]

    def _show(self, node: int) -> None:
        """Give the browser a distribution and the words of its likeliest tokens."""
        logits = self._need(node)
        self._note_words(_likeliest(logits, _WORDS))
        with self.hold_sync():
            self.words = dict(self._own_words)
            self.here, self.logits = [node], [logits.tobytes()]

    def _plain(self) -> list[dict[str, Any]]:
        """The nodes, copied: a trait that is changed in place tells nobody."""
        return [dict(node) for node in self._tree.nodes]

    def _push(self) -> None:
        self.nodes = self._plain()

    def _go(self, node: int) -> None:
        with self.hold_sync():
            self._push()
            self.facts = self._facts()
            self.leaf = node
            self.node = node
        self._show(node)

    def step(self, token: int | None = None) -> int:
        """Put a token after the shown place and go there.

        Parameters
        ----------
        token : int, optional
            Its id; by default the likeliest.

        Returns
        -------
        int
            The token's node.
        """
        self._go(self._choose(self.node, token))
        return self.node

    def _choose(self, node: int, token: int | None) -> int:
        logits = self._need(node).astype(np.float64)
        if token is not None and not 0 <= token < len(logits):
            raise LlamaTelemetryError(f"token id {token} does not exist: the vocabulary has 0 to {len(logits) - 1}")
        own = int(np.argmax(logits)) if token is None else int(token)
        odds = np.exp(logits - logits.max())
        odds /= odds.sum()
        top = _likeliest(logits, _TOP)
        pieces, kinds = self._model._pieces([own, *top])
        words = [[i, display_token(piece), float(odds[i])] for i, piece in zip(top, pieces[1:], strict=True)]
        facts = {"probability": float(odds[own]), "rank": int((logits > logits[own]).sum()) + 1, "top": words}
        how = "likeliest" if token is None else "chosen"
        return self._tree.add(node, own, pieces[0], kinds[0], ms=None, how=how, **facts)

    def sample(self, count: int = 1) -> int:
        """Let llama.cpp's chain write tokens after the shown place, with the settings and the seed, and go there.

        Parameters
        ----------
        count : int

        Returns
        -------
        int
            The last token's node; fewer are written where the model ends its text.
        """
        self._write(self.node, count, {**self._settings, "seed": self.seed}, lambda done, total: None)
        return self.node

    def greedy(self, count: int = 1) -> int:
        """Write always the likeliest token after the shown place, and go there; see `sample`."""
        self._write(
            self.node, count, {**self._settings, "temperature": 0.0, "seed": self.seed}, lambda done, total: None
        )
        return self.node

    def _write(self, node: int, count: int, settings: dict[str, Any], heard: Heard) -> None:
        start = node
        seed = settings["seed"] + len(self._tree.path(node))  # one seed gives a text, not one token again and again
        sampler = {**settings, "seed": seed}
        self._writing = writing = self._model._write_on(
            max_tokens=min(max(count, 1), _MOST), sampler=sampler, **self._given(node)
        )
        how = "likeliest" if settings["temperature"] <= 0 else "sampled"
        try:
            for done, token in enumerate(writing, 1):
                top = [[i, display_token(piece), p] for i, piece, p in token.top]
                facts = {"probability": token.probability, "rank": token.rank, "ms": 1e3 * token.seconds}
                node = self._tree.add(node, token.id, token.bytes, token.kind, how=how, top=top, **facts)
                self._pacer.put("nodes", self._push)
                heard(done, count)
            trace = writing.result()
        finally:
            writing.cancel()
            self._writing = None
        if node != start and writing.finish_reason != "cancelled":
            self._keep(node, trace.logits[-1])
        spent = trace.telemetry
        self._speed = {"first_token": 1e3 * spent["first_token_seconds"]}
        if (per_second := spent.get("decode_tokens_per_second")) is not None:
            self._speed["tokens_per_second"] = per_second
        self._speed["ended"] = float(writing.finish_reason == "stop")
        self._go(node)

    def back(self) -> int:
        """Go to the token before; what was written stays. Returns the node."""
        if self.node != ROOT:
            self.node = self._tree.nodes[self.node]["parent"]
        self._show(self.node)
        return self.node

    # ------------------------------------------------------------------------ messages

    def _answer(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "stop":
            if self._writing is not None:
                self._writing.cancel()
        elif kind in ("show", "step", "sample"):
            self._answer_later(message, "tokens", lambda heard: self._act(message, heard))
        else:
            raise LlamaTelemetryError(f"message {kind!r} is not known: reload the page")

    def _act(self, message: Message, heard: Heard) -> None:
        node = int(message["node"])
        if node >= len(self._tree.nodes):
            raise LlamaTelemetryError("this branch is not known: reload the page")
        if message["type"] == "show":
            self._show(node)
        elif message["type"] == "step":
            token = message.get("token")
            self._go(self._choose(node, None if token is None else int(token)))
        else:
            asked = {**self._settings, "seed": self.seed, **message.get("settings", {})}
            self._write(node, int(message.get("count", 1)), {name: asked[name] for name in (*SETTINGS, "seed")}, heard)
        self.send({"type": message["type"], "id": message["id"]})

    # ----------------------------------------------------------------------- selection

    @traitlets.validate("node", "leaf")
    def _valid_node(self, proposal: Any) -> Any:
        if proposal["value"] >= len(self._tree.nodes):
            raise traitlets.TraitError(f"node {proposal['value']} does not exist: there are {len(self._tree.nodes)}")
        return proposal["value"]

    @traitlets.validate("selected_tokens")
    def _valid_tokens(self, proposal: Any) -> Any:
        tokens, n = proposal["value"], len(self.facts["tokens"])
        if any(token >= n for token in tokens):
            raise traitlets.TraitError(f"token {max(tokens)} does not exist: the prompt has tokens 0 to {n - 1}")
        return tokens

    @traitlets.observe("node")
    def _stays_on_its_branch(self, _: Any) -> None:
        if self.node != ROOT and self.node not in self._tree.path(self.leaf):
            self.leaf = self.node

    @property
    def text(self) -> str:
        """What was written on the shown branch: all tokens' bytes joined, then decoded."""
        return self._tree.data(self.leaf).decode("utf-8", "replace")

    @property
    def distribution(self) -> pd.DataFrame:
        """The shown distribution: one row per token of the vocabulary, likeliest first.

        Returns
        -------
        DataFrame
            ``token``, ``id``, ``logit``, ``probability`` (the model's own), ``after`` (llama.cpp's chain, 0 = cut) and
            ``cut_by`` (the filter, "temperature" where 0 takes the likeliest alone; "" = it is left).
        """
        import pandas as pd

        logits, before = self._need(self.node), self._before(self.node)
        pieces, _ = self._model.token_list
        wide = logits.astype(np.float64)
        odds = np.exp(wide - wide.max())
        after, cut = np.zeros(len(logits)), np.full(len(logits), "", object)
        settings = {**self._settings, "seed": self.seed}
        for name, ids in self._stages(logits, before, settings):
            gone = np.ones(len(logits), bool)
            gone[ids] = False
            cut[gone & (cut == "")] = name
        ids, probabilities, _chosen = self._model._sampled(logits, before, settings)
        after[ids] = probabilities
        frame: pd.DataFrame = pd.DataFrame(
            {
                "token": [display_token(piece) for piece in pieces[: len(logits)]],
                "id": np.arange(len(logits)),
                "logit": logits,
                "probability": odds / odds.sum(),
                "after": after,
                "cut_by": cut,
            }
        ).sort_values(["probability", "id"], ascending=[False, True], ignore_index=True)
        return frame

    def _stages(self, logits: Array, before: list[int], settings: dict[str, Any]) -> list[tuple[str, Array]]:
        """What is left after each filter in turn, by llama.cpp; of temperature 0 the likeliest alone."""
        if settings["temperature"] <= 0:
            return [("temperature", self._model._sampled(logits, before, settings)[0])]
        found, so_far = [], {**settings, **FILTERS}
        for name in FILTERS:
            so_far[name] = settings[name]
            found.append((name, self._model._sampled(logits, before, so_far)[0]))
        return found

    # ------------------------------------------------------------------------- exports

    def to_pandas(self) -> pd.DataFrame:
        """The shown distribution, as `distribution`."""
        return self.distribution

    @property
    def tokens(self) -> pd.DataFrame:
        """The tokens of the shown branch, one row each: id, token, probability, surprise in bits, rank, ms, how."""
        import pandas as pd

        own = [self._tree.nodes[at] for at in self._tree.path(self.leaf)]
        columns = ["token", "text", "kind", "probability", "rank", "ms", "how"]
        frame: pd.DataFrame = pd.DataFrame(own, columns=columns)
        frame = frame.rename(columns={"token": "id", "text": "token"})
        frame.insert(4, "bits", -np.log2(frame["probability"].astype(float)))
        return frame

    def to_svg(self, path: str | os.PathLike[str] | None = None, theme: Literal["light", "dark"] | None = None) -> str:
        """The distribution, what was cut, the written tokens and the provenance, as SVG.

        Parameters
        ----------
        path : path, optional
            Where to write it; a folder gets a file named after the model.
        theme : {"light", "dark"}, optional
            The widget's own by default, light where that is ``auto``.

        Returns
        -------
        str
            The SVG.
        """
        from ..export.picture import svg

        text = svg(self._drawn(theme), self._title())
        if path is not None:
            self._path(path, "svg").write_text(text, "utf-8")
        return text

    def to_png(
        self, path: str | os.PathLike[str] | None = None, theme: Literal["light", "dark"] | None = None
    ) -> bytes:
        """The picture of `to_svg` as PNG, two pixels per px.

        Raises
        ------
        BackendMissing
            Pillow is not installed (the extra ``export``).
        """
        from ..export.picture import png_file

        data = png_file(self._drawn(theme))
        if path is not None:
            self._path(path, "png").write_bytes(data)
        return data

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """The widget as one HTML file that needs no kernel and no network.

        The distributions that were looked at go in, as many as fit 4 MB, the shown one always; sliders work on them.

        Parameters
        ----------
        path : path, optional
            Where to write it; its size is then printed. A folder gets a file named after the model.

        Returns
        -------
        str
            The page.
        """
        from ..export.page import page

        part = self.page_part()
        text = page(part)
        if path is not None:
            target = self._path(path, "html")
            target.write_text(text, "utf-8")
            there = len(part.state["here"])
            print(f"{target} · {target.stat().st_size / 1e6:.1f} MB · {there} of {len(self.nodes)} distributions")
        return text

    def page_part(self) -> Part:
        """The widget as a part of a page with several, for `save_html`."""
        from ..export.page import Part

        self._need(self.node)
        latest = list(reversed(self._logits.items()))
        count = max(1, _PAGE_BYTES // latest[0][1].nbytes)
        there = dict(latest[:count])
        for logits in there.values():
            self._note_words(_likeliest(logits, _WORDS))
        state = {name: getattr(self, name) for name in _PAGE_TRAITS}
        state |= {"facts": {**self._facts(), "live": False}, "nodes": self.nodes, "words": dict(self._own_words)}
        state["here"] = list(there)
        binary = {"logits": [logits.tobytes() for logits in there.values()]}
        return Part(self._title(), self._esm, state, binary, self._static_html(""))

    def _drawn(self, theme: str | None) -> Any:
        from ..export.colour import THEMES
        from ..export.tokens import draw

        chosen = theme or (self.theme if self.theme != "auto" else "light")
        if chosen not in THEMES:
            raise LlamaTelemetryError(f"theme {chosen!r} does not exist: choose from {', '.join(THEMES)}")
        written = [self._tree.nodes[at] for at in self._tree.path(self.leaf)]
        shown = len(self._tree.path(self.node))
        return draw(self.facts, self.distribution, self._settings, written, shown, chosen)

    def _static_html(self, why: str) -> str:
        from ..export.tokens import fallback

        return fallback(self.facts, self._drawn(None), why)

    def _title(self) -> str:
        return f"Next token · {self.facts['model'] or 'model'}"

    def _path(self, path: str | os.PathLike[str], ending: str) -> Path:
        target = Path(path)
        if not target.is_dir():
            return target
        model = re.sub(r"[^\w.-]+", "_", str(self.facts["model"])).strip("._")[:80] or "model"
        return target / f"tokens-{model}.{ending}"


_PAGE_TRAITS = (
    "temperature",
    "top_k",
    "typical_p",
    "top_p",
    "min_p",
    "repeat_penalty",
    "seed",
    "node",
    "leaf",
    "selected_tokens",
    "theme",
)


def _is_chat(prompt: Any) -> bool:
    return bool(len(prompt)) and not isinstance(prompt[0], (int, np.integer))


def _likeliest(logits: Array, count: int) -> list[int]:
    """Ids of the greatest logits, in order."""
    top = np.argpartition(-logits, count)[:count] if len(logits) > count else np.arange(len(logits))
    found: list[int] = top[np.lexsort((top, -logits[top]))].tolist()
    return found
