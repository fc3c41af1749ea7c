"""Statistics and thumbnails of all heads, against their definitions on whole matrices; the fast path and the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import llamatelemetry_widget.analysis.reduce as any_library
from llamatelemetry_widget.analysis import blocks
from llamatelemetry_widget.analysis.attention import (
    STATISTICS,
    Mask,
    Reduced,
    Scoring,
    decode_thumbnail,
    name_head,
    reduce,
    replay,
)
from llamatelemetry_widget.analysis.reduce import reduce_any
from llamatelemetry_widget.analysis.rows import row_facts

from . import reference as ref
from .test_replay import CASES, in_strict

TOKENS = {name: np.arange(s.keys, dtype=np.int32) * 7 % 11 for name, (s, _) in CASES.items()}


def by_definition(p: np.ndarray, ids: np.ndarray) -> dict[str, float]:
    """Statistics of one causal float64 matrix, as the module `statistics` words them."""
    n = len(p)
    i, j = np.arange(n)[:, None], np.arange(n)[None, :]
    distance = (p * np.abs(i - j)).sum(1)
    earlier = (ids[:, None] == ids[None, :]) & (j < i)
    after = np.zeros_like(earlier)
    after[:, 1:] = earlier[:, :-1]
    again = earlier.any(1)
    information = -(p * np.log(np.where(p > 0, p, 1))).sum(1)
    rows = np.arange(1, n)
    return {
        "induction": (p * after).sum(1)[again].mean() if again.any() else np.nan,
        "previous_token": p[rows, rows - 1].mean(),
        "sink": p[1:, 0].mean(),
        "locality": (1 - distance[1:] / rows).mean(),
        "entropy": (information[1:] / np.log(rows + 1)).mean(),
        "duplicate_token": (p * earlier).sum(1)[again].mean() if again.any() else np.nan,
        "diagonal": p[rows, rows].mean(),
        "mean_distance": distance[1:].mean(),
        "max_weight": p[1:].max(1).mean(),
    }


def pooled(p: np.ndarray, side: int, how: str) -> np.ndarray:
    """Thumbnail of one float64 matrix, cell by cell."""
    rows, keys = min(side, p.shape[0]), min(side, p.shape[1])
    out = np.zeros((rows, keys))
    for r in range(rows):
        for c in range(keys):
            a, b = (k * p.shape[0] // rows for k in (r, r + 1))
            x, y = (k * p.shape[1] // keys for k in (c, c + 1))
            out[r, c] = getattr(p[a:b, x:y], how)()
    return out


def assert_same(a: Reduced, b: Reduced) -> None:
    for name in STATISTICS:
        mine, other = np.asarray(a.statistics[name]), np.asarray(b.statistics[name])
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=2e-6, err_msg=name)
    for mine, other in ((a.thumb_max, b.thumb_max), (a.thumb_mean, b.thumb_mean)):
        assert mine.shape == other.shape
        difference = np.abs(np.asarray(mine).astype(int) - np.asarray(other).astype(int))
        assert difference.max() <= 1  # a value between two codes may go either way


@pytest.mark.parametrize("n", [2, 5, 33, 64, 65, 300])
def test_statistics_are_what_they_say(n: int) -> None:
    s = ref.scoring(n, 6, 2, n, n, values=ref.causal(n))
    ids = np.arange(n) * 5 % (2 + n // 3)
    got = reduce(s, ids)
    for head in range(6):
        want = by_definition(replay(s, head).astype(np.float64), ids)
        for name in STATISTICS:
            assert got.statistics[name].dtype == np.float32
            np.testing.assert_allclose(got.statistics[name][head], want[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("n", "side"), [(1, 64), (24, 64), (64, 64), (65, 64), (300, 64), (300, 7), (129, 1)])
def test_thumbnails_hold_the_greatest_and_the_mean_of_each_cell(n: int, side: int) -> None:
    s = ref.scoring(n, 4, 2, n, n, values=ref.causal(n))
    got = reduce(s, None, side=side)
    assert got.thumb_max.shape == got.thumb_mean.shape == (4, min(n, side), min(n, side))
    for head in range(4):
        p = replay(s, head).astype(np.float64)
        for codes, how in ((got.thumb_max[head], "max"), (got.thumb_mean[head], "mean")):
            want = pooled(p, side, how)
            np.testing.assert_allclose(
                decode_thumbnail(codes), np.where(want < 0.98e-4, 0, want), rtol=0.02, atol=1.03e-4
            )
            assert (codes[want < 0.98e-4] == 0).all() and (codes[want > 1.02e-4] > 0).all()


def test_every_code_decodes_to_its_probability() -> None:
    c = np.arange(256, dtype=np.uint8)
    want = np.where(c == 0, 0, 10.0 ** (-4 * (255 - c.astype(float)) / 254))
    np.testing.assert_allclose(decode_thumbnail(c), want, rtol=1e-6)
    assert decode_thumbnail(c).dtype == np.float32 and decode_thumbnail(c)[255] == 1


@pytest.mark.parametrize("name", CASES)
def test_the_fast_path_and_any_array_library_agree(name: str) -> None:
    s, _ = CASES[name]
    assert_same(reduce(s, TOKENS[name], side=8), reduce(in_strict(s), TOKENS[name], side=8))


@pytest.mark.parametrize("cells", [300, 2000, 40_000])
@pytest.mark.parametrize(
    "case", ["causal", "window", "holes", "ALiBi", "large scores", "many heads of one KV head", "tail"]
)
def test_the_size_of_blocks_and_the_number_of_threads_change_nothing(
    case: str, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, values, more = 150, ref.causal(150), {}
    if case == "window":
        values = ref.causal(n, window=20)
    elif case == "holes":
        values[np.random.default_rng(1).random((n, n)) < 0.3] = -np.inf
    elif case == "ALiBi":
        values, more = ref.alibi(n), {"max_bias": 8.0}
    elif case == "tail":
        values = values[100:]
    heads, kv_heads = (12, 1) if case.startswith("many") else (8, 4)
    s = ref.scoring(3, heads, kv_heads, len(values), n, values=values, **more)
    if case == "large scores":
        s = replace(s, q=s.q * np.float16(40))
    ids = np.arange(n, dtype=np.int32) % 40
    monkeypatch.setattr(blocks, "_plans", ())
    whole = reduce_any(s, row_facts(s, ids), 64)
    monkeypatch.setattr(blocks, "_CELLS", cells)
    one, four = reduce(s, ids), reduce(s, ids, threads=4)
    assert_same(one, whole)
    for name in STATISTICS:
        np.testing.assert_array_equal(one.statistics[name], four.statistics[name])
    np.testing.assert_array_equal(one.thumb_max, four.thumb_max)
    np.testing.assert_array_equal(one.thumb_mean, four.thumb_mean)


def test_layers_with_other_masks_tokens_or_sizes_do_not_share_a_plan() -> None:
    n = 40
    ids = np.arange(n) % 9
    s = ref.scoring(1, 4, 2, n, n, values=ref.causal(n))
    changed = {
        "window": (replace(s, mask=Mask.from_values(ref.causal(n, window=5))), ids, 64),
        "no mask": (replace(s, mask=None), ids, 64),
        "tokens": (s, ids[::-1], 64),
        "no tokens": (s, None, 64),
        "side": (s, ids, 9),
    }
    for layer, tokens, side in changed.values():
        reduce(s, ids)
        assert_same(reduce(layer, tokens, side=side), reduce_any(layer, row_facts(layer, tokens), side))


def test_a_repeated_text_gives_an_induction_head_its_full_score() -> None:
    n = 20  # ten tokens, twice; queries that match the key after their own earlier occurrence
    one_hot = np.eye(n, dtype=np.float16)
    q = np.roll(one_hot, -9, axis=1) * np.float16(50)  # row i points at key i - 10 + 1
    q[:10] = 0
    s = Scoring(q[None], one_hot[None], None, Mask.from_values(ref.causal(n)), 1.0)
    stats = {name: float(x[0]) for name, x in reduce(s, np.arange(n) % 10).statistics.items()}
    assert stats["induction"] == pytest.approx(1, abs=1e-5) and stats["duplicate_token"] < 1e-5
    assert name_head(stats) == "induction head"


def test_cross_attention_has_no_positions() -> None:
    s, _ = CASES["cross attention"]
    for tokens in (None, np.arange(6)):
        found = {name for name, x in reduce(s, tokens).statistics.items() if np.isfinite(x).all()}
        assert found == {"sink", "entropy", "max_weight"}


def test_text_without_repetition_has_no_induction() -> None:
    s, _ = CASES["causal, grouped heads"]
    stats = reduce(s, np.arange(33)).statistics
    assert np.isnan(stats["induction"]).all() and np.isnan(stats["duplicate_token"]).all()
    assert np.isfinite(stats["previous_token"]).all()


def test_a_text_of_one_token_only_is_one_long_repetition() -> None:
    s = ref.scoring(1, 4, 2, 200, 200, values=ref.causal(200))
    ids = np.zeros(200, np.int32)
    assert_same(reduce(s, ids), reduce(in_strict(s), ids))


def test_nan_stays_in_the_heads_that_have_it() -> None:
    s, _ = CASES["causal, grouped heads"]
    q = s.q.copy()
    q[4, 20] = np.nan
    bad = reduce(replace(s, q=q), TOKENS["causal, grouped heads"], side=8)
    good = reduce(s, TOKENS["causal, grouped heads"], side=8)
    assert np.isnan(bad.statistics["entropy"]).tolist() == [False] * 4 + [True, False]
    np.testing.assert_array_equal(bad.thumb_max[:4], good.thumb_max[:4])
    np.testing.assert_array_equal(bad.thumb_max[4, 0], good.thumb_max[4, 0])
    assert_same(bad, reduce(in_strict(replace(s, q=q)), TOKENS["causal, grouped heads"], side=8))


def test_rows_that_see_nothing_are_left_out() -> None:
    values = ref.causal(30)
    values[12:15] = -np.inf
    s = ref.scoring(2, 4, 2, 30, 30, values=values)
    got = reduce(s, np.arange(30) % 7, side=30)
    assert all(np.isfinite(x).all() for x in got.statistics.values())
    assert (got.thumb_max[:, 12:15] == 0).all()
    assert_same(got, reduce(in_strict(s), np.arange(30) % 7, side=30))


def test_a_single_token_attends_to_itself() -> None:
    s, _ = CASES["one token"]
    stats = {name: x.round(6).tolist() for name, x in reduce(s, np.array([5])).statistics.items()}
    assert stats["sink"] == stats["diagonal"] == stats["max_weight"] == stats["locality"] == [1, 1]
    assert stats["entropy"] == stats["mean_distance"] == stats["previous_token"] == [0, 0]


def test_impossible_requests_are_refused() -> None:
    s, _ = CASES["no mask"]
    with pytest.raises(ValueError, match="nothing to reduce: 0 query rows and 21 keys"):
        reduce(replace(s, q=s.q[:, :0]), None)
    with pytest.raises(ValueError, match="side 0 and threads 1 must be at least 1"):
        reduce(s, None, side=0)


@pytest.mark.parametrize(
    ("stats", "name"),
    [
        ({"induction": 0.5, "sink": 0.7}, "induction head"),
        ({"previous_token": 0.77, "induction": np.nan}, "previous-token head"),
        ({"duplicate_token": 0.4}, "duplicate-token head"),
        ({"diagonal": 0.6}, "diagonal head"),
        ({"sink": 0.95}, "sink head"),
        ({"entropy": 0.9}, "broad head"),
        ({"induction": 0.1, "previous_token": 0.3, "sink": 0.6, "entropy": 0.5}, None),
        ({"induction": 0.9, "duplicate_token": 0.9}, None),
        ({}, None),
    ],
)
def test_only_one_clear_pattern_gives_a_name(stats: dict[str, float], name: str | None) -> None:
    assert name_head(stats) == name


@pytest.mark.parametrize("cells", [1, 200, 2500, 1 << 22], ids=["a row", "some rows", "some heads", "all"])
@pytest.mark.parametrize("name", CASES)
def test_blocks_of_any_size_give_the_same_and_are_few(name: str, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    s, _ = CASES[name]
    done, sums = [], any_library._sums

    def counted(*given: object) -> object:
        done.append(given)
        return sums(*given)

    monkeypatch.setattr(any_library, "_CELLS", cells)
    monkeypatch.setattr(any_library, "_sums", counted)
    assert_same(reduce(in_strict(s), TOKENS[name], side=8), reduce(s, TOKENS[name], side=8))
    if cells >= s.heads * s.rows * s.keys:
        assert len(done) == 1  # a GPU takes its time to begin with each
