"""A worker that sees one GPU: what its process is given, which needs no GPU to be looked at."""

from __future__ import annotations

import os

import psutil
import pytest

import llamatelemetry_widget as lt


@pytest.mark.parametrize("gpu", [1, "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"])
def test_the_worker_is_given_one_gpu_and_the_kernel_keeps_all(zoo_models, gpu):
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    with lt.open_model(zoo_models / "llama.gguf", gpu=gpu) as model:
        model.tokenize("a")
        given = psutil.Process(model.worker_pid).environ()
    assert given["CUDA_VISIBLE_DEVICES"] == str(gpu) and given["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before


@pytest.mark.parametrize("gpu", [-1, "0,1", "all", ""])
def test_what_is_no_gpu(zoo_models, gpu):
    with pytest.raises(lt.LlamaTelemetryError, match="is no GPU"):
        lt.open_model(zoo_models / "llama.gguf", gpu=gpu)
