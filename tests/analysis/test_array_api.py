"""`analysis` on any array library: nothing but the standard is used, and what goes in as its arrays comes out as them.

`array-api-strict` stands for a library of a GPU: it has no more than the standard, and NumPy may not touch its arrays
without being asked.
"""

from __future__ import annotations

import inspect

import array_api_strict
import numpy as np
import pytest

from llamatelemetry_widget.analysis import attention
from llamatelemetry_widget.analysis.arrays import as_half, host
from llamatelemetry_widget.analysis.statistics import STATISTICS

from .test_replay import CASES, in_strict


def ends(s):
    """First and last row."""
    return [0, s.rows - 1]


#: Every function of `analysis.attention` that takes a scoring's arrays.
CALLS = {
    "replay": lambda s: [attention.replay(s, 0, stage) for stage in attention.stages(s)],
    "output": lambda s: [attention.output(s, ends(s))],
    "check": lambda s: [attention.check(s, attention.output(s, ends(s)), ends(s))],
    "reduce": lambda s: [attention.reduce(s, None, side=8).thumb_max],
    "tile": lambda s: [attention.tile(s, 0, size=(4, 5))],
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", CASES)
def test_the_same_on_a_strict_library_and_its_own_arrays_come_out(name, call):
    s, _ = CASES[name]
    strict, plain = CALLS[call](in_strict(s)), CALLS[call](s)
    for got, want in zip(strict, plain, strict=True):
        assert type(got).__module__.startswith("array_api_strict"), call
        np.testing.assert_allclose(np.asarray(got), want, rtol=1e-5, atol=2e-5)


def test_every_function_of_attention_is_called_above_or_takes_no_scoring():
    functions = {name for name in attention.__all__ if inspect.isfunction(getattr(attention, name))}
    assert functions - set(CALLS) == {
        "alibi_slopes", "decode_thumbnail", "looks", "name_head", "normalizers", "normalizers_of", "seen", "stages",
    }  # fmt: skip


def test_statistics_stay_in_the_library():
    s = in_strict(CASES["causal, grouped heads"][0])
    reduced = attention.reduce(s, np.arange(s.keys), side=8)
    for name in STATISTICS:
        assert type(reduced.statistics[name]).__module__.startswith("array_api_strict")


def test_sums_and_normalizers_are_numbers_of_the_host():
    plain = CASES["causal, grouped heads"][0]
    for function in attention.looks, attention.seen:
        got, want = (function([(s, [0, 3])], [2]) for s in (in_strict(plain), plain))
        np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(attention.normalizers(in_strict(plain), 1), attention.normalizers(plain, 1), rtol=1e-6)


def test_half_precision_only_where_the_library_has_it():
    values = array_api_strict.asarray(np.float32([1.0001, 2]))
    assert as_half(values) is values and as_half(np.float32([1.0001]))[0] == np.float16(1.0001)
    assert isinstance(host(values), np.ndarray)
