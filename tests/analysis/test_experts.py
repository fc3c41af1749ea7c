"""What the numbers of the routing mean, on NumPy and on strict arrays."""

from __future__ import annotations

import array_api_strict as strict
import numpy as np
import pytest

from llamatelemetry_widget.analysis import experts

IDS = np.array([[0, 2], [2, 1], [2, 3]], np.int32)
WEIGHTS = np.array([[0.75, 0.25], [0.5, 0.5], [1.5, 0.5]], np.float32)


@pytest.fixture(params=["numpy", "strict"])
def array(request):
    """Makes an array of the library."""
    return np.asarray if request.param == "numpy" else strict.asarray


def back(x):
    return np.from_dlpack(x) if not isinstance(x, np.ndarray) else x


def test_table_holds_what_was_chosen_and_no_value_elsewhere(array):
    table = back(experts.token_table(array(IDS), array(WEIGHTS), 5))
    no = np.nan
    expected = [[0.75, no, 0.25, no, no], [no, 0.5, 0.5, no, no], [no, no, 1.5, 0.5, no]]
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table, np.array(expected, np.float32))


def test_loads_sum_to_one(array):
    assert back(experts.counts(array(IDS), 5)).tolist() == [1, 1, 3, 1, 0]
    load = back(experts.load(array(IDS), 5))
    np.testing.assert_allclose(load, np.array([1, 1, 3, 1, 0]) / 6, rtol=1e-6)
    weighted = back(experts.weighted_load(array(IDS), array(WEIGHTS), 5))
    np.testing.assert_allclose(weighted, np.array([0.75, 0.5, 0.25 + 0.5 + 0.75, 0.25, 0]) / 3, rtol=1e-6)
    assert weighted.sum() == pytest.approx(1)


def test_entropies_in_bits_and_as_a_share(array):
    bits = back(experts.entropy(experts.shares(array(WEIGHTS))))
    quarter = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    np.testing.assert_allclose(bits, [quarter, 1, quarter], rtol=1e-6)
    even = array(np.full((1, 4), 0.25, np.float32))
    assert float(experts.entropy(even)[0]) == 2
    assert float(experts.evenness(even)[0]) == 1
    one = array(np.array([[1.0, 0.0]], np.float32))
    assert float(experts.entropy(one)[0]) == 0
    assert not np.signbit(back(experts.entropy(one))).any()


def test_no_choice_and_no_weights_have_no_value(array):
    """One expert per token is no choice; weights that are not known, or sum to nothing, are no zeros."""
    assert np.isnan(back(experts.evenness(array(np.ones((2, 1), np.float32))))).all()
    nothing = array(np.array([[0.0, 0.0], [np.nan, np.nan]], np.float32))
    assert np.isnan(back(experts.shares(nothing))).all()
    assert np.isnan(back(experts.entropy(experts.shares(nothing)))).all()


def test_no_tokens_at_all(array):
    ids, weights = array(np.zeros((0, 2), np.int32)), array(np.zeros((0, 2), np.float32))
    assert back(experts.load(ids, 4)).tolist() == [0] * 4
    assert back(experts.weighted_load(ids, weights, 4)).tolist() == [0] * 4
    assert back(experts.token_table(ids, weights, 4)).shape == (0, 4)
