"""What a model thought of the tokens that came: probability, loss, entropy and rank, from logits.

In: logits of some rows, and the token that followed each. Out: one float32 value per row. Any array library.
"""

from __future__ import annotations

from .arrays import Array, float32, namespace

TOKEN_STATISTICS = ("probability", "loss", "entropy", "rank")


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
