"""The worker's life: started on use, replaced after a crash, gone when nobody needs it."""

from __future__ import annotations

import gc
import os
import pydoc_data.topics
import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.engine.worker import ggml

ENGLISH = "".join(pydoc_data.topics.topics.values())


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether a process ends within the time (a zombie has ended)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def test_opening_starts_no_process_and_use_starts_one(zoo_model):
    model = zoo_model("llama")
    assert model.worker_pid is None
    assert model.info.architecture == "llama"
    model.tokenize("a")
    pid = model.worker_pid
    model.trace("a b c")
    assert model.worker_pid == pid


@pytest.mark.parametrize(
    ("sent", "cause"),
    [
        (signal.SIGKILL, "memory ran out"),
        (signal.SIGABRT, "llama.cpp aborted"),
        (signal.SIGILL, "built for a newer CPU"),
        (signal.SIGSEGV, "memory that is not its own"),
        (signal.SIGBUS, "changed or shrank"),
    ],
)
def test_a_dying_worker_is_an_error_with_its_cause_and_the_next_call_works(smollm2_path, sent, cause):
    with lt.open_model(smollm2_path) as model:
        ids = model.tokenize(ENGLISH)[:2000]
        pid = model.worker_pid
        threading.Timer(0.7, os.kill, (pid, sent)).start()
        with pytest.raises(lt.EngineCrashed, match=cause) as crash:
            model.trace(ids)
        assert "the notebook is fine" in str(crash.value) and "\n" not in str(crash.value)
        assert any("llama" in line for line in crash.value.log) and len(crash.value.log) <= 50
        assert len(model.trace(ids[:4]).tokens) == 4
        assert model.worker_pid != pid and gone(pid)


def test_an_idle_worker_leaves_and_comes_back(zoo_model):
    model = zoo_model("llama", idle_seconds=1.5)
    model.tokenize("a")
    pid = model.worker_pid
    assert gone(pid)
    deadline = time.monotonic() + 10  # its threads may still be ending when it is a zombie already
    while model.worker_pid is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert model.worker_pid is None
    assert model.tokenize("a") and model.worker_pid != pid


def test_closing_collecting_and_leaving_a_with_block_end_the_worker(zoo_models):
    path = zoo_models / "llama.gguf"
    with lt.open_model(path) as model:
        model.tokenize("a")
        pid = model.worker_pid
    assert gone(pid)
    model = lt.open_model(path)
    model.tokenize("a")
    pid = model.worker_pid
    del model
    gc.collect()
    assert gone(pid)


def test_closing_while_a_run_goes_on_cancels_it(smollm2_path):
    model = lt.open_model(smollm2_path)
    running = model.start_trace(model.tokenize(ENGLISH)[:3000])
    time.sleep(0.5)
    pid = model.worker_pid
    model.close()
    with pytest.raises(lt.EngineCancelled, match="closed while it ran"):
        running.result()
    assert gone(pid)


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 9)", "sys.exit(0)", "1 / 0"])
def test_no_worker_outlives_its_kernel_and_nothing_is_left_in_shared_memory(smollm2_path, end):
    before = set(os.listdir("/dev/shm"))
    code = f"""
        import os, sys, threading, time
        import llamatelemetry_widget as lt
        model = lt.open_model(sys.argv[1])
        trace = model.trace("the sea was calm")
        running = model.start_trace(model.tokenize("the sea was calm " * 500))
        print(model.worker_pid, flush=True)
        time.sleep(0.3)
        {end}
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(smollm2_path)], capture_output=True, text=True, timeout=60
    )
    assert gone(int(child.stdout.split()[0]))
    assert set(os.listdir("/dev/shm")) <= before


def test_g1_the_users_main_module_is_never_run_again(zoo_models, tmp_path):
    """A script without a main guard, in a folder whose modules have the names of the standard library's."""
    (tmp_path / "json.py").write_text("raise SystemExit('the user\\'s json was imported')\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; sys.path.pop(0)\n"
        "print('main runs')\n"
        "import llamatelemetry_widget as lt\n"
        f"model = lt.open_model({str(zoo_models / 'llama.gguf')!r})\n"
        "print(len(model.trace('a b c').tokens)); model.close()\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.stdout.splitlines()[0] == "main runs" and done.stdout.count("main runs") == 1, done.stderr
    assert done.returncode == 0


def test_a_layout_of_another_llama_cpp_is_refused_by_version(monkeypatch):
    ggml.check_layout()
    other = type("Tensor", (ggml.C.Structure,), {"_fields_": [("added", ggml.C.c_int64), *ggml.Tensor._fields_]})
    monkeypatch.setattr(ggml, "Tensor", other)
    with pytest.raises(
        lt.BackendMissing, match=r"llama-cpp-python \d+\.\d+\.\d+ lays out ggml_tensor .* install llama-cpp-python"
    ):
        ggml.check_layout()


def test_prompts_that_cannot_run_are_refused_before_anything_runs(zoo_model, smollm2):
    model = zoo_model("llama")
    limit = model.info.context_length
    with pytest.raises(
        lt.PromptTooLong, match=rf"the prompt has {limit + 1} tokens, this model's context holds {limit}"
    ):
        model.trace([5] * (limit + 1))
    with pytest.raises(lt.LlamaTelemetryError, match="no tokens"):
        smollm2.trace("")
    with pytest.raises(lt.LlamaTelemetryError, match="token id 999999 is outside the vocabulary of 49152 tokens"):
        smollm2.trace([1, 999_999])
    with pytest.raises(lt.CaptureUnavailable, match="layer 30 does not exist: this model has layers 0 to 29"):
        smollm2.trace("a", layers=[30])
    with pytest.raises(lt.CaptureUnavailable, match="capture 'weights' does not exist"):
        smollm2.trace("a", capture=("weights",))
    with pytest.raises(lt.CaptureUnavailable, match="layers='first' are no layers: write 'all' or their numbers"):
        smollm2.trace("a", layers="first")
    with pytest.raises(lt.CaptureUnavailable, match=r"capture='hidden' is one word: write \('hidden',\)"):
        smollm2.trace("a", capture="hidden")
    for wrong in (None, 3, ["a", "b"], [1.5]):
        with pytest.raises(lt.LlamaTelemetryError, match="is no prompt: give a text, token ids or chat messages"):
            smollm2.trace(wrong)
    for made in (lt.Tour, lt.EmbeddingSpace3D, lambda given: lt.TokenExplorer(given, "a")):
        with pytest.raises(lt.LlamaTelemetryError, match=r"a Model \(open_model\(…\)\), not str"):
            made("smollm2")
    with pytest.raises(AttributeError, match="did you mean AttentionGrid"):
        lt.AttentionGird  # noqa: B018
    with pytest.raises(lt.LlamaTelemetryError, match="'huge' is no size"):
        smollm2.trace("a", memory_budget="huge")


def test_a_hostile_chat_template_cannot_leave_its_sandbox(with_template):
    target = with_template("{{ messages[0].content.__class__.__mro__[1].__subclasses__() }}")
    with lt.open_model(target) as model:
        with pytest.raises(lt.CaptureUnavailable, match=r"chat template failed.*give the prompt as a string"):
            model.trace([{"role": "user", "content": "x"}])
        assert model.trace("still works").tokens


def test_a_file_that_cannot_run_is_refused_before_a_worker_starts(zoo_model):
    model = zoo_model("moe-large")
    assert model.info.n_layers and not model.info.has_weights
    with pytest.raises(lt.ModelFileError) as refused:
        model.trace("a")
    assert "\n" not in str(refused.value) and model.worker_pid is None
