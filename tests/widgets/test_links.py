"""Linked widgets: one selection, handed on once, and never one that a widget does not have."""

from __future__ import annotations

import pytest

import llamatelemetry_widget as lt

NAMES = ["selected_layer", "selected_head", "selected_tokens"]


@pytest.fixture
def pair(trace):
    a, b = lt.AttentionGrid(trace), lt.AttentionGrid(trace)
    yield a, b
    a.close()
    b.close()


def shallow(zoo_models):
    """A grid of another model: 2 layers, few heads, 8 tokens."""
    with lt.open_model(zoo_models / "gpt2.gguf") as model:
        return lt.AttentionGrid(model.trace(list(range(5, 13)), progress=False))


def test_both_take_the_first_ones_selection_at_once(pair):
    a, b = pair
    a.select(17, 5)
    a.selected_tokens = [5, 2]
    lt.link(a, b)
    assert (b.locked, b.selected_tokens) == ((17, 5), [5, 2])


def test_each_follows_the_other(pair):
    a, b = pair
    lt.link(a, b)
    b.select(3, 1)
    a.selected_tokens = [4]
    assert (a.locked, b.selected_tokens) == ((3, 1), [4])
    a.select(None)
    assert b.locked is None


def test_w7_a_change_is_handed_on_once_and_does_not_come_back(pair):
    a, b = pair
    lt.link(a, b)
    heard = []
    for widget in pair:
        widget.observe(lambda change: heard.append((change["owner"], change["name"])), NAMES)
    a.select(17, 5)
    assert len(heard) == 4 and len({(id(owner), name) for owner, name in heard}) == 4


def test_the_browser_hears_of_a_head_in_one_message(wired, trace):
    (a, browser), (b, other) = wired(trace), wired(trace)
    lt.link(a, b)
    browser.change(selected_layer=17, selected_head=5)
    said = [{name: state[name] for name in NAMES if name in state} for state in other.updates()]
    assert [state for state in said if state] == [{"selected_layer": 17, "selected_head": 5}]
    assert b.locked == (17, 5)


def test_what_the_other_does_not_have_frees_it(trace, zoo_models):
    deep, low = lt.AttentionGrid(trace), shallow(zoo_models)
    lt.link(deep, low)
    deep.select(1, 0)
    assert low.locked == (1, 0)
    last = len(trace.tokens) - 1
    deep.select(17, 5)
    deep.selected_tokens = [last, 1]
    assert (low.locked, low.selected_tokens) == (None, [])
    assert (deep.locked, deep.selected_tokens) == ((17, 5), [last, 1])
    low.select(0, 1)
    assert deep.locked == (0, 1)


def test_three_follow_one_and_unlink_ends_it(trace):
    grids = [lt.AttentionGrid(trace) for _ in range(3)]
    link = lt.link(*grids)
    grids[2].select(5, 1)
    assert [grid.locked for grid in grids] == [(5, 1)] * 3
    assert all(grid.links == (link,) for grid in grids)
    link.unlink()
    grids[0].select(6, 2)
    assert [grid.locked for grid in grids[1:]] == [(5, 1)] * 2
    assert not any(grid.links for grid in grids)


def test_grid_comparison_and_experts_follow_each_other(zoo_models):
    with lt.open_model(zoo_models / "qwen3moe.gguf") as model:
        trace = model.trace(list(range(5, 45)), progress=False)
    grid, comparison, strip = lt.AttentionGrid(trace), lt.HeadComparison(trace), lt.ExpertStrip(trace)
    lt.link(grid, comparison, strip)
    comparison.select((0, 1))
    assert (grid.locked, strip.selected_layer) == ((0, 1), 0)
    strip.selected_layer, strip.selected_tokens = 2, [7]
    assert (grid.locked, comparison.left) == ((2, 1), (2, 1))
    assert grid.selected_tokens == comparison.selected_tokens == [7]
    grid.select(None)
    assert strip.selected_layer is None and comparison.left == (2, 1)  # a comparison always has a left head


def test_what_cannot_be_linked_is_refused(pair):
    with pytest.raises(lt.LlamaTelemetryError, match="two widgets or more"):
        lt.link(pair[0])
    with pytest.raises(lt.LlamaTelemetryError, match="str has no selection"):
        lt.link(pair[0], "grid")
