"""What a mixture of experts did with each token: who was chosen, with what weight, how evenly the work was spread.

In: per layer the ids (tokens, used) and weights (tokens, used) of the chosen experts. Out: loads, entropies, tables.

Every token is handed to `used` experts of each layer. Its weights may sum to anything (some models scale them, some
leave them as they are), so shares and entropies are of the weights divided by their sum.

References
----------
Shazeer et al.: Outrageously Large Neural Networks, 2017, arXiv:1701.06538 (importance: the sum of an expert's weights).
Fedus et al.: Switch Transformers, 2021, arXiv:2101.03961 (load: the fraction of tokens dispatched to an expert).
Jiang et al.: Mixtral of Experts, 2024, arXiv:2401.04088 (which tokens go to which experts, layer by layer).
"""

from __future__ import annotations

from math import log2

from .arrays import Array, namespace


def shares(weights: Array) -> Array:
    """Each token's weights divided by their sum.

    Parameters
    ----------
    weights : float (tokens, used)

    Returns
    -------
    float32 (tokens, used)
        NaN for a token whose weights sum to 0.
    """
    xp = namespace(weights)
    exact = xp.astype(weights, xp.float64)
    total = xp.sum(exact, axis=-1, keepdims=True)
    nothing = total == 0
    parts = exact / xp.where(nothing, xp.ones_like(total), total)
    return xp.astype(xp.where(nothing, xp.full_like(parts, xp.nan), parts), xp.float32)


def token_table(ids: Array, weights: Array, experts: int) -> Array:
    """Weights of one layer laid out by expert.

    Parameters
    ----------
    ids : int (tokens, used)
    weights : float (tokens, used)
    experts : int
        How many the layer has.

    Returns
    -------
    float32 (tokens, experts)
        NaN where an expert was not chosen.
    """
    xp = namespace(weights)
    names = xp.arange(experts, dtype=ids.dtype)
    out = xp.full((ids.shape[0], experts), xp.nan, dtype=xp.float32)
    for slot in range(ids.shape[1]):
        chosen = ids[:, slot][:, None] == names[None, :]
        out = xp.where(chosen, xp.astype(weights[:, slot], xp.float32)[:, None], out)
    return out


def counts(ids: Array, experts: int) -> Array:
    """int64 (experts,): how many tokens were handed to each expert of a layer."""
    xp = namespace(ids)
    names = xp.arange(experts, dtype=ids.dtype)
    out = xp.zeros((experts,), dtype=xp.int64)
    for slot in range(ids.shape[1]):
        out = out + xp.sum(xp.astype(ids[:, slot][:, None] == names[None, :], xp.int64), axis=0)
    return out


def load(ids: Array, experts: int) -> Array:
    """Share of the work that each expert of a layer got.

    Parameters
    ----------
    ids : int (tokens, used)
    experts : int

    Returns
    -------
    float32 (experts,)
        Tokens handed to the expert / all hand-overs; sums to 1, is ``1 / experts`` where the work is spread evenly.
    """
    xp = namespace(ids)
    found = xp.astype(counts(ids, experts), xp.float64)
    return xp.astype(found / max(ids.shape[0] * ids.shape[1], 1), xp.float32)


def weighted_load(ids: Array, weights: Array, experts: int) -> Array:
    """The same, but each hand-over counts as much as its share of the token's weights.

    Returns
    -------
    float32 (experts,)
        Sums to 1.
    """
    xp = namespace(weights)
    own = xp.astype(token_table(ids, shares(weights), experts), xp.float64)
    some = xp.where(xp.isnan(own), xp.zeros_like(own), own)
    total = float(xp.sum(some))
    return xp.astype(xp.sum(some, axis=0) / (total or 1.0), xp.float32)


def entropy(parts: Array) -> Array:
    """Entropy in bits along the last axis: 0 = all in one, log2 of the length = spread evenly.

    Parameters
    ----------
    parts : float (..., n)
        Not negative, summing to 1: `shares` of a token, or `load` of a layer.

    Returns
    -------
    float32 (...)
        NaN where a part is NaN.
    """
    xp = namespace(parts)
    exact = xp.astype(parts, xp.float64)
    positive = exact > 0
    logs = xp.log2(xp.where(positive, exact, xp.ones_like(exact)))
    bits = xp.abs(xp.sum(exact * logs, axis=-1))  # 0 rather than -0
    return xp.astype(bits, xp.float32)


def evenness(parts: Array) -> Array:
    """Entropy as a share of the greatest there could be: 0 = all in one, 1 = spread evenly; NaN without a choice."""
    xp = namespace(parts)
    n = parts.shape[-1]
    bits = entropy(parts)
    return xp.full_like(bits, xp.nan) if n < 2 else bits / log2(n)
