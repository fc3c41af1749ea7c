"""Two files of one model, tensor by tensor."""

from __future__ import annotations

import pytest

from llamatelemetry_widget.models.differences import differences, role
from llamatelemetry_widget.models.header import read_header
from llamatelemetry_widget.models.tree import model_tree

from . import make


def tree_of(path):
    return model_tree(read_header(path))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blk.3.ffn_down.weight", "ffn_down"),
        ("blk.3.attn_q.bias", "attn_q.bias"),
        ("blk.12.ffn_gate.7.weight", "ffn_gate"),
        ("enc.blk.0.attn_q.weight", "enc.attn_q"),
        ("token_embd.weight", "token_embd"),
        ("v.blk.2.ln1.weight", "v.ln1"),
    ],
)
def test_a_role_is_a_name_without_its_numbers(name, expected):
    assert role(name) == expected


def test_a_file_is_the_same_as_itself(zoo_models):
    frame = differences(*(tree_of(zoo_models / "llama.gguf") for _ in range(2)))
    assert set(frame["change"]) == {"same"} and len(frame) == frame["tensor"].nunique()
    assert (frame["bytes_a"] == frame["bytes_b"]).all()


def test_other_types_are_told_with_their_bytes(zoo_models):
    trees = [tree_of(zoo_models / f"llama-{kind}.gguf") for kind in ("q8-0", "q4-0")]
    frame = differences(*trees).set_index("tensor")
    row = frame.loc["blk.0.ffn_down.weight"]
    assert (row["change"], row["type_a"], row["type_b"], row["role"], row["layer"]) == (
        "type",
        "Q8_0",
        "Q4_0",
        "ffn_down",
        0,
    )
    assert row["bytes_a"] / row["bytes_b"] == pytest.approx(34 / 18)
    assert frame.loc["output_norm.weight", "change"] == "same"
    for side, tree in zip("ab", trees, strict=True):
        assert frame[f"bytes_{side}"].sum() == sum(node.n_bytes for node in tree.root.tensors)


def test_what_one_file_lacks_and_other_shapes_are_told(tmp_path):
    metadata = {"general.architecture": "llama", "llama.block_count": 1}
    for name, own in {
        "a": [("token_embd.weight", (32, 8), 0, 1024), ("blk.0.attn_q.weight", (32, 32), 0, 4096)],
        "b": [("token_embd.weight", (32, 9), 0, 1152), ("output.weight", (32, 8), 0, 1024)],
    }.items():
        (tmp_path / f"{name}.gguf").write_bytes(make.gguf(metadata, own))
    frame = differences(*(tree_of(tmp_path / f"{name}.gguf") for name in "ab"))
    assert dict(zip(frame["tensor"], frame["change"], strict=True)) == {
        "token_embd.weight": "shape",
        "blk.0.attn_q.weight": "only in A",
        "output.weight": "only in B",
    }
    assert frame["bytes_b"].isna().tolist() == [False, True, False]
