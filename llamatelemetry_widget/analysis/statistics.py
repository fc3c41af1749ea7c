"""What the statistics of a head mean, and when one of them is clear enough to give the head a name.

In: the statistics of one head. Out: a name, or none. The numbers themselves are computed by `reduce`.

Every statistic is a mean over the query tokens that have a choice, i.e. see at least two keys (in causal attention all
but the first). p[i, j] is the probability that query i gives to key j; a token that stands twice in the text has an
*earlier occurrence* at its second place.

- `induction`: sum of p[i, j + 1] over all earlier occurrences j of token i; mean over queries that have one
- `previous_token`: p[i, i - 1]
- `sink`: p[i, 0]: the first token
- `locality`: 1 - d / (distance to the farthest key that i may see), d as in mean_distance; 1 = looks at itself
- `entropy`: - sum p ln p / ln(number of keys that i may see); 1 = spread evenly over them, 0 = one key
- `duplicate_token`: sum of p[i, j] over all earlier occurrences j of token i; mean over queries that have one
- `diagonal`: p[i, i]
- `mean_distance`: d = sum of p[i, j] |i - j|, in tokens
- `max_weight`: max p[i, j] over j

A head with a learned sink (gpt-oss) gives part of each row to nothing: entropy, locality and mean_distance describe
what is left, as shares of it. A statistic is NaN where nothing was measured: no token occurs twice, or queries and keys
are different texts (cross-attention: all but sink, entropy and max_weight).

On text in which each token occurs twice, induction is the usual score: attention to the token after the previous
occurrence. On other text all earlier occurrences count, because a head may follow any of them; dividing by the number
of occurrences would let frequent tokens push every head to 0 as the text grows.

References
----------
Elhage et al.: A Mathematical Framework for Transformer Circuits, 2021 (induction, previous token, diagonal).
Olsson et al.: In-context Learning and Induction Heads, 2022, arXiv:2209.11895 (induction, previous token).
Wang et al.: Interpretability in the Wild, 2022, arXiv:2211.00593 (duplicate token).
Xiao et al.: Efficient Streaming Language Models with Attention Sinks, 2023, arXiv:2309.17453 (sink).
Clark et al.: What Does BERT Look At?, 2019, arXiv:1906.04341 (entropy, broad heads).
Zhai et al.: Stabilizing Transformer Training by Preventing Attention Entropy Collapse, 2023, arXiv:2303.06296.
Vig, Belinkov: Analyzing the Structure of Attention in a Transformer Language Model, 2019, arXiv:1906.04284 (distance).
"""

from __future__ import annotations

from collections.abc import Mapping

STATISTICS = (
    "induction",
    "previous_token",
    "sink",
    "locality",
    "entropy",
    "duplicate_token",
    "diagonal",
    "mean_distance",
    "max_weight",
)

# Least values for a name. Measured on SmolLM2-135M with prose and documentation of 24 to 2048 tokens: the few heads
# with a pattern lie above at every length, nine in ten of all heads below half of it.
INDUCTION = 0.3
DUPLICATE_TOKEN = 0.35
PREVIOUS_TOKEN = 0.5  # more than all other keys together
DIAGONAL = 0.5
SINK = 0.9  # half of all heads give the first token 0.3 to 0.6; only a head that does little else is named after it
BROAD = 0.85  # of the greatest entropy

_NAMES = (
    ("induction", INDUCTION, "induction head"),
    ("duplicate_token", DUPLICATE_TOKEN, "duplicate-token head"),
    ("previous_token", PREVIOUS_TOKEN, "previous-token head"),
    ("diagonal", DIAGONAL, "diagonal head"),
    ("sink", SINK, "sink head"),
    ("entropy", BROAD, "broad head"),
)


def name_head(stats: Mapping[str, float]) -> str | None:
    """Name of a head whose pattern is clear.

    Parameters
    ----------
    stats : mapping of str to float
        The statistics of one head, by the names in `STATISTICS`; NaN is no evidence.

    Returns
    -------
    str or None
        "induction head", "duplicate-token head", "previous-token head", "diagonal head", "sink head",
        "broad head"; None where no pattern is strong enough, or more than one is (in "a a a a" they are all the same).
    """
    names = [name for key, least, name in _NAMES if stats.get(key, 0.0) >= least]
    return names[0] if len(names) == 1 else None
