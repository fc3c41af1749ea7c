"""Weights expanded in the worker, against gguf's own expansion and NumPy."""

from __future__ import annotations

import functools

import gguf
import numpy as np
import pytest

import llamatelemetry_widget as lt


@functools.cache
def tensors(path):
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


def expanded(path, name):
    tensor = tensors(path)[name]
    return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float64).ravel()


@pytest.mark.parametrize("name", ["token_embd.weight", "blk.3.ffn_down.weight", "blk.7.attn_norm.weight"])
def test_statistics_are_those_of_the_expanded_weights(smollm2, name):
    found, x = smollm2.tensor_stats(name), expanded(smollm2.info.path, name)
    assert found["count"] == x.size and found["not_finite"] == 0
    for key, value in {"min": x.min(), "max": x.max(), "mean": x.mean(), "std": x.std()}.items():
        assert found[key] == pytest.approx(value, rel=1e-5, abs=1e-9), key
    assert found["rms"] == pytest.approx(np.sqrt((x**2).mean())) and found["zeros"] == (x == 0).sum()
    assert found["histogram"].sum() == x.size and len(found["edges"]) == len(found["histogram"]) + 1
    np.testing.assert_array_equal(found["histogram"], np.histogram(x.astype(np.float32), found["edges"])[0])
    assert found["outliers"] == (np.abs(x - x.mean()) > 6 * x.std()).sum()


def test_every_tensor_of_a_k_quant_file_can_be_expanded(gemma3):
    types = set()
    for node in gemma3.tree.root.tensors[-14:]:
        found = gemma3.tensor_stats(node.tensor.name)
        x = expanded(gemma3.info.path, node.tensor.name)
        assert found["rms"] == pytest.approx(np.sqrt((x**2).mean()), rel=1e-6)
        types.add(node.tensor.type_name)
    assert len(types) >= 2


def test_the_error_between_two_quantizations(zoo_model):
    whole, small = zoo_model("llama"), zoo_model("llama-q4-0")
    table = whole.weight_error(small)
    assert len(table) == len(whole.tree.root.tensors) and (table.note == "").all()
    assert table.relative.is_monotonic_decreasing
    row = table.iloc[0]
    a, b = expanded(whole.info.path, row.tensor), expanded(small.info.path, row.tensor)
    assert row.rmse == pytest.approx(np.sqrt(((a - b) ** 2).mean()), rel=1e-6)
    assert row.relative == pytest.approx(row.rmse / np.sqrt((a**2).mean()), rel=1e-6)
    assert row.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-6)
    same = table[table.type_a == table.type_b]
    assert len(same) and (same.rmse == 0).all()
    eight = whole.weight_error(zoo_model("llama-q8-0"))
    assert eight.relative.max() < table.relative.max() / 5


def test_files_that_differ_say_how(zoo_model):
    table = zoo_model("llama").weight_error(zoo_model("qwen2"))
    assert {"only in this file", "only in the other file"} <= set(table.note)
    assert table[table.note != ""].rmse.isna().all()


def test_what_cannot_be_read_is_said(zoo_model):
    with pytest.raises(lt.LlamaTelemetryError, match="no tensor 'nothing'"):
        zoo_model("llama").tensor_stats("nothing")
    with pytest.raises(lt.ModelFileError, match="header alone"):
        zoo_model("moe-large").tensor_stats("output.weight")


def test_split_files_are_read_where_they_lie(zoo_model):
    split, whole = zoo_model("llama-split-00001-of-00003"), zoo_model("llama")
    table = whole.weight_error(split)
    assert len(table) == 39 and (table.rmse == 0).all()
