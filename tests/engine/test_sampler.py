"""llama.cpp's sampler chain on given logits, against the same filters written down in NumPy in double precision."""

from __future__ import annotations

import numpy as np
import pytest

OFF = {"temperature": 1.0, "top_k": 0, "typical_p": 1.0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "seed": 1}
PROMPT = "The old lighthouse keeper lit the"


@pytest.fixture(scope="module")
def logits(smollm2):
    trace = smollm2.trace(PROMPT, capture=(), progress=False)
    return trace.logits[-1], trace.token_ids.tolist()


def expected(logits, before, s):
    own = logits.astype(np.float64).copy()
    if s["repeat_penalty"] != 1:
        ids = list(set(before[-64:]))
        own[ids] = np.where(own[ids] <= 0, own[ids] * s["repeat_penalty"], own[ids] / s["repeat_penalty"])
    order = np.argsort(-own, kind="stable")
    if s["top_k"]:
        order = order[: s["top_k"]]
    share = np.exp(own[order] - own.max())
    share /= share.sum()
    order = order[: int((np.cumsum(share) < s["top_p"]).sum()) + 1] if s["top_p"] < 1 else order
    if s["min_p"]:
        order = order[own[order] >= own[order[0]] + np.log(s["min_p"])]
    left = np.exp((own[order] - own[order[0]]) / s["temperature"])
    return dict(zip(order.tolist(), left / left.sum(), strict=True))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"top_k": 40},
        {"top_k": 200, "top_p": 0.9},
        {"min_p": 0.02},
        {"temperature": 0.5},
        {"repeat_penalty": 1.5},
        {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.1},
    ],
)
def test_the_chain_leaves_what_its_filters_say(smollm2, logits, settings):
    row, before = logits
    whole = {**OFF, **settings}
    ids, probabilities, chosen = smollm2._sampled(row, before, whole)
    want = expected(row, before, whole)
    assert set(ids.tolist()) == set(want) and chosen in want
    np.testing.assert_allclose(probabilities, [want[i] for i in ids.tolist()], atol=1e-6)


def test_the_greedy_chain_leaves_one_and_a_seed_gives_one_token(smollm2, logits):
    row, before = logits
    ids, probabilities, chosen = smollm2._sampled(row, before, {**OFF, "temperature": 0.0, "top_k": 5})
    assert ids.tolist() == [int(row.argmax())] == [chosen] and probabilities.tolist() == [1.0]
    again = [smollm2._sampled(row, before, {**OFF, "seed": seed})[2] for seed in (1, 1, *range(2, 9))]
    assert again[0] == again[1] and len(set(again)) > 1


def test_generation_takes_what_the_chain_chooses(smollm2, logits):
    row, before = logits
    settings = {**OFF, "temperature": 1.2, "top_k": 30, "seed": 5}
    chosen = smollm2._sampled(row, before, settings)[2]
    token = next(smollm2.generate(before, 1, capture=(), **settings))
    assert token.id == chosen
