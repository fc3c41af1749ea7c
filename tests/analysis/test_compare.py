"""Distances of heads against their definitions in float64, cell by cell; overlap, and the clustered order."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamatelemetry_widget.analysis import compare as module
from llamatelemetry_widget.analysis.attention import Mask, Scoring
from llamatelemetry_widget.analysis.compare import cluster, compare, overlap, spread_rows

from . import reference as ref
from .test_replay import CASES, in_strict

LINKAGE = Path(__file__).parents[1] / "data" / "linkage.npz"


def moved(s: Scoring, by: float = 0.3) -> Scoring:
    """The same layer with other queries: what another quant type does."""
    noise = np.random.default_rng(99).normal(size=s.q.shape).astype(np.float16)
    return replace(s, q=(s.q + noise * np.float16(by)).astype(np.float16))


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Jensen-Shannon divergence in bits as its definition words it."""
    total = 0.0
    for x in (p, q):
        total += sum(a * np.log2(a / m) for a, m in zip(x, (p + q) / 2, strict=True) if a > 0) / 2
    return total


def whole(p: np.ndarray, sinks: bool) -> np.ndarray:
    """float64 rows that sum to 1: what a learned sink takes is a key of its own."""
    rest = 1 - p.sum(1, keepdims=True) if sinks else np.zeros((len(p), 1))
    return np.concatenate([p, rest], 1)


def widen(p: np.ndarray, keys: int) -> np.ndarray:
    return np.pad(p, ((0, 0), (0, keys - p.shape[1])))


def by_definition(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """JS and TV of every row of two float64 matrices."""
    js = np.array([divergence(p, q) for p, q in zip(a, b, strict=True)])
    return js, np.abs(a - b).sum(1) / 2


@pytest.mark.parametrize("name", CASES)
def test_distances_are_what_they_say(name: str) -> None:
    s, values = CASES[name]
    other = moved(s)
    got = compare(s, other)
    seen = np.isfinite(values).sum(1) if values is not None else np.full(s.rows, s.keys)
    counted = (seen >= 2) if (seen >= 2).any() else seen > 0
    for head in range(s.heads):
        a, b = (whole(ref.stage(x, head, values), s.sinks is not None) for x in (s, other))
        js, tv = by_definition(a, b)
        np.testing.assert_allclose(got.js_rows[head][counted], js[counted], atol=2e-6)
        np.testing.assert_allclose(got.tv_rows[head][counted], tv[counted], atol=2e-6)
        assert np.isnan(got.js_rows[head][~counted]).all() and np.isnan(got.tv_rows[head][~counted]).all()
        np.testing.assert_allclose([got.js[head], got.tv[head]], [js[counted].mean(), tv[counted].mean()], atol=2e-6)
    assert got.js.dtype == got.tv_rows.dtype == np.float32


@pytest.mark.parametrize("name", CASES)
def test_any_array_library_gives_the_same(name: str) -> None:
    s, _ = CASES[name]
    mine, strict = compare(s, moved(s)), compare(in_strict(s), in_strict(moved(s)))
    for field in ("js", "tv", "js_rows", "tv_rows"):
        np.testing.assert_allclose(np.asarray(getattr(strict, field)), getattr(mine, field), atol=1e-6)
    np.testing.assert_allclose(np.asarray(overlap([in_strict(s)])), overlap([s]), atol=1e-5)


def test_the_same_head_is_at_no_distance_and_heads_without_a_common_key_at_one() -> None:
    n = 40
    s = ref.scoring(3, 4, 2, n, n, values=ref.causal(n))
    same = compare(s, s)
    assert (same.js == 0).all() and (same.tv == 0).all()
    even, odd = (np.where(np.arange(n)[None, :] % 2 == side, 0.0, -np.inf) + np.zeros((n, n)) for side in (0, 1))
    apart = compare(replace(s, mask=Mask.from_values(even)), replace(s, mask=Mask.from_values(odd)))
    np.testing.assert_allclose(apart.js, 1, atol=1e-6)
    np.testing.assert_allclose(apart.tv, 1, atol=1e-6)


def test_a_tiny_change_is_not_lost_in_rounding() -> None:
    n = 64
    s = ref.scoring(4, 2, 1, n, n, values=ref.causal(n))
    got = compare(s, moved(s, 0.002))
    js = [
        by_definition(ref.stage(s, h, ref.causal(n)), ref.stage(moved(s, 0.002), h, ref.causal(n)))[0] for h in (0, 1)
    ]
    want = np.array([x[1:].mean() for x in js])
    assert (want < 1e-5).all() and (got.js > 0).all()
    np.testing.assert_allclose(got.js, want, atol=2e-7)


@pytest.mark.parametrize("cells", [50, 700, 1 << 18])
@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_and_threads_change_nothing(cells: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 150
    s = ref.scoring(5, 4, 2, n, n, values=ref.causal(n, window=20))
    want = compare(s, moved(s))
    monkeypatch.setattr(module, "_CELLS", cells)
    got = compare(s, moved(s), threads=threads)
    for field in ("js", "tv", "js_rows", "tv_rows"):
        np.testing.assert_allclose(getattr(got, field), getattr(want, field), atol=1e-6)


def test_any_pair_of_heads_and_any_rows() -> None:
    a, b = (ref.scoring(i, heads, 2, 30, 30, values=ref.causal(30)) for i, heads in ((1, 4), (2, 6)))
    got = compare(a, b, pairs=[(0, 5), (3, 3), (0, 0)], rows=np.array([3, 17, 29]))
    assert got.js_rows.shape == (3, 3)
    for at, (i, j) in enumerate([(0, 5), (3, 3), (0, 0)]):
        js, tv = by_definition(ref.stage(a, i, ref.causal(30)), ref.stage(b, j, ref.causal(30)))
        np.testing.assert_allclose(got.js_rows[at], js[[3, 17, 29]], atol=2e-6)
        np.testing.assert_allclose(got.tv_rows[at], tv[[3, 17, 29]], atol=2e-6)


def test_texts_of_different_lengths_are_compared_by_position() -> None:
    short, long = (ref.scoring(i, 4, 2, n, n, values=ref.causal(n)) for i, n in ((1, 12), (2, 20)))
    got = compare(short, long)
    assert got.js_rows.shape == (4, 12)
    a = widen(ref.stage(short, 1, ref.causal(12)), 20)
    js, tv = by_definition(a, ref.stage(long, 1, ref.causal(20))[:12])
    np.testing.assert_allclose(got.js[1], js[1:].mean(), atol=2e-6)
    np.testing.assert_allclose(got.tv[1], tv[1:].mean(), atol=2e-6)


def test_a_sink_against_none_and_a_window_against_all() -> None:
    n = 24
    values, window = ref.causal(n), ref.causal(n, window=5)
    s = ref.scoring(10, 4, 2, n, n, values=values, sinks=np.array([3, 0, -3, 1], np.float32))
    plain, narrow = replace(s, sinks=None), replace(s, sinks=None, mask=Mask.from_values(window))
    for other, mask in ((plain, values), (narrow, window)):
        got = compare(s, other)
        a, b = whole(ref.stage(s, 0, values), True), whole(ref.stage(other, 0, mask), False)
        js, tv = by_definition(a, b)
        np.testing.assert_allclose([got.js[0], got.tv[0]], [js[1:].mean(), tv[1:].mean()], atol=2e-6)


def test_rows_that_see_nothing_are_not_counted() -> None:
    values = ref.causal(10)
    values[4] = -np.inf
    s = ref.scoring(1, 2, 1, 10, 10, values=values)
    got = compare(s, moved(s))
    assert np.isnan(got.js_rows[:, [0, 4]]).all() and np.isfinite(got.js).all()
    blind = replace(s, mask=Mask.from_values(np.full((10, 10), -np.inf)))
    assert np.isnan(compare(s, blind).js).all()


@pytest.mark.parametrize(
    ("more", "words"),
    [({"pairs": [(4, 0)]}, "head 4 does not exist: a has heads 0 to 3"), ({"rows": [0, 30]}, "rows are 0 to 29")],
)
def test_what_does_not_exist_is_refused(more: dict[str, object], words: str) -> None:
    s = ref.scoring(1, 4, 2, 30, 30, values=ref.causal(30))
    with pytest.raises(ValueError, match=words):
        compare(s, s, **more)  # type: ignore[arg-type]


def test_memory_is_linear_in_tokens() -> None:
    def peak(n: int) -> int:
        every = np.arange(n, dtype=np.int32)
        s = replace(ref.scoring(1, 4, 2, n, n, d=8), mask=Mask(np.zeros_like(every), every + 1))
        tracemalloc.start()
        compare(s, s, rows=np.arange(0, n, 8))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(4096) < 2.5 * peak(2048)


# --------------------------------------------------------------------------- overlap


def test_overlap_is_the_mean_bhattacharyya_coefficient() -> None:
    n = 20
    values, window = ref.causal(n), ref.causal(n, window=4)
    layers = [ref.scoring(1, 4, 2, n, n, values=values), ref.scoring(2, 2, 1, n, n, values=window)]
    p = [ref.stage(layers[0], h, values) for h in range(4)] + [ref.stage(layers[1], h, window) for h in range(2)]
    want = np.array([[np.sqrt(a * b).sum(1)[1:].mean() for b in p] for a in p])
    got = overlap(layers)
    assert got.shape == (6, 6) and got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(np.diag(got), 1, atol=1e-5)
    some = np.array([5, 19])
    want = np.array([[np.sqrt(a * b).sum(1)[some].mean() for b in p] for a in p])
    np.testing.assert_allclose(overlap(layers, some), want, atol=1e-5)


def test_layers_of_different_texts_have_no_overlap() -> None:
    with pytest.raises(ValueError, match="same query rows and keys"):
        overlap([ref.scoring(1, 2, 1, 9, 9), ref.scoring(1, 2, 1, 10, 10)])


def test_rows_are_spread_evenly_and_end_with_the_last() -> None:
    assert spread_rows(10, 100, 1000).tolist() == list(range(10))
    assert spread_rows(10, 100, 500).tolist() == [1, 3, 5, 7, 9]
    assert spread_rows(4096, 1 << 20, 1000).tolist() == [4095]


# ------------------------------------------------------------------------ clustering


def naive(similarity: np.ndarray) -> list[float]:
    """Heights of average linkage from its definition: the mean over all pairs of members."""
    groups, heights = [[i] for i in range(len(similarity))], []
    while len(groups) > 1:
        pairs = [(i, j) for i in range(len(groups)) for j in range(i)]
        means = [(1 - similarity[np.ix_(groups[i], groups[j])]).mean() for i, j in pairs]
        i, j = pairs[int(np.argmin(means))]
        heights.append(min(means))
        groups[j] += groups.pop(i)
    return heights


def test_linkage_is_scipys() -> None:
    stored = np.load(LINKAGE)
    order, merges = cluster(stored["similarity"])
    np.testing.assert_allclose(merges, stored["merges"], atol=1e-12)
    assert sorted(order.tolist()) == list(range(40))


@pytest.mark.parametrize("seed", range(3))
def test_linkage_follows_its_definition_on_heads(seed: int) -> None:
    s = ref.scoring(seed, 12, 3, 16, 16, values=ref.causal(16))
    alike = overlap([s, moved(s, 0.1)]).astype(np.float64)
    alike = (alike + alike.T) / 2
    np.testing.assert_allclose(cluster(alike)[1][:, 2], naive(alike), atol=1e-9)


def test_the_order_keeps_groups_together_and_puts_like_ends_side_by_side() -> None:
    place = np.array([0.0, 5.0, 0.1, 5.1, 0.2, 9.0])
    order, merges = cluster(1 - np.abs(place[:, None] - place[None, :]) / 10)
    assert place[order].tolist() in (sorted(place), sorted(place)[::-1])
    assert merges[-1, 3] == 6


@pytest.mark.parametrize("n", [1, 2])
def test_few_heads_have_an_order_too(n: int) -> None:
    order, merges = cluster(np.eye(n))
    assert sorted(order.tolist()) == list(range(n)) and merges.shape == (n - 1, 4)


def test_heads_without_a_number_do_not_stop_the_rest() -> None:
    alike = np.full((3, 3), np.nan)
    alike[:2, :2] = 0.9
    assert sorted(cluster(alike)[0].tolist()) == [0, 1, 2]


def test_a_thousand_heads_are_clustered_in_a_second() -> None:
    alike = np.random.default_rng(0).random((1024, 1024))
    start = time.perf_counter()
    order, _ = cluster(alike)
    assert time.perf_counter() - start < 1
    assert sorted(order.tolist()) == list(range(1024))
