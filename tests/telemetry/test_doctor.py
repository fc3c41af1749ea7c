"""What works here, as a table: this very machine, and machines that lack something, which are stubbed and say so.

In: the process, its environment, a container's files. Out: findings with the one command that mends each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from IPython.core.interactiveshell import InteractiveShell

import llamatelemetry_widget as lt
from llamatelemetry_widget.engine.backends import Backends, Device, backends
from llamatelemetry_widget.errors import EngineCrashed
from llamatelemetry_widget.telemetry import doctor as module
from llamatelemetry_widget.telemetry.doctor import Finding, Report
from llamatelemetry_widget.widgets import hosts

from .test_gpu import MockOfNvml


@pytest.fixture(scope="module")
def report():
    return lt.doctor()


def found(report, about):
    return next(one for one in report.findings if one.about == about)


def test_this_machine_works_and_every_line_says_something(report):
    assert report.problems == () and "works here" in report.summary
    assert {one.state for one in report.findings} <= {"works", "absent"}
    assert all(one.about and one.fact and "\n" not in one.fact + one.mend for one in report.findings)
    names = [one.about for one in report.findings]
    assert names[:9] == [
        "llamatelemetry-widget",
        "host",
        "widgets",
        "llama.cpp",
        "threads",
        "memory",
        "disk",
        "GPU",
        "models",
    ]
    assert {"umap-learn", "pillow", "graphistry", "opentelemetry-sdk", "nvidia-ml-py"} <= set(names)
    assert len(names) == len(set(names))
    assert "smollm2" in found(report, "models").fact and "CPU" in found(report, "llama.cpp").fact


def test_it_prints_as_text_html_and_pandas(report):
    text, page, table = repr(report), report._repr_html_(), report.to_pandas()
    assert text.count("\n") >= len(report.findings) and "llama-cpp-python" in text
    assert page.count("<tr>") == len(report.findings) == len(table)
    assert list(table.columns) == ["about", "state", "fact", "mend"]


def test_what_machines_and_files_say_is_only_text():
    page = Report((Finding("models", "problem", "1: <img src=x onerror=alert(1)>\u202e", "<script>"),))._repr_html_()
    assert "<img" not in page and "<script" not in page and "\u202e" not in page and "1 problem: models" in page


def test_nothing_is_loaded_into_the_process_that_asks():
    code = (
        "import json, sys, llamatelemetry_widget as lt\nlt.doctor()\n"
        "heavy = ('llama_cpp', 'cupy', 'cuml', 'umap', 'sklearn', 'graphistry')\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_the_magic_shows_the_table():
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(colors="nocolor")
    try:
        shell.run_cell("%load_ext llamatelemetry_widget")
        assert isinstance(shell.run_cell("%llamatelemetry doctor").result, Report)
        assert "takes no name" in str(shell.run_cell("%llamatelemetry doctor x").error_in_exec)
        shell.run_cell("%unload_ext llamatelemetry_widget")
    finally:
        InteractiveShell.clear_instance()


# ------------------------------------------------------------------------- llama.cpp


def test_the_real_llama_cpp_tells_its_devices():
    ours = backends()
    assert ours.problem == "" and ours.rpc
    assert any(device.name == "CPU" and device.total > 0 and not device.is_gpu for device in ours.devices)


def test_a_llama_cpp_that_does_not_load_is_a_finding(tmp_path, monkeypatch):
    """A broken package in the real one's place, as a half-installed wheel is."""
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").write_text("raise OSError('libllama.so: cannot open <b>')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EngineCrashed, match="cannot open"):
        backends()
    one = found(Report(tuple(module._findings())), "llama.cpp")
    assert one.state == "problem" and "libllama.so" in one.fact and one.mend.startswith("pip install 'llama-cpp-python")


def test_a_llama_cpp_of_another_layout_is_a_problem():
    ours = Backends("9.9", "", "", "", (), False, "its layout is another")
    one = module._llama(ours)
    assert one.state == "problem" and "another" in one.fact and one.mend


# ------------------------------------------------------------------------------ GPU


def stub(*devices: str) -> Backends:
    """A stub of what a llama.cpp with such devices tells."""
    return Backends("0.3.36", "1", "a", "", tuple(Device(name, "Stub", 10**9, 10**9) for name in devices), False, "")


@pytest.mark.parametrize(("driver", "cuda"), [("570.86", "cu12"), ("580.1", "cu13")])
def test_a_gpu_that_llama_cpp_does_not_use_is_a_problem(monkeypatch, driver, cuda):
    mock = MockOfNvml()
    mock.nvmlSystemGetDriverVersion = lambda: driver
    monkeypatch.setitem(sys.modules, "pynvml", mock)
    told, one = module._gpu(stub("CPU"))
    assert told == cuda and one.state == "problem" and "-DGGML_CUDA=ON" in one.mend and "0.3.36" in one.mend
    monkeypatch.setattr(module, "_version", lambda _: None)
    monkeypatch.setattr(module, "backends", lambda: stub("CPU"))
    report = Report(tuple(module._findings()))
    assert f"[gpu-{cuda}]" in next(one.mend for one in report.findings if one.about.startswith("cuml"))


def test_a_gpu_that_is_used_is_named_and_two_can_be_chosen_from(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", MockOfNvml())
    _, one = module._gpu(stub("CPU", "CUDA0", "CUDA1"))
    assert one.state == "works" and "CUDA1 Stub (1.0 GB free)" in one.fact and "CUDA0" in one.mend


def test_without_a_gpu_nothing_of_the_gpu_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", MockOfNvml(driver=False))
    monkeypatch.setattr(module, "_DRIVER", module.Path("/nowhere"))
    told, one = module._gpu(stub("CPU"))
    assert told == "" and one.state == "absent" and one.mend == ""
    lacking = module._library("cupy", ("cupy-none",), "arrays", "pip install x", needed=False)
    assert lacking.state == "absent" and lacking.mend == "" and "needs an NVIDIA GPU" in lacking.fact


# ------------------------------------------------------------------- machine, packages


def test_a_container_with_less_than_one_cpu(monkeypatch):
    monkeypatch.setattr(module, "cgroup_quota", lambda: 0.5)
    one = module._threads()
    assert one.state == "problem" and "quota 0.5" in one.fact and "--cpus" in one.mend


@pytest.mark.parametrize(
    "names", [("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")]
)
def test_a_containers_memory_counts(tmp_path, monkeypatch, names):
    for name, value in zip(names, ("900000000", "100000000"), strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(value)
    monkeypatch.setattr(module, "CGROUP", tmp_path)
    one = module._memory()
    assert one.state == "problem" and "0.8 GB free of 0.9 GB (limit of this container)" in one.fact and one.mend


def test_memory_without_a_limit(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(module, "CGROUP", tmp_path)
    assert "container" not in module._memory().fact


def test_a_disk_without_room(monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**8))
    assert module._disk().state == "problem" and "XDG_CACHE_HOME" in module._disk().mend


def test_no_model_at_all(monkeypatch):
    from llamatelemetry_widget.models import find

    monkeypatch.setattr(find, "find_models", list)
    assert module._models().mend == "pip install 'llamatelemetry-widget[demo]'"


def test_a_library_that_is_there_but_broken(monkeypatch):
    one = module._library("no_such_module", ("pytest",), "tests", "", needed=True)
    assert one.state == "problem" and "force-reinstall pytest" in one.mend


def test_a_look_that_fails_is_a_line(monkeypatch):
    one = module._guarded("disk", lambda: 1 // 0)
    assert one.state == "problem" and "ZeroDivisionError" in one.fact


# ----------------------------------------------------------------------------- hosts


class Shell:
    """A stub of a kernel's shell."""

    kernel = object()


def in_kernel(monkeypatch):
    monkeypatch.setattr(hosts, "shell", Shell)
    for name in ("VSCODE_PID", *hosts.KAGGLE):
        monkeypatch.delenv(name, raising=False)


def test_the_host_by_what_it_sets(monkeypatch):
    assert hosts.host() == "Python"
    monkeypatch.setattr(hosts, "shell", lambda: object())
    assert hosts.host() == "IPython" and module._widgets("IPython").state == "absent"
    in_kernel(monkeypatch)
    assert hosts.host() == "Jupyter"
    monkeypatch.setenv("VSCODE_PID", "1")
    assert hosts.host() == "VS Code" and module._widgets("VS Code").state == "works"
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())
    assert hosts.host() == "Colab"
    monkeypatch.setenv(hosts.KAGGLE[0], "Interactive")
    assert hosts.host() == "Kaggle" and "to_html" in module._widgets("Kaggle").mend


def test_marimo_by_its_own_word(monkeypatch):
    monkeypatch.setitem(sys.modules, "marimo", SimpleNamespace(running_in_notebook=lambda: True))
    assert hosts.host() == "marimo"


def test_a_server_that_lacks_the_extensions(monkeypatch):
    assert module._widgets("JupyterLab").state == "works"
    monkeypatch.setattr(module, "_extension", lambda name: name != "anywidget")
    one = module._widgets("JupyterLab")
    assert one.state == "problem" and "lack anywidget" in one.fact and "pip install anywidget" in one.mend


def test_the_environment_of_the_tests_is_not_one_of_a_host():
    assert not set(hosts.KAGGLE) & set(os.environ)
