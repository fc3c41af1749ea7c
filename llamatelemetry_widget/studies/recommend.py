"""Which candidate of a study to take, in words: the choice, its reasons, how sure it is and what it cannot say.

In: facts of the base, one row per candidate, one per candidate and text block, limits. Out: a `Recommendation`.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ..errors import LlamaTelemetryError

if TYPE_CHECKING:
    import pandas as pd

#: Below this KL divergence (nats per token) the candidates no longer differ in what they can do.
NEAR = 0.01
_FEW_BLOCKS = 5
_MEASURED = ("done", "running", "cancelled")  # the last two in part, where they have figures
_PLAIN = ("F32", "F16", "BF16")  # types that lose nothing that a quantized candidate could win
_THIN = "\u202f"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Recommendation:
    """What to take, and why.

    Attributes
    ----------
    name : str or None
        The candidate; None where none keeps to the limits.
    sentence : str
    reasons : list of str
    sure : str
        How far the figures carry the choice.
    limits : list of str
        What this study cannot say.
    tie : list of str
        Candidates whose 95 % interval of KL overlaps that of the closest; the smallest of them is recommended.
    commands : dict of str to str
        ``llama-quantize`` (where the file is one to be made), ``llama-server`` and ``Modelfile``.
    markdown : str
        A block for a model card.
    headline, body : str
        The two halves of `sentence`.
    """

    name: str | None
    sentence: str
    reasons: list[str]
    sure: str
    limits: list[str]
    tie: list[str]
    commands: dict[str, str]
    markdown: str
    headline: str = ""
    body: str = ""

    def __repr__(self) -> str:
        return f"<Recommendation: {self.sentence}>"

    def _repr_markdown_(self) -> str:
        limits = "".join(f"\n- Limit: {limit}" for limit in self.limits)
        return f"**{self.headline}** {self.body}\n\n- How sure: {self.sure}{limits}"

    def to_json(self) -> str:
        """All of it as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)


def recommend(
    base: Row,
    results: pd.DataFrame,
    blocks: pd.DataFrame,
    max_bytes: int | None = None,
    max_kl: float | None = None,
    min_speed: float | None = None,
) -> Recommendation:
    """Choose a candidate.

    With `max_kl` the smallest that keeps it, else the closest to the base (mean KL divergence). Where the closest ones
    cannot be told apart, the smallest of them. Candidates of the KV cache are chosen among only where there are no
    others: they change no file. Those that are measured in part count, and the limits say so.

    Parameters
    ----------
    base : mapping
        ``name``, ``path``, ``bytes``, ``types`` and ``made_from`` of the base: `QuantizationStudy.base_facts`.
    results : DataFrame
        `QuantizationStudy.results`.
    blocks : DataFrame
        `QuantizationStudy.blocks`.
    max_bytes : int, optional
        Of the file.
    max_kl : float, optional
        Mean KL divergence in nats per token.
    min_speed : float, optional
        Decoded tokens per second.

    Raises
    ------
    LlamaTelemetryError
        Nothing was measured yet, or speed is asked for where it is not comparable.
    """
    rows = [{str(name): value for name, value in row.items()} for row in results.to_dict("records")]
    done = [row for row in rows if row["status"] in _MEASURED and math.isfinite(row["kl"])]
    if not done:
        raise LlamaTelemetryError("no candidate has been measured yet: run the study first")
    files = [row for row in done if row["kind"] != "kv"] or done
    if min_speed is not None and not any(math.isfinite(row["decode_tps"]) for row in files):
        why = next((str(row["speed_note"]) for row in files if row["speed_note"]), "it was not measured")
        raise LlamaTelemetryError(f"no candidate can be chosen by speed: {why}; leave min_speed out")
    kept = [
        row
        for row in files
        if (max_bytes is None or row["bytes"] <= max_bytes)
        and (max_kl is None or row["kl"] <= max_kl)
        and (min_speed is None or row["decode_tps"] >= min_speed)
    ]
    asked = [
        f"within {size(max_bytes)}" if max_bytes is not None else "",
        f"with KL of at most {number(max_kl)}" if max_kl is not None else "",
        f"with at least {min_speed:g} tokens/s" if min_speed is not None else "",
    ]
    lead = " and ".join(word for word in asked if word)
    limits = [*_limits(base, rows, files, blocks), *_by_speed(files, min_speed)]
    if not kept:
        return _nothing(files, lead, max_bytes, max_kl, limits)
    closest = min(kept, key=lambda row: (row["kl"], row["bytes"]))
    tied = [row for row in kept if row is closest or overlaps(row, closest)]
    best = min(tied if max_kl is None else kept, key=lambda row: (row["bytes"], row["kl"]))
    headline, body = _words(base, best, kept, tied, lead, max_kl is not None)
    named = [row["name"] for row in tied] if max_kl is None and len(tied) > 1 else []
    sure = _sure(best, kept, blocks, named, max_kl)
    reasons = _reasons(best, kept)
    commands = _commands(base, best)
    sentence = f"{headline} {body}"
    card = _card(base, rows, best["name"], sentence, sure, limits)
    return Recommendation(best["name"], sentence, reasons, sure, limits, named, commands, card, headline, body)


def overlaps(a: Row, b: Row) -> bool:
    """Whether the 95 % intervals of two candidates' KL touch; one that is not known could be any."""
    room = float(a["kl_ci"]) + float(b["kl_ci"])
    return not abs(a["kl"] - b["kl"]) > room


def size(count: float) -> str:
    """``98.4 MB``: decimal, three figures."""
    rest, unit = abs(float(count)), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if rest < 999.5:
            break
        rest, unit = rest / 1000, larger
    return f"{rest:.{1 if unit != 'B' and rest < 99.95 else 0}f}{_THIN}{unit}"


def number(value: float) -> str:
    """KL and the like: ``0.0031``; enough digits that a small value is not 0."""
    if not math.isfinite(value):
        return "–"
    digits = 4 if abs(value) < 0.2 else 3 if abs(value) < 10 else 2
    return "0" if value == 0 else f"{value:.{digits}f}" if abs(value) >= 1e-4 else f"{value:.1e}"


def share(value: float) -> str:
    """``97.6 %``."""
    return f"{100 * value:.1f}{_THIN}%" if math.isfinite(value) else "–"


def short_names(names: Sequence[str]) -> list[str]:
    """Names without the beginning that all have in common, up to a sign that parts words."""
    files = [name for name in names if not name.startswith("kv:")]
    common = files[0] if files else ""
    while not all(name.startswith(common) for name in files):
        common = common[:-1]
    cut = 0 if len(files) < 2 else max(common.rfind(sign) for sign in ".- ") + 1
    return [name if name.startswith("kv:") else name[cut:] for name in names]


def measured(row: Row) -> str:
    """``KL 0.0031 ± 0.0004``."""
    spread = f" ± {number(row['kl_ci'])}" if math.isfinite(row["kl_ci"]) else ""
    return f"KL {number(row['kl'])}{spread}"


# ------------------------------------------------------------------------------ the words


def _words(
    base: Row, best: Row, kept: list[dict[str, Any]], tied: list[dict[str, Any]], lead: str, by_kl: bool
) -> tuple[str, str]:
    most = str(best.get("got") or "").split(",")[0].split(" ")[-1]  # the type of most of the file's tensors
    own = _source(base) in (best["name"], most)
    headline = f"Keep {best['name']}, the type this model already has." if own else f"Take {best['name']}."
    begin = f"{lead[:1].upper()}{lead[1:]} it is" if lead else "It is"
    if by_kl:
        claim = "the smallest"
    elif len(tied) > 1:
        claim = f"the smallest of {len(tied)} that are equally close to the base"
    else:
        claim = "the closest to the base" if len(kept) > 1 else "the only one measured"
    body = f"{begin} {claim}: {measured(best)}, {share(best['same_top'])} same top token, {size(best['bytes'])}."
    return headline, body


def _reasons(best: Row, kept: list[dict[str, Any]]) -> list[str]:
    reasons = [
        f"{measured(best)} nats per token to the base, over {int(best['n_tokens'])} tokens; "
        f"the worst 1 % of tokens lie above {number(best['kl_99'])}.",
        f"{share(best['same_top'])} of the tokens keep their likeliest successor.",
        f"{size(best['bytes'])}, {best['bits_per_weight']:.2f} bits per weight.",
    ]
    if math.isfinite(best["ppl_ratio"]):
        reasons.append(f"Perplexity {best['ppl']:.2f}, {best['ppl_ratio']:.4f} times the base's.")
    others = sorted((row for row in kept if row["name"] != best["name"]), key=lambda row: row["kl"])
    if others:
        reasons.append(_against(best, others[0]))
    return reasons


def _against(best: Row, other: Row) -> str:
    """The next one, compared."""
    more = other["bytes"] - best["bytes"]
    by = f"{size(more)} {'larger' if more > 0 else 'smaller'}" if more else "as large"
    if best["kl"] > 0 and other["kl"] > best["kl"]:
        return f"Next, {other['name']}, is {other['kl'] / best['kl']:.1f} times as far from the base and {by}."
    return f"{other['name']} is closer ({measured(other)}) and {by}."


def _sure(best: Row, kept: list[dict[str, Any]], blocks: pd.DataFrame, tie: list[str], max_kl: float | None) -> str:
    if max_kl is not None and math.isfinite(best["kl_ci"]) and best["kl"] + best["kl_ci"] > max_kl:
        return f"not quite: its interval reaches {number(best['kl'] + best['kl_ci'])}, above the limit."
    if tie:
        rest = ", ".join(name for name in tie if name != best["name"])
        return f"a tie: its interval overlaps that of {rest}; the smaller file decides."
    others = sorted((row for row in kept if row["name"] != best["name"]), key=lambda row: row["kl"])
    if max_kl is not None:
        return "its interval lies below the limit." if math.isfinite(best["kl_ci"]) else "there is no interval."
    if not others:
        return "there is nothing within the limits to compare it with."
    agree, count = _agreement(blocks, best["name"], others[0]["name"])
    counted = f"; {agree} of {count} text blocks agree" if count else ""
    return f"the intervals of {best['name']} and {others[0]['name']} do not touch{counted}."


def _agreement(blocks: pd.DataFrame, best: str, other: str) -> tuple[int, int]:
    """In how many blocks the one is closer than the other, of how many that both have."""
    own = blocks[blocks["candidate"].isin([best, other])]
    wide = own.pivot_table(index=["text", "block"], columns="candidate", values="kl").dropna()
    if best not in wide or other not in wide:
        return 0, 0
    return int((wide[best] < wide[other]).sum()), len(wide)


def _limits(base: Row, rows: list[dict[str, Any]], files: list[dict[str, Any]], blocks: pd.DataFrame) -> list[str]:
    limits = []
    source = _source(base)
    if source:
        limits.append(
            f"The base was itself made from a {source} file, so every other type pays twice{_inverted(files)}. "
            "To choose a type for the original model, study its F16 file."
        )
    near = [row["name"] for row in files if row["kl"] < NEAR]
    if len(near) > 1:
        limits.append(
            f"{', '.join(near)} all lie below {NEAR}: so near to the base, KL no longer says which does tasks better."
        )
    count = int(blocks.groupby("candidate").size().max()) if len(blocks) else 0
    if count < _FEW_BLOCKS:
        limits.append(f"Only {count} text block{'' if count == 1 else 's'}: the intervals say little; give more text.")
    for row in rows:
        if row["status"] == "failed":
            limits.append(f"{row['name']} failed and is no part of this choice: {row['error']}")
    part = [row["name"] for row in files if row["status"] != "done"]
    if part:
        limits.append(f"Measured in part so far: {', '.join(part)}. Their figures are of the text until here.")
    left = [row["name"] for row in rows if row["status"] not in ("done", "failed") and not math.isfinite(row["kl"])]
    if left:
        limits.append(f"Not measured yet: {', '.join(left)}.")
    return limits


def _source(base: Row) -> str | None:
    """The last type that quantized the base's weights; None where there is none."""
    steps = [step for step in str(base.get("made_from") or "").split(" > ") if step and step not in _PLAIN]
    return steps[-1] if steps else None


def _inverted(files: list[dict[str, Any]]) -> str:
    """The clearest case of more bits that are farther from the base, in words."""
    pairs = [
        (a, b)
        for a in files
        for b in files
        if a["bits_per_weight"] > b["bits_per_weight"] and a["kl"] > b["kl"] and not overlaps(a, b)
    ]
    if not pairs:
        return ""
    larger, smaller = min(pairs, key=lambda pair: pair[0]["bits_per_weight"] - pair[1]["bits_per_weight"])
    figures = f"({number(larger['kl'])}) even loses to {smaller['name']} ({number(smaller['kl'])})"
    return f", and {larger['name']} {figures}"


def _by_speed(files: list[dict[str, Any]], min_speed: float | None) -> list[str]:
    unknown = [row["name"] for row in files if not math.isfinite(row["decode_tps"])]
    if min_speed is None or not unknown:
        return []
    return [f"Speed is not comparable for {', '.join(unknown)}, left out for it."]


def _nothing(
    files: list[dict[str, Any]], lead: str, max_bytes: int | None, max_kl: float | None, limits: list[str]
) -> Recommendation:
    small, close = min(files, key=lambda row: row["bytes"]), min(files, key=lambda row: row["kl"])
    nearest = []
    if max_bytes is not None:
        nearest.append(f"the smallest, {small['name']}, has {size(small['bytes'])}")
    if max_kl is not None:
        nearest.append(f"the closest, {close['name']}, has {measured(close)}")
    headline = "No candidate fits."
    body = f"None was measured {lead}" + (f": {', '.join(nearest)}." if nearest else ".")
    sentence = f"{headline} {body}"
    return Recommendation(None, sentence, [], "nothing is recommended.", limits, [], {}, "", headline, body)


# --------------------------------------------------------------------------- ready to use


def _commands(base: Row, best: Row) -> dict[str, str]:
    path = str(best["path"] or f"{best['name']}.gguf")
    commands = {}
    if best["kind"] == "type":
        again = [] if set(base.get("types") or ()) <= set(_PLAIN) else ["--allow-requantize"]
        make = ["llama-quantize", *again, str(base["path"]), path, str(best["name"])]
        commands["llama-quantize"] = shlex.join(make)
    serve = ["llama-server", "-m", path]
    if best["kind"] == "kv":
        cache = str(best["name"]).removeprefix("kv:")
        serve += ["--flash-attn", "on", "--cache-type-k", cache, "--cache-type-v", cache]
    commands["llama-server"] = shlex.join(serve)
    commands["Modelfile"] = f'FROM "{path}"\n'
    return commands


def _card(base: Row, rows: list[dict[str, Any]], best: str, sentence: str, sure: str, limits: list[str]) -> str:
    head = [
        "| candidate | size | bits/weight | KL to base | worst 1 % | same top token | perplexity / base |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines = []
    for row in rows:
        name = _cell(row["name"])
        if not math.isfinite(row["kl"]) or row["status"] == "failed":
            lines.append(f"| {name} | – | – | {_cell(row['error'] or row['status'])} | – | – | – |")
            continue
        shown = f"**{name}**" if row["name"] == best else name
        figures = [
            size(row["bytes"]),
            f"{row['bits_per_weight']:.2f}",
            measured(row).removeprefix("KL "),
            number(row["kl_99"]),
            share(row["same_top"]),
            number(row["ppl_ratio"]),
        ]
        lines.append(f"| {shown} | {' | '.join(figures)} |")
    about = f"Base: {PurePath(str(base['name'])).name}. {sentence} How sure: {sure}"
    notes = [f"- {limit}" for limit in limits]
    return "\n".join(["### Quantization, measured", "", about, "", *head, *lines, *([""] if notes else []), *notes, ""])


def _cell(text: Any) -> str:
    """Text that cannot end a cell of a table."""
    return " ".join(str(text).replace("|", "\\|").split())
