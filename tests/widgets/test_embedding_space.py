"""EmbeddingSpace3D without a browser: traits, messages, columns, exports."""

from __future__ import annotations

import io
import json
import sys
import time

import numpy as np
import pandas as pd
import pytest
import pythreejs
import traitlets
from PIL import Image

import llamatelemetry_widget as lt
from llamatelemetry_widget.analysis.clusters import clusters_of
from llamatelemetry_widget.analysis.projection import unit
from llamatelemetry_widget.errors import LlamaTelemetryError
from llamatelemetry_widget.export.embedding import advice
from llamatelemetry_widget.studies.embedding_space import EmbeddingSpace
from llamatelemetry_widget.widgets import embedding_facts as told

from .conftest import Wire

WORDS = ["red", "green", "blue", "yellow", "king", "queen", "prince", "princess"]


@pytest.fixture(scope="module")
def space(model):
    made = lt.EmbeddingSpace3D(model, projection="pca", select=" lamp", columns={"even": np.arange(49_152) % 2 == 0})
    assert made.wait(120)
    yield made
    made.close()


@pytest.fixture(scope="module")
def few(model):
    made = lt.EmbeddingSpace3D(model, WORDS, projection="pca", select="king")
    assert made.wait(60)
    yield made
    made.close()


def answer(widget, wire, kind, **content):
    wire.say(type=kind, id="v-1", **content)
    end = time.monotonic() + 30
    while not wire.customs(kind) and not wire.customs("error") and time.monotonic() < end:
        time.sleep(0.01)
    found = wire.customs(kind) or wire.customs("error")
    return found[-1]


def test_the_whole_vocabulary_travels_as_16_bit_numbers(space):
    assert space.positions.shape == (49_152, 3) and space.positions.nbytes == 294_912
    assert len(space.ids) == 0  # a row is an id
    assert space.facts["subtitle"] == "49\u202f152 tokens × 576"
    assert space.facts["provenance"] == "token_embd Q8_0 · SmolLM2-135M-Instruct · PCA"
    assert 0 < space.facts["trustworthiness"] < 1 and space.facts["quality_rows"] == 500
    assert "(estimated from 500 tokens)" in advice(space.facts), "what is read off a sample says so"
    nothing = {**space.facts, "trustworthiness": None, "neighbours_kept": None, "quality_rows": 0}
    assert advice(nothing) == "too few points to measure how far to trust the picture"
    json.dumps(space.facts, allow_nan=False)


def test_quantised_points_are_where_the_projection_puts_them():
    points = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    points[7] = np.nan
    codes, low, high = told.quantised(points)
    assert (codes[7] == told.UNPLACED).all() and (codes[np.arange(500) != 7] < told.UNPLACED).all()
    side = np.array(high) - np.array(low)
    assert np.allclose(side, side[0])  # a cube: shapes are kept
    back = codes / (told.UNPLACED - 1) * side + low
    good = np.arange(500) != 7
    assert np.abs(back - points)[good].max() < side[0] / 60_000


def test_nothing_placed_and_one_point_are_no_accident():
    assert (told.quantised(np.full((3, 3), np.nan, np.float32))[0] == told.UNPLACED).all()
    codes, low, high = told.quantised(np.ones((1, 3), np.float32))
    assert (codes == (told.UNPLACED - 1) // 2).all() and high[0] > low[0]


def test_groups_of_words_have_the_hues_and_each_level_names_more():
    r = np.random.default_rng(0)
    count, each = 40, 5
    positions = (r.normal(size=(count, 3)).repeat(each, 0) + r.normal(size=(count * each, 3)) * 0.01).astype(np.float32)
    labels = np.arange(count, dtype=np.int32).repeat(each)
    vectors = r.normal(size=(count * each, 16)).astype(np.float32)
    tokens = [f"{'' if i // each < 10 else '·'}{chr(97 + i % 26)}{chr(97 + i // 26)}word" for i in range(count * each)]
    positions[-each:] = np.nan  # the last group has no place in this picture
    found = told.groups(clusters_of(labels, np.nan_to_num(positions), vectors, tokens), positions)
    assert [group["label"] for group in found] == list(range(39))
    hued = {group["label"]: group["hue"] for group in found if group["hue"] is not None}
    assert hued == {10 + i: i for i in range(8)}, "the first ten are pieces of words"
    levels = [group["level"] for group in found]
    assert all(found[label]["level"] == 0 for label in hued) and levels.count(0) <= 16
    assert 24 <= sum(level <= 1 for level in levels) <= 39 and max(levels) == 2
    assert told.groups(None, positions) == []


def test_select_takes_texts_and_ids(model, space):
    assert space.token == 17559 and space.space.tokens[17559] == "·lamp"
    made = lt.EmbeddingSpace3D(model, [5, 900, 17559], projection="pca", select=[900, 5])
    assert (made.token, made.selected_tokens, made.ids.tolist()) == (900, [900, 5], [5, 900, 17559])
    assert made.selection["id"].tolist() == [5, 900]
    with pytest.raises(LlamaTelemetryError, match="no token holds"):
        lt.EmbeddingSpace3D(model, [5, 900], projection="pca", select="qqqq")
    made.close()


def test_neighbours_are_exact(model, space):
    x = model.embeddings()
    own = x[17559]
    alike = x @ own / np.linalg.norm(x, axis=1).clip(1e-9) / np.linalg.norm(own)
    alike[17559] = -np.inf
    want = np.argsort(-alike)[:5]
    got = space.neighbours(" lamp", 5)
    assert got["id"].tolist() == want.tolist()
    assert np.allclose(got["cosine"], alike[want], atol=1e-5)


def test_neighbours_of_a_choice_are_of_that_choice(few):
    assert set(few.neighbours("king", 20)["token"]) == set(WORDS) - {"king"}
    assert few.neighbours("king")["token"][0] == "queen"


def test_search_is_quick_and_puts_the_token_itself_first(space):
    rows, found = space._search("lamp", 50)
    assert found == 5 and space.space.tokens[rows[0]] == "·lamp"
    assert [space.space.tokens[row] for row in space._search(" lamp", 50)[0]] == ["·lamp", "·Lamp", "·lamps"]
    start = time.perf_counter()
    for text in ("a", "the", " in", "zzzz"):
        space._search(text, 50)
    assert (time.perf_counter() - start) / 4 < 0.1
    assert space._search("  ", 50) == ([], 0)


def test_a_browser_asks_and_is_answered(space):
    wire = Wire(space)
    found, _ = answer(space, wire, "search", text="lamp", limit=3)
    assert len(found["rows"]) == len(found["texts"]) == 3 and found["found"] == 5
    assert answer(space, wire, "texts", rows=[17559, 0])[0]["texts"] == ["·lamp", "<|endoftext|>"]
    about, buffers = answer(space, wire, "token", row=17559)
    assert about["texts"][0] == "·lamps" and about["cosines"][0] == pytest.approx(0.851, abs=1e-3)
    assert np.array_equal(np.frombuffer(buffers[0], "<f4"), space.space.vectors[17559])
    assert list(space.embedded) == ["17559"]  # what a saved notebook shows
    wire.sent.clear()
    wire.say(type="texts", id="v-2", rows=[49_152])
    assert "outside" in wire.customs("error")[0][0]["message"]
    wire.say(type="nothing", id="v-3")
    assert "not known" in wire.customs("error")[-1][0]["message"]


def test_columns_are_numbers_or_named_codes(space):
    for name in ("norm", "rank", "kind", "script", "even"):
        space.color = name
        facts = space.columns[name]
        size = 1 if facts["names"] else 4
        assert len(space.column_data[facts["buffer"]]) == 49_152 * size, name
        assert sum(facts["counts"]) == (49_152 if facts["names"] else 0)
    norms = told.column("norm", space.space, {}, None)[0]
    assert np.allclose(norms, np.linalg.norm(space.space.vectors, axis=1))
    space.color = "cluster"
    with pytest.raises(traitlets.TraitError, match="choose from cluster, norm"):
        space.color = "weight"


@pytest.mark.parametrize(
    ("token", "name"),
    [
        ("·lamp", "Latin"),
        ("·Привет", "Cyrillic"),
        ("漢字", "Han"),
        ("ひら", "Kana"),
        ("カタ", "Kana"),
        ("42", "digits"),
        ("·!?", "signs"),
        ("<0xE2>", "bytes"),
        ("x2", "Latin"),
        ("", "signs"),
    ],
)
def test_scripts(token, name):
    assert told.script(token) == name


def test_names_are_ranked_and_beyond_256_they_are_other():
    codes, names = told.codes([f"n{i % 300}" for i in range(900)] + ["n7"] * 5)
    assert names[0] == "n7" and len(names) == 256 and names[-1] == "other"
    assert codes.max() == 255 and (codes[-5:] == 0).all()


def test_columns_of_another_length_are_refused(model):
    with pytest.raises(LlamaTelemetryError, match=r"column 'x' has the shape \(2,\)"):
        lt.EmbeddingSpace3D(model, WORDS, projection="pca", columns={"x": [1, 2]})
    with pytest.raises(LlamaTelemetryError, match="nothing to show"):
        lt.EmbeddingSpace3D(model, [])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_few_rows_have_a_picture(model, n):
    made = lt.EmbeddingSpace3D(model, WORDS[:n])
    assert made.wait(120) and made.facts["phase"] == "done", made.facts["error"]
    assert (made.positions != told.UNPLACED).all()
    assert made.to_pandas()[["x", "y", "z"]].notna().all(axis=None)
    assert made.to_png()
    made.close()


def test_ids_that_are_not_there_are_refused(few, space):
    with pytest.raises(traitlets.TraitError, match="not in this space"):
        few.token = 8
    with pytest.raises(traitlets.TraitError, match="token 49152 is not"):
        space.selected_tokens = [1, 49_152]


def test_vectors_that_are_nan_zero_or_twice_there_are_counted_and_harm_nothing(model, tmp_path):
    rows = EmbeddingSpace(model, list(range(300, 330)))
    vectors = rows.vectors.copy()
    vectors[3], vectors[7], vectors[9] = np.nan, 0, vectors[8]
    rows.vectors = vectors
    made = lt.EmbeddingSpace3D(rows, projection="pca", color="norm", select=[303, 304, 305])
    assert made.wait(60) and made.facts["phase"] == "done", made.facts["error"]
    assert made.facts["unplaced"] == 2 and "2 vectors are zero or not finite" in made.facts["note"]
    json.dumps(made.facts, allow_nan=False)
    assert len(made.neighbours(303)) == 0 and made.neighbours(308)["id"][0] == 309
    assert len(made.selection) == 3 and len(made.to_graph().edges) == 1
    assert made.to_png() and made.to_html(tmp_path / "page.html")
    made.close()


def test_umap_takes_the_place_of_pca(model):
    made = lt.EmbeddingSpace3D(model, list(range(1000, 1300)))
    assert made.facts["method"] in ("pca", "umap")
    first = made.positions.copy()
    assert made.wait(180)
    assert made.facts["method"] == "umap" and made.facts["phase"] == "done", made.facts["error"]
    made.projection = "pca"
    assert made.wait(60) and made.facts["method"] == "pca"
    assert np.array_equal(made.positions, first) or made.facts["method"] == "pca"
    made.close()


def test_stop_keeps_pca(model, monkeypatch):
    from llamatelemetry_widget.errors import EngineCancelled

    def slow(self, *, compared, progress, cancelled):
        progress(20, 200)
        while not cancelled():
            time.sleep(0.01)
        raise EngineCancelled("the projection was stopped")

    monkeypatch.setattr(EmbeddingSpace, "umap", slow)
    made = lt.EmbeddingSpace3D(model, WORDS)
    wire = Wire(made)
    end = time.monotonic() + 10
    while made.facts["total"] != 200 and time.monotonic() < end:
        time.sleep(0.01)
    assert (made.facts["phase"], made.facts["doing"], made.facts["done"]) == ("computing", "UMAP", 20)
    wire.say(type="stop")
    assert made.wait(10)
    assert (made.facts["phase"], made.facts["method"]) == ("stopped", "pca")
    made.close()


def test_drift_against_itself_is_nothing(model):
    made = lt.EmbeddingSpace3D(model, list(range(500, 700)), projection="pca", compare=model, color="drift")
    assert made.wait(60)
    drift = made.facts["drift"]
    assert drift["kept"] == 10 and drift["median"] < 1e-6 and drift["aligned"] == "none"
    assert len(made.column_data[made.columns["drift"]["buffer"]]) == 200 * 4
    frame = made.to_pandas()
    assert frame["moved"].max() < 1e-6 and (frame["neighbours_kept"] == 1).all()
    assert made.moved.shape == (200, 3)
    assert np.abs(made.moved.astype(int) - made.positions).max() <= 40  # the same places, but for rounding
    about, vectors = made._of_row(3)
    assert len(vectors) == 2 and vectors[0] == vectors[1] and len(about["rows"]) == 10
    made.close()


def test_one_umap_holds_both_models_and_says_so(model):
    made = lt.EmbeddingSpace3D(model, list(range(700, 1000)), compare=model)
    assert made.wait(120) and made.facts["method"] == "umap", made.facts["error"]
    assert made.moved.shape == (300, 3) and "A and B are placed by one UMAP of both" in made.facts["note"]
    step = np.linalg.norm(made.moved.astype(float) - made.positions, axis=1)
    apart = np.linalg.norm(made.positions[1:].astype(float) - made.positions[:-1], axis=1)
    assert np.median(step) < np.median(apart) / 5, "the same vectors stay where they are"
    assert len(made.labels) == 300 and len(made.to_pandas()) == 300
    made.projection = "pca"
    assert made.wait(60) and "B is placed along the components of A" in made.facts["note"]
    made.close()


def test_a_trace_is_a_path_through_the_layers(model, trace):
    made = lt.EmbeddingSpace3D(model, trace=trace, projection="pca", select="lamp")
    path = made.facts["path"]
    assert path["tokens"] == len(trace.tokens) == 24 and len(made.positions) == 24 * len(path["layers"])
    assert made.color == "layer" and "every vector at length 1" in made.facts["note"]
    assert made.neighbours(made.token)["token"].iloc[0] == "·lamp"
    assert made._of_row(24)[0]["text"] == f"{trace.tokens[0]} L{path['layers'][1]}"
    assert made.wait(60)
    made.close()


def test_the_network_of_a_selection_is_found_beside_and_drawn_up_to_a_limit(space, few, monkeypatch):
    def told_of(widget, words):
        end = time.monotonic() + 30
        while words not in str(widget.facts["network"]) and time.monotonic() < end:
            time.sleep(0.01)
        return widget.facts["network"]["words"]

    space.selected_tokens = [17559, *space.neighbours(" lamp", 9)["id"]]
    space.network = 2
    assert told_of(space, "links between 10 tokens").endswith("2 nearest of each")
    x = unit(space.space.vectors)
    assert np.allclose(space.cosines, (x[space.joined[:, 0]] * x[space.joined[:, 1]]).sum(1), atol=1e-5)
    assert set(space.joined.ravel().tolist()) == set(space.selected_tokens)
    graph = space.to_graph(k=2)
    assert len(graph.edges) == len(space.joined) and graph.nodes["name"].tolist()[:1] != [""]
    assert set(graph.edges["src"]) <= set(graph.nodes["id"]) and "17559" in set(graph.nodes["id"])
    monkeypatch.setattr(told, "DRAWN", 5)
    space.network = 0.2
    assert "5 most alike drawn: to_graph() has all" in told_of(space, "cosine at least 0.2")
    assert len(space.joined) == 5 and len(space.to_graph(threshold=0.2).edges) > 5
    state = space.page_part()
    assert state.state["network"] == 0.2 and len(state.buffers["joined"]) == 5 * 8
    space.selected_tokens = []
    assert told_of(space, "select tokens first") and len(space.joined) == 0
    with pytest.raises(LlamaTelemetryError, match="select tokens first"):
        space.to_graph()
    space.network = None
    few.network = 1  # nothing is selected, and they are few
    assert "links between 8 texts" in told_of(few, "1 nearest")
    assert len(few.to_graph().nodes) == 8
    for bad in (0, 1.5, -0.2, True, "3", float("nan")):
        with pytest.raises(traitlets.TraitError, match="neither None"):
            few.network = bad
    few.network = None


def test_exports(space, few, tmp_path):
    image = Image.open(io.BytesIO(space.to_png(theme="dark")))
    assert image.size[0] > 1700 and len(image.getcolors(1 << 20)) > 20
    svg = space.to_svg(tmp_path)
    assert "·lamps" in svg and (tmp_path / "embedding-SmolLM2-135M-Instruct.svg").read_text("utf-8") == svg
    text = few.to_html(tmp_path / "few.html")
    assert text.startswith("<!doctype html>") and "king" in text and "needs a kernel" in text
    static = space._static_html("not live")
    assert "<script" not in static and "not live" in static and "Nearest to" in static


def test_what_models_hold_is_only_ever_text(model, tmp_path):
    bad = '</ScRiPt><img src=x onerror="alert(1)">'
    made = lt.EmbeddingSpace3D(model, [bad, "a\nb", "red", "green"], projection="pca", select=0)
    assert "<img src=x" not in made.to_html() and "<img src=x" not in made._static_html("")
    made.close()


def test_pandas_has_one_row_per_token(space):
    frame = space.to_pandas()
    assert len(frame) == 49_152 and frame["token"][17559] == "·lamp"
    assert {"id", "token", "kind", "norm", "x", "y", "z", "cluster", "selected", "even"} <= set(frame)
    space.selected_tokens = [3, 17559]
    assert space.selection["id"].tolist() == [3, 17559]
    space.selected_tokens = []


def test_parquet_holds_the_table(few, tmp_path):
    path = few.to_parquet(tmp_path)
    back = pd.read_parquet(path)
    assert path.suffix == ".parquet" and back["token"].tolist() == WORDS
    assert np.allclose(back["norm"], few.to_pandas()["norm"]) and [f.name for f in tmp_path.iterdir()] == [path.name]


def test_a_pythreejs_scene_has_the_points_and_colours_of_the_widget(space, few):
    made = few.to_pythreejs(theme="dark", size=(600, 400))
    assert isinstance(made, pythreejs.Renderer) and (made.width, made.height) == (600, 400)
    points, *others = made.scene.children
    places = points.geometry.attributes["position"].array
    frame = few.to_pandas()[["x", "y", "z"]].to_numpy()
    assert places.shape == (8, 3) and np.linalg.norm(places, axis=1).max() < 1.5
    scale = np.ptp(places[:, 0]) / np.ptp(frame[:, 0])
    assert np.allclose(np.ptp(places, axis=0), np.ptp(frame, axis=0) * scale, rtol=1e-3), "shapes are kept"
    assert "king" in [one.material.map.string for one in others if isinstance(one, pythreejs.Sprite)]
    whole = space.to_pythreejs().scene.children[0].geometry.attributes
    assert whole["position"].array.shape == whole["color"].array.shape == (49_152, 3)
    assert whole["color"].array.min() >= 0 and whole["color"].array.max() <= 1


def test_a_missing_pythreejs_says_what_to_do(few, monkeypatch):
    monkeypatch.setitem(sys.modules, "pythreejs", None)
    with pytest.raises(lt.BackendMissing, match=r"llamatelemetry-widget\[pythreejs\]"):
        few.to_pythreejs()
