"""The steps of a tour inside one attention head: from queries, keys and values to what the head writes.

In: a `Reading` with attention. Out: steps.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import CaptureUnavailable
from .tour_figures import Figure, bars, chips, dials, groups, matrix, name, number, strips
from .tour_step import Step, ask, ask_number, ask_range, step
from .tour_values import Array, Reading, Rotation

_DIALS = 16


class Head:
    """The head that a tour looks at, and its rows at every stage.

    Parameters
    ----------
    reading : Reading
        Of a model with attention.
    """

    def __init__(self, reading: Reading) -> None:
        self.reading, self.layer, self.head, self.key = reading, reading.layer, reading.head, reading.key
        self.scoring = reading.trace.scoring(self.layer, reading.part)
        self.tokens = reading.tokens
        self.last = len(self.tokens) - 1
        self.group = self.scoring.group
        self.kv_head = self.head // self.group
        self.stages = reading.trace.stages(self.layer, reading.part)

    def has(self, weight: str) -> bool:
        """Whether the file has a tensor of this name in the layer."""
        ending = f"blk.{self.layer}.{weight}"
        return any(
            n.tensor is not None and n.tensor.name.endswith(ending) for n in self.reading.model.tree.root.tensors
        )

    @property
    def latent(self) -> bool:
        """Whether keys and values come out of one compressed vector per token (multi-head latent attention)."""
        return self.has("attn_kv_a_mqa.weight")

    @property
    def title(self) -> str:
        """``L17 H5``."""
        return f"L{self.layer} H{self.head}"

    def at(self, stage: str, row: int | None = None) -> Array:
        """float32: the whole stage, or one row of it."""
        rows = None if row is None else slice(row, row + 1)
        found = self.reading.trace.attention(self.layer, self.head, stage, rows, self.reading.part)
        return found if row is None else found[0]

    def weights(self) -> Array:
        """float32: the whole softmax, NaN where it is masked and not merely small."""
        return np.where(np.isfinite(self.at("masked")), self.at("softmax"), np.float32(np.nan))

    def before(self, stage: str) -> str:
        """The stage before one."""
        return self.stages[self.stages.index(stage) - 1]

    def bars(self, stage: str, marked: int | None = None) -> Figure:
        """The last row at a stage."""
        row = self.at(stage, self.last)
        words = ["masked" if not np.isfinite(v) else number(float(v)) for v in row]
        rows = [(name(self.tokens, i), float(v), words[i]) for i, v in enumerate(row)]
        return bars(rows, [] if marked is None else [marked], f"last row of {self.title}, {stage}")


def attention_steps(reading: Reading) -> list[Step]:
    """From the norm's result to what the layer's heads add up to."""
    head = Head(reading)
    found = [_vectors(head), _sharing(head)]
    if reading.rotations:
        found.append(_rotary(head, reading.rotations["q"], reading.rotations["k"]))
    elif (
        reading.row("position") is None and not reading.turns and not ("biased" in head.stages or head.scoring.max_bias)
    ):
        found.append(_nothing(head))
    found += [_scores(head), _scale(head)]
    if "capped" in head.stages:
        found.append(_cap(head))
    if "biased" in head.stages:
        found.append(_bias(head))
    if head.scoring.max_bias > 0:
        found.append(_alibi(head))
    return [*found, _mask(head), _softmax(head), _output(head), _heads(head)]


def _vectors(head: Head) -> Step:
    s, last = head.scoring, name(head.tokens, head.last)
    q, k = s.q[head.head, head.last], s.k[head.kv_head, head.last]
    turned = head.reading.rotations
    if turned and turned["q"].before.shape[1:] == q.shape and turned["k"].before.shape[1:] == k.shape:
        q, k = turned["q"].before[head.head], turned["k"].before[head.kv_head]
    rows = [("query", q), ("key", k)]
    if s.v is not None:
        rows.append(("value", s.v[head.kv_head, head.last]))
    size = int(s.q.shape[2])
    more = []
    if head.latent:
        more.append("Here keys and values of all heads are one compressed vector per token (latent attention).")
    if head.has("attn_q_norm.weight"):
        more.append("Query and key are normed once more by themselves.")
    if head.has("attn_q.bias") or head.has("attn_qkv.bias"):
        more.append("A learned bias is added to each.")
    return step(
        "qkv",
        "Q K V",
        "Query, key and value",
        [
            f"Three matrices turn the vector of {last} into a query (what it looks for), a key (what it can be "
            f"found by) and a value (what it passes on).",
            f"The tour looks at one head, {head.title}: of all heads before the last layer its last row puts the most "
            f"weight on a token that is neither the first nor itself.",
            *([" ".join(more)] if more else []),
        ],
        [],
        ask_number(
            "How many numbers has one head\u2019s query?",
            size,
            [head.reading.model.info.width or 4 * size, int(s.heads)],
            f"The {s.heads} heads of this layer together: {number(size * s.heads)}.",
        ),
        after=[strips(*rows)],
        tokens=[head.last],
        inside=True,
        see="AttentionGrid shows every head of every layer.",
    )


def _sharing(head: Head) -> Step:
    s = head.scoring
    kind = (
        "every head has keys and values of its own (multi-head attention)"
        if s.group == 1
        else "all heads read one compressed vector per token (latent attention)"
        if head.latent
        else "all heads share one set of keys and values (multi-query attention)"
        if s.kv_heads == 1
        else f"each {s.group} heads share one set of keys and values (grouped-query attention)"
    )
    held = s.kv_heads * (int(s.k.shape[2]) + (0 if head.latent or s.v is None else int(s.v.shape[2])))
    options = sorted({1, s.group, s.heads} | ({2} if s.heads == 1 else set()))
    return step(
        "groups",
        "Q K V",
        "Who shares keys and values",
        [
            f"This layer has {s.heads} query heads and {s.kv_heads} key and value head{'s' * (s.kv_heads > 1)}.",
            f"Keys and values stay in memory for every token of the context: about {number(held)} numbers per token "
            f"and layer here.",
        ],
        [],
        ask_number(
            "How many query heads read the same keys?",
            s.group,
            options,
            f"Here {kind}. {head.title} reads key head {head.kv_head}.",
        ),
        after=[groups(s.heads, s.kv_heads, head.head)],
        tokens=[head.last],
        inside=True,
    )


def _rotary(head: Head, q: Rotation, k: Rotation) -> Step:
    n, own = len(q.pairs), min(head.head, len(q.before) - 1)
    shown = np.unique(np.linspace(0, n - 1, min(n, _DIALS)).round().astype(int))
    measured = q.angles(own)[shown]
    speed = q.factor * q.base ** (-shown / n)
    turns = [f"1 in {number(float(2 * math.pi / v))}" for v in speed] if q.plain else []
    size = int(head.scoring.q.shape[2])
    says = [
        f"Nothing was added for the position. Instead each query and key is turned: its numbers form {n} pairs, and "
        f"the pairs of token {head.last} turn by {head.last} times an angle of their own.",
        f"Base {number(q.base)}, factor {number(q.factor)}, {2 * n} of the head\u2019s {size} numbers turn."
        + ("" if q.plain else " This model bends the angles for long contexts: the dials show what was measured."),
        "A score of two turned vectors depends on how far apart the tokens are, not on where they stand.",
    ]
    return step(
        "position",
        "Position",
        "Position: rotary",
        says,
        [strips(("query before", q.before[own]))],
        ask(
            "Which pairs turn fastest?",
            ["the first", "the last", "all the same"],
            "all the same" if n == 1 else "the first",
            f"The first pair turns by {number(q.factor)} radian{'' if q.factor == 1 else 's'} per token, the last by "
            f"{number(float(q.factor * q.base ** (-(n - 1) / n)))}."
            if q.plain
            else "The first pairs tell near tokens apart, the last ones far ones.",
        ),
        after=[
            dials(measured, turns, f"angles of the query of {name(head.tokens, head.last)} in {head.title}, measured"),
            strips(("query after", q.after[own])),
            strips(
                ("key before", k.before[min(head.kv_head, len(k.before) - 1)]),
                ("key after", k.after[min(head.kv_head, len(k.after) - 1)]),
            ),
        ],
        tokens=[head.last],
        inside=True,
    )


def _nothing(head: Head) -> Step:
    return step(
        "position",
        "Position",
        "No position",
        [
            f"Layer {head.layer} does nothing for the position: no vector is added, nothing is turned, no score is "
            f"moved.",
        ],
        [],
        ask(
            "How can it still know what came before what?",
            ["from the mask and from other layers", "it cannot"],
            "from the mask and from other layers",
            "A token that may look at fewer others stands earlier, and the layers before leave traces in the stream.",
        ),
        tokens=[head.last],
        inside=True,
    )


def _scores(head: Head) -> Step:
    row = head.at("scores", head.last)
    top = int(row.argmax())
    best = np.argsort(-row, kind="stable")[:4].tolist()
    q, key = head.scoring.q[head.head, head.last], head.scoring.k[head.kv_head, top]
    return step(
        "scores",
        "Scores",
        "Scores: query times key",
        [
            f"The query of {name(head.tokens, head.last)} is multiplied with the key of every token, number by number, "
            f"and the products are added up. A large sum says: this is what I look for.",
        ],
        [chips(head.tokens, [head.last])],
        ask(
            "Which of these tokens gets the largest score?",
            [name(head.tokens, at) for at in sorted(best)],
            name(head.tokens, top),
            f"Its score is {number(float(row[top]))}.",
        ),
        after=[
            strips(("query", q), (f"key of {name(head.tokens, top)}", key), ("products", q * key)),
            head.bars("scores", top),
        ],
        tokens=[head.last, top],
        inside=True,
        see="AttentionGrid draws all scores of a head: click it, then Scores.",
    )


def _scale(head: Head) -> Step:
    s, size = head.scoring, int(head.scoring.q.shape[2])
    row = head.at("scaled", head.last)
    source = head.at(head.before("scaled"), head.last)
    top = int(row.argmax())
    root = 1 / math.sqrt(size)
    usual = math.isclose(s.scale, root, rel_tol=1e-3)
    because = (
        f"That is 1 / \u221a{size}, of the head size."
        if usual
        else "This model has the factor in its weights or its queries already."
        if s.scale == 1
        else f"It is this model\u2019s own factor; 1 / \u221a{size} would be {number(root)}."
    )
    return step(
        "scale",
        "Scores",
        "Scale",
        [
            "Sums over many numbers grow with their count. One factor brings them back, so that the softmax that "
            "follows does not put everything on one token.",
        ],
        [head.bars(head.before("scaled"), top)],
        ask_number("What are the scores multiplied by?", s.scale, [root, 1 / size, 1.0], because),
        after=[
            bars(
                [
                    ("before", float(source[top]), number(float(source[top]))),
                    ("after", float(row[top]), number(float(row[top]))),
                ],
                what=f"score of {name(head.tokens, top)}",
            )
        ],
        tokens=[head.last, top],
        inside=True,
    )


def _cap(head: Head) -> Step:
    c = head.scoring.soft_cap
    row = head.at("capped", head.last)
    top = int(row.argmax())
    return step(
        "cap",
        "Scores",
        "Soft cap",
        ["This model keeps scores within limits: s becomes c tanh(s / c), with one c. Small ones hardly change."],
        [],
        ask_number(
            "How large can a score be after that?",
            c,
            [1.0, float(len(head.tokens)), 10 * c],
            f"The largest here is {number(float(row[top]))}, for {name(head.tokens, top)}.",
        ),
        after=[head.bars("capped", top)],
        tokens=[head.last, top],
        inside=True,
    )


def _bias(head: Head) -> Step:
    """T5: what is added to scores by distance."""
    added = head.at("biased", head.last) - head.at(head.before("biased"), head.last)
    top = int(added.argmax())
    return step(
        "position",
        "Position",
        "Position: a learned bias per distance",
        [
            "Nothing was added to the vectors for the position, and nothing is turned. Instead every head has learned "
            "a number for each range of distances, which is added to the score.",
        ],
        [],
        ask(
            "Where is the addition largest for the last token?",
            ["near the last token", "farther away"],
            "near the last token" if head.last - top < max(2, len(added) // 2) else "farther away",
            f"{number(float(added[top]))} for {name(head.tokens, top)}.",
        ),
        after=[
            bars(
                [(name(head.tokens, i), float(v), number(float(v))) for i, v in enumerate(added)],
                [top],
                f"added in {head.title}",
            )
        ],
        tokens=[head.last, top],
        inside=True,
    )


def _alibi(head: Head) -> Step:
    before = head.at(head.before("masked"), head.last)
    added = head.at("masked", head.last) - before
    added[~np.isfinite(added)] = np.nan
    slope = float(added[-1] - added[-2]) if len(added) > 1 else 0.0
    return step(
        "position",
        "Position",
        "Position: ALiBi",
        [
            "Nothing was added to the vectors for the position, and nothing is turned. Instead every score loses a "
            "little for each token of distance; each head has its own slope.",
        ],
        [],
        ask(
            "Which token loses the most?",
            [name(head.tokens, 0), name(head.tokens, head.last)],
            name(head.tokens, 0),
            f"The farthest one: {number(slope)} per token in {head.title}.",
        ),
        after=[
            bars(
                [
                    (name(head.tokens, i), float(v), number(float(v)) if np.isfinite(v) else "masked")
                    for i, v in enumerate(added)
                ],
                [0],
                f"added in {head.title}",
            )
        ],
        tokens=[head.last, 0],
        inside=True,
    )


def _mask(head: Head) -> Step:
    masked = head.at("masked")
    row = len(head.tokens) // 2
    seen = int(np.isfinite(masked[row]).sum())
    facts = next(f for f in head.reading.trace.layers_of(head.reading.part) if f.layer == head.layer)
    who = (
        "This model reads both ways: no token is hidden."
        if facts.mask == "none"
        else "A token may only look at itself and at what came before; the rest is set to minus infinity."
    )
    window = "" if facts.window is None else f" This layer also looks back {facts.window} tokens at most."
    return step(
        "mask",
        "Mask",
        "Mask",
        [who + window],
        [chips(head.tokens, [row])],
        ask_number(
            f"How many tokens may {name(head.tokens, row)} look at?",
            seen,
            [row, row + 1, len(head.tokens)],
            "The others come later." if seen == row + 1 else f"Of {len(head.tokens)} in all.",
        ),
        after=[matrix(masked, head.tokens, head.tokens, "signed", [row])],
        tokens=[row],
        inside=True,
    )


def _softmax(head: Head) -> Step:
    row = head.at("softmax", head.last)
    order = np.sort(row)[::-1]
    total = float(row.sum())
    needed = int(np.searchsorted(np.cumsum(order), 0.9 * total) + 1)
    top = int(row.argmax())
    sinks = head.scoring.sinks
    more = (
        ""
        if sinks is None
        else f" A sink that stands for no token takes {number(1 - total)}: the weights shown add up to {number(total)}."
    )
    words = ["1", "2 or 3", "4 or more"]
    return step(
        "softmax",
        "Softmax",
        "Softmax: from scores to weights",
        [
            "Each score becomes e to its power, and all are divided by their sum: weights above 0 that add up to 1."
            + more,
        ],
        [head.bars("masked")],
        ask_range(
            "How many tokens does it take to hold 90\u202f% of the last row\u2019s weight?",
            needed,
            [2, 4],
            words,
            f"{name(head.tokens, top)} alone has {number(float(row[top]))}.",
        ),
        after=[head.bars("softmax", top), matrix(head.weights(), head.tokens, head.tokens, "weight", [head.last])],
        tokens=[head.last, top],
        inside=True,
        see="AttentionGrid shows this matrix for every head.",
    )


def _output(head: Head) -> Step:
    s = head.scoring
    row = head.at("softmax", head.last)
    values = np.asarray(s.v[head.kv_head, : len(row)], np.float32) if s.v is not None else np.zeros((len(row), 1))
    out = row @ values
    order = np.argsort(-row, kind="stable")[:3].tolist()
    top = order[0]
    like = cosine(out, values[top])
    weighted = [
        (f"{number(float(row[at]))} \u00d7 value of {name(head.tokens, at)}", row[at] * values[at]) for at in order
    ]
    rest = out - sum(vector for _, vector in weighted)
    return step(
        "output",
        "Values",
        "What the head writes",
        [
            "The values of all tokens are mixed with these weights. The mix is the head\u2019s output for this token.",
        ],
        [head.bars("softmax", top)],
        ask_range(
            f"How much is the mix like the value of {name(head.tokens, top)} alone?",
            like,
            [0.5, 0.9],
            ["hardly (cosine below 0.5)", "partly (0.5 to 0.9)", "very much (0.9 and above)"],
            f"Cosine {number(like)}; that token\u2019s weight is {number(float(row[top]))}.",
        ),
        after=[
            strips(
                *weighted, ("all others", rest), ("output of the head", out), sign=" +++="[: len(weighted) + 1] + "="
            )
        ],
        tokens=[head.last, top],
        inside=True,
    )


def _heads(head: Head) -> Step:
    s, part = head.scoring, head.reading.part
    rows = np.stack(
        [
            head.reading.trace.attention(head.layer, h, rows=slice(head.last, head.last + 1), part=part)[0]
            for h in range(s.heads)
        ]
    )
    first = int((rows.argmax(1) == 0).sum())
    out = added(head.reading)
    third = max(1, round(s.heads / 3))
    words = [f"fewer than {third}", f"{third} to {2 * third - 1}" if third > 1 else "1", f"{2 * third} or more"]
    return step(
        "heads",
        "Heads",
        "All heads of the layer",
        [
            f"The other heads of layer {head.layer} do the same with weights of their own. Their outputs stand side by "
            f"side, and one more matrix mixes them into a vector as wide as the stream.",
            "Many heads rest on the first token when they find nothing: an attention sink.",
        ],
        [],
        ask_range(
            f"How many of the {s.heads} heads put most of the last row on {name(head.tokens, 0)}?",
            first,
            [third, 2 * third],
            words,
            f"{first} of {s.heads}.",
        ),
        after=[
            matrix(rows, [f"H{h}" for h in range(s.heads)], head.tokens, "weight", [head.head]),
            *([] if out is None else [strips((f"attention of layer {head.layer} adds", out))]),
        ],
        tokens=[head.last],
        inside=True,
        see="AttentionGrid sorts heads by what they do; HeadComparison finds heads that are alike.",
    )


def added(reading: Reading) -> Array | None:
    """float32 (width,): what attention or recurrence adds to the last token; None where a norm comes between."""
    try:
        return np.asarray(reading.trace.attention_out(reading.layer, reading.part)[-1], np.float32)
    except CaptureUnavailable:
        return None


def cosine(a: Array, b: Array) -> float:
    """Of the angle between two vectors; 0 where one is 0."""
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size else 0.0
