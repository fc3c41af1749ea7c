"""The cell magic with models of several parts, and with experts."""

from __future__ import annotations

import pytest

import llamatelemetry_widget as lt

WIDGET = "application/vnd.jupyter.widget-view+json"
PROMPT = "the old lamp on the sea"


def drawn(shell, path, options=""):
    result = shell.run_cell(f"%%llamatelemetry --model '{path}' {options}\n{PROMPT}", store_history=True)
    assert result.success
    return result.result


def test_an_encoder_decoder_gives_a_titled_grid_per_part(shell, zoo_models):
    views = drawn(shell, zoo_models / "t5.gguf", "--predict 4")
    assert isinstance(views, lt.TraceViews)
    assert [grid.facts["title"] for grid in views] == ["Encoder attention", "Decoder attention", "Cross-attention"]
    assert len(views.grids["cross"].facts["query_tokens"]) == 5
    assert shell.user_ns["_trace"].parts == tuple(views.grids)


def test_experts_stand_under_the_grid(shell, zoo_models):
    views = drawn(shell, zoo_models / "gpt-oss.gguf")
    grid, strip = views
    assert isinstance(grid, lt.AttentionGrid) and isinstance(strip, lt.ExpertStrip)
    views.experts.selected_layer = 1
    assert views.grids["self"].selected_layer == 1


@pytest.mark.parametrize("name", ["bert", "llama", "mamba"])
def test_one_part_without_experts_stays_one_grid(shell, zoo_models, name):
    assert isinstance(drawn(shell, zoo_models / f"{name}.gguf"), lt.AttentionGrid)


def test_chosen_layers_choose_the_experts_too(shell, zoo_models):
    views = drawn(shell, zoo_models / "gpt-oss.gguf", "--layers 1")
    assert list(views.experts.trace.experts) == [1]
    assert [layer["layer"] for layer in views.experts.facts["layers"]] == [1]


def test_all_are_displayed_and_a_new_run_replaces_them(kernel, zoo_models):
    cell = f"%%llamatelemetry --model '{zoo_models / 't5.gguf'}'\n{PROMPT}"
    before = set(kernel.comms)
    for _ in range(3):
        outputs = [out for out in kernel.run(cell, cell="parts") if WIDGET in out.get("data", {})]
    shown = outputs[-3:]
    assert len({out["data"][WIDGET]["model_id"] for out in shown}) == 3
    for out, title in zip(shown, ("Encoder attention", "Decoder attention", "Cross-attention"), strict=True):
        assert title in out["data"]["text/html"]
    alive = [size for name, size in kernel.comms.items() if name not in before and size > 5000]  # layouts are small
    assert len(alive) == 3
