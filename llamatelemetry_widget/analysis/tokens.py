"""What a model thought of the tokens that came: probability, loss, entropy and rank, from logits.

In: logits of some rows, and the token that followed each. Out: one float32 value per row. Any array library.
"""

from __future__ import annotations

from typing import Any

from .arrays import Array, float32, namespace

TOKEN_STATISTICS = ("probability", "loss", "entropy", "rank")


def divergence(logits: Array, other: Array) -> Array:
    """Kullback-Leibler divergence of distributions, row by row.

    Parameters
    ----------
    logits, other : float (rows, vocab)
        Of the distributions P and Q.

    Returns
    -------
    float32 (rows,)
        D(P || Q) = sum of p ln(p / q), in nats: infinite where Q rules out what P does not.

    References
    ----------
    Kullback, Leibler: On information and sufficiency, 1951.
    """
    xp = namespace(logits)
    p, q = _log_softmax(xp, logits), _log_softmax(xp, other)
    weights, nothing = xp.exp(p), xp.zeros_like(p)
    # q - p - p d with d = ln(q / p): no term is negative, so that small divergences are not lost among large terms
    d = xp.where(weights > 0, q, nothing) - xp.where(weights > 0, p, nothing)
    close = xp.where(xp.abs(d) < 1, d, nothing)
    far = xp.where(weights > 0, xp.exp(q) - weights - weights * d, xp.exp(q))
    return xp.sum(xp.where(xp.abs(d) < 1, weights * (xp.expm1(close) - close), far), axis=-1)


def _log_softmax(xp: Any, logits: Array) -> Array:
    x = float32(logits)
    x = x - xp.max(x, axis=-1, keepdims=True)
    return x - xp.log(xp.sum(xp.exp(x), axis=-1, keepdims=True))


def token_statistics(logits: Array, targets: Array) -> dict[str, Array]:
    """Statistics of the tokens that followed.

    Parameters
    ----------
    logits : float (rows, vocab)
        Of the position before each token.
    targets : int (rows,)
        The token that came.

    Returns
    -------
    dict of float32 (rows,)
        ``probability`` of that token, its ``loss`` (minus the natural logarithm of the probability, nats), the
        ``entropy`` of the whole distribution (nats), and its ``rank`` (1 = the most likely; equal logits share it).
    """
    xp = namespace(logits)
    x = float32(logits)
    x = x - xp.max(x, axis=-1, keepdims=True)
    chosen = xp.take_along_axis(x, xp.astype(targets, xp.int64)[:, None], axis=-1)
    e = xp.exp(x)
    total = xp.sum(e, axis=-1)
    log_total = xp.log(total)
    # a token that cannot come has the logit -inf: it adds nothing to the entropy
    mean = xp.sum(e * xp.where(e > 0, x, xp.zeros_like(x)), axis=-1) / total
    loss = log_total - chosen[:, 0]
    return {
        "probability": xp.exp(-loss),
        "loss": loss,
        "entropy": log_total - mean,
        "rank": 1 + xp.sum(xp.astype(x > chosen, xp.float32), axis=-1),
    }
