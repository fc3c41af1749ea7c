"""Runs that go on from what the context holds: as llama.cpp writes token by token, and no other run is touched."""

from __future__ import annotations

import numpy as np
import pytest

import llamatelemetry_widget as lt

IDS = [1, *range(30, 70)]
GREEDY = {
    "temperature": 0.0,
    "top_k": 0,
    "typical_p": 1.0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "seed": 0,
}


@pytest.fixture(scope="module")
def opened(zoo_models):
    """Opens a file of the zoo with a worker of its own, once per name and number."""
    found = {}

    def open_one(name, number=0):
        if (name, number) not in found:
            found[name, number] = lt.open_model(zoo_models / f"{name}.gguf")
        return found[name, number]

    yield open_one
    for one in found.values():
        one.close()


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_a_step_is_bit_for_bit_what_writing_gives(opened, name):
    model, other = opened(name), opened(name, 1)
    trace, ids = model._resumed(IDS), list(IDS)
    assert np.array_equal(trace.logits, other.trace(IDS, capture=(), progress=False).logits)
    for step in range(3):
        ids.append(int(trace.logits[-1].argmax()))
        trace = model._resumed(ids)
        assert trace.telemetry["context_reused"] == len(IDS) + step
    written = other.generate(IDS, 3, capture=()).result()
    assert written.token_ids.tolist() == ids and np.array_equal(written.logits, trace.logits)


def test_branches_share_what_they_begin_with(opened):
    model, other = opened("llama"), opened("llama", 1)
    model._resumed([*IDS, 5, 6, 7])
    branch = [*IDS, 5, 90]
    for _ in range(2):
        own = model._resumed(branch)
        assert own.telemetry["context_reused"] in (len(IDS) + 1, len(branch) - 1)
        # one row after the others is another kernel than all rows at once: rounded in another way
        want = other.trace(branch, capture=(), progress=False).logits
        np.testing.assert_allclose(own.logits, want, atol=5e-2)
    written = model._write_on(branch, 4, GREEDY)
    assert [token.id for token in written] == [t.id for t in other.generate(branch, 4, capture=())]
    assert written.telemetry["context_reused"] == len(branch) - 1
    again = model._resumed(written.result().token_ids.tolist())
    assert again.telemetry["context_reused"] == len(branch) + 3


def test_a_recurrent_state_cannot_go_back(opened):
    model = opened("mamba")
    model._resumed([*IDS, 5, 6])
    assert "context_reused" not in model._resumed([*IDS, 9]).telemetry
    assert model._resumed([*IDS, 9, 9]).telemetry["context_reused"] == len(IDS) + 1


def test_other_runs_compute_all_and_leave_the_same_numbers(opened):
    model, other = opened("llama"), opened("llama", 1)
    model._resumed([*IDS, 5])
    trace, want = (m.trace([*IDS, 5, 6], logits="all", progress=False) for m in (model, other))
    assert "context_reused" not in trace.telemetry
    assert np.array_equal(trace.logits, want.logits) and np.array_equal(trace.hidden(3), want.hidden(3))
    assert model._resumed([*IDS, 5, 6, 7]).logits.shape == (1, len(want.logits[0]))


def test_a_text_that_outgrows_its_context_is_run_again_once(opened):
    model = opened("llama")
    model.close()  # the next worker has no context yet
    model._resumed(IDS)
    room = model._resumed([*IDS, 5]).telemetry["context_size"]
    assert room == 768
    model.trace(IDS, capture=(), progress=False)  # its context is shorter
    assert model._resumed([*IDS, *range(3, 303)]).telemetry["context_size"] > 256
