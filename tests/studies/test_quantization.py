"""A study of quantized files: its figures against NumPy's in float64, its floor, stopping, going on, and what fails."""

from __future__ import annotations

import os
import signal
from itertools import pairwise

import numpy as np
import pandas as pd
import psutil
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.engine.client import Engine
from llamatelemetry_widget.studies import scoring
from llamatelemetry_widget.studies.quantization import COLUMNS, QuantizationStudy

TEXTS = {
    "prose": "The quick brown fox jumps over the lazy dog, and then the token looks back at the first two words. " * 4,
    "code": "def largest(values):\n    best = values[0]\n    for value in values:\n        best = max(best, value)\n"
    * 3,
}


@pytest.fixture
def study(zoo_models, tmp_path):
    """Makes studies of files of the zoo, that keep their results in a folder of the test's own."""

    def make(*names, **options):
        files = [zoo_models / f"{name}.gguf" if name.islower() and ":" not in name else name for name in names]
        plain = {"text": TEXTS, "n_ctx": 64, "directory": tmp_path, "drift": False, "speed": False}
        made = QuantizationStudy(files[0], files[1:], **{**plain, **options})
        made.events = []
        made.subscribe(made.events.append)
        return made

    return make


@pytest.fixture(scope="module")
def measured(zoo_models, tmp_path_factory):
    files = [zoo_models / f"{name}.gguf" for name in ("llama", "llama-q4-0", "llama-q8-0", "llama")]
    folder = tmp_path_factory.mktemp("study")
    return QuantizationStudy(files[0], files[1:], TEXTS, n_ctx=64, speed=False, directory=folder).run()


def log_softmax(x):
    x = x.astype(np.float64)
    return x - np.log(np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True)) - x.max(1, keepdims=True)


def test_figures_are_those_of_numpy_in_float64(measured, zoo_models):
    """Every token of every text is scored once, from those before it in its block."""
    expected = []
    names = ("llama", "llama-q4-0")
    with lt.open_model(zoo_models / "llama.gguf") as base, lt.open_model(zoo_models / "llama-q4-0.gguf") as other:
        for text in TEXTS.values():
            ids = base.tokenize(text, add_special=False)
            for at in range(0, len(ids) - 1, 63):  # this model wants its start token before every block
                targets = ids[at + 1 : at + 64]
                own = [base.info.bos_id, *ids[at : at + len(targets)]]
                x, y = (log_softmax(model.trace(own, logits="all").logits)[1:] for model in (base, other))
                kl, rows = (np.exp(x) * (x - y)).sum(1), np.arange(len(targets))
                same = x.argmax(1) == y.argmax(1)
                expected.append(np.stack([kl, x[rows, targets], y[rows, targets], same, targets]))
    kl, p, q, same, targets = np.concatenate(expected, 1)
    tokens = measured.tokens(names[1])
    np.testing.assert_allclose(tokens.kl, kl, atol=2e-6)
    np.testing.assert_allclose(tokens.base_probability, np.exp(p), rtol=1e-4)
    np.testing.assert_allclose(tokens.probability, np.exp(q), rtol=1e-4)
    assert tokens.same_top.tolist() == same.astype(bool).tolist() and tokens.id.tolist() == targets.tolist()
    row = measured.results.iloc[0]
    assert row.n_tokens == len(kl) and row.kl == pytest.approx(kl.mean(), abs=1e-6)
    assert row.ppl_ratio == pytest.approx(np.exp((p - q).mean()), rel=1e-5)
    assert row.kl_999 == pytest.approx(np.percentile(kl, 99.9), abs=1e-5)
    assert measured.base_facts["perplexity"] == pytest.approx(np.exp(-p.mean()), rel=1e-5)


def test_the_base_against_itself_is_exactly_zero(measured):
    row = measured.results.iloc[2]
    assert row.kl == row.kl_max == row.kl_error == row.rms_dp == 0
    assert row.same_top == row.ppl_ratio == 1


def test_tables_hang_together(measured):
    results, blocks, texts = measured.results, measured.blocks, measured.texts
    assert tuple(results.columns) == COLUMNS
    assert results.name.tolist() == ["llama-q4-0", "llama-q8-0", "llama"] and set(results.status) == {"done"}
    assert results.got.tolist() == ["30 Q4_0", "30 Q8_0", "30 F32"]
    assert set(texts.text) == set(TEXTS) and len(texts) == 6
    for name, row in results.set_index("name").iterrows():
        own, parts = blocks[blocks.candidate == name], texts[texts.candidate == name]
        assert own.n_tokens.sum() == parts.n_tokens.sum() == row.n_tokens
        for table in (own, parts):
            assert np.average(table.kl, weights=table.n_tokens) == pytest.approx(row.kl)
    tokens = measured.tokens("llama-q8-0")
    assert tokens.groupby("text", sort=False).position.apply(lambda p: p.tolist() == list(range(1, len(p) + 1))).all()
    with pytest.raises(lt.LlamaTelemetryError, match="no candidate 'x': it has llama-q4-0"):
        measured.tokens("x")


def test_steps_of_a_block_give_what_one_step_gives(study, monkeypatch, tmp_path):
    """A vocabulary so large that a block's logits do not fit at once. Kernels for few rows round otherwise."""
    whole = study("llama", "gpt2", n_blocks=1).run()
    monkeypatch.setattr(scoring, "_LEAST_ROWS", 24)
    monkeypatch.setattr(scoring, "_STEP_BYTES", 1)
    again = study("llama", "gpt2", n_blocks=1, directory=tmp_path / "other").run()
    np.testing.assert_allclose(again.tokens("gpt2").kl, whole.tokens("gpt2").kl, rtol=5e-3)
    assert again.results.n_tokens[0] == 2 * 63


def test_a_study_goes_on_where_it_was_stopped(study, measured):
    first = study("llama", "llama-q4-0", "llama-q8-0")
    first.subscribe(lambda event: first.cancel() if event.done >= 4 else None)
    with pytest.raises(lt.EngineCancelled):
        first.run()
    assert set(first.results.status) == {"cancelled"} and first.events[-1].kind == "cancelled"
    assert 0 < first.results.n_tokens[0] < measured.results.n_tokens[0] and not first.running
    second = study("llama", "llama-q4-0", "llama-q8-0").run()
    done = [event.done for event in second.events if event.kind == "progress"]
    assert done[0] > 4 and all(a < b for a, b in pairwise(done))
    np.testing.assert_array_equal(second.results.kl, measured.results.kl[:2])
    third = study("llama", "llama-q4-0").run()
    assert not [event for event in third.events if event.kind == "progress"]  # all of it was known
    other = study("llama", "llama-q4-0", n_ctx=32).run()
    assert [event for event in other.events if event.kind == "progress"]  # another setting, nothing shared


def test_a_candidate_that_dies_is_a_row_that_says_so(study, monkeypatch):
    converse = Engine._converse

    def dying(engine, message, on_message, fd=None):
        if message["do"] == "compare" and engine._load["path"].endswith("q4-0.gguf"):
            os.kill(engine.pid, signal.SIGSEGV)
        return converse(engine, message, on_message, fd)

    monkeypatch.setattr(Engine, "_converse", dying)
    own = study("llama", "llama-q4-0", "llama-q8-0", n_blocks=2)
    results = own.run().results
    assert results.status.tolist() == ["failed", "done"] and "llama-q4-0.gguf died" in results.error[0]
    assert [event.kind for event in own.events if event.candidate == "llama-q4-0"] == ["candidate"]
    assert np.isnan(results.kl[0]) and results.kl[1] > 0


def test_what_cannot_be_compared_is_a_row_or_an_error(study, zoo_models):
    results = study("llama", "odd-tokens", "llama-q8-0", n_blocks=1).run().results
    assert results.status.tolist() == ["failed", "done"] and "one vocabulary" in results.error[0]
    with pytest.raises(lt.ModelNotFound):
        study("llama", "not-there")
    with pytest.raises(lt.LlamaTelemetryError, match="at least one candidate"):
        study("llama")
    with pytest.raises(lt.PromptTooLong, match="n_ctx 9999"):
        study("llama", "llama-q8-0", n_ctx=9999).run()
    with pytest.raises(lt.LlamaTelemetryError, match="has 1 tokens, 2 are the least"):
        study("llama", "llama-q8-0", text="a").run()


def test_no_worker_outlives_a_study(study):
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    study("llama", "llama-q8-0", n_blocks=1).run()
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= before


def test_the_texts_that_ship_are_read_by_default(zoo_models, tmp_path):
    files = [zoo_models / f"{name}.gguf" for name in ("llama", "llama-q8-0")]
    own = QuantizationStudy(files[0], files[1:], n_blocks=1, drift=False, speed=False, directory=tmp_path)
    assert own.run().texts.text.tolist() == ["prose", "code"]


def test_types_and_recipes_are_made_and_measured(zoo_models, measured, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recipe = {"name": "first layers", "type": "Q4_0", "tensor_types": {r"blk\.[01]\.": "Q8_0"}}
    own = QuantizationStudy(
        zoo_models / "llama.gguf",
        ["q8_0", recipe, {"tensor_types": {"none": "Q8_0"}}],
        TEXTS,
        n_ctx=64,
        drift=False,
        speed=False,
    )
    assert own.results.status.tolist() == ["waiting"] * 3 and own.results.path.tolist() == [""] * 3
    with pytest.raises(lt.LlamaTelemetryError, match="not made yet"):
        own.tensor_error("Q8_0")
    results = own.run().results
    assert results.name.tolist() == ["Q8_0", "first layers", "recipe"]
    assert results.kind.tolist() == ["type", "recipe", "recipe"]
    assert results.status.tolist() == ["done", "done", "failed"] and "no tensor of" in results.error[2]
    assert "Q8_0" in results.got[1] and "Q4_0" in results.got[1] and results.bytes[0] > results.bytes[1] > 0
    assert 0 < results.kl[0] < results.kl[1] < measured.results.kl[0]
    errors = own.tensor_error("first layers")
    assert errors[errors.layer == 0].relative.max() < errors[errors.layer == 3].relative.max()
    with pytest.raises(lt.LlamaTelemetryError, match="a recipe has no 'tensors'"):
        QuantizationStudy(zoo_models / "llama.gguf", [{"type": "Q8_0", "tensors": {}}])


def test_a_cache_type_is_a_candidate(smollm2_path, tmp_path):
    options = {"n_ctx": 64, "n_blocks": 1, "drift": False, "speed": False, "directory": tmp_path}
    results = QuantizationStudy(smollm2_path, ["kv:q8_0", "kv:q4_0"], TEXTS, **options).run().results
    assert results.kind.tolist() == ["kv", "kv"] and results.status.tolist() == ["done", "done"]
    assert 0 < results.kl[0] < 0.01 < results.kl[1] < 1
    assert results.bytes[0] == smollm2_path.stat().st_size


def test_drift_is_that_of_two_traces(measured, zoo_models):
    table, heads = measured.layer_drift, measured.head_drift
    assert table.index.tolist() == measured.results.name.tolist() and table.columns.tolist() == [0, 1, 2, 3]
    assert (table.loc["llama"] == 0).all() and (table.loc["llama-q8-0"] < table.loc["llama-q4-0"]).all()
    assert heads.shape == (3, 4, 8) and (heads[2] == 0).all() and (heads[0] > heads[1]).mean() > 0.9
    with lt.open_model(zoo_models / "llama.gguf") as base, lt.open_model(zoo_models / "llama-q4-0.gguf") as other:
        ids = [base.info.bos_id, *base.tokenize(TEXTS["prose"], add_special=False)[:63]]
        a, b = (model.trace(ids, logits="all") for model in (base, other))
    moved = np.linalg.norm(b.hidden(3) - a.hidden(3), axis=1) / np.linalg.norm(a.hidden(3), axis=1)
    assert table.loc["llama-q4-0", 3] == pytest.approx(np.median(moved), rel=1e-4)
    tv = np.abs(a.attention(2, 5) - b.attention(2, 5)).sum(1)[1:] / 2
    assert heads[0, 2, 5] == pytest.approx(tv.mean(), rel=1e-3)


def test_speed_is_measured_or_says_why_not(study):
    own = study("llama", "llama-q8-0", n_blocks=1, speed=True).run()
    row, base = own.results.iloc[0], own.base_facts
    assert base["memory_bytes"] > row.memory_bytes > 0 and row.prefill_spread >= 0
    assert bool(row.speed_note) == np.isnan(row.decode_tps)
    short = study("llama", "llama-q8-0", text="two words", speed=True).run().results.iloc[0]
    assert short.status == "done" and "too few for a speed" in short.speed_note and np.isnan(short.decode_tps)


def test_a_saved_study_is_the_same_without_its_models_and_goes_on_with_them(study, measured, tmp_path, zoo_models):
    again = lt.load_study(measured.save(tmp_path / "study.npz"))
    for name in ("results", "blocks", "texts", "layer_drift"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(measured, name))
    pd.testing.assert_frame_equal(again.tokens("llama-q4-0"), measured.tokens("llama-q4-0"))
    np.testing.assert_array_equal(again.head_drift, measured.head_drift)
    assert again.base_facts == measured.base_facts and again.given_texts == TEXTS
    assert again.recommend().sentence == measured.recommend().sentence
    stopped = study("llama", "llama-q4-0", "kv:f16", directory=tmp_path / "results")
    stopped.subscribe(lambda event: stopped.cancel() if event.done >= 4 else None)
    with pytest.raises(lt.EngineCancelled):
        stopped.run()
    resumed = lt.load_study(stopped.save(tmp_path / "stopped.npz"))
    assert set(resumed.results.status) == {"cancelled"} and resumed.results.n_tokens[0] > 0
    assert resumed.run().results.kl[0] == measured.results.kl[0] and resumed.results.kl[1] == 0


def test_what_is_no_saved_study_is_refused(tmp_path, measured):
    with pytest.raises(lt.ModelFileError, match="does not exist"):
        lt.load_study(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("PK nothing")
    np.savez(tmp_path / "other.npz", told=np.array("{}"))
    np.savez(tmp_path / "objects.npz", told=np.array([{}], object))
    for name in ("text", "other", "objects"):
        with pytest.raises(lt.ModelFileError, match="is no saved study"):
            lt.load_study(tmp_path / f"{name}.npz")
    np.savez(tmp_path / "newer.npz", told=np.array('{"format": "llamatelemetry-study-9"}'))
    with pytest.raises(lt.ModelFileError, match="another version"):
        lt.load_study(tmp_path / "newer.npz")


def test_a_base_that_is_gone_is_said_when_it_is_needed(measured, tmp_path, monkeypatch):
    own = lt.load_study(measured.save(tmp_path / "study.npz"))
    monkeypatch.setitem(own._base_facts, "path", str(tmp_path / "gone.gguf"))
    with pytest.raises(lt.ModelNotFound, match=r"gone\.gguf"):
        own.run()
    assert own.results.n_tokens[0] > 0
