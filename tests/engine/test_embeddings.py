"""Embeddings and nearest neighbours, against gguf's expansion, cosines in float64 and llama.cpp's own pooling."""

from __future__ import annotations

import functools

import gguf
import llama_cpp
import numpy as np
import pytest

import llamatelemetry_widget as lt


@functools.cache
def matrix(path, name="token_embd.weight"):
    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == name)
    return gguf.dequantize(tensor.data, tensor.tensor_type)


def cosines(rows, query):
    rows, query = rows.astype(np.float64), query.astype(np.float64)
    return rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)


def test_the_whole_vocabulary_is_gguf_s(smollm2):
    whole = smollm2.embeddings()
    assert whole.shape == (49152, 576) and whole.dtype == np.float32
    np.testing.assert_allclose(whole, matrix(smollm2.info.path), atol=1e-6)
    np.testing.assert_array_equal(smollm2.embeddings([5, 49151, 5]), whole[[5, 49151, 5]])


@pytest.mark.parametrize("name", ["llama", "llama-f16", "llama-q8-0", "llama-q4-0", "gemma2", "t5"])
def test_input_and_output_matrices(zoo_model, name):
    model = zoo_model(name)
    np.testing.assert_allclose(model.embeddings(), matrix(model.info.path), atol=1e-6)
    tied = "output.weight" not in {n.tensor.name for n in model.tree.root.tensors}
    out = matrix(model.info.path, "token_embd.weight" if tied else "output.weight")
    np.testing.assert_allclose(model.embeddings(matrix="output"), out, atol=1e-6)


def test_neighbours_are_exact(smollm2):
    rows = matrix(smollm2.info.path)
    lamp = smollm2.tokenize(" lamp", add_special=False)[0]
    found = smollm2.neighbours(" lamp", 10)
    assert found.equals(smollm2.neighbours(lamp, 10))
    every = cosines(rows, rows[lamp])
    every[lamp] = -2
    best = np.argsort(-every, kind="stable")[:10]
    assert found.id.tolist() == best.tolist() and found["rank"].tolist() == list(range(1, 11))
    np.testing.assert_allclose(found.cosine, every[best], atol=1e-6)
    assert found.token[0] == "·lamps"
    several = smollm2.neighbours(rows[[lamp, 7]], 3)
    assert several["query"].tolist() == [0, 0, 0, 1, 1, 1] and several.id[0] == lamp


def test_a_row_of_zeros_is_nobody_s_neighbour(zoo_model, zoo_models, tmp_path):
    reader = gguf.GGUFReader(zoo_models / "llama.gguf")
    tensor = next(t for t in reader.tensors if t.name == "token_embd.weight")
    data = bytearray((zoo_models / "llama.gguf").read_bytes())
    data[tensor.data_offset : tensor.data_offset + 64 * 4] = bytes(64 * 4)
    (tmp_path / "zero.gguf").write_bytes(data)
    with lt.open_model(tmp_path / "zero.gguf") as model:
        assert 0 not in model.neighbours(3, 399).id.tolist()
        with pytest.raises(lt.LlamaTelemetryError, match="no direction"):
            model.neighbours(0)


def test_the_vocabulary_is_every_token(smollm2):
    pieces, kinds = smollm2.token_list
    assert len(pieces) == len(kinds) == 49152
    ids = [0, 1, 2, 100, 5000, 49151]
    assert smollm2._pieces(ids) == ([pieces[i] for i in ids], [kinds[i] for i in ids])


def test_texts_are_pooled_as_asked(smollm2):
    trace = smollm2.trace("the old lamp")
    np.testing.assert_allclose(smollm2.embeddings(["the old lamp"], layer=12)[0], trace.hidden(12).mean(0), atol=1e-5)
    last = smollm2.embeddings(["the old lamp"], layer=12, pooling="last")[0]
    np.testing.assert_allclose(last, trace.hidden(12)[-1], atol=1e-5)
    plain = smollm2.embeddings(["the old lamp"])[0]
    np.testing.assert_allclose(plain, smollm2.embeddings(smollm2.tokenize("the old lamp")).mean(0), atol=1e-6)
    assert smollm2.embeddings(["a", "b"], layer=29).shape == (2, 576)


def test_a_sentence_of_bert_is_llama_cpp_s(zoo_model):
    model = zoo_model("bert")
    own = llama_cpp.Llama(str(model.info.path), embedding=True, verbose=False, n_ctx=128)
    theirs = np.array(own.embed("hello world")).ravel()
    mine = model.embeddings(["hello world"])[0]
    assert np.abs(mine - theirs).max() <= 2e-3 * np.abs(theirs).max()
    own.close()


def test_what_is_not_there_is_said(smollm2):
    with pytest.raises(lt.LlamaTelemetryError, match="outside the vocabulary of 49152"):
        smollm2.embeddings([49152])
    with pytest.raises(lt.LlamaTelemetryError, match="choose input or output"):
        smollm2.embeddings([1], matrix="middle")
    with pytest.raises(lt.LlamaTelemetryError, match="choose mean, last or first"):
        smollm2.embeddings(["x"], pooling="most")
    with pytest.raises(lt.LlamaTelemetryError, match="has no tokens"):
        smollm2.embeddings([""])
    with pytest.raises(lt.LlamaTelemetryError, match="have 3 numbers"):
        smollm2.neighbours(np.ones(3))
