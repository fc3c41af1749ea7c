"""Blocks of a study run by somebody else's executor give the figures that they give here."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import distributed
import numpy as np
import psutil
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.studies.scoring import close_idle

TEXT = "Two workers share the blocks of one text, and each keeps its own copy of every file open meanwhile. " * 4


def run(zoo_models, folder, executor=None):
    files = [zoo_models / f"{name}.gguf" for name in ("llama", "llama-q8-0", "llama-q4-0")]
    options = {"n_ctx": 64, "drift": False, "speed": False, "directory": folder}
    study = lt.QuantizationStudy(files[0], files[1:], TEXT, executor=executor, **options)
    done = []
    study.subscribe(lambda event: done.append(event.done))
    results = study.run().results
    assert done == sorted(done) and done[-1] == len(study.blocks)
    return study.tokens("llama-q4-0"), results


@pytest.fixture(scope="module")
def here(zoo_models, tmp_path_factory):
    return run(zoo_models, tmp_path_factory.mktemp("here"))


def same(one, two):
    np.testing.assert_array_equal(one[0].kl, two[0].kl)
    np.testing.assert_array_equal(one[1].kl_ci, two[1].kl_ci)
    assert one[1].status.tolist() == two[1].status.tolist() == ["done", "done"]


def test_threads_of_this_process(zoo_models, here, tmp_path):
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    with ThreadPoolExecutor(2) as pool:
        same(run(zoo_models, tmp_path, pool), here)
    close_idle()
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= before


@pytest.mark.slow
def test_a_dask_cluster_of_two_workers(zoo_models, here, tmp_path):
    before = serving()
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "local_directory": tmp_path}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        same(run(zoo_models, tmp_path / "results", client.get_executor()), here)
        own = [len(children) for children in client.run(count_children).values()]
        assert all(own)  # both had a part of it
    assert serving() <= before


def serving():
    """Processes of this package below this one."""
    children = psutil.Process().children(recursive=True)
    return {p.pid for p in children if "worker.serve" in " ".join(p.cmdline())}


def count_children():
    return [child.pid for child in psutil.Process().children()]
