"""A workspace: one selection in all its widgets; what a model cannot show is left out with the reason."""

from __future__ import annotations

import json
import re
import time

import numpy as np
import pytest

import llamatelemetry_widget as lt

from .conftest import Wire

IDS = list(range(5, 25))


def test_one_selection_in_all(trace):
    space = lt.Workspace(trace)
    space.grid.select(17, 5)
    space.grid.selected_tokens = [5, 2]
    assert (space.lens.selected_layer, space.tree.selected_layer, space.tree.selected_head) == (17, 17, 5)
    assert space.lens.selected_tokens == space.explorer.selected_tokens == [5, 2]
    space.lens.selected_layer = 3
    assert space.grid.selected_layer == space.tree.selected_layer == 3
    assert space.missing == {} and len(space) == len(list(space)) == 4
    titles = [space.box.children[0].get_title(at) for at in range(4)]
    assert titles == ["Attention", "Layers", "Next token", "Model"]
    space.close()


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("bert", {"Layers": "no logits", "Next token": "no logits"}),
        ("t5", {"Layers": "encoder"}),
        ("mamba", {"Attention": "no attention"}),
        ("qwen3moe", {}),
    ],
)
def test_what_a_model_cannot_show_is_left_out_and_said(zoo_models, name, missing):
    with lt.open_model(zoo_models / f"{name}.gguf") as model:
        space = lt.Workspace(model.trace(IDS, progress=False))
        assert set(space.missing) == set(missing)
        for title, words in missing.items():
            assert words in space.missing[title] and f"{title} is left out" in repr(space)
        assert len(space.box.children) == 1 + len(missing)
        assert (space.experts is not None) == (name == "qwen3moe")
        space.close()


def test_a_trace_without_its_model_shows_what_it_holds(trace, tmp_path):
    space = lt.Workspace(lt.load_trace(trace.save(tmp_path / "t.safetensors")))
    assert set(space.missing) == {"Next token", "Model"} and "model" in space.missing["Model"]
    assert space.grid is not None and space.lens is not None and space.explorer is space.tree is None
    text = space.to_html(tmp_path / "space.html")
    assert text.count('"module":') == 2
    space.close()


def test_any_of_its_widgets_stay_linked_in_a_page(trace, tmp_path):
    """The explorer and the tree hold no trace: only the workspace's own link joins them with the others."""
    space = lt.Workspace(trace)
    text = lt.save_html(tmp_path / "some.html", space.tree, space.explorer, space.grid)
    data = json.loads(re.search(r'id="lt-data">(.*?)</script>', text, re.DOTALL)[1])
    assert [part["links"] for part in data["parts"]] == [[1, 2], [0, 2], [0, 1]]
    space.close()


def test_the_text_can_be_coloured_by_the_surprise_of_another_trace(model, trace):
    other = model.trace(trace.token_ids.tolist(), kv_type="q8_0", progress=False)
    grid = lt.AttentionGrid(trace, against=other)
    wire = Wire(grid)
    assert grid.facts["token_stats"][-1] == "divergence" and grid.facts["against"].startswith("SmolLM2")
    wire.say(type="token_stats", id="v-1")
    for _ in range(600):
        if wire.customs("token_stats"):
            break
        time.sleep(0.1)
    np.testing.assert_array_equal(grid.token_stats[-1], trace.divergence(other).kl)
    assert "divergence" not in lt.AttentionGrid(trace).facts["token_stats"]
    with pytest.raises(lt.LlamaTelemetryError, match="two traces"):
        lt.AttentionGrid(trace, against="x")
    grid.close()


def test_what_is_no_trace_is_refused():
    with pytest.raises(lt.LlamaTelemetryError, match="not str"):
        lt.Workspace("a prompt")
