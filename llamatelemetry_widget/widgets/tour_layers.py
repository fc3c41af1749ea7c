"""The steps of a tour around attention: tokens to vectors, the norm, recurrence where there is no attention, the MLP.

In: a `Reading`. Out: steps.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import numpy as np

from ..errors import CaptureUnavailable
from .tour_attention import added, cosine
from .tour_figures import bars, chips, name, number, share, strips
from .tour_step import Step, ask, ask_number, ask_range, step
from .tour_values import Array, Reading

_GATES = {
    "swiglu": "SwiGLU: the gate passes through SiLU and is multiplied with the other",
    "geglu": "GEGLU: the gate passes through GELU and is multiplied with the other",
    "reglu": "ReGLU: the gate passes through ReLU and is multiplied with the other",
    "gelu": "GELU",
    "silu": "SiLU",
    "relu": "ReLU",
}


# ----------------------------------------------------------------- text to vectors


def first_steps(reading: Reading) -> list[Step]:
    """Tokens, embedding, and the position where it is a vector."""
    found = [_tokens(reading), _embedding(reading)]
    position = reading.row("position")
    return found if position is None else [*found, _learned(reading, position)]


def _tokens(reading: Reading) -> Step:
    tokens, info = reading.tokens, reading.model.info
    words = len(reading.trace.text.split())
    letters = len(reading.trace.text)
    return step(
        "tokens",
        "Tokens",
        "Text becomes tokens",
        [
            f"\u201c{reading.trace.text}\u201d",
            f"The model never sees letters. Its vocabulary holds {number(info.vocab_size or 0)} pieces of text; the "
            f"tokenizer cuts the prompt into such pieces, and each is a number from then on.",
        ],
        [],
        ask_number(
            f"Into how many tokens is this text of {words} words cut?",
            len(tokens),
            [words, letters, len(tokens) + (words == len(tokens) == letters)],
            "A leading \u00b7 is a space: it belongs to the token.",
        ),
        after=[chips(tokens, [len(tokens) - 1])],
        tokens=[len(tokens) - 1],
        see="TokenExplorer shows what may come next.",
    )


def _embedding(reading: Reading) -> Step:
    tokens, last = reading.tokens, len(reading.tokens) - 1
    row, start = reading.row("embedding"), reading.row("start")
    ids = reading.trace.token_ids.tolist()
    again = next((i for i in range(last - 1, -1, -1) if ids[i] == ids[last]), None)
    says = [
        f"Each token is looked up in a table: row {number(ids[last])} for {name(tokens, last)}. From here on the token "
        f"is this vector of {len(row) if row is not None else 0} numbers, and everything the model does changes it.",
    ]
    figures = [] if row is None else [strips((name(tokens, last), row))]
    factor = 1.0 if row is None or start is None else _factor(row, start)
    if factor != 1:
        says.append(f"This model then multiplies it by {number(factor)}.")
    if again is None:
        question = ask(
            "If the same token came twice, would both start with the same vector?",
            ["yes", "no, it depends on the neighbours"],
            "yes",
            "The table knows the token alone. Its neighbours come in later, through the layers.",
        )
    else:
        question = ask(
            f"{name(tokens, again)} and {name(tokens, last)} are the same token. Do they start with the same vector?",
            ["yes", "no, it depends on the neighbours"],
            "yes",
            "The table knows the token alone. Its neighbours come in later, through the layers.",
        )
    return step(
        "embedding",
        "Embedding",
        "A token becomes a vector",
        says,
        figures,
        question,
        tokens=[last] if again is None else [last, again],
        see="EmbeddingSpace3D flies through the whole table.",
    )


def _factor(row: Array, start: Array) -> float:
    """What a vector was multiplied by; 1 where that is not what happened to it."""
    at = int(np.abs(row).argmax())
    if row.size != start.size or not row[at]:  # several streams
        return 1.0
    factor = float(start[at] / row[at])
    return factor if np.allclose(row * factor, start, rtol=1e-3) and not np.allclose(row, start) else 1.0


def _learned(reading: Reading, position: Array) -> Step:
    tokens, last = reading.tokens, len(reading.tokens) - 1
    row, start = reading.row("embedding"), reading.row("start")
    rows, sign = [(f"position {last}", position)], ""
    if row is not None and start is not None:
        rest = start - row - position
        others = [] if np.allclose(rest, 0, atol=1e-5) else [("what else is added", rest)]  # BERT: the kind of text
        rows = [(name(tokens, last), row), *rows, *others, ("together", start)]
        sign = " " + "+" * (len(rows) - 2) + "="
    return step(
        "position",
        "Position",
        "Position: a learned vector",
        [
            f"The same token at another place must look different. This model has learned a vector for each place of "
            f"its context ({number(reading.model.info.context_length or 0)}) and adds that of place {last}. Beyond the "
            f"last place it has none.",
        ],
        [],
        ask(
            f"Is the vector of place {last} the same in every text?",
            ["yes", "no"],
            "yes",
            "It depends on the place alone, so it is looked up like a token.",
        ),
        after=[strips(*rows, sign=sign)],
        tokens=[last],
    )


def norm_step(reading: Reading) -> list[Step]:
    """The norm before the layer's first product; nothing where there is none (see `late_norm_step`)."""
    stream, normed, read = (reading.row(role) for role in ("stream", "normed", "read"))
    if stream is None or normed is None or read is None:
        return []
    last = name(reading.tokens, len(reading.tokens) - 1)
    plain = "RMS_NORM" in reading.ops["normed"]
    rms = float(np.sqrt(np.mean(np.square(stream if plain else stream - stream.mean(), dtype=np.float64))))
    after = float(np.sqrt(np.mean(np.square(normed, dtype=np.float64))))
    how = (
        "RMSNorm divides it by its root mean square"
        if plain
        else "LayerNorm subtracts its mean and divides by its standard deviation"
    )
    return [
        step(
            "norm",
            "Norm",
            "The norm",
            [
                f"Layer {reading.layer} first brings the vector of {last} to a common size: {how}, {number(rms)} here. "
                f"Then each number is multiplied with a learned weight.",
            ],
            [strips(("before", stream))],
            ask_number(
                "What is the root mean square of the vector afterwards, before the weights?",
                1.0,
                [rms, 0.0] if abs(rms - 1) > 1e-2 else [0.0, 2.0],
                f"Whatever came in. Measured here: {number(after)}.",
            ),
            after=[strips(("normed", normed)), strips(("times its weights", read))],
            tokens=[len(reading.tokens) - 1],
            inside=True,
        )
    ]


def late_norm_step(reading: Reading) -> list[Step]:
    """The norm of what attention gives, where none stands before it."""
    given, normed = reading.row("post"), reading.row("post_normed")
    if given is None or normed is None or reading.row("normed") is not None:
        return []
    last, sizes = len(reading.tokens) - 1, [float(np.linalg.norm(own)) for own in (given, normed)]
    return [
        step(
            "norm",
            "Norm",
            "The norm comes after",
            [
                "This model does not norm what attention reads. It norms what attention gives, before that is added: "
                "to a common size, times a learned weight for each number.",
            ],
            [strips(("before", given))],
            ask_range(
                "What does the norm do to the length of this vector?",
                sizes[1] / sizes[0] if sizes[0] else 1.0,
                [0.9, 1.1],
                ["it gets shorter", "about the same", "it gets longer"],
                f"{number(sizes[0])} before, {number(sizes[1])} after.",
            ),
            after=[strips(("after", normed))],
            tokens=[last],
            inside=True,
        )
    ]


# ----------------------------------------------------------------------- recurrence


def recurrent_steps(reading: Reading) -> list[Step]:
    """What a layer without attention does with earlier tokens; nothing where no layer is such a one."""
    if reading.other is None:
        return []
    made = {"inner": _inner, "conv": _convolution, "state": _state}
    rows = {role: reading.row(role) for role in made}
    return [make(reading, row) for role, make in made.items() if (row := rows[role]) is not None]


def _inner(reading: Reading, inner: Array) -> Step:
    width, last = reading.model.info.width or 0, len(reading.tokens) - 1
    facts = next(own for own in reading.trace.layers if own.layer == reading.other)
    kind = facts.reason.split(" layer")[0]
    return step(
        "inner",
        "Recurrence",
        "A layer without attention",
        [
            f"Layer {reading.other} is a {kind} layer: it has no scores between tokens. A first matrix makes a vector "
            f"for its own use, and what follows looks back in another way.",
        ],
        [],
        ask_number("How many numbers come out?", inner.size, [width, 2 * inner.size], f"From {number(width)}."),
        after=[strips((name(reading.tokens, last), inner))],
        tokens=[last],
        inside=reading.part is None,
    )


def _convolution(reading: Reading, conv: Array) -> Step:
    last = len(reading.tokens) - 1
    return step(
        "conv",
        "Convolution",
        "A short look back",
        ["A convolution mixes each number with itself at the few tokens before, each with a weight of its own."],
        [],
        ask(
            "Does the convolution see the first token of a long text?",
            ["yes", "no"],
            "no",
            "Only the last few tokens are within its reach.",
        ),
        after=[strips((name(reading.tokens, last), conv))],
        tokens=[last],
        inside=reading.part is None,
    )


def _state(reading: Reading, state: Array) -> Step:
    last = len(reading.tokens) - 1
    return step(
        "state",
        "State",
        "A state instead of keys and values",
        [
            f"What layer {reading.other} keeps of earlier tokens are {number(state.size)} numbers, which every token "
            f"reads and rewrites. It is how the order of tokens comes in.",
        ],
        [],
        ask(
            "How many numbers are kept after ten times as many tokens?",
            ["ten times as many", "as many as now", "a hundred times as many"],
            "as many as now",
            "The size is fixed. What no longer fits is forgotten; attention would keep every token instead.",
        ),
        after=[strips((f"kept by layer {reading.other} after {name(reading.tokens, last)}", state))],
        tokens=[last],
        inside=reading.part is None,
    )


# ------------------------------------------------------------------- stream and MLP


def add_step(reading: Reading) -> list[Step]:
    """What attention or recurrence adds to the stream."""
    part = reading.part
    layer, get = reading.layer, reading.trace
    written, down = added(reading), _last(get.mlp_out, layer, part)
    stream = reading.row("start") if layer == 0 else _last(get.hidden, layer - 1, part)
    after = _last(get.hidden, layer, part)
    if written is None or stream is None or after is None or stream.size != written.size:
        return []
    total = stream + written
    if not np.allclose(total if down is None else total + down, after, rtol=1e-3, atol=1e-3):
        return []  # something else happens to the sum: a norm, a factor, several streams
    like = cosine(stream, total)
    what = "attention" if part else "recurrence"
    return [
        step(
            "add",
            "Add",
            "The residual stream",
            [
                f"What {what} found is added to the vector, not put in its place. The vector that runs through all "
                f"layers like this is the residual stream.",
            ],
            [strips(("stream", stream))],
            ask_range(
                f"How much of the old direction is left after layer {reading.layer}\u2019s {what}?",
                like,
                [0.9, 0.99],
                ["cosine below 0.9", "cosine 0.9 to 0.99", "cosine above 0.99"],
                f"Cosine {number(like)}: lengths {number(float(np.linalg.norm(stream)))} before, "
                f"{number(float(np.linalg.norm(written)))} added.",
            ),
            after=[strips(("stream", stream), (f"{what} adds", written), ("sum", total), sign=" +=")],
            tokens=[len(reading.tokens) - 1],
            inside=True,
            see="LayerLens shows this for every layer.",
        )
    ]


def mlp_steps(reading: Reading) -> list[Step]:
    """The MLP: router where there are experts, gate and up, activation, what comes down."""
    act, down = reading.rows.get("act"), reading.rows.get("down")
    if act is None or down is None:
        return []
    router = [_router(reading)] if reading.row("router") is not None else []
    return [*router, _widened(reading), _activation(reading), _written(reading)]


def _of_first(reading: Reading, role: str) -> Array:
    """float32 (n,): of the experts that were chosen the first, or the whole MLP."""
    values = reading.rows[role]
    found: Array = values.reshape(-1, values.shape[-1])[0]
    return found


def _gates(reading: Reading) -> list[tuple[str, Array]]:
    """What enters the activation: gate and up, where the model has them as products of their own."""
    return [(role, _of_first(reading, role)) for role in ("gate", "up") if role in reading.rows]


def _router(reading: Reading) -> Step:
    logits = reading.row("router")
    ids, weights = (own[-1] for own in reading.trace.experts[reading.layer])
    assert logits is not None
    count, used = logits.size, len(ids)
    shown = np.argsort(-logits, kind="stable")[:16].tolist()
    words = [
        f"expert {e} ({number(float(w))})" if np.isfinite(w) else f"expert {e}"
        for e, w in zip(ids.tolist(), weights.tolist(), strict=True)
    ]
    return step(
        "router",
        "Router",
        "A router chooses experts",
        [
            f"Instead of one MLP this layer has {count}, called experts. A small matrix, the router, gives each a "
            f"score for this token, and only the best are computed.",
        ],
        [],
        ask_number(
            f"How many of the {count} experts work on one token?",
            used,
            [1, count],
            f"Here {', '.join(words)}.",
        ),
        after=[
            bars(
                [(f"expert {e}", float(logits[e]), number(float(logits[e]))) for e in shown],
                [at for at, e in enumerate(shown) if e in ids.tolist()],
                "scores of the router, marked: chosen",
            )
        ],
        tokens=[len(reading.tokens) - 1],
        inside=True,
        see="ExpertStrip shows the experts of every token.",
    )


def _widened(reading: Reading) -> Step:
    width, wide, rows = reading.model.info.width or 0, _of_first(reading, "act").size, _gates(reading)
    expert = " of its first expert" if reading.row("router") is not None else ""
    says = [
        f"The MLP works on each token alone: it never looks at others. It makes a wider vector, picks from it, and "
        f"comes back to {number(width)} numbers."
    ]
    if reading.parallel:
        says.append("In this model it reads the same vector as attention does, beside it and not after it.")
    return step(
        "widen",
        "MLP",
        "The MLP widens the vector",
        says,
        [],
        ask_number(
            f"How wide does the MLP{expert} make it?",
            wide,
            [width, width // 2, 2 * wide],
            f"{wide / width:.1f} times the stream"
            + (", made twice: a gate and what it lets through." if len(rows) == 2 else "."),
        ),
        after=[strips(*rows)] if rows else [],
        tokens=[len(reading.tokens) - 1],
        inside=True,
    )


def _activation(reading: Reading) -> Step:
    act, rows = _of_first(reading, "act"), _gates(reading)
    title = reading.ops["act"]
    known = next((words for key, words in _GATES.items() if re.search(key, title, re.I)), title)
    size = float(np.abs(act).max(initial=0))
    quiet = float((np.abs(act) < 0.1 * size).mean()) if size else 1.0
    return step(
        "activation",
        "MLP",
        "The activation picks",
        [f"A curve that is not straight decides what goes on. Here it is {known}."],
        [strips(*rows)] if rows else [],
        ask_range(
            "How many of the numbers are quiet afterwards (below a tenth of the largest)?",
            quiet,
            [0.5, 0.9],
            ["fewer than half", "half to nine in ten", "more than nine in ten"],
            f"{share(quiet)} of {number(act.size)}. The others are this MLP\u2019s answer to this token.",
        ),
        after=[strips(("after the activation", act))],
        tokens=[len(reading.tokens) - 1],
        inside=True,
    )


def _written(reading: Reading) -> Step:
    part, layer = reading.part, reading.layer
    attention, mlp = added(reading), _last(reading.trace.mlp_out, layer, part)
    after = _last(reading.trace.hidden, layer, part)
    mlp = reading.row("down") if mlp is None else mlp
    lengths = {
        name: float(np.linalg.norm(own))
        for name, own in (("attention", attention), ("the MLP", mlp))
        if own is not None
    }
    words = list(lengths)
    answer = max(lengths, key=lambda who: lengths[who])
    rows = [
        (label, own)
        for label, own in (("attention adds", attention), ("the MLP adds", mlp), ("stream after", after))
        if own is not None
    ]
    return step(
        "down",
        "Add",
        "Back to the stream",
        [
            f"One more matrix brings the vector back to {number(reading.model.info.width or 0)} numbers, and it is "
            f"added to the stream. That ends layer {layer}.",
        ],
        [],
        ask(
            "Which wrote the longer vector for this token?",
            words if len(words) > 1 else [*words, "neither"],
            answer,
            ", ".join(f"{who} {number(value)}" for who, value in lengths.items()) + ".",
        ),
        after=[strips(*rows)],
        tokens=[len(reading.tokens) - 1],
        inside=True,
        see="LayerLens shows what each layer wrote.",
    )


def _last(get: Callable[[int, str | None], Array], layer: int, part: str | None) -> Array | None:
    """The last token\u2019s row of what a trace keeps of a layer."""
    try:
        return np.asarray(get(layer, part)[-1], np.float32)
    except CaptureUnavailable:
        return None


def kinds_of_layers(reading: Reading) -> dict[str, int]:
    """How many layers there are of which kind."""
    return Counter(
        "with attention" if own.kind == "attention" else own.reason.split(" layer")[0] for own in reading.trace.layers
    )
