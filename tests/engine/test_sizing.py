"""`Model.fit`: the dry run against what llama.cpp reports when it really allocates."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

import llamatelemetry_widget as lt

#: Loads a model and makes a context for real; prints what llama.cpp reports of its buffers.
REAL = r"""
import json, re, sys
from llama_cpp import llama_cpp as L
path, n_ctx, n_ubatch, kv_type = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
lines = []
callback = L.llama_log_callback(lambda level, text, data: lines.append(text.decode()))
L.llama_log_set(callback, None)
model = L.llama_model_load_from_file(path.encode(), L.llama_model_default_params())
p = L.llama_context_default_params()
p.n_ctx, p.n_batch, p.n_ubatch, p.swa_full, p.type_k, p.type_v = n_ctx, n_ubatch, n_ubatch, False, kv_type, kv_type
assert L.llama_init_from_model(model, p)
total = lambda rule: sum(float(x) for x in re.findall(rule, "".join(lines)))
print(json.dumps({
    "kv": total(r"KV buffer size = *([\d.]+) MiB"),
    "recurrent": total(r"RS buffer size = *([\d.]+) MiB"),
    "compute": total(r"compute buffer size = *([\d.]+) MiB"),
    "output": total(r"output buffer size = *([\d.]+) MiB"),
    "weights": total(r"Mapped model buffer size = *([\d.]+) MiB"),
}))
"""


def reported(path, n_ctx, n_ubatch=512, kv_type=1):
    arguments = [sys.executable, "-c", REAL, str(path), str(n_ctx), str(n_ubatch), str(kv_type)]
    out = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    return {name: mib * 1024 * 1024 for name, mib in json.loads(out).items()}


def check(fit, real):
    for name in ("kv", "recurrent", "compute", "output"):
        assert getattr(fit, f"{name}_bytes") == pytest.approx(real[name], rel=0.02, abs=6000), name
    assert fit.weights_bytes == pytest.approx(real["weights"], rel=0.02, abs=6000)


@pytest.mark.parametrize(("n_ctx", "n_ubatch"), [(2048, 512), (8192, 256)])
def test_smollm2_as_llama_cpp_reports_it(smollm2, n_ctx, n_ubatch):
    check(smollm2.fit(n_ctx, n_ubatch=n_ubatch), reported(smollm2.info.path, n_ctx, n_ubatch))


def test_gemma3_with_its_windows(gemma3):
    fit = gemma3.fit(16384)
    check(fit, reported(gemma3.info.path, 16384))
    whole = gemma3.fit(16384, swa_full=True)
    assert fit.kv_bytes < 0.5 * whole.kv_bytes == pytest.approx(0.5 * 16384 * 18 * 2 * 256 * 2)
    check(gemma3.fit(4096, "q8_0"), reported(gemma3.info.path, 4096, kv_type=8))


@pytest.mark.parametrize("name", ["lfm2", "mamba", "deepseek2", "gpt-oss", "qwen3moe", "llama-split-00001-of-00003"])
def test_tiny_files_of_every_kind(zoo_model, name):
    model = zoo_model(name)
    check(model.fit(1024), reported(model.info.path, 1024))


def test_contexts_grow_and_weights_are_the_file(smollm2):
    fit = smollm2.fit(3000, gpu="10GB")
    assert fit.by_context.n_ctx.tolist() == [512, 2048, 3000, 4096, 8192]
    assert fit.by_context.kv_bytes.is_monotonic_increasing
    assert fit.weights_bytes == sum(node.n_bytes for node in smollm2.tree.root.tensors)
    assert fit.fits_gpu and fit.gpu_layers == fit.layers == 31
    assert smollm2.worker_pid is None or smollm2.fit(512).gpu_layers is None


def test_layers_that_fit_a_small_gpu(smollm2):
    small, larger = smollm2.fit(4096, gpu="200MB"), smollm2.fit(4096, gpu="250MB")
    assert 0 < small.gpu_layers < larger.gpu_layers < 31 and not small.fits_gpu
    assert smollm2.fit(4096, gpu="1MB").gpu_layers == 0


def test_commands_can_be_copied(smollm2):
    fit = smollm2.fit(4096, "q8_0", gpu="200MB", flash_attention="on")
    path = str(smollm2.info.path)
    assert fit.server_command == f"llama-server -m {path} -c 4096 -fa on -ctk q8_0 -ctv q8_0 -ngl {fit.gpu_layers}"
    assert fit.modelfile == f"FROM {path}\nPARAMETER num_ctx 4096\nPARAMETER num_gpu {fit.gpu_layers}\n"


def test_what_llama_cpp_refuses_is_said(zoo_model, smollm2):
    with pytest.raises(lt.LlamaTelemetryError, match=r"cannot plan moe-large.gguf: .*not within the file"):
        zoo_model("moe-large").fit(512)
    with pytest.raises(lt.LlamaTelemetryError, match=re.compile("512|flash|cache", re.IGNORECASE)):
        smollm2.fit(512, "q8_0", flash_attention="off")
