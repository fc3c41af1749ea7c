"""The operator graph: every weight of the file is in it, sources come first, layers fold, times are measured."""

from __future__ import annotations

import numpy as np
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.engine.operator_kinds import KINDS

IDS = [5, 6, 7, 8, 9, 10]
ZOO = [
    "llama",
    "gemma2",
    "gemma3",
    "gpt-oss",
    "gpt2",
    "mpt",
    "qwen3moe",
    "deepseek2",
    "lfm2",
    "mamba",
    "bert",
    "t5",
    "wide",
]


@pytest.mark.parametrize("name", ZOO)
def test_the_graph_reads_every_weight(zoo_model, name):
    model = zoo_model(name)
    graph = model.graph(IDS, repeats=1, decoder_prompt=[0, 1] if name == "t5" else None)
    nodes, edges = graph.nodes, graph.edges
    assert nodes.id.is_unique and edges.source.isin(nodes.id).all() and edges.target.isin(nodes.id).all()
    order = nodes.set_index("id")["index"]
    known = edges[edges.source.map(order).notna()]
    assert (known.source.map(order) < known.target.map(order)).all()
    weights = set(nodes[nodes.op == "WEIGHT"].name)
    assert {node.tensor.name for node in model.tree.root.tensors} <= weights
    layers = [node.layer for node in model.tree if node.kind == "layer"]
    assert set(nodes.layer.dropna()) == set(layers)
    runs = nodes[nodes["index"].notna()]
    assert (runs.seconds >= 0).all() and runs.backend.str.startswith("CPU").all()
    assert graph.layers.operations.sum() == len(runs)


def test_flash_attention_is_one_operation_or_several(smollm2):
    on, off = (smollm2.graph(IDS, repeats=0, flash_attention=flash).nodes for flash in ("on", "off"))
    assert (on.op == "FLASH_ATTN_EXT").sum() == 30 and on[on.op == "FLASH_ATTN_EXT"].fused.all()
    assert (off.op == "SOFT_MAX").sum() == 30 and (off.op == "FLASH_ATTN_EXT").sum() == 0
    assert on.seconds.isna().all()


def test_weights_stand_in_the_layer_of_their_name(smollm2):
    nodes = smollm2.graph(IDS, repeats=0).nodes
    own = nodes[(nodes.op == "WEIGHT") & nodes.name.str.startswith("blk.")]
    assert (own.name.str.extract(r"blk\.(\d+)\.")[0].astype(int) == own.layer).all()
    last = nodes[nodes["index"].notna()].iloc[-1]
    assert last["name"] == "result_output" and last.stage == "output" and last["shape"][0] == smollm2.info.vocab_size
    product = nodes[nodes.name == "ffn_gate-3"].iloc[0]
    assert (product.op, product.layer, product["shape"][0]) == ("MUL_MAT", 3, 1536)


def test_times_are_beside_the_run_without_stops(smollm2):
    graph = smollm2.graph(list(range(100, 228)), repeats=3)
    ran = graph.nodes[graph.nodes["index"].notna()]
    assert np.isfinite(ran.seconds).all() and (ran.seconds >= 0).all() and graph.info["whole_seconds"]["self"] > 0
    assert graph.info["n_tokens"] == {"self": 128} and (ran[ran.op == "MUL_MAT"].seconds > 0).all()


def test_a_file_without_weights_has_no_graph(zoo_model):
    with pytest.raises(lt.ModelFileError, match="header alone"):
        zoo_model("moe-large").graph(IDS)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("llama", {"Qcur-1": "attention", "FLASH_ATTN_EXT": "attention", "ffn_swiglu-1": "MLP", "ffn_norm-1": "norm"}),
        (
            "qwen3moe",
            {"Kcur_normed-1": "norm", "ffn_moe_probs-1": "MLP", "ffn_moe_out-1": "MLP", "SET_ROWS": "attention"},
        ),
        ("gemma2", {"sa_out-1": "other", "l_out-1": "other", "ffn_geglu-1": "MLP", "UNARY": "other"}),
        ("bert", {"kqv_out-1": "attention", "ffn_gelu-1": "MLP", "inp_embd": "other"}),
        ("mamba", {"SSM_SCAN": "recurrence", "GLU": "recurrence", "CONCAT": "recurrence", "ROPE": None}),
        ("t5", {"kq_soft_max-1": "attention", "cross_inp-1": "other", "v_cont-1": "attention"}),
    ],
)
def test_operations_belong_to_a_block(zoo_model, name, kinds):
    nodes = zoo_model(name).graph(IDS, repeats=0, decoder_prompt=[0, 1] if name == "t5" else None).nodes
    runs = nodes[nodes["index"].notna() & ~nodes.op.isin(["VIEW", "RESHAPE", "PERMUTE"])]
    assert set(runs.kind) <= set(KINDS) and nodes[nodes["index"].isna()].kind.isna().all()
    for what, kind in kinds.items():
        own = runs[(runs.op == what) | (runs.name == what)]
        assert set(own.kind) == (set() if kind is None else {kind}), what
    layers, rest = runs[runs.stage == "layers"], runs[runs.stage != "layers"]
    assert layers[layers.kind == "other"].op.isin(["ADD", "GET_ROWS"]).all() and set(rest.kind) <= {"norm", "other"}
