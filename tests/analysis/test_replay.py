"""Replay of attention: every ingredient of llama.cpp's formula, alone and together, against the formula in float64."""

from __future__ import annotations

from dataclasses import replace

import array_api_strict
import numpy as np
import pytest

from llamatelemetry_widget.analysis.attention import Mask, Scoring, check, output, replay, stages

from . import reference as ref


def cases() -> dict[str, tuple[Scoring, np.ndarray | None]]:
    """Name -> (scoring, mask values)."""
    r = np.random.default_rng(7)
    full, window, distant = ref.causal(33), ref.causal(33, window=7), ref.alibi(33)
    two_texts = np.where(np.arange(33)[:, None] // 16 == np.arange(33)[None, :] // 16, full, -np.inf)
    odd = ref.causal(33)
    odd[20:, 3:9:2] = -np.inf
    return {
        "no mask": (ref.scoring(1, 4, 4, 21, 21), None),
        "causal, grouped heads": (ref.scoring(2, 6, 2, 33, 33, values=full), full),
        "one KV head": (ref.scoring(3, 8, 1, 33, 33, values=full), full),
        "window": (ref.scoring(4, 4, 2, 33, 33, values=window), window),
        "two texts in one batch": (ref.scoring(5, 4, 2, 33, 33, values=two_texts), two_texts),
        "holes in the mask": (ref.scoring(6, 4, 2, 33, 33, values=odd), odd),
        "fused cap": (ref.scoring(7, 4, 2, 33, 33, values=full, soft_cap=2.0), full),
        "unfused cap": (ref.scoring(8, 4, 2, 33, 33, values=full, soft_cap=20.0, fused=False), full),
        "bias": (ref.scoring(9, 4, 4, 33, 33, values=full, bias=r.normal(size=(4, 33, 33)).astype(np.float32)), full),
        "sinks": (ref.scoring(10, 4, 2, 33, 33, values=full, sinks=r.normal(size=4).astype(np.float32) * 3), full),
        "ALiBi": (ref.scoring(11, 8, 8, 33, 33, values=distant, max_bias=8.0), distant),
        "cross attention": (ref.scoring(12, 4, 4, 6, 24), None),
        "last rows only": (ref.scoring(13, 4, 2, 5, 33, values=ref.causal(5, keys=33)), ref.causal(5, keys=33)),
        "one token": (ref.scoring(14, 2, 1, 1, 1, values=ref.causal(1)), ref.causal(1)),
    }


CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_every_stage_follows_the_formula(name: str) -> None:
    s, values = CASES[name]
    for head in range(s.q.shape[0]):
        for stage in stages(s):
            got = replay(s, head, stage)
            assert got.dtype == np.float32 and got.shape == (s.q.shape[1], s.k.shape[1])
            np.testing.assert_allclose(got, ref.stage(s, head, values, stage), rtol=2e-5, atol=2e-5, err_msg=stage)


@pytest.mark.parametrize("name", CASES)
def test_any_array_library_gives_the_same(name: str) -> None:
    s, _ = CASES[name]
    strict = in_strict(s)
    for stage in stages(s):
        np.testing.assert_allclose(np.asarray(replay(strict, 0, stage)), replay(s, 0, stage), rtol=1e-5, atol=1e-5)
    rows = [0, s.rows - 1]
    np.testing.assert_allclose(np.asarray(output(strict, rows)), output(s, rows), atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_output_is_p_times_v_and_the_check_finds_it_right(name: str) -> None:
    s, values = CASES[name]
    rows = np.array([s.rows // 2, s.rows - 1])
    group = s.q.shape[0] // s.k.shape[0]
    want = np.stack([ref.stage(s, h, values)[rows] @ s.v[h // group].astype(np.float64) for h in range(s.q.shape[0])])
    np.testing.assert_allclose(output(s, rows), want, atol=2e-5)
    assert check(s, want, rows).max() < 2e-5


def test_the_check_sees_a_wrong_head_a_wrong_mask_and_a_wrong_number() -> None:
    s, _ = CASES["causal, grouped heads"]
    rows = slice(8, 33, 5)
    truth = output(s, rows)
    swapped = replace(s, q=s.q[[0, 2, 1, 3, 4, 5]])
    assert (check(swapped, truth, rows) > 0.05).tolist() == [False, True, True, False, False, False]
    assert (check(replace(s, mask=Mask.from_values(ref.causal(33, window=5))), truth, rows) > 0.05).all()
    assert (check(replace(s, k=s.k[::-1]), truth, rows) > 0.05).all()
    truth[3, 0, 0] = np.nan
    assert np.isnan(check(s, truth, rows)).tolist() == [False, False, False, True, False, False]


def test_rows_by_slice_and_by_number_are_the_rows_of_the_whole() -> None:
    s, _ = CASES["ALiBi"]
    whole = replay(s, 3)
    np.testing.assert_allclose(replay(s, 3, rows=slice(5, 20, 3)), whole[5:20:3], atol=1e-6)
    np.testing.assert_allclose(replay(s, 3, rows=[32, 0, 7]), whole[[32, 0, 7]], atol=1e-6)


def test_masked_cells_are_minus_infinity_before_and_zero_after_the_softmax() -> None:
    s, values = CASES["window"]
    hidden = np.isneginf(values)
    assert np.isneginf(replay(s, 0, "masked")[hidden]).all() and (replay(s, 0)[hidden] == 0).all()


def test_a_row_that_sees_nothing_is_zero() -> None:
    values = ref.causal(9)
    values[4] = -np.inf
    p = replay(ref.scoring(1, 2, 1, 9, 9, values=values), 1)
    assert (p[4] == 0).all()
    np.testing.assert_allclose(np.delete(p.sum(-1), 4), 1, rtol=1e-6)


def test_nan_stays_in_the_rows_that_see_it() -> None:
    s, _ = CASES["causal, grouped heads"]
    k = s.k.copy()
    k[0, 10] = np.nan
    p = replay(replace(s, k=k), 0)
    assert np.isfinite(p[:10]).all() and np.isnan(p[10:, 0]).all() and (p[~np.tri(33, dtype=bool)] == 0).all()


def test_large_scores_do_not_overflow() -> None:
    s, values = CASES["causal, grouped heads"]
    s = replace(s, q=s.q.astype(np.float32) * 1e4)
    p = replay(s, 5)
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p, ref.stage(s, 5, values), atol=2e-3)


def test_impossible_requests_say_what_is_possible() -> None:
    s, _ = CASES["fused cap"]
    assert stages(s) == ("scores", "scaled", "capped", "masked", "softmax")
    assert stages(CASES["unfused cap"][0]) == ("scores", "capped", "scaled", "masked", "softmax")
    with pytest.raises(ValueError, match="'biased' does not exist here: choose one of scores, scaled, capped"):
        replay(s, 0, "biased")
    with pytest.raises(ValueError, match="head 4 does not exist: this layer has heads 0 to 3"):
        replay(s, 4)
    with pytest.raises(ValueError, match="v was not kept"):
        output(replace(s, v=None), [0])
    with pytest.raises(ValueError, match="do not belong together"):
        replace(s, k=np.zeros((3, 33, 16), np.float16))


def in_strict(s: Scoring) -> Scoring:
    """The same scoring in arrays that allow nothing but the standard (which has no float16)."""

    def convert(x: np.ndarray | None) -> object:
        return None if x is None else array_api_strict.asarray(x.astype(np.float32) if x.dtype == np.float16 else x)

    mask = s.mask and replace(s.mask, first=convert(s.mask.first), stop=convert(s.mask.stop), bits=convert(s.mask.bits))
    arrays = {name: convert(getattr(s, name)) for name in ("q", "k", "v", "bias", "sinks")}
    return replace(s, mask=mask, **arrays)  # type: ignore[arg-type]
