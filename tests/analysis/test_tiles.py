"""Tiles and sums of heads against the whole matrix in float64: every ingredient of the formula, any array library."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
import weakref

import numpy as np
import pytest

from llamatelemetry_widget.analysis import normalizers as module
from llamatelemetry_widget.analysis.attention import Mask, Scoring, looks, normalizers, replay, seen, stages, tile

from . import reference as ref
from .test_replay import CASES, in_strict


def visible(values: np.ndarray | None, s: Scoring) -> np.ndarray:
    return np.ones((s.rows, s.keys), bool) if values is None else ~np.isneginf(values)


def oracle(s: Scoring, head: int, values: np.ndarray | None, stage: str) -> np.ndarray:
    """float64 (rows, keys) with NaN in masked cells."""
    cells = ref.stage(s, head, values, stage)
    return np.where(visible(values, s), cells, np.nan) if stage in ("masked", "softmax") else cells


def reduced(cells: np.ndarray, rows: slice, keys: slice, size: tuple[int, int]) -> np.ndarray:
    """Cell by cell: the entry of greatest magnitude, NaN where there is none."""
    part = cells[rows, keys]
    bounds = [np.arange(min(n, c) + 1) * n // min(n, c) for n, c in zip(part.shape, size, strict=True)]
    out = np.full([b.size - 1 for b in bounds], np.nan)
    for (i, (a, b)), (j, (c, d)) in itertools.product(*(enumerate(itertools.pairwise(x)) for x in bounds)):
        block = part[a:b, c:d].ravel()
        block = block[~np.isnan(block)]
        if block.size:
            out[i, j] = block[np.abs(block).argmax()]
    return out


@pytest.mark.parametrize("name", CASES)
def test_normalizers_turn_masked_scores_into_weights(name: str) -> None:
    s, values = CASES[name]
    for head in range(s.heads):
        got = normalizers(s, head)
        assert got.dtype == np.float64 and got.shape == (s.rows,)
        p = np.exp(ref.stage(s, head, values, "masked") - got[:, None])
        np.testing.assert_allclose(p, ref.stage(s, head, values), atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_tiles_of_every_stage_are_the_matrix_reduced(name: str) -> None:
    s, values = CASES[name]
    parts = [(slice(None), slice(None)), (slice(1, None), slice(0, s.keys - 1)), (slice(-1, None), slice(None))]
    for stage, head in itertools.product(stages(s), (0, s.heads - 1)):
        whole = oracle(s, head, values, stage)
        for (rows, keys), size in itertools.product(parts, ((1, 1), (4, 7), (640, 640))):
            if s.rows == 1 and rows.start == 1:
                continue
            got = tile(s, head, stage, rows, keys, size)
            want = reduced(whole, rows, keys, size)
            assert got.dtype == np.float32 and got.shape == want.shape
            np.testing.assert_allclose(np.abs(got), np.abs(want), rtol=2e-5, atol=2e-5, err_msg=f"{stage} {rows}")
    np.testing.assert_array_equal(tile(s, 0, threads=3), tile(s, 0))


@pytest.mark.parametrize("name", CASES)
def test_any_array_library_gives_the_same_tiles_and_sums(name: str) -> None:
    s, _ = CASES[name]
    strict, last = in_strict(s), s.rows - 1
    for stage in stages(s):
        np.testing.assert_allclose(
            np.asarray(tile(strict, 0, stage, size=(4, 5))), tile(s, 0, stage, size=(4, 5)), rtol=1e-5, atol=1e-5
        )
    for how, heads in itertools.product(("mean", "max"), (range(s.heads), [s.heads - 1])):
        for sums in (looks, seen):
            got, want = (sums([(x, heads)], [0, last], how) for x in (strict, s))
            np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_sums_are_rows_and_columns_of_the_weights(name: str) -> None:
    s, values = CASES[name]
    seen_here = visible(values, s)
    p = np.stack([ref.stage(s, head, values) for head in range(s.heads)])
    rows, keys = sorted({0, s.rows // 2, s.rows - 1}), sorted({0, s.keys // 2})
    for heads in ([0], list(range(s.heads)), [s.heads - 1, 0]):
        own = p[heads][:, rows].sum(1)
        none = ~seen_here[rows].any(0)
        for how, want in (("mean", own.mean(0)), ("max", own.max(0))):
            np.testing.assert_allclose(looks([(s, heads)], rows, how), np.where(none, np.nan, want), atol=2e-5)
        own = p[heads][:, :, keys].sum(2)
        none = ~seen_here[:, keys].any(1)
        for how, want in (("mean", own.mean(0)), ("max", own.max(0))):
            np.testing.assert_allclose(seen([(s, heads)], keys, how), np.where(none, np.nan, want), atol=2e-5)


def test_sums_run_over_layers_and_say_how_far_they_are() -> None:
    (a, va), (b, vb) = CASES["window"], CASES["fused cap"]
    told: list[tuple[int, int]] = []
    got = seen([(a, [1]), (b, [0, 2])], [3], heard=lambda *x: told.append(x))
    p = ref.stage(a, 1, va)[:, 3], ref.stage(b, 0, vb)[:, 3], ref.stage(b, 2, vb)[:, 3]
    np.testing.assert_allclose(np.nan_to_num(got), np.sum(p, 0) / 3, atol=2e-5)
    assert told == [(0, 2), (1, 2)]
    with pytest.raises(KeyboardInterrupt):
        looks([(a, [0])], [0], heard=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))


def test_a_row_that_sees_nothing_is_nothing() -> None:
    values = ref.causal(9)
    values[4] = -np.inf
    sinks = np.zeros(2, np.float32)
    for s in (ref.scoring(1, 2, 1, 9, 9, values=values), ref.scoring(1, 2, 1, 9, 9, values=values, sinks=sinks)):
        assert np.isinf(normalizers(s, 1)).tolist() == [i == 4 for i in range(9)]
        assert np.isnan(tile(s, 1, size=(9, 3))[4]).all()
        assert np.isnan(seen([(s, [0, 1])], [0])[4]) and np.isnan(looks([(s, [0])], [4])).all()


def test_signed_cells_keep_the_sign_of_the_strongest() -> None:
    s, values = CASES["causal, grouped heads"]
    got, want = tile(s, 5, "masked", size=(4, 4)), oracle(s, 5, values, "masked")
    np.testing.assert_allclose(got, reduced(want, slice(None), slice(None), (4, 4)), atol=2e-5)
    assert (got < 0).any() and (got > 0).any()


def long(n: int, window: int | None = None) -> Scoring:
    stop = np.arange(1, n + 1, dtype=np.int32)
    first = np.maximum(0, stop - (window or n)).astype(np.int32)
    r = np.random.default_rng(3)
    q, k = (r.normal(size=(h, n, 16)).astype(np.float16) for h in (4, 2))
    return Scoring(q, k, None, Mask(first, stop), 0.25)


@pytest.mark.parametrize("window", [None, 100])
def test_blocks_join_without_a_seam(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    s = long(700, window)
    want = tile(s, 3, size=(61, 97)), normalizers(s, 3)
    monkeypatch.setattr(module, "BLOCK", 5000)
    small = long(700, window)
    np.testing.assert_allclose(tile(small, 3, size=(61, 97)), want[0], rtol=1e-6)
    np.testing.assert_allclose(normalizers(small, 3), want[1], rtol=1e-6)
    p = np.where(replay(s, 3, "masked") == -np.inf, np.nan, replay(s, 3))
    np.testing.assert_allclose(want[0], reduced(p, slice(None), slice(None), (61, 97)), rtol=1e-4, atol=1e-7)


def test_memory_stays_linear() -> None:
    n = 4096
    s = long(n)
    tracemalloc.start()
    tile(s, 0)
    seen([(s, range(4))], [5])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6 < n * n * 4  # the matrix would be 67 MB


def test_normalizers_are_kept_as_long_as_their_scoring() -> None:
    s = long(300)
    assert normalizers(s, 2) is not None
    kept = module._kept[s][2]
    seen([(s, [2])], [0])
    assert module._kept[s][2] is kept
    gone = weakref.ref(s)
    del s
    gc.collect()
    assert gone() is None


def test_impossible_requests_say_what_is_possible() -> None:
    s, _ = CASES["fused cap"]
    with pytest.raises(ValueError, match="'biased' does not exist here: choose one of scores, scaled, capped"):
        tile(s, 0, "biased")
    for call in (
        lambda: tile(s, 4),
        lambda: normalizers(s, 4),
        lambda: seen([(s, [4])], [0]),
        lambda: looks([(s, [4])], [0]),
    ):
        with pytest.raises(ValueError, match="head 4 does not exist: this layer has heads 0 to 3"):
            call()
    for rows, size in ((slice(40, 50), (4, 4)), (slice(0, 9, 2), (4, 4)), (slice(None), (0, 4))):
        with pytest.raises(ValueError, match="no part of 33 rows"):
            tile(s, 0, rows=rows, size=size)
    with pytest.raises(ValueError, match="how='sum' is no choice: give 'mean' or 'max'"):
        looks([(s, [0])], [0], "sum")
    with pytest.raises(ValueError, match="no heads were chosen"):
        looks([(s, [])], [0])
    for tokens in ([], [33], [-1]):
        with pytest.raises(ValueError, match="there are tokens 0 to 32"):
            seen([(s, [0])], tokens)
