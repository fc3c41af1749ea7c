"""The tree's Python side: its columns are the tree, selection by node, layer and head, measurements, notices."""

from __future__ import annotations

import time

import gguf
import numpy as np
import pytest
import traitlets
from models import make

import llamatelemetry_widget as lt
from llamatelemetry_widget.models.ggml_types import ggml_type
from llamatelemetry_widget.models.header import read_header
from llamatelemetry_widget.models.tree import model_tree
from llamatelemetry_widget.widgets.architecture_facts import KINDS, Tables, columns, metadata, notices, type_facts
from llamatelemetry_widget.widgets.architecture_tree import _ids

from .conftest import Wire

FFN = "model/layers/L17/MLP/ffn_down.weight"


@pytest.fixture
def tree(model):
    made = lt.ArchitectureTree(model)
    yield made
    made.close()


@pytest.fixture
def pair(zoo_models):
    models = [lt.open_model(zoo_models / f"llama-{kind}.gguf") for kind in ("q8-0", "q4-0")]
    made = lt.ArchitectureTree(models[0], compare=models[1])
    yield made
    made.close()
    for one in models:
        one.close()


def opened(tmp_path, metadata, tensors):
    path = tmp_path / "m.gguf"
    path.write_bytes(make.gguf(metadata, tensors))
    return model_tree(read_header(path))


# ------------------------------------------------------------------------- columns


@pytest.mark.parametrize(
    "name", ["llama", "qwen3moe", "t5", "deepseek2", "mamba", "moe-large", "deep", "llama-split-00002-of-00003"]
)
def test_columns_hold_the_whole_tree(zoo_models, name):
    tree = model_tree(read_header(zoo_models / f"{name}.gguf"))
    tables = Tables.new()
    own = columns(tree, tables)
    ids = _ids(own.nodes, tables.strings.values, np.arange(own.nodes.shape[1]))
    assert sorted(ids) == sorted(tree.by_id) and len(set(ids)) == len(ids)
    for at, id in zip(range(len(ids)), ids, strict=True):
        node = tree.by_id[id]
        assert KINDS[own.nodes[2, at]] == node.kind
        assert (own.nodes[3, at], own.nodes[4, at]) == tuple(-1 if v is None else v for v in (node.layer, node.head))
    leaf_ids = [ids[at] for at in own.leaves[0].astype(int)]
    assert own.leaves[4].sum() == tree.root.n_bytes
    for id, leaf in zip(leaf_ids, own.leaves.T, strict=True):
        node = tree.by_id[id]
        assert leaf[4] == node.n_bytes
        if node.tensor is not None:
            assert ggml_type(tables.types.values[int(leaf[2])]).name == node.tensor.type_name
            assert tables.shapes.values[int(leaf[3])] == node.tensor.shape
            assert (leaf[5], leaf[6]) == (node.tensor.offset, node.tensor.shard)
    tensors = [tree.by_id[id].tensor for id in leaf_ids]
    assert own.names == ["" if tensor is None else tensor.name for tensor in tensors]
    parents = own.nodes[0]
    assert (parents[1:] < np.arange(1, len(parents))).all(), "parents come first"


def test_tensors_stand_in_the_order_of_a_run_whatever_the_files_order(smollm2_path):
    own = columns(model_tree(read_header(smollm2_path)), Tables.new())
    layer = [name.split(".")[2] for name in own.names if name.startswith("blk.3.")]
    assert layer[:5] == ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output"]
    assert layer[5:] == ["ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]


@pytest.mark.parametrize(
    ("code", "hue", "family"),
    [
        *[(12, 4, "k"), (14, 6, "k"), (3, 4, "legacy"), (8, 8, "legacy"), (16, 2, "iq"), (20, 4, "iq")],
        *[
            (0, 32, "plain"),
            (1, 16, "plain"),
            (30, 16, "plain"),
            (39, 4, "plain"),
            (29, 2, "iq"),
            (99, None, "unknown"),
        ],
    ],
)
def test_colour_is_bits_and_texture_is_family(code, hue, family):
    own = type_facts(ggml_type(code))
    assert (own["hue"], own["family"]) == (hue, family)


def test_metadata_is_text_and_long_arrays_are_their_length(smollm2_path):
    rows = {key: (kind, value) for key, kind, value in metadata(read_header(smollm2_path).metadata)}
    assert rows["llama.block_count"] == ("number", "30")
    assert rows["tokenizer.ggml.tokens"] == ("array", "49\u202f152 texts")
    assert all(isinstance(value, str) for _, value in rows.values())


def test_a_hundred_thousand_nodes_open_quickly(tmp_path):
    """A header as gguf-py writes it: 1000 layers of 22 experts. It stands for a model that is larger than any."""
    path = tmp_path / "big.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1000)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    matrix, norm = (((32, 32), 4096), ((32,), 128))
    for layer in range(1000):
        names = {f"attn_{x}": matrix for x in ("q", "k", "v", "output")} | {"attn_norm": norm, "ffn_norm": norm}
        names |= {f"ffn_{x}.{e}": matrix for e in range(22) for x in ("gate", "up", "down")}
        for name, (shape, size) in names.items():
            writer.add_tensor_info(f"blk.{layer}.{name}.weight", shape, np.dtype(np.float32), size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    model = lt.open_model(path)
    assert len(model.tree.by_id) > 100_000
    start = time.process_time()
    widget = lt.ArchitectureTree(model)
    seconds = time.process_time() - start
    assert seconds < 1.5
    assert widget.nodes.nbytes + widget.leaves.nbytes < 7e6
    widget.selected_layer = 500
    assert widget.selected_node == "model/layers/L500"
    widget.close()


# ------------------------------------------------------------------------- notices


def test_a_file_of_another_type_than_its_name_says_so(gemma3_path):
    ((strong, why), *_) = notices(model_tree(read_header(gemma3_path)))
    assert strong == "91 tensors are not what the name Q4_K_M says."
    assert "Rows of 640 weights are no multiple of 256" in why and "81 × Q5_0 and 10 × Q8_0" in why


def test_a_reason_is_given_only_where_it_is_certain(smollm2_path, tmp_path):
    ((strong, why), *_) = notices(model_tree(read_header(smollm2_path)))
    assert strong == "1 tensor is not what the name Q4_1 says."
    assert "the file does not say why" in why
    header = {"general.architecture": "llama", "general.file_type": 15}
    tree = opened(
        tmp_path, header, [("blk.0.ffn_up.weight", (256, 2), 8, 544), ("blk.0.ffn_down.weight", (256, 1), 12, 144)]
    )
    assert "the file does not say why" in notices(tree)[0][1]
    tree = opened(
        tmp_path, header, [("blk.0.ffn_up.weight", (256, 1), 14, 210), ("blk.0.ffn_norm.weight", (32,), 0, 128)]
    )
    assert notices(tree) == []


def test_tied_split_and_header_only_files_say_so(model, zoo_models):
    def strong(name):
        return [words for words, _ in notices(model_tree(read_header(zoo_models / f"{name}.gguf")))]

    assert "Output is tied to token_embd." in [words for words, _ in notices(model.tree)]
    assert "3 files, one model." in strong("llama-split-00001-of-00003")
    assert "Only the header is here." in strong("moe-large")


def test_m3_an_unknown_type_is_shown_and_left_out_of_bits(tmp_path):
    tensors = [("token_embd.weight", (32, 8), 0, 1024), ("blk.0.attn_q.weight", (32, 32), 200, 640)]
    (tmp_path / "m.gguf").write_bytes(make.gguf({"general.architecture": "llama"}, tensors))
    widget = lt.ArchitectureTree(lt.open_model(tmp_path / "m.gguf"))
    (own,) = (kind for kind in widget.facts["types"] if kind["family"] == "unknown")
    assert own == {"name": "unknown type 200", "bits": None, "hue": None, "family": "unknown", "block": None}
    assert [
        "1 tensor has an unknown type.",
        "unknown type 200: shown as it stands, left out of bits per weight.",
    ] in widget.facts["sides"][0]["notices"]
    assert "bits per weight unknown" in widget.to_svg()
    widget.close()


# ----------------------------------------------------------------------- selection


def test_a_node_a_layer_and_a_head_are_one_selection(tree):
    tree.selected_node = FFN
    assert (tree.selected_layer, tree.selected_head) == (17, None)
    tree.selected_layer = 3
    assert tree.selected_node == "model/layers/L3"
    with tree.hold_trait_notifications():
        tree.selected_layer, tree.selected_head = 17, 5
    assert tree.selected_node == "model/layers/L17/attention/KV 1/H5"
    tree.selected_node = "model/input/token_embd.weight"
    assert (tree.selected_layer, tree.selected_head) == (None, None)
    tree.selected_node = ""
    assert tree.selected_layer is None


def test_what_does_not_exist_is_refused_with_what_does(tree):
    with pytest.raises(traitlets.TraitError, match="layers 0 to 29"):
        tree.selected_layer = 30
    with pytest.raises(traitlets.TraitError, match=r"model.tree.nodes"):
        tree.selected_node = "model/nothing"
    with pytest.raises(traitlets.TraitError, match="'type', 'bits', 'bytes'"):
        tree.overlay = "time"
    with pytest.raises(lt.LlamaTelemetryError, match="model is a Model, not str"):
        lt.ArchitectureTree("smollm2")


def test_a_tensor_stays_chosen_when_its_layer_comes_back(tree):
    """The browser sets node, layer and head at once; linked widgets give the layer back."""
    wire = Wire(tree)
    wire.change(selected_node=FFN, selected_layer=17, selected_head=None)
    assert tree.selected_node == FFN
    with tree.hold_trait_notifications():
        tree.selected_layer, tree.selected_head = 17, None
    assert tree.selected_node == FFN


def test_linked_with_a_grid_both_ways(model, trace, tree):
    grid = lt.AttentionGrid(trace)
    link = lt.link(grid, tree)
    grid.select(17, 5)
    assert tree.selected_node == "model/layers/L17/attention/KV 1/H5"
    tree.selected_node = "model/layers/L3/attention/KV 0/H1"
    assert grid.locked == (3, 1)
    tree.selected_node = FFN
    assert (grid.selected_layer, grid.selected_head, tree.selected_node) == (17, None, FFN)
    grid.select(None)
    assert tree.selected_node == ""
    link.unlink()
    grid.close()


# -------------------------------------------------------------------- measurements


def test_a_traces_norms_are_overlays(model, trace):
    tree = lt.ArchitectureTree(model, trace=trace, overlay="norm")
    names = [own["name"] for own in tree.facts["overlays"]]
    assert names == ["norm", "outliers"]
    frame = tree.to_pandas().set_index("id")
    rows = trace.mlp_out(17)[1:].astype(np.float64)
    assert frame.loc[FFN, "norm"] == pytest.approx(np.median(np.linalg.norm(rows, axis=1)), rel=1e-5)
    hidden = trace.hidden(17)[1:].astype(np.float64)
    assert frame.loc[FFN, "outliers"] == pytest.approx(np.abs(hidden).max() / np.sqrt((hidden**2).mean()), rel=1e-5)
    assert np.isnan(frame.loc["model/input/token_embd.weight", "norm"])
    assert "replayed" in tree.facts["overlays"][0]["source"] or "measured" in tree.facts["overlays"][0]["source"]
    tree.close()


def test_the_graph_of_a_prompt_is_columns_and_its_times_an_overlay(zoo_models):
    with lt.open_model(zoo_models / "qwen3moe.gguf") as model:
        tree = lt.ArchitectureTree(model)
        graph = tree.run_graph(list(range(5, 20)), repeats=1)
        nodes = graph.nodes[graph.nodes["index"].notna()]
        assert tree.graph_nodes.shape == (9, len(nodes))
        strings = tree.graph["strings"]
        assert [strings[i] for i in tree.graph_nodes[1]] == nodes["op"].tolist()
        assert tree.graph_nodes[3].tolist() == [
            -1 if layer != layer else layer for layer in nodes["layer"].astype(float)
        ]
        sources, targets = tree.graph_edges
        assert (sources < targets).all() and len(sources) == sum(graph.edges["source"].isin(nodes["id"]))
        names = [node.tensor.name for node in model.tree.root.tensors]
        read = {own.rpartition("/leaf/")[2] for own in graph.edges["source"]} & set(names)
        assert tree.graph_weights.shape[1] >= len(read) == len(set(tree.graph_weights[0]))
        tree.overlay = "time"
        times = tree.to_pandas()["time"].dropna()
        assert len(times) == len(read) and (times >= 0).all()
        assert tree.graph["provenance"].startswith("read from the running graph in llama.cpp · 15 tokens · ")
        again = lt.ArchitectureTree(model, graph=graph)
        assert (again.graph_nodes == tree.graph_nodes).all() and again.graph == tree.graph
        tree.close()
        again.close()


def test_weight_errors_are_put_beside_the_tensors(pair):
    frame = pair.compare_weights().set_index("tensor")
    names = pair._names
    assert pair.errors.shape == (3, len(names))
    at = names.index("blk.0.ffn_down.weight")
    assert pair.errors[1, at] == pytest.approx(frame.loc["blk.0.ffn_down.weight", "relative"], rel=1e-6)
    assert pair.errors[1, names.index("output_norm.weight")] == 0
    assert np.isnan(pair.errors[1, names.index("")])
    pair.overlay = "error"


def test_one_file_has_no_weight_errors(tree):
    with pytest.raises(lt.LlamaTelemetryError, match="one file only"):
        tree.compare_weights()


def wait(wire, kind, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := wire.customs(kind):
            return found[-1]
        time.sleep(0.02)
    raise AssertionError(f"no {kind}: {wire.customs()}")


def test_the_browser_is_given_values_graph_and_errors_when_it_asks(pair):
    wire = Wire(pair)
    wire.say(type="tensor", id="a-1", side=1, name="blk.0.ffn_down.weight")
    content, (counts, edges) = wait(wire, "tensor")
    own = pair._compare.tensor_stats("blk.0.ffn_down.weight")
    assert content["id"] == "a-1" and content["statistics"]["std"] == pytest.approx(float(own["std"]))
    assert np.frombuffer(counts, np.float64).sum() == own["count"]
    assert len(np.frombuffer(edges, np.float64)) == 65
    wire.say(type="errors", id="a-2")
    assert wait(wire, "errors")[0]["id"] == "a-2"
    wire.say(type="graph", id="a-3")
    assert wait(wire, "graph")[0]["id"] == "a-3"
    assert "time" in [own["name"] for own in pair.facts["overlays"]]
    wire.say(type="tensor", id="a-4", side=0, name="no.such.tensor")
    assert "no tensor" in wait(wire, "error")[0]["message"]
    wire.say(type="nonsense", id="a-5")
    assert wire.customs("error")[-1][0]["id"] == "a-5"


def test_a_header_alone_cannot_run_and_says_why(zoo_models):
    tree = lt.ArchitectureTree(lt.open_model(zoo_models / "moe-large.gguf"))
    assert "header alone" in tree.facts["runs"]
    wire = Wire(tree)
    wire.say(type="graph", id="b-1")
    assert "header alone" in wait(wire, "error")[0]["message"]
    tree.close()


def test_memory_is_planned_as_fit_does(model, tree):
    fit = tree.plan_memory(2048, gpu="1GB")
    assert tree.plan["total"] == fit.total_bytes == sum(tree.plan["owners"].values())
    assert tree.plan["owners"]["kv"] == fit.kv_bytes and tree.plan["gpu_layers"] == fit.gpu_layers == 31
    assert [2048, fit.total_bytes] in tree.plan["contexts"]
    assert tree.plan["server"].endswith("-c 2048 -fa auto -ngl 31")
    wire = Wire(tree)
    wire.say(type="fit", id="c-1", n_ctx=512, kv_type="q8_0", gpu="")
    assert wait(wire, "fit")[0]["id"] == "c-1"
    assert (tree.plan["n_ctx"], tree.plan["kv_type"], tree.plan["gpu_bytes"]) == (512, "q8_0", None)
    wire.say(type="fit", id="c-2", n_ctx=512, kv_type="q8_0", gpu="much")
    assert "'much'" in wait(wire, "error")[0]["message"]


# ---------------------------------------------------------------------- comparison


def test_two_files_are_paired_and_told_by_role(pair):
    assert (pair.pairs >= 0).all()
    a, b = (pair.leaves, pair.leaves_b)
    assert (a[1] == b[1][pair.pairs]).all()
    rows = {row["role"]: row for row in pair.facts["roles"]}
    down = rows["ffn_down"]
    assert (down["types_a"], down["types_b"]) == ([["Q8_0", down["count"]]], [["Q4_0", down["count"]]])
    assert down["bytes_a"] / down["bytes_b"] == pytest.approx(34 / 18)
    changes = [abs(row["bytes_b"] - row["bytes_a"]) for row in pair.facts["roles"]]
    assert changes == sorted(changes, reverse=True)
    assert set(pair.to_pandas()["change"]) <= {"same", "type"}
    assert repr(pair).count("ModelTree") == 2
