"""Tour in Python: every number of every kind of model, what is hidden before an answer, selection, exports."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import traitlets

import llamatelemetry_widget as lt
from llamatelemetry_widget.widgets.tour_values import read

from .conftest import PROMPT, Wire

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import make_more

FILES = [
    "bert",
    "deepseek2",
    "gemma2",
    "gemma3",
    "gpt-oss",
    "gpt2",
    "lfm2",
    "llama-q4-0",
    "llama-split-00001-of-00003",
    "llama",
    "mamba",
    "mpt",
    "odd-tokens",
    "qwen2",
    "qwen3",
    "qwen3moe",
    "t5",
    "wide",
]
IDS = [5, 17, 40, 9, 33, 17, 40, 9, 60, 17]


@pytest.fixture(scope="module")
def tour(model):
    made = lt.Tour(model)
    yield made
    made.close()


@pytest.fixture(scope="module")
def reading(model, tour):
    return read(model, tour.trace.token_ids.tolist())


def step(tour, key):
    return next(own for own in tour.facts["steps"] if own["key"] == key)


def numbers(value):
    """Every number of plain JSON."""
    if isinstance(value, dict):
        return [n for item in value.values() for n in numbers(item)]
    if isinstance(value, list):
        return [n for item in value for n in numbers(item)]
    return [value] if isinstance(value, (int, float)) else []


def strip(figures, label):
    """The cells of a vector that is drawn under this label."""
    return next(row for f in figures if f["kind"] == "strips" for row in f["rows"] if row["label"] == label)


# ----------------------------------------------------------------- all architectures


@pytest.mark.parametrize("name", FILES)
def test_every_architecture_has_a_tour_of_finite_numbers(zoo_models, name):
    with lt.open_model(zoo_models / f"{name}.gguf") as opened:
        made = lt.Tour(opened, IDS)
        keys = made.steps
        json.dumps(made.facts, allow_nan=False)
        assert all(math.isfinite(n) for n in numbers(made.facts["steps"]))
        assert len(keys) == len(set(keys)) and keys[:2] == ["tokens", "embedding"]
        for own in made.facts["steps"]:
            question = own["question"]
            assert 2 <= len(question["options"]) == len(set(question["options"])), own["key"]
            assert 0 <= question["answer"] < len(question["options"]) and question["because"]
        assert ("softmax" in keys) == (name != "mamba")
        assert ("position" in keys) == (name != "mamba")
        assert ("router" in keys) == (name in ("deepseek2", "gpt-oss", "qwen3moe"))
        assert ("cap" in keys) == (name == "gemma2")
        assert ("state" in keys) == (name in ("mamba", "lfm2"))
        assert ("result" in keys) == (name == "bert") and ("loop" in keys) == (name != "bert")
        assert ("cross" in keys) == (name == "t5")
        assert len(json.dumps(made.facts)) < 120_000
        made.close()


POSITIONS = {
    "gpt2": "Position: a learned vector",
    "bert": "Position: a learned vector",
    "mpt": "Position: ALiBi",
    "t5": "Position: a learned bias per distance",
    "llama": "Position: rotary",
    "qwen2": "Position: rotary",
}


@pytest.mark.parametrize("name", POSITIONS)
def test_the_position_is_told_as_the_model_has_it(zoo_models, name):
    with lt.open_model(zoo_models / f"{name}.gguf") as opened:
        made = lt.Tour(opened, IDS)
        assert step(made, "position")["title"] == POSITIONS[name]
        made.close()


# What llama.cpp does with models that are not in the zoo: (steps that are there, steps that are not, title of a step).
OTHERS = {
    "command-r": ({"norm", "add", "widen"}, {"state"}, "The MLP widens the vector"),
    "olmo2": ({"norm", "add"}, {"state"}, "The norm comes after"),
    "jamba": ({"router", "state", "conv", "softmax"}, set(), "No position"),
    "rwkv7": ({"state", "widen", "down", "add"}, {"softmax", "position"}, "A state instead of keys and values"),
    "gemma3n": ({"position", "widen"}, {"add"}, "Position: rotary"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_architectures_are_told_as_they_are(name, tmp_path):
    with lt.open_model(make_more.write(name, tmp_path / f"{name}.gguf")) as opened:
        made = lt.Tour(opened, IDS)
        there, missing, title = OTHERS[name]
        assert there <= set(made.steps) and not missing & set(made.steps)
        assert title in {own["title"] for own in made.facts["steps"]}
        assert all(math.isfinite(n) for n in numbers(made.facts["steps"]))
        beside = any("beside it and not after it" in words for own in made.facts["steps"] for words in own["says"])
        assert beside == (name == "command-r")
        made.close()


# ------------------------------------------------------------------ equal to other ways


def test_the_embedding_is_the_row_of_the_table(reading, model):
    want = model.embeddings([int(reading.trace.token_ids[-1])])[0]
    np.testing.assert_array_equal(reading.row("embedding"), want)


def test_the_stream_is_that_of_the_trace(reading):
    np.testing.assert_allclose(reading.row("stream"), reading.trace.hidden(reading.layer - 1)[-1], atol=1e-5)


def test_the_norm_is_what_it_says(reading):
    stream = reading.row("stream").astype(np.float64)
    rms = np.sqrt(np.mean(stream**2) + 1e-5)
    np.testing.assert_allclose(reading.row("normed"), stream / rms, rtol=1e-3, atol=1e-4)


def test_turned_queries_are_those_that_attention_multiplies(reading):
    scoring = reading.trace.scoring(reading.layer)
    for x, own in (("q", scoring.q), ("k", scoring.k)):
        np.testing.assert_allclose(reading.rotations[x].after, own[:, -1].astype(np.float32), rtol=2e-3, atol=2e-3)


def test_measured_angles_are_those_of_the_formula(reading):
    rotation = reading.rotations["q"]
    pairs, last = len(rotation.pairs), len(reading.tokens) - 1
    assert rotation.plain and rotation.base == pytest.approx(reading.model.info.metadata["llama.rope.freq_base"])
    want = last * rotation.factor * rotation.base ** (-np.arange(pairs) / pairs)
    difference = (rotation.angles(reading.head) - want + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(difference).max() < 1e-4


def test_the_mlp_is_swiglu_and_its_result_goes_to_the_stream(reading):
    gate, up = reading.row("gate").astype(np.float64), reading.row("up").astype(np.float64)
    np.testing.assert_allclose(reading.row("act"), gate / (1 + np.exp(-gate)) * up, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(reading.row("down"), reading.trace.mlp_out(reading.layer)[-1], atol=1e-5)


def test_the_last_norm_times_the_output_matrix_is_the_logit(reading, model):
    top = int(reading.trace.logits[-1].argmax())
    logit = float(model.embeddings([top], matrix="output")[0] @ reading.row("final"))
    assert logit == pytest.approx(float(reading.trace.logits[-1, top]), rel=0.03)


def test_the_head_is_the_one_that_looks_farthest_from_first_and_self(reading):
    best = max(
        reading.trace.attention(own.layer, head, rows=slice(-1, None))[0][1:-1].max()
        for own in reading.trace.layers[:-1]
        for head in range(own.heads)
    )
    row = reading.trace.attention(reading.layer, reading.head)[-1]
    assert row[reading.key] == best


def test_what_is_drawn_is_what_was_read(tour, reading):
    row = strip(step(tour, "embedding")["figures"], tour.facts["tokens"][-1] + "\u2082\u2083")
    assert row["size"] == 576 and len(row["cells"]) == 192
    vector = reading.row("embedding").reshape(192, 3)
    want = vector[np.arange(192), np.abs(vector).argmax(1)]
    np.testing.assert_allclose(row["cells"], want, rtol=1e-3)
    matrix = next(f for f in step(tour, "softmax")["after"] if f["kind"] == "matrix")
    want = reading.trace.attention(reading.layer, reading.head)
    np.testing.assert_allclose([[cell or 0 for cell in row] for row in matrix["cells"]], want, rtol=1e-2, atol=1e-6)
    assert matrix["cells"][3][10] is None
    masked = next(f for f in step(tour, "mask")["after"] if f["kind"] == "matrix")
    assert masked["cells"][3][10] is None


def test_the_sampler_is_llama_cpps(tour, model):
    explorer = lt.TokenExplorer(model, PROMPT)
    left = int((explorer.distribution.after > 0).sum())
    question = step(tour, "sampler")["question"]
    assert question["options"][question["answer"]] == str(left)
    explorer.close()


# ------------------------------------------------------------------------ the widget


def test_a_tour_has_about_twenty_steps(tour):
    assert tour.steps[0] == "tokens" and tour.steps[-1] == "loop" and 18 <= len(tour.steps) <= 24
    assert len(tour.facts["tokens"]) == 24 and "step 1 of 21" in repr(tour)


def test_an_answer_stands_only_where_it_is_shown_later(tour):
    for own in tour.facts["steps"]:
        because = own["question"]["because"]
        assert because not in " ".join(own["says"])
        assert because not in tour._static_html("")


def test_a_step_selects_what_it_is_about(tour):
    grid = lt.AttentionGrid(tour.trace)
    joined = lt.link(tour, grid)
    tour.step = tour.steps.index("softmax")
    assert (grid.selected_layer, grid.selected_head) == (tour.facts["layer"], tour.facts["head"])
    assert grid.selected_tokens[0] == 23 and len(grid.selected_tokens) == 2
    tour.step = 0
    assert grid.selected_layer is None and tour.selected_tokens == [23]
    joined.unlink()
    grid.close()


def test_the_browser_moves_and_predicts(tour):
    wire = Wire(tour)
    wire.change(step=3, predictions={"tokens": 1})
    assert tour.step == 3 and tour.predictions == {"tokens": 1}
    wire.say(type="ping", id="a-1")
    assert wire.customs("error")
    tour.step = 0
    tour.predictions = {}


def test_what_does_not_exist_is_refused(tour, model):
    with pytest.raises(traitlets.TraitError, match="step 99 does not exist"):
        tour.step = 99
    with pytest.raises(traitlets.TraitError, match="token 24 does not exist"):
        tour.selected_tokens = [24]
    with pytest.raises(lt.PromptTooLong, match="32 at most"):
        lt.Tour(model, "word " * 40)


@pytest.mark.parametrize("name", ["llama", "mpt", "mamba", "t5"])
def test_short_prompts_have_tours_too(zoo_models, name):
    with lt.open_model(zoo_models / f"{name}.gguf") as opened:
        for ids in ([5], [5, 9]):
            made = lt.Tour(opened, ids)
            assert all(math.isfinite(n) for n in numbers(made.facts["steps"]))
            assert all(len(own["question"]["options"]) > 1 for own in made.facts["steps"])
            made.close()


def test_the_other_widgets_follow_it(tour, model):
    lens, explorer = lt.LayerLens(tour.trace), lt.TokenExplorer(model, tour.trace.token_ids.tolist())
    joined = lt.link(tour, lens, explorer)
    tour.step = tour.steps.index("scores")
    assert (lens.selected_layer, lens.selected_head) == (tour.facts["layer"], tour.facts["head"])
    assert explorer.selected_tokens == lens.selected_tokens == tour.selected_tokens
    tour.step = 0
    joined.unlink()
    lens.close()
    explorer.close()


def test_the_page_holds_all_of_it_and_is_small(tour, tmp_path, capsys):
    page = tour.to_html(tmp_path)
    assert (tmp_path / "tour-SmolLM2-135M-Instruct.html").exists() and "21 steps" in capsys.readouterr().out
    assert len(page) < 250_000
    assert Counter(name in page for name in ("lt-data", "Q K V")) == {True: 2}
