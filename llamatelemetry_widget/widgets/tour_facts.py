"""A whole tour: the steps in order, from text to the next token, and what the browser is told besides.

In: a `Reading`. Out: the trait `facts` (plain JSON): every number is of this model and this prompt.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.lens import Lens
from ..trace import display_token
from .attention_facts import day, details
from .tour_attention import attention_steps
from .tour_figures import Figure, bars, matrix, name, number, share, strips
from .tour_layers import add_step, first_steps, kinds_of_layers, late_norm_step, mlp_steps, norm_step, recurrent_steps
from .tour_step import Step, ask, ask_number, ask_range, step
from .tour_values import Array, Reading

_SHOWN = 10  # words of a distribution
_ROWS = 36  # layers of a drawing
#: TokenExplorer's own settings, so that both say the same.
SAMPLER = {"temperature": 0.8, "top_k": 40, "typical_p": 1.0, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.0}


def facts(reading: Reading) -> dict[str, Any]:
    """The trait `facts`."""
    info = reading.trace.info
    model = " ".join(str(x) for x in (info.get("model"), info.get("quant_type")) if x)
    device = f"{info.get('device', 'CPU')}, {info.get('n_threads')} threads"
    layers = len(reading.trace.layers)
    return {
        "title": "Guided tour",
        "model": str(info.get("model") or ""),
        "provenance": f"read out of llama.cpp \u00b7 {model} \u00b7 {len(reading.tokens)} tokens \u00b7 {device}",
        "details": details(reading.trace),
        "live": True,
        "saved": day(reading.trace),
        "tokens": reading.tokens,
        "layer": reading.layer,
        "head": reading.head if reading.part else None,
        "n_layers": layers,
        "steps": steps(reading),
    }


def steps(reading: Reading) -> list[Step]:
    """The steps; those that this architecture does not have are replaced by what it does instead."""
    mixing = attention_steps(reading) if reading.part else recurrent_steps(reading)
    layer = [*norm_step(reading), *mixing, *late_norm_step(reading), *add_step(reading), *mlp_steps(reading)]
    other = recurrent_steps(reading) if reading.part else []
    return [*first_steps(reading), *layer, *other, _repeat(reading), *_cross(reading), *_ending(reading)]


# ----------------------------------------------------------------------- all layers


def _repeat(reading: Reading) -> Step:
    last = len(reading.tokens) - 1
    kinds = kinds_of_layers(reading)
    more = f": {', '.join(f'{n} {kind}' for kind, n in kinds.items())}" if len(kinds) > 1 else ""
    says = [
        f"The model has {len(reading.trace.layers)} layers, each with weights of its own{more}. The vector of "
        f"{name(reading.tokens, last)} goes through all of them."
    ]
    if reading.lens is None:
        question, after, see = *_grown(reading), "LayerLens goes into each layer."
    else:
        says.append(
            "The model\u2019s own ending can be applied after any layer, to see what it would say if it ended there."
        )
        question, after = _settled(reading.lens)
        after, see = [*after, *_grown(reading)[1]], "LayerLens shows this for every token and layer."
    title = "And again, layer after layer"
    return step("repeat", "Layers", title, says, [], question, after, [last], see=see)


def _grown(reading: Reading) -> tuple[Figure, list[Figure]]:
    """How long the vector is after each layer."""
    trace, part = reading.trace, reading.part
    layers = [own.layer for own in (trace.layers_of(part) if part else trace.layers)]
    norms = [float(np.linalg.norm(trace.hidden(layer, part)[-1])) for layer in layers]
    question = ask_range(
        "How much longer is the vector at the end than after the first layer?",
        norms[-1] / norms[0] if norms[0] else 1.0,
        [1.0, 5.0],
        ["it is not longer", "up to 5 times", "5 times or more"],
        f"{number(norms[0])} after the first layer, {number(norms[-1])} after the last.",
    )
    shown = _some(len(layers), [layers.index(reading.layer)])
    rows = [(f"L{layers[at]}", norms[at], number(norms[at])) for at in shown]
    marked = [shown.index(layers.index(reading.layer))]
    return question, [bars(rows, marked, "length of the vector after each layer")]


def _settled(lens: Lens) -> tuple[Figure, list[Figure]]:
    """From which layer on the final answer comes first."""
    rank, chance = lens.final_rank[:, 0], lens.final_probability[:, 0]
    settled = next((at for at in range(len(rank)) if (rank[at:] == 1).all()), len(rank) - 1)
    word = display_token(lens.pieces[int(lens.final_ids[0])])
    names = ["the embedding" if layer < 0 else f"layer {layer}" for layer in lens.layers]
    question = ask(
        "After which layer does the final answer come first and stay there?",
        [names[at] for at in sorted({0, len(rank) // 2, len(rank) - 1, settled})],
        names[settled],
        f"From there on the first word is {word}.",
    )
    shown = _some(len(rank), [settled])
    rows = [
        (
            f"{'emb' if lens.layers[at] < 0 else f'L{lens.layers[at]}'} "
            f"{display_token(lens.pieces[int(lens.ids[at, 0, 0])])}",
            float(chance[at]),
            f"{share(float(chance[at]))}, rank {number(int(rank[at]))}",
        )
        for at in shown
    ]
    what = f"first word after each layer, and how likely {word} is there"
    return question, [bars(rows, [shown.index(settled)], what)]


def _some(count: int, wanted: list[int]) -> list[int]:
    """At most `_ROWS` places, evenly, and those that are wanted."""
    even = np.linspace(0, count - 1, min(count, _ROWS)).round().astype(int).tolist()
    return sorted({*even, *wanted})


def _cross(reading: Reading) -> list[Step]:
    """Encoder-decoders: how the decoder reads what the encoder made."""
    trace = reading.trace
    if "cross" not in trace.parts:
        return []
    own = next(facts for facts in trace.layers_of("cross") if facts.kind == "attention")
    rows, keys = trace.part_tokens("cross")
    table = np.stack(
        [
            trace.attention(own.layer, head, rows=slice(len(rows) - 1, len(rows)), part="cross")[0]
            for head in range(own.heads)
        ]
    )
    top = int(table.mean(0).argmax())
    best = sorted(np.argsort(-table.mean(0), kind="stable")[:4].tolist())
    return [
        step(
            "cross",
            "Decoder",
            "A decoder reads the result",
            [
                f"All that was the encoder, which reads the text as a whole. A second model, the decoder, writes: it "
                f"begins with {rows[0]}. Its queries look at keys and values made of the encoder\u2019s vectors.",
            ],
            [],
            ask(
                f"Which of these tokens do the heads of its layer {own.layer} look at most?",
                [name(keys, at) for at in best],
                name(keys, top),
                f"Its mean weight is {number(float(table.mean(0)[top]))}.",
            ),
            after=[matrix(table, [f"H{head}" for head in range(own.heads)], keys, "weight")],
            tokens=[top],
        )
    ]


# --------------------------------------------------------------------------- the end


def _ending(reading: Reading) -> list[Step]:
    if "logits" not in reading.trace._arrays:
        return [_vector(reading)]
    logits = np.asarray(reading.trace.logits[-1], np.float64)
    odds = np.exp(logits - logits.max())
    probabilities = odds / odds.sum()
    best = np.argsort(-logits, kind="stable")[:_SHOWN].tolist()
    words = [display_token(piece) for piece in reading.model.token_bytes(best)]
    return [
        _logits(reading, logits, best, words),
        _probabilities(reading, probabilities, best, words),
        _sampler(reading, logits, probabilities, best, words),
        _loop(reading, words[0]),
    ]


def _vector(reading: Reading) -> Step:
    rows = reading.trace.hidden(len(reading.trace.layers) - 1, reading.part)
    return step(
        "result",
        "Result",
        "The result is a vector",
        [
            "This model writes no text. What it gives are the vectors of its tokens after the last layer, to be "
            "compared with those of other texts."
        ],
        [],
        ask(
            "What happens to these vectors, so that a whole text has one?",
            ["they are pooled", "nothing"],
            "they are pooled",
            "Their mean, or the first one, stands for the text: model.embeddings([text]).",
        ),
        after=[strips((name(reading.tokens, len(reading.tokens) - 1), rows[-1]))],
        tokens=[len(reading.tokens) - 1],
        see="EmbeddingSpace3D shows many texts at once.",
    )


def _logits(reading: Reading, logits: Array, best: list[int], words: list[str]) -> Step:
    info, final = reading.model.info, reading.row("final")
    cap = info.metadata.get(f"{info.architecture}.final_logit_softcapping")
    names = {n.tensor.name for n in reading.model.tree.root.tensors if n.tensor is not None}
    tied = "output.weight" not in names
    says = [
        "A last norm, then one more matrix: the vector is compared with one vector for each piece of the vocabulary. "
        "The result is a score per piece, a logit.",
        "This model uses the table of the beginning once more for that."
        if tied
        else "That matrix is another one than the table of the beginning.",
    ]
    if cap:
        says.append(f"It keeps its logits within \u00b1{number(float(cap))} by a soft cap.")
    return step(
        "logits",
        "Logits",
        "From a vector to the vocabulary",
        says,
        [] if final is None else [strips(("after the last norm", final))],
        ask_number(
            "How many logits are computed for the next token?",
            logits.size,
            [final.size if final is not None else _SHOWN, len(reading.tokens)],
            f"One per piece. The largest is {number(float(logits[best[0]]))}, for {words[0]}.",
        ),
        after=[
            bars(
                [(word, float(logits[i]), number(float(logits[i]))) for word, i in zip(words, best, strict=True)],
                [0],
                "the largest logits",
            )
        ],
        tokens=[len(reading.tokens) - 1],
    )


def _probabilities(reading: Reading, probabilities: Array, best: list[int], words: list[str]) -> Step:
    top = float(probabilities[best[0]])
    return step(
        "probabilities",
        "Softmax",
        "From logits to probabilities",
        [
            "Each logit becomes e to its power, and all are divided by their sum"
            + (", as inside attention" if reading.part else "")
            + ": the whole vocabulary shares 100\u202f%."
        ],
        [],
        ask_range(
            f"How sure is the model of {words[0]}?",
            top,
            [0.1, 0.5],
            ["below 10\u202f%", "10 to 50\u202f%", "above 50\u202f%"],
            f"{share(top)}. All others together: {share(max(1 - top, 0.0))}.",
        ),
        after=[
            bars(
                [
                    (word, float(probabilities[i]), share(float(probabilities[i])))
                    for word, i in zip(words, best, strict=True)
                ],
                [0],
                "the likeliest next tokens",
            )
        ],
        tokens=[len(reading.tokens) - 1],
        see="LayerLens finds which heads and MLPs pushed this answer.",
    )


def _sampler(reading: Reading, logits: Array, probabilities: Array, best: list[int], words: list[str]) -> Step:
    trace = reading.trace
    before = trace.token_ids if trace.decoder is None else trace.decoder[0]
    ids, left, _ = reading.model._sampled(np.asarray(logits, np.float32), before.tolist(), {**SAMPLER, "seed": 0})
    after = dict(zip(ids.tolist(), left.tolist(), strict=True))
    rows = [
        (
            word,
            float(after.get(i, 0.0)),
            f"{share(float(probabilities[i]))} \u2192 " + (share(float(after[i])) if i in after else "cut"),
        )
        for word, i in zip(words, best, strict=True)
    ]
    return step(
        "sampler",
        "Sampler",
        "A sampler chooses",
        [
            f"llama.cpp now cuts unlikely tokens (top-k {SAMPLER['top_k']}, top-p {SAMPLER['top_p']}, min-p "
            f"{SAMPLER['min_p']}), sharpens what is left with temperature {SAMPLER['temperature']}, and draws one.",
        ],
        [],
        ask_number(
            f"How many of the {number(logits.size)} tokens are left to draw from?",
            len(after),
            [1, int(min(SAMPLER["top_k"], logits.size)), logits.size],
            f"The model itself gave {'it' if len(after) == 1 else 'them'} {share(float(probabilities[ids].sum()))}.",
        ),
        after=[bars(rows, [0], "after the chain (before \u2192 after)")],
        tokens=[len(reading.tokens) - 1],
        see="TokenExplorer moves these sliders, and writes on.",
    )


def _loop(reading: Reading, word: str) -> Step:
    kept = (
        "Keys and values of earlier tokens are kept, so only the new one goes through the layers."
        if reading.part and reading.other is None
        else "Keys, values and states are kept, so only the new token goes through the layers."
        if reading.part
        else "The states are kept, so only the new token goes through the layers."
    )
    return step(
        "loop",
        "Again",
        "And the next one",
        [f"The drawn token is put at the end of the text, and everything begins again. The likeliest here is {word}."],
        [],
        ask(
            "Does the model compute the whole text again for the next token?",
            ["yes, every time", "no, only the new token"],
            "no, only the new token",
            kept,
        ),
        tokens=[len(reading.tokens) - 1],
    )
