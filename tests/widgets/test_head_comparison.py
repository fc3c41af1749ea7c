"""HeadComparison in Python: what it compares, what it says where it cannot, its tables, its messages, its state."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import traitlets

import llamatelemetry_widget as lt
from llamatelemetry_widget.analysis.compare import compare, overlap
from llamatelemetry_widget.widgets import comparison_facts

from .conftest import PROMPT, Wire

TEXT = "the cat sat on the mat and the dog sat on the rug"


def made(models, name, prompt=TEXT):
    with lt.open_model(models / f"{name}.gguf") as model:
        return model.trace(prompt, progress=False)


@pytest.fixture(scope="module")
def f16(zoo_models):
    return made(zoo_models, "llama-f16")


@pytest.fixture(scope="module")
def q4(zoo_models):
    return made(zoo_models, "llama-q4-0")


@pytest.fixture
def wired():
    widgets = []

    def wire(*arguments, **options):
        widget = lt.HeadComparison(*arguments, **options)
        widgets.append(widget)
        return widget, Wire(widget)

    yield wire
    for widget in widgets:
        widget.close()


# ------------------------------------------------------------------- two traces


def test_two_quant_types_are_compared_head_by_head(f16, q4, wired):
    comparison, _ = wired(f16, q4)
    table = comparison.to_pandas()
    assert list(table.columns) == ["part", "layer", "head", "js", "tv"]
    assert len(table) == 32
    assert table["js"].is_monotonic_decreasing
    for row in table.head(3).to_dict("records"):
        exact = compare(f16.scoring(row["layer"]), q4.scoring(row["layer"]))
        assert row["js"] == pytest.approx(float(exact.js[row["head"]]), abs=1e-6)
        assert row["tv"] == pytest.approx(float(exact.tv[row["head"]]), abs=1e-6)
    assert comparison.to_numpy().shape == (4, 8)
    assert comparison.left == comparison.right == tuple(table.loc[0, ["layer", "head"]])
    assert [side["label"] for side in comparison.facts["sides"]] == ["llama F16", "llama-q4-0 Q4_0"]
    assert comparison.facts["notes"] == []
    assert repr(comparison) == "<HeadComparison: llama F16 against llama-q4-0 Q4_0 · 26 tokens>"


def test_the_distance_chooses_what_sorts(f16, q4, wired):
    comparison, _ = wired(f16, q4, distance="total-variation")
    assert comparison.to_pandas()["tv"].is_monotonic_decreasing
    assert np.array_equal(comparison.to_numpy().T, comparison.distances[1])


def test_a_trace_with_itself_is_at_no_distance(f16, wired):
    comparison, _ = wired(f16, f16)
    assert (comparison.to_pandas()[["js", "tv"]] == 0).all(axis=None)


def test_two_prompts_of_one_length_are_compared_place_by_place(zoo_models, f16, wired):
    other = made(zoo_models, "llama-f16", TEXT.replace("the cat", "the cut"))
    comparison, _ = wired(f16, other)
    assert comparison.facts["how"] == "position"
    assert "other tokens at 1 of 26 places: compared place by place" in comparison.facts["notes"][0]
    labels = [side["label"] for side in comparison.facts["sides"]]
    assert labels[0] != labels[1] and all(label.startswith("“… ") for label in labels)


def test_two_types_of_the_kv_cache_are_told_apart(model, trace, wired):
    comparison, _ = wired(trace, model.trace(PROMPT, kv_type="q4_0", progress=False))
    assert [side["label"] for side in comparison.facts["sides"]] == ["KV cache f16", "KV cache q4_0"]
    assert 0.005 < comparison.to_pandas()["js"].max() < 0.2


def test_prompts_that_part_are_compared_up_to_there(zoo_models, f16, wired):
    longer = made(zoo_models, "llama-f16", TEXT + " ran away")
    comparison, _ = wired(f16, longer)
    assert (comparison.facts["how"], comparison.facts["rows"]) == ("prefix", 26)
    assert comparison.facts["notes"][0] == (
        f"The prompts (26 and {len(longer.tokens)} tokens) part after “g”: "
        "their first 26 tokens are compared, the rest is not."
    )
    assert comparison.to_pandas()["js"].max() == 0  # what comes later changes nothing before


def test_prompts_without_a_common_beginning_stand_side_by_side(zoo_models, f16, wired):
    other = made(zoo_models, "llama-f16", [9, 8, 7])
    comparison, _ = wired(f16, other)
    assert comparison.facts["how"] == "nothing"
    assert "no token has its counterpart" in comparison.facts["notes"][0]
    assert comparison.to_pandas()["js"].isna().all()
    assert len(comparison.statistics) == 64
    assert "<img" in comparison._static_html("")


def test_tokens_that_see_all_others_have_no_prefix(zoo_models, wired):
    with lt.open_model(zoo_models / "bert.gguf") as model:
        a, b = (model.trace(ids, progress=False) for ids in ([5, 6, 7, 8], [5, 6, 7, 8, 9]))
    comparison, _ = wired(a, b)
    assert comparison.facts["how"] == "nothing"
    assert "every token sees all others" in comparison.facts["notes"][0]


def test_models_of_other_sizes_are_compared_one_layer_with_one(zoo_models, f16, wired):
    comparison, _ = wired(f16, made(zoo_models, "gemma2"))
    assert comparison.facts["mode"] == "layers"
    assert "4 layers × 8 heads and 4 layers × 4 heads" in comparison.facts["notes"][0]
    assert comparison.to_numpy().shape == (8, 4)


def test_parts_of_an_encoder_decoder(zoo_models, wired):
    with lt.open_model(zoo_models / "t5.gguf") as model:
        traces = [model.trace([5, 6, 7, last], decoder_prompt=[0, 9, 8], progress=False) for last in (8, 9)]
    for part in traces[0].parts:
        comparison, _ = wired(*traces, part=part)
        assert set(comparison.to_pandas()["part"]) == {part}
        assert comparison.facts["how"] == ("tokens" if part == "decoder" else "position")
    with pytest.raises(lt.LlamaTelemetryError, match="part 'self' does not exist in every trace"):
        lt.HeadComparison(*traces, part="self")


# -------------------------------------------------------- heads and layers of one


def test_one_trace_shows_which_heads_attend_alike(trace, wired):
    comparison, _ = wired(trace, a=(17, 5))
    alike = comparison.to_numpy()
    assert alike.shape == (270, 270)
    own = overlap([trace.scoring(layer) for layer in (17, 18)])
    assert np.allclose(alike[17 * 9 : 19 * 9, 17 * 9 : 19 * 9], own, atol=1e-5)
    assert sorted(comparison.facts["order"]) == list(range(270))
    row = np.where(np.arange(270) == 17 * 9 + 5, -1, alike[17 * 9 + 5])
    assert comparison.right == divmod(int(row.argmax()), 9)
    table = comparison.to_pandas()
    assert len(table) == 269
    assert (17, 5) not in set(zip(table["other_layer"], table["other_head"], strict=True))
    first = table.iloc[0]
    exact = compare(trace.scoring(17), trace.scoring(int(first["other_layer"])), [(5, int(first["other_head"]))])
    assert first["js"] == pytest.approx(float(exact.js[0]), abs=1e-6)
    assert np.abs(comparison.similarity.astype(int) - np.round(alike * 255)).max() == 0


def test_without_a_choice_the_clearest_induction_head_is_left(trace, wired):
    comparison, _ = wired(trace)
    best = trace.head_stats.sort_values("induction").iloc[-1]
    assert comparison.left == (best["layer"], best["head"])


def test_two_layers_every_head_with_every_head(trace, wired):
    comparison, _ = wired(trace, a=17, b=np.int64(16))
    assert comparison.facts["mode"] == "layers"
    assert comparison.to_numpy().shape == (9, 9)
    assert (comparison.left[0], comparison.right[0]) == (17, 16)
    table = comparison.to_pandas()
    nearest = table.iloc[-1]
    assert comparison.left == (nearest["layer"], nearest["head"])
    comparison.select((3, 0), (20, 8))  # other layers: their table is computed
    exact = compare(trace.scoring(3), trace.scoring(20), [(0, 8)])
    assert comparison.to_numpy()[0, 8] == pytest.approx(float(exact.js[0]), abs=1e-6)


def test_a_layer_with_itself_leaves_out_no_head_with_itself(f16, wired):
    comparison, _ = wired(f16, a=2)
    assert comparison.left != comparison.right
    assert np.diag(comparison.to_numpy()).max() == 0


def test_long_prompts_are_sampled_and_say_so(f16, q4, wired, monkeypatch):
    monkeypatch.setattr(comparison_facts, "CELLS", 26 * 32 * 5)
    monkeypatch.setattr(comparison_facts, "PRODUCTS", 26 * 32 * 32 * 5)
    for arguments in ((f16, q4), (f16,)):
        comparison, _ = wired(*arguments)
        assert comparison.facts["sampled"] == "from 5 of 26 query tokens, evenly spaced"


# -------------------------------------------------------------------- selection


def test_selection_is_readable_settable_and_observable(f16, q4, wired):
    comparison, wire = wired(f16, q4)
    seen = []
    comparison.observe(lambda change: seen.append(change["name"]), ["selected_layer", "selected_head"])
    comparison.select((1, 2))
    assert (comparison.left, comparison.right) == ((1, 2), (1, 2))
    assert sorted(seen) == ["selected_head", "selected_layer"]
    wire.change(selected_layer=3, selected_head=4, other_layer=0, other_head=1)
    assert (comparison.left, comparison.right) == ((3, 4), (0, 1))
    comparison.selected_layer = None  # a linked grid that frees its head
    assert comparison.left == (3, 4)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("selected_layer", 9, "layer 9 is not in this trace"),
        ("other_head", 8, "head 8 does not exist: this trace has heads 0 to 7"),
        ("selected_tokens", [26], "query token 26 does not exist: there are tokens 0 to 25"),
        ("distance", "euclid", "distance"),
        ("scale", "row", "scale"),
        ("theme", "blue", "theme"),
    ],
)
def test_a_value_that_does_not_exist_is_refused_in_words(f16, q4, wired, name, value, words):
    comparison, _ = wired(f16, q4)
    with pytest.raises(traitlets.TraitError, match=words):
        setattr(comparison, name, value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"a": (0, 8)}, "a: head 8 does not exist"),
        ({"b": 9}, "layer 9 is not in this trace"),
        ({"part": "x"}, "part 'x'"),
    ],
)
def test_what_cannot_be_compared_is_refused(f16, q4, options, words):
    with pytest.raises(lt.LlamaTelemetryError, match=words):
        lt.HeadComparison(f16, q4, **options)


def test_only_traces_with_attention_can_be_compared(zoo_models, f16):
    with pytest.raises(lt.LlamaTelemetryError, match=r"compares Traces \(model.trace\(…\)\), not str"):
        lt.HeadComparison(f16, "a prompt")
    with pytest.raises(lt.LlamaTelemetryError, match="has attention to compare"):
        lt.HeadComparison(made(zoo_models, "mamba", [5, 6, 7]))


def test_links_with_a_grid(f16, q4, wired):
    comparison, _ = wired(f16, q4)
    grid = lt.AttentionGrid(f16)
    lt.link(grid, comparison)
    grid.select(1, 3)
    assert comparison.left == (1, 3)
    comparison.select((2, 0))
    assert grid.locked == (2, 0)
    grid.close()


# --------------------------------------------------------------- wire and state


def test_heads_come_back_side_by_side(f16, q4, wired):
    _, wire = wired(f16, q4)
    for side, trace in enumerate((f16, q4)):
        wire.say(type="head", id=f"v-{side}", side=side, layer=2, head=3)
        answer, buffers = wire.customs("head")[-1]
        assert (answer["id"], answer["side"], answer["layer"], answer["head"]) == (f"v-{side}", side, 2, 3)
        q = np.frombuffer(bytes(buffers[0]), answer["dtype"]).reshape(answer["rows"], answer["size"])
        assert np.array_equal(q, trace.scoring(2).q[3])


@pytest.mark.parametrize(
    ("message", "words"),
    [({"type": "nonsense"}, "is not known"), ({"type": "head", "side": 0, "layer": 9, "head": 0}, "layer 9")],
)
def test_a_request_that_fails_is_answered_under_its_id(f16, q4, wired, message, words):
    _, wire = wired(f16, q4)
    wire.say(id="7", **message)
    ((answer, _),) = wire.customs("error")
    assert answer["id"] == "7" and words in answer["message"]


def test_the_chosen_heads_are_kept_for_readers_without_a_kernel(f16, q4, wired):
    comparison, _ = wired(f16, q4)
    layer, head = comparison.left
    assert set(comparison.embedded) == {f"0:{layer},{head}", f"1:{layer},{head}"}
    assert all(i < len(comparison.embedded_data) for facts in comparison.embedded.values() for i in facts["buffers"])


def test_w5_the_state_is_json_and_buffers(f16, q4, zoo_models, wired):
    nothing = made(zoo_models, "llama-f16", [9, 8, 7])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for arguments in ((f16, q4), (f16,), (f16, nothing)):
            comparison, _ = wired(*arguments, sink_aside=np.bool_(True))
            state = comparison.get_state()
            binary = ("distances", "similarity", "statistics", "embedded_data")
            json.dumps({key: value for key, value in state.items() if key not in binary}, allow_nan=False)


def test_w9_every_display_carries_a_picture_and_words(f16, q4, wired):
    comparison, _ = wired(f16, q4)
    data, _ = comparison._repr_mimebundle_()
    assert "llama F16 against llama-q4-0 Q4_0" in data["text/plain"]
    assert "data:image/svg+xml;base64," in data["text/html"]
    layer, head = comparison.left
    assert f"L{layer} H{head}" in data["text/html"]
    assert "script" not in data["text/html"]
