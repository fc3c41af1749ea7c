"""Probability, loss, entropy and rank of tokens, against float64 and on a strict array library."""

from __future__ import annotations

import array_api_strict as strict
import numpy as np
import pytest

from llamatelemetry_widget.analysis.tokens import TOKEN_STATISTICS, token_statistics


def oracle(logits: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    x = logits.astype(np.float64)
    p = np.exp(x - x.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    own = p[np.arange(len(p)), targets]
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.where(p > 0, -p * np.log(p), 0).sum(1)
    above = (x > x[np.arange(len(x)), targets][:, None]).sum(1)
    return {"probability": own, "loss": -np.log(own), "entropy": information, "rank": 1 + above}


@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
def test_agrees_with_float64(spread):
    r = np.random.default_rng(1)
    logits = (r.normal(size=(40, 5000)) * spread + 100).astype(np.float32)
    targets = np.where(np.arange(40) % 3 == 0, logits.argmax(1), r.integers(0, 5000, 40)).astype(np.int32)
    found, expected = token_statistics(logits, targets), oracle(logits, targets)
    assert tuple(found) == TOKEN_STATISTICS
    np.testing.assert_allclose(found["probability"], expected["probability"], rtol=3e-5, atol=1e-12)
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(found["entropy"], expected["entropy"], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found["rank"], expected["rank"])


def test_words_that_cannot_come_add_nothing():
    logits = np.array([[0.0, -np.inf, 0.0, 0.0]], np.float32)
    found = token_statistics(logits, np.array([2]))
    assert found["entropy"][0] == pytest.approx(np.log(3), abs=1e-6)
    assert found["rank"][0] == 1 and found["probability"][0] == pytest.approx(1 / 3)


def test_a_strict_array_library_gives_the_same():
    r = np.random.default_rng(2)
    logits, targets = r.normal(size=(6, 50)).astype(np.float32), r.integers(0, 50, 6)
    here, there = token_statistics(logits, targets), token_statistics(strict.asarray(logits), strict.asarray(targets))
    for name in TOKEN_STATISTICS:
        np.testing.assert_allclose(np.asarray(there[name]), here[name], rtol=1e-6)
