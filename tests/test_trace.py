"""Traces on their own: saved, loaded, and shown truthfully, with no worker and no model."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

import llamatelemetry_widget as lt
from llamatelemetry_widget.trace import display_token


@pytest.fixture(scope="module", params=["llama", "gemma2", "gpt-oss", "mpt", "qwen3moe", "lfm2", "mamba", "bert", "t5"])
def trace(request, zoo_models):
    with lt.open_model(zoo_models / f"{request.param}.gguf") as model:
        ids = model.tokenize("The quick brown fox jumps over the lazy dog")
        yield model.trace(ids, decoder_prompt=[3, 4, 5] if request.param == "t5" else None)


def test_a_loaded_trace_is_the_saved_one(trace, tmp_path):
    again = lt.load_trace(trace.save(tmp_path / "t.safetensors"))
    assert again.tokens == trace.tokens and again.text == trace.text and again.provenance == trace.provenance
    assert again.parts == trace.parts and again.telemetry == trace.telemetry
    pd.testing.assert_frame_equal(again.head_stats, trace.head_stats, check_dtype=False)
    pd.testing.assert_frame_equal(again.check, trace.check, check_dtype=False)
    np.testing.assert_array_equal(again.thumbnails, trace.thumbnails)
    for part in trace.parts:
        assert again.layers_of(part) == trace.layers_of(part)
        assert again.part_tokens(part) == trace.part_tokens(part)
        for facts in trace.layers_of(part):
            if facts.kind == "attention":
                for stage in trace.stages(facts.layer, part):
                    a, b = (t.attention(facts.layer, 0, stage, part=part) for t in (again, trace))
                    np.testing.assert_array_equal(a, b)
    for layer in trace._part_layers[next(iter(trace._part_layers))]:
        np.testing.assert_array_equal(again.hidden(layer), trace.hidden(layer))
    assert set(again.experts) == set(trace.experts)
    for layer, (ids, weights) in trace.experts.items():
        np.testing.assert_array_equal(again.experts[layer][0], ids)
        np.testing.assert_array_equal(again.experts[layer][1], weights)


def test_the_file_says_where_it_comes_from(zoo_models, tmp_path):
    with lt.open_model(zoo_models / "llama-q4-0.gguf") as model:
        path = model.trace("a b c").save(tmp_path / "t.safetensors")
    with safe_open(path, "numpy") as file:
        stored = json.loads(file.metadata()["trace"])["info"]
    import hashlib

    assert stored["sha256"] == hashlib.sha256((zoo_models / "llama-q4-0.gguf").read_bytes()).hexdigest()
    assert stored["quant_type"] == "Q4_0" and stored["file"] == "llama-q4-0.gguf"
    assert stored["llama_cpp_python"] and stored["settings"]["flash_attention"] == "auto" and stored["date"]


def test_a_loaded_trace_needs_no_model_and_no_llama_cpp(zoo_models, tmp_path):
    with lt.open_model(zoo_models / "llama.gguf") as model:
        path = model.trace([5, 6, 7, 8]).save(tmp_path / "t.safetensors")
    code = (
        "import sys; sys.modules['llama_cpp'] = None\n"
        "import llamatelemetry_widget as lt\n"
        "t = lt.load_trace(sys.argv[1]); print(t.attention(0, 0).shape, len(t.head_stats))"
    )
    done = subprocess.run([sys.executable, "-c", code, os.fspath(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(4, 4) 32"


def test_a_file_that_is_no_trace_is_refused_in_one_line(tmp_path, zoo_models):
    broken = tmp_path / "t.safetensors"
    with pytest.raises(lt.LlamaTelemetryError, match="no trace at"):
        lt.load_trace(broken)
    with lt.open_model(zoo_models / "llama.gguf") as model:
        whole = model.trace("a b").save(tmp_path / "whole.safetensors").read_bytes()
    for bad in (b"", b"x" * 100, whole[: len(whole) // 2], whole[:64] + b"\0" * 200 + whole[264:]):
        broken.write_bytes(bad)
        with pytest.raises(lt.LlamaTelemetryError) as error:
            lt.load_trace(broken)
        assert "\n" not in str(error.value)


def test_a_save_that_fails_leaves_the_old_file(zoo_models, tmp_path, monkeypatch):
    with lt.open_model(zoo_models / "llama.gguf") as model:
        trace = model.trace("a b")
    path = trace.save(tmp_path / "t.safetensors")
    before = path.read_bytes()

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        trace.save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]


def test_what_is_not_there_is_an_error_that_says_what_is(trace):
    with pytest.raises(lt.CaptureUnavailable, match="part 'nowhere' does not exist in this trace"):
        trace.layers_of("nowhere")
    with pytest.raises(lt.CaptureUnavailable):
        trace.attention(99, 0)
    for facts in trace.layers:
        if facts.kind == "attention":
            with pytest.raises(lt.CaptureUnavailable, match="head 99 does not exist"):
                trace.attention(facts.layer, 99)
            with pytest.raises(lt.CaptureUnavailable, match=r"stage 'magic' does not exist .* it has scores"):
                trace.attention(facts.layer, 0, "magic")
        else:
            with pytest.raises(lt.CaptureUnavailable, match="no attention"):
                trace.attention(facts.layer, 0)


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        (b" lamp", "·lamp"),
        (b"   ", "␣␣␣"),
        (b"\n\n", "⏎⏎"),
        (b"\t", "⇥"),
        (bytes([0xE2, 0x80]), "<0xE2><0x80>"),
        ("é".encode() + b"\xff", "é<0xFF>"),
        ("\u202eabc".encode(), "<U+202E>abc"),
        (b"<b>", "<b>"),
        (b"\x00", "<U+0000>"),
        (b"", ""),
    ],
)
def test_tokens_are_shown_as_they_are(piece, shown):
    assert display_token(piece) == shown


def test_layers_and_heads_are_whole_numbers(zoo_models):
    with lt.open_model(zoo_models / "llama.gguf") as model:
        trace = model.trace(list(range(5, 15)), progress=False)
    assert (trace.attention(np.int64(1), np.int32(2)) == trace.attention(1, 2)).all()
    with pytest.raises(TypeError, match="layer must be a whole number, not '1'"):
        trace.attention("1", 2)
    with pytest.raises(TypeError, match=r"head must be a whole number, not 2\.0"):
        trace.attention(1, 2.0)
