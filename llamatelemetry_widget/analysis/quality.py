"""How far one distribution over the vocabulary is from another, token by token, and what many tokens say together.

In: logits of the same rows of two models, and the token that followed each. Out: four numbers a row; figures, errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, float32, namespace

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
#: Percentiles of the change in probability that a `summary` has.
PERCENTILES = (0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)


@dataclass(frozen=True, eq=False)
class Scores:
    """Rows of two models, compared. Any array library.

    Attributes
    ----------
    kl : float64 (rows,)
        D(base || other) in nats.
    base_log_p, log_p : float64 (rows,)
        Natural logarithm of the probability of the token that came, in the base and in the other.
    same_top : bool (rows,)
        Whether both find the same token likeliest.
    """

    kl: Array
    base_log_p: Array
    log_p: Array
    same_top: Array

    def __len__(self) -> int:
        return int(self.kl.shape[0])


def compare_rows(base: Array, other: Array, targets: Array | None = None) -> Scores:
    """Compare logits row by row: exponentials in float32, sums in float64, so that KL is right to 1e-7 nats.

    With a, b the logits and p = softmax(a): KL = sum of p (a - b) - ln(sum of e^a) + ln(sum of e^b), which is exactly 0
    where the two are the same numbers.

    Parameters
    ----------
    base, other : float (rows, vocab)
        Some rows at a time (a few hundred kB) are several times faster than all.
    targets : int (rows,), optional
        The token that came; without it the two log probabilities are of token 0.

    Returns
    -------
    Scores
        KL is infinite where the other rules out what the base does not, NaN where a logit is.

    References
    ----------
    Kullback, Leibler: On information and sufficiency, 1951.
    """
    xp = namespace(base)
    a, b = _shifted(xp, base), _shifted(xp, other)
    weights = xp.exp(a)
    log_a = xp.log(xp.sum(weights, axis=-1, dtype=xp.float64))
    log_b = xp.log(xp.sum(xp.exp(b), axis=-1, dtype=xp.float64))
    possible = a > -math.inf
    if bool(xp.all(possible)):
        d = a - b
    else:  # a token that cannot come says nothing
        zero = xp.zeros_like(a)
        d = xp.where(possible, a, zero) - xp.where(possible, b, zero)
    kl = xp.sum(weights * d, axis=-1, dtype=xp.float64) / xp.exp(log_a) - log_a + log_b
    rows = xp.zeros(a.shape[0], dtype=xp.int64) if targets is None else xp.astype(targets, xp.int64)
    chosen = [xp.astype(xp.take_along_axis(x, rows[:, None], axis=-1)[:, 0], xp.float64) for x in (a, b)]
    same = xp.argmax(base, axis=-1) == xp.argmax(other, axis=-1)
    return Scores(xp.where(kl < 0, xp.zeros_like(kl), kl), chosen[0] - log_a, chosen[1] - log_b, same)


def _shifted(xp: Any, logits: Array) -> Array:
    """float32: logits less their row's largest."""
    x = float32(logits)
    return x - xp.max(x, axis=-1, keepdims=True)


def joined(parts: list[Scores]) -> Scores:
    """Several blocks as one."""
    names = ("kl", "base_log_p", "log_p", "same_top")
    return Scores(*(np.concatenate([np.asarray(getattr(part, name)) for part in parts]) for name in names))


def summary(scores: Scores) -> dict[str, Any]:
    """What many tokens say together, with the errors that llama.cpp's perplexity tool gives.

    Parameters
    ----------
    scores : Scores
        NumPy arrays, at least one row.

    Returns
    -------
    dict
        ``n_tokens``; ``kl`` (mean, nats) and ``kl_error`` (its standard error over tokens), ``kl_90``, ``kl_95``,
        ``kl_99``, ``kl_999`` (percentiles), ``kl_max``; ``same_top`` (share) and ``same_top_error``; ``rms_dp``,
        ``rms_dp_error``, ``dp_mean``, ``dp_percentiles`` (dict of `PERCENTILES`) of the change in the probability of
        the token that came; ``ppl``, ``ppl_error``, ``base_ppl``; ``ppl_ratio`` = exp(mean of ln(p_base / p)) and
        ``ppl_ratio_error``. Errors of a single token are NaN.
    """
    kl, nll = np.asarray(scores.kl), -np.asarray(scores.log_p)
    base_nll, same = -np.asarray(scores.base_log_p), np.asarray(scores.same_top)
    n = len(kl)
    dp = np.exp(-nll) - np.exp(-base_nll)
    share, rms = float(same.mean()), float(np.sqrt(np.mean(dp**2)))
    ppl, ratio = float(np.exp(nll.mean())), float(np.exp((nll - base_nll).mean()))
    tails = np.percentile(kl, [90, 95, 99, 99.9])
    return {
        "n_tokens": n,
        "kl": float(kl.mean()),
        "kl_error": standard_error(kl),
        "kl_90": float(tails[0]),
        "kl_95": float(tails[1]),
        "kl_99": float(tails[2]),
        "kl_999": float(tails[3]),
        "kl_max": float(kl.max()),
        "same_top": share,
        "same_top_error": math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else math.nan,
        "rms_dp": rms,
        "rms_dp_error": 0.5 / rms * standard_error(dp**2) if rms else 0.0,
        "dp_mean": float(dp.mean()),
        "dp_percentiles": dict(zip(PERCENTILES, np.percentile(dp, PERCENTILES).tolist(), strict=True)),
        "ppl": ppl,
        "ppl_error": ppl * standard_error(nll),
        "base_ppl": float(np.exp(base_nll.mean())),
        "ppl_ratio": ratio,
        "ppl_ratio_error": ratio * standard_error(nll - base_nll),
    }


def standard_error(x: Floats) -> float:
    """Of the mean of independent values; NaN of a single one."""
    return float(np.sqrt(x.var() / (len(x) - 1))) if len(x) > 1 else math.nan


def half_width(means: Floats, counts: Floats) -> float:
    """Half of the 95 % interval (Student's t) of the mean over blocks of text.

    Tokens of one text hang together, so that blocks are the honest unit: their means differ by more than the tokens'
    own error says.

    Parameters
    ----------
    means : float64 (blocks,)
    counts : (blocks,)
        Tokens in each.

    Returns
    -------
    float
        NaN of a single block.

    References
    ----------
    Cochran: Sampling Techniques, 1977, chapter 6 (the error of a ratio of sums).
    """
    n = len(means)
    if n < 2:
        return math.nan
    weights = np.asarray(counts, np.float64) / np.sum(counts)
    mean = float(weights @ means)
    return student(n - 1) * math.sqrt(n / (n - 1) * float(np.sum((weights * (means - mean)) ** 2)))


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t distribution.

    References
    ----------
    Abramowitz, Stegun: Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    low, high = 1.0, 13.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 0.95 else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """Probability that |T| <= t."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    term = cosine if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for i in range(2 + odd, freedom - 1, 2):
        term *= cosine**2 * (i - 1) / i
        total += term
    series = math.sin(angle) * total
    return (angle + series) * 2 / math.pi if odd else series
