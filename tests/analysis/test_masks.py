"""Masks: read from llama.cpp's values, joined over ubatches, kept linear where they are intervals."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest

from llamatelemetry_widget.analysis.attention import Mask

from . import reference as ref


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("window", [None, 1, 4])
def test_causal_and_windowed_masks_are_intervals(dtype: type, window: int | None) -> None:
    values = ref.causal(12, window, dtype=dtype)
    mask = Mask.from_values(values)
    assert mask.bits is None and not mask.distance and mask.first.dtype == np.int32
    np.testing.assert_array_equal(mask.visible(slice(None), 12), values == 0)
    np.testing.assert_array_equal(mask.visible_counts(), (values == 0).sum(1))


def test_padding_past_the_last_key_is_never_visible() -> None:
    values = np.full((5, 256), -np.inf, np.float16)
    values[:, :5] = ref.causal(5)
    mask = Mask.from_values(values)
    assert mask.stop.tolist() == [1, 2, 3, 4, 5] and mask.visible(slice(None), 5).shape == (5, 5)


def test_holes_are_kept_as_bits() -> None:
    values = ref.causal(6)
    values[5, 2] = -np.inf
    mask = Mask.from_values(values)
    assert mask.bits is not None and mask.visible_counts().tolist() == [1, 2, 3, 4, 5, 5]
    np.testing.assert_array_equal(mask.visible([5], 9)[0], [1, 1, 0, 1, 1, 1, 0, 0, 0])


@pytest.mark.parametrize(("dtype", "widened"), [(np.float16, False), (np.float16, True), (np.float32, False)])
def test_distances_are_known_from_every_ubatch(dtype: type, widened: bool) -> None:
    values = ref.alibi(3000, dtype)  # past 2048 a half cannot hold every integer
    if widened:
        values = values.astype(np.float32)
    whole = Mask.join([Mask.from_values(values[a : a + 500, : a + 500], offset=a) for a in range(0, 3000, 500)])
    assert whole.distance and whole.bits is None
    assert whole.first.tolist() == [0] * 3000 and whole.stop.tolist() == list(range(1, 3001))


def test_ubatches_of_different_width_join_with_and_without_bits() -> None:
    values = ref.causal(10)
    values[7, 3] = -np.inf
    whole = Mask.join([Mask.from_values(values[:4, :4]), Mask.from_values(values[4:, :10], offset=4)])
    np.testing.assert_array_equal(whole.visible(slice(None), 10), values == 0)
    plain = Mask.join([Mask.from_values(ref.causal(10)[:4]), Mask.from_values(ref.causal(10)[4:], offset=4)])
    assert plain.bits is None and plain.stop.tolist() == list(range(1, 11))


def test_a_row_that_sees_nothing_is_an_empty_interval() -> None:
    mask = Mask.from_values(np.full((2, 4), -np.inf, np.float32))
    assert mask.first.tolist() == [0, 0] and mask.stop.tolist() == [0, 0] and mask.visible_counts().tolist() == [0, 0]


def test_positions_come_from_causal_rows_or_from_the_offset() -> None:
    assert Mask.from_values(ref.causal(3, keys=9)).positions().tolist() == [6, 7, 8]
    assert Mask.from_values(np.zeros((3, 9), np.float32), offset=2).positions().tolist() == [2, 3, 4]


def test_unknown_values_are_refused_by_value_and_place() -> None:
    values = ref.causal(4)
    values[2, 1] = -7.5
    with pytest.raises(ValueError, match=r"mask value -7.5 at row 2, key 1 is neither 0, -inf nor"):
        Mask.from_values(values)
    with pytest.raises(ValueError, match="no masks to join"):
        Mask.join([])


def test_any_array_library_reads_the_same_mask() -> None:
    values = ref.alibi(9)
    values[6, 2] = -np.inf
    strict = Mask.from_values(array_api_strict.asarray(values))
    mine = Mask.from_values(values)
    for name in ("first", "stop", "bits"):
        np.testing.assert_array_equal(np.asarray(getattr(strict, name)), getattr(mine, name))
