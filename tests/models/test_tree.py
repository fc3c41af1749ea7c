"""The tree of a model: its bytes are the file's, whatever the architecture; nothing of the table is lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import gguf
import numpy as np
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.models.header import read_header
from llamatelemetry_widget.models.tree import ModelTree, model_tree

ZOO = sorted(path.stem for path in (Path(__file__).parents[1] / "data/zoo/models").glob("*.gguf"))
WHOLE = [name for name in ZOO if name != "moe-large"]


def tree_of(path) -> ModelTree:
    return model_tree(read_header(path))


@pytest.mark.parametrize("name", WHOLE)
def test_bytes_add_up_to_the_files(zoo_models, name):
    header = read_header(zoo_models / f"{name}.gguf")
    tree = model_tree(header)
    assert tree.root.n_bytes == header.n_bytes == sum(path.stat().st_size for path in header.shards)
    for node in tree:
        if node.children and node.n_bytes is not None:
            assert node.n_bytes == sum(child.n_bytes or 0 for child in node.children)
            assert node.n_weights == sum(child.n_weights for child in node.children)
    names = Counter(node.tensor.name for node in tree.root.tensors)
    assert names == Counter(t.name for t in header.tensors)
    assert len(tree.by_id) == len(list(tree)), "two nodes share an id"


def test_real_models_add_up(smollm2_path, gemma3_path):
    for path in (smollm2_path, gemma3_path):
        tree = tree_of(path)
        assert tree.root.n_bytes == path.stat().st_size
        assert tree.tied and tree.complete


def test_a_layer_has_its_blocks_heads_and_tensors(smollm2_path):
    tree = tree_of(smollm2_path)
    layers = tree.by_id["model/layers"]
    assert [node.name for node in layers.children[:2]] == ["layer 0", "layer 1"] and layers.note == "30 layers"
    blocks = {node.name: node for node in tree.by_id["model/layers/L17"].children}
    assert list(blocks) == ["attention", "MLP"]
    assert blocks["attention"].note == "9 heads, 3 KV heads"
    assert [n.name for n in blocks["attention"].children][-3:] == ["KV 0", "KV 1", "KV 2"]
    head = tree.by_id["model/layers/L17/attention/KV 1/H5"]
    assert (head.layer, head.head, head.n_bytes) == (17, 5, None)
    assert blocks["MLP"].types == {"Q4_1": blocks["MLP"].n_bytes - 576 * 4, "F32": 576 * 4}
    assert blocks["MLP"].bits_per_weight == pytest.approx(8 * blocks["MLP"].n_bytes / blocks["MLP"].n_weights)


def test_tables_are_the_tree(smollm2_path):
    tree = tree_of(smollm2_path)
    nodes, edges = tree.nodes, tree.edges
    assert len(edges) == len(nodes) - 1 and set(edges.target) == set(nodes.id) - {"model"}
    tensors = nodes[nodes.kind == "tensor"]
    reader = gguf.GGUFReader(smollm2_path)
    theirs = {t.name: t for t in reader.tensors}
    assert len(tensors) == len(theirs)
    for row in tensors.itertuples():
        own = theirs[tree.by_id[row.id].tensor.name]
        assert (row.n_bytes, row.offset, row.type) == (own.n_bytes, own.data_offset, own.tensor_type.name)
        assert row.shape == tuple(int(n) for n in own.shape)
    assert nodes.set_index("id").loc["model", "n_bytes"] == smollm2_path.stat().st_size


@pytest.mark.parametrize(
    ("name", "layer", "blocks"),
    [
        ("qwen3moe", 0, ["attention", "experts", "norms"]),
        ("mamba", 0, ["recurrence", "norms"]),
        ("t5", 0, ["attention", "MLP"]),
        ("bert", 0, ["attention", "MLP", "norms"]),
    ],
)
def test_blocks_follow_the_tensors(zoo_models, name, layer, blocks):
    tree = tree_of(zoo_models / f"{name}.gguf")
    found = next(node for node in tree if node.kind == "layer" and node.layer == layer)
    assert [node.name for node in found.children] == blocks


def test_encoder_and_decoder_are_two_stages(zoo_models):
    tree = tree_of(zoo_models / "t5.gguf")
    assert [n.name for n in tree.root.children] == ["header", "input", "encoder layers", "decoder layers", "output"]
    assert "cross-attention" in {n.name for n in tree if n.kind == "block"}


def test_a_header_alone_has_the_bytes_of_the_whole_file(zoo_models):
    tree = tree_of(zoo_models / "moe-large.gguf")
    assert not tree.complete and tree.root.n_bytes > 3e11
    experts = tree.by_id["model/layers/L3/experts"]
    assert [n.name for n in experts.children if n.kind == "expert"] == [f"expert {i}" for i in range(32)]
    assert len(tree.root.tensors) == 5771


def test_an_architecture_nobody_listed_and_an_unknown_type(tmp_path):
    path = tmp_path / "new.gguf"
    writer = gguf.GGUFWriter(path, "megaformer")
    writer.add_block_count(2)
    for i in range(2):
        for name in ("warp_in", "warp_out", "flux.weight", "flux_norm.weight"):
            writer.add_tensor(f"core.{i}.{name}", np.ones((4, 8), np.float32))
    writer.add_tensor("lexicon.weight", np.ones((4, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = bytearray(path.read_bytes())
    at = data.index(b"core.1.warp_in") + len(b"core.1.warp_in") + 4 + 16  # name, dimensions, sizes: then its type
    data[at : at + 4] = (99).to_bytes(4, "little")
    path.write_bytes(data)
    tree = tree_of(path)
    assert [n.name for n in tree.root.children] == ["header", "core", "other tensors"]
    assert [n.name for n in tree.by_id["model/core/L0"].children] == ["warp", "flux", "norms"]
    assert tree.root.n_bytes == path.stat().st_size
    odd = tree.by_id["model/core/L1/warp/warp_in"]
    assert odd.tensor.type_name == "unknown type 99" and "nobody here knows" in odd.note and odd.n_bytes == 128
    assert tree.by_id["model/core/L1"].bits_per_weight is None
    assert tree.nodes.type.isin(["unknown type 99"]).sum() == 1


def test_the_model_has_its_tree(smollm2_path):
    model = lt.open_model(smollm2_path)
    assert model.tree is model.tree and model.tree.info.name == model.info.name
    assert model.worker_pid is None, "reading a tree starts no worker"
