"""Distances between models' distributions, and their errors, against float64, SciPy and a strict array library."""

from __future__ import annotations

import array_api_strict as strict
import numpy as np
import pytest
from scipy import stats

from llamatelemetry_widget.analysis.quality import Scores, compare_rows, half_width, joined, student, summary


def log_softmax(x):
    x = x.astype(np.float64)
    return x - np.log(np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True)) - x.max(1, keepdims=True)


@pytest.mark.parametrize("noise", [3.0, 0.1, 0.001])
def test_rows_agree_with_float64(noise):
    r = np.random.default_rng(1)
    a = (r.normal(size=(40, 5000)) * 4 + 50).astype(np.float32)
    b = (a + r.normal(size=a.shape) * noise).astype(np.float32)
    targets, rows = r.integers(0, 5000, 40), np.arange(40)
    x, y = log_softmax(a), log_softmax(b)
    found = compare_rows(a, b, targets)
    np.testing.assert_allclose(found.kl, (np.exp(x) * (x - y)).sum(1), atol=3e-7, rtol=1e-5)
    np.testing.assert_allclose(found.base_log_p, x[rows, targets], atol=1e-6)
    np.testing.assert_allclose(found.log_p, y[rows, targets], atol=1e-6)
    np.testing.assert_array_equal(found.same_top, a.argmax(1) == b.argmax(1))


def test_the_same_numbers_are_exactly_alike():
    a = (np.random.default_rng(2).normal(size=(9, 3000)) * 9).astype(np.float32)
    found = summary(compare_rows(a, a.copy(), np.arange(9)))
    assert found["kl"] == found["kl_max"] == found["rms_dp"] == 0
    assert found["same_top"] == found["ppl_ratio"] == 1


def test_words_that_cannot_come():
    none = -np.inf
    base = np.array([[0, none, 1], [0, 2, 1], [0, none, 1]], np.float32)
    other = np.array([[0, 5, 1], [0, none, 1], [0, none, 1]], np.float32)
    kl = compare_rows(base, other).kl
    assert kl[0] == pytest.approx(np.log(np.exp([0, 5, 1]).sum() / np.exp([0, 1]).sum()), abs=1e-6)
    assert kl[1] == np.inf and kl[2] == 0


def test_a_strict_array_library_gives_the_same():
    r = np.random.default_rng(3)
    a, b, targets = *(r.normal(size=(2, 6, 50)).astype(np.float32)), r.integers(0, 50, 6)
    here, there = compare_rows(a, b, targets), compare_rows(*(strict.asarray(x) for x in (a, b, targets)))
    for name in ("kl", "base_log_p", "log_p", "same_top"):
        np.testing.assert_allclose(np.asarray(getattr(there, name)), getattr(here, name), rtol=1e-6)


def test_summary_says_what_its_definitions_say():
    r = np.random.default_rng(4)
    n, kl = 500, r.exponential(0.05, 500)
    p, q = np.log(r.uniform(0.01, 1, (2, n)))
    scores = Scores(kl, p, q, r.random(n) < 0.8)
    found, dp, d = summary(joined([Scores(*(x[s] for x in (kl, p, q, scores.same_top))) for s in halves(n)])), 0, p - q
    dp = np.exp(q) - np.exp(p)
    assert found["n_tokens"] == n
    assert found["kl_error"] == pytest.approx(stats.sem(kl)) and found["kl_99"] == np.percentile(kl, 99)
    assert found["rms_dp"] == pytest.approx(np.sqrt((dp**2).mean()))
    assert found["rms_dp_error"] == pytest.approx(stats.sem(dp**2) / (2 * found["rms_dp"]))
    assert found["ppl_ratio"] == pytest.approx(found["ppl"] / found["base_ppl"])
    assert found["ppl_ratio_error"] == pytest.approx(np.exp(d.mean()) * stats.sem(d))
    assert found["same_top_error"] == pytest.approx(stats.sem(scores.same_top.astype(float)))
    assert found["dp_percentiles"][50] == pytest.approx(np.median(dp))


def halves(n):
    return slice(0, n // 3), slice(n // 3, n)


def test_the_interval_over_blocks_is_students():
    means = np.array([0.1, 0.3, 0.2, 0.15])
    assert half_width(means, np.full(4, 100)) == pytest.approx(stats.t.ppf(0.975, 3) * stats.sem(means))
    uneven = half_width(means, np.array([100, 1, 1, 1]))
    assert uneven < half_width(means, np.full(4, 100))  # nearly all that is known lies in one block
    assert np.isnan(half_width(means[:1], np.array([100])))
    for freedom in (1, 2, 3, 4, 11, 80):
        assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-12)
