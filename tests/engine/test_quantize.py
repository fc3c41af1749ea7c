"""Quantizing: the bytes against gguf's own quantizer, what is refused, and that a stop or a crash leaves nothing."""

from __future__ import annotations

import os
import shutil
import signal

import gguf
import numpy as np
import psutil
import pytest
from models import make

import llamatelemetry_widget as lt
from llamatelemetry_widget.engine.client import STOPPED
from llamatelemetry_widget.engine.quantize import planned, type_bytes
from llamatelemetry_widget.models.header import read_header


@pytest.fixture
def llama(zoo_models):
    return zoo_models / "llama.gguf"


def tensors(path):
    """Name to (type, bytes as stored, weights in float32)."""
    found = gguf.GGUFReader(path).tensors
    return {t.name: (t.tensor_type.name, t.data, gguf.dequantize(t.data, t.tensor_type)) for t in found}


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "F16"])
def test_the_bytes_are_those_of_gguf_s_own_quantizer(llama, tmp_path, kind):
    made = tensors(lt.quantize(llama, kind, tmp_path / "made.gguf").info.path)
    checked = 0
    for name, (own, data, _) in made.items():
        before = tensors(llama)[name][2]
        if own == kind:
            np.testing.assert_array_equal(data, gguf.quantize(before, gguf.GGMLQuantizationType[kind]))
            checked += 1
        elif own == "F32":
            np.testing.assert_array_equal(data, before)
    assert checked > 25


@pytest.mark.parametrize("kind", ["BF16", "Q2_0", "Q3_K_L", "IQ4_XS", "TQ2_0", "MXFP4_MOE"])
def test_rarer_types_by_a_dry_run(zoo_models, kind):
    header = read_header(zoo_models / "gpt2.gguf")
    plan = planned(header, kind)
    assert set(plan) == {t.name for t in header.tensors} and set(plan.values()) - {"F32"}


def test_a_dry_run_says_what_a_real_one_makes(llama, tmp_path):
    rules = {r"blk\.0\.ffn_down": "Q8_0", "attn_v": "F16"}
    plan = planned(read_header(llama), "q4_k_m", tensor_types=rules)
    made = lt.quantize(llama, "q4_k_m", tmp_path / "made.gguf", tensor_types=rules)
    stored = {name: own for name, (own, *_) in tensors(made.info.path).items()}
    assert stored == plan
    assert stored["blk.0.ffn_down.weight"] == "Q8_0" and stored["blk.1.attn_v.weight"] == "F16"
    assert made.info.quant_type == "Q4_K_M"
    assert type_bytes("Q8_0", 64) == 68 and type_bytes("F16", 64) == 128


def test_what_a_file_was_made_from_stays_known(zoo_models, tmp_path):
    wide = lt.quantize(zoo_models / "llama-q4-0.gguf", "F32", tmp_path / "wide.gguf")
    for name, (_, data, _) in tensors(wide.info.path).items():
        np.testing.assert_array_equal(data, tensors(zoo_models / "llama-q4-0.gguf")[name][2])
    again = lt.quantize(wide, "Q8_0", tmp_path / "again.gguf")
    third = lt.quantize(again, "Q5_0", tmp_path / "third.gguf")
    read = [read_header(m.info.path).metadata.get("llamatelemetry.made_from") for m in (wide, again, third)]
    assert read == ["Q4_0", "Q4_0", "Q4_0 > Q8_0"]


def test_progress_ends_with_all_tensors_and_a_split_model_becomes_one_file(zoo_models, tmp_path):
    heard = []
    made = lt.quantize(
        zoo_models / "llama-split-00001-of-00003.gguf",
        "Q8_0",
        tmp_path / "made.gguf",
        progress=lambda done, total: heard.append((done, total)),
        threads=1,
    )
    assert heard[-1] == (39, 39) and heard == sorted(heard)
    whole = lt.quantize(zoo_models / "llama.gguf", "Q8_0", tmp_path / "whole.gguf", threads=2)
    assert {n: t[1].tobytes() for n, t in tensors(made.info.path).items()} == {
        n: t[1].tobytes() for n, t in tensors(whole.info.path).items()
    }


def test_without_a_place_it_lies_in_the_cache_and_is_made_once(llama, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path / "cache"))
    source = shutil.copy(llama, tmp_path / "source.gguf")
    first = lt.quantize(source, "Q8_0").info.path
    stamp = first.stat().st_mtime_ns
    assert first.is_relative_to(tmp_path / "cache") and lt.quantize(source, "q8_0").info.path == first
    assert first.stat().st_mtime_ns == stamp
    others = {lt.quantize(source, "Q8_0", tensor_types={"attn_q": "F16"}).info.path}
    os.utime(source, (1, 1))  # another file, for all that is known
    others.add(lt.quantize(source, "Q8_0").info.path)
    assert len(others | {first}) == 3


def imatrix(path, columns, weights):
    """llama.cpp's imatrix file: per tensor the sums of squares of its input's columns, and one count."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("imatrix")
    for name, squares in columns.items():
        writer.add_tensor(f"{name}.in_sum2", np.asarray(squares, np.float32).reshape(1, -1))
        writer.add_tensor(f"{name}.counts", np.asarray([[weights]], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_an_importance_matrix_is_heeded(llama, tmp_path):
    name, squares = "blk.0.attn_q.weight", np.full(64, 1e-3)
    squares[5] = 1e4
    matrix = imatrix(tmp_path / "wichtig-µ.gguf", {name: squares}, 10)
    before = tensors(llama)[name][2]
    plain = tensors(lt.quantize(llama, "Q4_0", tmp_path / "plain.gguf").info.path)[name][2]
    guided = lt.quantize(llama, "Q4_0", tmp_path / "guided.gguf", imatrix=matrix)
    weighed = tensors(guided.info.path)[name][2]
    assert np.square(weighed - before)[:, 5].sum() < 0.5 * np.square(plain - before)[:, 5].sum()
    assert read_header(guided.info.path).metadata["quantize.imatrix.file"] == matrix.name
    with pytest.raises(lt.LlamaTelemetryError, match="imatrix size 32 is different"):
        lt.quantize(llama, "Q4_0", tmp_path / "no.gguf", imatrix=imatrix(tmp_path / "i.gguf", {name: squares[:32]}, 1))
    with pytest.raises(lt.ModelFileError, match="no importance matrix"):
        lt.quantize(llama, "Q4_0", tmp_path / "no.gguf", imatrix=llama)
    assert not (tmp_path / "no.gguf").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"type": "Q4_X"}, "no quant type 'Q4_X': choose from F32"),
        ({"type": "NVFP4"}, "no quant type"),
        ({"tensor_types": {"attn_q": "Q7"}}, "no tensor type 'Q7'"),
        ({"tensor_types": {"(": "Q8_0"}}, "no regular expression"),
        ({"tensor_types": {"blk.99": "Q8_0"}}, "no tensor of llama.gguf fits 'blk.99'"),
        ({"type": "F16", "tensor_types": {"attn_q": "Q8_0"}}, "heeds no tensor_types with F16"),
        ({"threads": 0}, "threads is 0"),
        ({"imatrix": "/nowhere"}, "no importance matrix /nowhere"),
        ({"out": "/nowhere/x.gguf"}, "names no file in a folder that exists"),
        ({"tensor_types": {"ffn_down": "NVFP4"}}, "no tensor type fallback"),
    ],
)
def test_what_is_refused_says_why(llama, tmp_path, options, words):
    with pytest.raises(lt.LlamaTelemetryError) as raised:
        lt.quantize(**{"model": llama, "type": "Q8_0", "out": tmp_path / "x.gguf", **options})
    assert words in str(raised.value) and "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_the_source_is_never_overwritten(llama, tmp_path):
    source = tmp_path / "source.gguf"
    source.write_bytes(llama.read_bytes())
    (tmp_path / "link.gguf").symlink_to(source)
    for out in (source, tmp_path / "link.gguf"):
        with pytest.raises(lt.LlamaTelemetryError, match="is the model itself"):
            lt.quantize(source, "Q8_0", out)
    assert source.read_bytes() == llama.read_bytes()


def test_a_type_that_needs_a_matrix_says_so(zoo_models, tmp_path):
    with pytest.raises(lt.LlamaTelemetryError, match="imatrix="):
        lt.quantize(zoo_models / "gpt2.gguf", "IQ2_XXS", tmp_path / "x.gguf")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_too_small_is_refused_before_a_byte_is_written(llama, tmp_path):
    free = shutil.disk_usage(tmp_path).free
    columns = 1 << 16
    rows = free // columns  # as F16 twice what is free
    reader = gguf.GGUFReader(llama)
    known = {k: f.contents() for k, f in reader.fields.items() if k.startswith("llama.")}
    metadata = {"general.architecture": "llama", "general.file_type": 0}
    metadata |= {k: v for k, v in known.items() if isinstance(v, int) and not isinstance(v, bool)}
    metadata["llama.attention.layer_norm_rms_epsilon"] = make.Raw(6, np.float32(1e-5).tobytes())
    source = tmp_path / "huge.gguf"
    source.write_bytes(make.gguf(metadata, [("blk.0.ffn_down.weight", (columns, rows), 0, 0)]))
    os.truncate(source, source.stat().st_size + columns * rows * 4)  # a hole: it takes no room
    with pytest.raises(lt.LlamaTelemetryError, match=r"it needs [\d.]+ GB and .* has [\d.]+ GB free"):
        lt.quantize(source, "F16", tmp_path / "made.gguf")
    assert [p.name for p in tmp_path.iterdir()] == ["huge.gguf"]


@pytest.mark.parametrize("how", ["crash", "interrupt", "stop"])
def test_a_run_that_ends_early_leaves_nothing(smollm2_path, tmp_path, how):
    out, stopped, others = tmp_path / "made.gguf", [], set(psutil.Process().children())
    out.write_bytes(b"what was there before")

    def early(done, total):
        assert done < total
        if how == "crash":
            for process in set(psutil.Process().children()) - others:  # none the second time
                process.send_signal(signal.SIGSEGV)
        elif how == "interrupt":
            signal.raise_signal(signal.SIGINT)
        else:
            stopped.append(True)

    token = STOPPED.set(lambda: bool(stopped))
    try:
        wanted = lt.EngineCrashed if how == "crash" else lt.EngineCancelled
        with pytest.raises(wanted, match="nothing was written"):
            lt.quantize(smollm2_path, "Q5_1", out, progress=early, threads=1)
    finally:
        STOPPED.reset(token)
    assert [p.name for p in tmp_path.iterdir()] == ["made.gguf"] and out.read_bytes() == b"what was there before"
    assert set(psutil.Process().children()) <= others
