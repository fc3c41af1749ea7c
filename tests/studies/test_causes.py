"""What each part of a model pays for being quantized alone, and recipes made of that, on tiny real models."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.models.header import read_header
from llamatelemetry_widget.studies.causes import Causes, choose, patterns
from llamatelemetry_widget.studies.quantization import QuantizationStudy

TEXTS = {"prose": "The quick brown fox jumps over the lazy dog, and then it looks back at the first two words. " * 2}


@pytest.fixture(scope="module")
def base(zoo_models):
    return lt.open_model(zoo_models / "odd-tokens.gguf")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("causes")


@pytest.fixture(scope="module")
def causes(base, folder):
    return Causes(base, TEXTS, "blocks", 64, 2, folder)


@pytest.fixture(scope="module")
def table(causes):
    return causes.measure("Q4_0", "layer")


def test_a_row_for_every_layer_and_for_what_stands_outside(base, table):
    assert table.part.tolist() == [*(f"layer {n}" for n in range(base.info.n_layers)), "output", "token_embd"]
    assert (table.error == "").all() and (table.kl > 0).all() and (table.n_tokens == table.n_tokens[0]).all()
    assert (table.saved_bytes == table.bytes_before - table.bytes_after).all() and (table.saved_bytes > 0).all()
    assert table.bytes_before.sum() == sum(t.n_bytes for t in read_header(base.info.path).tensors if len(t.shape) > 1)
    np.testing.assert_allclose(table.kl_per_saved_mb, table.kl / (table.saved_bytes / 1e6))


def test_a_part_s_kl_is_that_of_a_file_with_this_part_quantized(base, table, tmp_path):
    rules = {r"^blk\.1\.ffn_down": "F16", r"^blk\.1\.": "Q4_0", ".*": "F32"}  # rows of 48 do not fit a Q4_0
    recipe = {"name": "one", "type": "Q4_0", "tensor_types": rules}
    plain = {"n_ctx": 64, "n_blocks": 2, "drift": False, "speed": False, "directory": tmp_path}
    study = QuantizationStudy(base, [recipe], TEXTS, **plain).run()
    assert len(study.causes("Q4_0", n_blocks=1)) == len(table)
    row = table.set_index("part").loc["layer 1"]
    assert row.kl == pytest.approx(study.results.kl[0], rel=1e-6)
    assert row.n_tokens == study.results.n_tokens[0] and row.same_top == study.results.same_top[0]


def test_what_was_measured_is_not_measured_again(causes, table, monkeypatch):
    monkeypatch.setattr("llamatelemetry_widget.studies.causes.quantize_file", lambda *_, **__: 1 / 0)
    heard = []
    again = causes.measure("q4_0", "layer", lambda *n: heard.append(n))
    assert again.equals(table)
    assert heard[-1][0] == heard[-1][1] and heard == sorted(heard)


def test_kinds_of_tensors_can_be_the_parts(causes):
    parts = causes.parts("Q4_0", "group")
    assert {"attn_q", "attn_output", "ffn_down", "token_embd", "output"} <= set(parts)
    assert parts["attn_q"] == {f"blk.{n}.attn_q.weight": "Q4_0" for n in range(2)}


def test_a_recipe_keeps_its_budget_and_its_patterns_do_what_it_says(base, causes, table, tmp_path):
    eight = causes.measure("Q8_0", "layer")
    smallest = base.info.n_bytes - int(table.saved_bytes.sum())
    middle = base.info.n_bytes - int(eight.saved_bytes.sum())
    recipe = causes.recipe((smallest + middle) // 2 + 4096, ["Q4_0", "Q8_0"], "layer")
    assert set(recipe.choices.values()) == {"Q4_0", "Q8_0"} and list(recipe.choices) == table.part.tolist()
    both = {"Q4_0": table.set_index("part").kl, "Q8_0": eight.set_index("part").kl}
    assert recipe.predicted_kl == pytest.approx(sum(both[kind][part] for part, kind in recipe.choices.items()))
    made = lt.quantize(base, recipe.type, tmp_path / "made.gguf", tensor_types=recipe.tensor_types)
    assert abs(made.info.n_bytes - recipe.predicted_bytes) < 4096
    assert made.info.n_bytes <= (smallest + middle) // 2 + 4096
    plans = {kind: causes.parts(kind, "layer") for kind in both}
    got = {t.name: t.type_name for t in read_header(made.info.path).tensors}
    for part, kind in recipe.choices.items():
        assert {name: got[name] for name in plans[kind][part]} == plans[kind][part]
    assert recipe.candidate["tensor_types"] == recipe.tensor_types and recipe.candidate["name"].startswith(
        "recipe 0 MB"
    )


def test_what_cannot_be_is_refused_in_words(zoo_models, causes, folder):
    with pytest.raises(lt.LlamaTelemetryError, match=r"are too few: these types make at least 0\.\d MB"):
        causes.recipe(1000, ["Q4_0"], "layer")
    with pytest.raises(lt.LlamaTelemetryError, match="no way to take a model apart"):
        causes.measure("Q4_0", "head")
    with pytest.raises(lt.LlamaTelemetryError, match=r"quantized itself \(Q4_0.*expand it"):
        Causes(lt.open_model(zoo_models / "llama-q4-0.gguf"), TEXTS, "blocks", 64, 2, folder)


def test_the_choice_is_the_best_there_is():
    random = np.random.default_rng(3)
    for _ in range(20):
        options = [
            [(int(size), float(cost)) for size, cost in zip(random.integers(1, 60, 3), random.random(3), strict=True)]
            for _ in range(5)
        ]
        budget = int(random.integers(20, 200))
        every = [
            sum(own[at][1] for own, at in zip(options, picks, strict=True))
            for picks in itertools.product(range(3), repeat=5)
            if sum(own[at][0] for own, at in zip(options, picks, strict=True)) <= budget
        ]
        chosen = choose(options, budget)
        if not every:
            assert chosen is None
            continue
        assert sum(own[at][0] for own, at in zip(options, chosen, strict=True)) <= budget
        assert math.isclose(sum(own[at][1] for own, at in zip(options, chosen, strict=True)), min(every))


def test_patterns_name_every_tensor_and_no_other():
    types = {"blk.1.attn_q.weight": "Q8_0", "blk.10.attn_q.weight": "Q8_0", "blk.0.attn_q.weight": "Q4_K"}
    types |= {"output.weight": "Q6_K", "blk.0.ffn_up.weight": "Q4_0", "blk.1.ffn_up.weight": "Q4_0"}
    made = patterns(types)
    assert len(made) == 4 and r"^blk\.[0-9]+\.ffn_up\.weight$" in made
    for name, kind in types.items():
        assert [own for pattern, own in made.items() if re.search(pattern, name)] == [kind]
    assert not any(re.search(pattern, "blk.11.attn_q.weight") for pattern in made)
