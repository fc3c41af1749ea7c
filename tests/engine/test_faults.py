"""PITFALLS, group Engine: each fault that others' users reported, on real models."""

from __future__ import annotations

import os
import pydoc_data.topics
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import gguf
import numpy as np
import psutil
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.engine.wire import SharedBlock
from llamatelemetry_widget.engine.worker.capture import Capture, Ubatch
from llamatelemetry_widget.engine.worker.llama import Llama, Settings
from llamatelemetry_widget.engine.worker.taps import Tap

ENGLISH = "".join(pydoc_data.topics.topics.values())


def run_script(code: str, *arguments: str, timeout: float = 120, **options) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter running a script, as a user's would."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        **options,
    )


# ------------------------------------------------------------------------- E1


def test_e1_opening_stays_near_file_size_and_cache(gemma3):
    gemma3.trace("The sea was calm.", capture=("attention",))
    resident = psutil.Process(gemma3.worker_pid).memory_info().rss
    assert resident < 2.2 * gemma3.info.n_bytes + 300e6


def test_e1_too_large_a_request_is_refused_with_its_size(gemma3):
    ids = gemma3.tokenize(ENGLISH)[:2000]
    with pytest.raises(lt.MemoryBudgetExceeded, match=r"need 4\.2 GB, the budget is 2\.0 GB: ask for logits='last'"):
        gemma3.trace(ids, logits="all")
    with pytest.raises(lt.MemoryBudgetExceeded, match=r"needs \d+\.\d+ GB.*layers=range"):
        gemma3.trace(ids, memory_budget="20MB")
    assert len(gemma3.trace(ids[:20], logits="all").logits) == 20


# ------------------------------------------------------------------------- E2


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 257])
def test_e2_attention_is_exactly_tokens_by_tokens(smollm2, n):
    ids = smollm2.tokenize(ENGLISH)[:n]
    trace = smollm2.trace(ids, capture=("attention",), layers=[0, 17])
    for head in (0, 5):
        p = trace.attention(17, head)
        assert p.shape == (n, n)
        np.testing.assert_allclose(p.sum(1), 1, atol=1e-3)
        assert not np.triu(p, 1).any()


# ------------------------------------------------------------------------- E3


@pytest.mark.parametrize(
    ("flash", "kv"), [("off", "f16"), ("on", "f16"), ("auto", "f16"), ("on", "q8_0"), ("auto", "q4_0")]
)
def test_e3_every_setting_gives_every_layer(smollm2, flash, kv):
    trace = smollm2.trace("the lamp the lamp the lamp", flash_attention=flash, kv_type=kv, capture=("attention",))
    assert [facts.kind for facts in trace.layers] == ["attention"] * 30
    assert (trace.check.max_difference <= trace.check.tolerance).all()
    reference = smollm2.trace("the lamp the lamp the lamp", flash_attention="off", capture=("attention",))
    if kv != "q4_0":  # a 4-bit cache really changes what the model attends to
        a, b = (np.stack([t.attention(i, 0) for i in range(30)]).ravel() for t in (trace, reference))
        assert np.corrcoef(a, b)[0, 1] > 0.999


def test_e3_what_llama_cpp_refuses_is_an_error_that_names_the_setting(smollm2):
    with pytest.raises(lt.LlamaTelemetryError, match="a q8_0 cache needs flash attention: ask for"):
        smollm2.trace("a", flash_attention="off", kv_type="q8_0")
    assert smollm2.trace("a b").attention(0, 0).shape == (2, 2)


# ------------------------------------------------------------------------- E5


def test_e5_exactly_one_start_token_and_none_where_none_is_expected(gemma3, smollm2):
    bos = int(gemma3.info.bos_id)
    ids = list(gemma3.trace("Hello", layers=[0], capture=("attention",)).token_ids)
    assert ids[0] == bos and ids.count(bos) == 1
    spelled = gemma3.trace("<bos>Hello", layers=[0], capture=("attention",))  # text is text: its own start token stays
    assert list(spelled.token_ids).count(bos) == 1
    assert spelled.text.startswith("<bos><bos>")
    plain = smollm2.trace("Hello", layers=[0], capture=("attention",))
    assert plain.text == "Hello" and "control" not in plain.token_kinds
    chat = smollm2.trace([{"role": "user", "content": "Hi"}], layers=[0], capture=("attention",))
    assert chat.text.count("<|im_start|>system") <= 1 and chat.token_kinds[0] == "control"


@pytest.mark.parametrize("template", ["{{ bos_token }}{{ messages[0].content }}", "{{ messages[0].content }}"])
def test_e5_a_template_that_writes_the_start_token_does_not_double_it(with_template, template):
    with lt.open_model(with_template(template)) as model:
        ids = list(model.trace([{"role": "user", "content": "Hello"}], layers=[0]).token_ids)
        assert ids.count(model.info.bos_id) == 1 and ids[0] == model.info.bos_id


# ------------------------------------------------------------------------- E6


@pytest.mark.parametrize("streams", ["StringIO", "None"])
def test_e6_nothing_native_is_printed_whatever_stdout_is(smollm2_path, streams):
    code = f"""
        import io, os, sys
        saved = os.dup(1)
        sys.stdout = sys.stderr = {"io.StringIO()" if streams == "StringIO" else "None"}
        import llamatelemetry_widget as lt
        with lt.open_model(sys.argv[1]) as model:
            n = len(model.trace("hello there").tokens)
        os.write(saved, b"tokens %d" % n)
    """
    done = run_script(code, str(smollm2_path))
    assert (done.stdout, done.stderr, done.returncode) == ("tokens 2", "", 0)


def test_e6_the_last_native_lines_are_attached_to_a_failure(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "unheard.gguf", "unheard-of")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with lt.open_model(tmp_path / "unheard.gguf") as model, pytest.raises(lt.ModelFileError) as failure:
        model.trace("a")
    assert any("unknown model architecture" in line for line in failure.value.log)
    assert len(failure.value.log) <= 50


# ------------------------------------------------------------------------- E7


def test_e7_an_error_in_a_tap_reaches_the_caller_and_the_next_run_works(zoo_models):
    llama = Llama(str(zoo_models / "llama.gguf"), None, [], [], lambda: False)
    context = llama.context(Settings(256, 64, 2, "on", "f16", 1))
    ids = [5, 6, 7, 8]
    plan = context.plan("self", ids)
    reached: list[int] = []

    def fail(_tensor):
        reached.append(1)
        raise ValueError("planted in layer 3")

    with pytest.raises(ValueError, match="planted in layer 3"):
        context.run("self", ids, 0, [3], [Tap(plan.nodes[plan.residual[3]], fail)])
    assert reached == [1]
    context.clear()
    capture = Capture(plan, 4, {"self": 4}, range(4), ["attention"])
    layout = capture.layout()
    capture.place(SharedBlock(layout.size), layout)
    context.run("self", ids, 0, [3], capture.taps(Ubatch(0, 4, (3,))))
    assert all(scored.keys == 4 for scored in capture.scored.values())
    llama.close()


def test_e7_an_interrupt_ends_a_capture_within_a_second_and_the_model_stays_usable(smollm2_path):
    code = """
        import os, pydoc_data.topics, signal, sys, threading, time
        import llamatelemetry_widget as lt
        model = lt.open_model(sys.argv[1])
        ids = model.tokenize("".join(pydoc_data.topics.topics.values()))[:4000]
        pid = model.worker_pid
        def interrupt():
            time.sleep(1.5)
            print("sent", flush=True)
            globals().update(sent=time.perf_counter())
            os.killpg(os.getpgid(0), signal.SIGINT)
        threading.Thread(target=interrupt, daemon=True).start()
        try:
            model.trace(ids, progress=False)
        except lt.EngineCancelled as error:
            print("cancelled", time.perf_counter() - sent < 1.0, error)
        print("again", len(model.trace(ids[:5]).tokens), model.worker_pid == pid)
        model.close()
    """
    done = run_script(code, str(smollm2_path), start_new_session=True)
    assert "cancelled True interrupted" in done.stdout, done.stdout + done.stderr
    assert "again 5 True" in done.stdout


# ------------------------------------------------------------------------- E8


def test_e8_after_a_stop_the_worker_is_idle_and_there_is_one(smollm2):
    ids = smollm2.tokenize(ENGLISH)[:3000]
    running = smollm2.start_trace(ids)
    time.sleep(1.0)
    started = time.perf_counter()
    running.cancel()
    with pytest.raises(lt.EngineCancelled):
        running.result()
    assert time.perf_counter() - started < 1.5
    worker = psutil.Process(smollm2.worker_pid)
    time.sleep(0.5)
    before = worker.cpu_times()
    time.sleep(1.0)
    after = worker.cpu_times()
    assert (after.user + after.system) - (before.user + before.system) < 0.2
    assert smollm2.trace("still here").attention(0, 0).shape == (2, 2)
    assert smollm2.worker_pid == worker.pid


def test_e8_ctrl_c_does_not_kill_the_worker(smollm2):
    smollm2.trace("warm", layers=[0])
    pid = smollm2.worker_pid
    os.kill(pid, signal.SIGINT)
    time.sleep(0.3)
    assert smollm2.trace("still here").attention(0, 0).shape == (2, 2)
    assert smollm2.worker_pid == pid
    assert os.getpgid(pid) != os.getpgid(0)


# ------------------------------------------------------------------------- E9


def test_e9_requests_at_once_are_queued_and_all_are_right(smollm2):
    prompts = ["the sea was calm", "every night the old keeper", "lit the lamp at dusk and"]
    alone = [smollm2.trace(p, capture=("attention",)).attention(17, 5) for p in prompts]
    together: dict[int, np.ndarray] = {}

    def ask(i: int) -> None:
        together[i] = smollm2.trace(prompts[i], capture=("attention",)).attention(17, 5)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for i, expected in enumerate(alone):
        np.testing.assert_array_equal(together[i], expected)


# ------------------------------------------------------------------------ E10


def test_e10_a_window_never_reuses_what_was_dropped(gemma3, gemma3_path):
    ids = gemma3.tokenize(ENGLISH)[:1500]
    gemma3.trace(ids, layers=[0], capture=("attention",))
    changed = [*ids[:300], ids[301], *ids[301:]]
    reused = gemma3.trace(changed, layers=[0, 5], capture=("attention",))
    with lt.open_model(gemma3_path) as fresh:
        np.testing.assert_allclose(
            reused.logits, fresh.trace(changed, layers=[0], capture=("attention",)).logits, atol=1e-3
        )
    windows = {facts.layer: facts.window for facts in reused.layers}
    assert windows == {0: 512, 5: None}
    assert not reused.attention(0, 0, rows=slice(1400, 1401))[0, : 1400 - 511].any()


# ------------------------------------------------------------------------ E11


@pytest.mark.parametrize("n", [40, 100])
def test_e11_a_text_longer_than_the_batch_does_not_abort_an_encoder(zoo_model, n):
    bert = zoo_model("bert")
    ids = (bert.tokenize("The quick brown fox jumps over the lazy dog.") * 20)[:n]
    trace = bert.trace(ids, n_ubatch=32)
    assert trace.hidden(2).shape == (n, 64)
    assert trace.layers[0].mask == "none"
    np.testing.assert_allclose(trace.attention(1, 1).sum(1), 1, atol=1e-4)
    with pytest.raises(lt.CaptureUnavailable, match="no logits"):
        _ = trace.logits


# ------------------------------------------------------------------------ E12


def test_e12_characters_of_several_tokens_are_exact(smollm2, gemma3):
    text = "👩🏽‍💻 naïve 漢字 นี้ \u202ertl"
    for model in (smollm2, gemma3):
        ids = model.tokenize(text, add_special=False)
        assert b"".join(model.token_bytes(ids)).decode() == text
        assert model.token_text(ids) == text
    trace = smollm2.trace(text, layers=[0])
    assert trace.text == text
    assert any(re.fullmatch(r"(·)?(<0x[0-9A-F]{2}>)+", token) for token in trace.tokens)
    assert "\u202e" not in "".join(trace.tokens)


# ------------------------------------------------------------------------ E13


def test_e13_text_that_spells_a_control_token_stays_text(smollm2, gemma3):
    for model, spelled in ((smollm2, "<|im_end|>"), (gemma3, "<start_of_turn>")):
        literal = model.tokenize(f"a {spelled} b", add_special=False)
        parsed = model.tokenize(f"a {spelled} b", add_special=False, parse_special=True)
        assert len(parsed) < len(literal)
        assert model.token_text(literal) == f"a {spelled} b"
        trace = model.trace(parsed, layers=[0])
        assert trace.token_kinds.count("control") + trace.token_kinds.count("user") >= 1


# ------------------------------------------------------------------------ E14


@pytest.mark.parametrize("name", ["mamba", "lfm2"])
def test_e14_recurrent_models_recompute_and_say_which_layers_have_no_attention(zoo_model, zoo_models, name):
    model = zoo_model(name)
    ids = model.tokenize("The quick brown fox jumps over the lazy dog, and then")
    model.trace(ids)
    other = [*ids[:6], *ids[8:]]
    again = model.trace(other, logits="all")
    with lt.open_model(zoo_models / f"{name}.gguf") as fresh:
        np.testing.assert_array_equal(again.logits, fresh.trace(other, logits="all").logits)
    without = [facts for facts in again.layers if facts.kind == "none"]
    assert without and all("no attention" in facts.reason for facts in without)
    with pytest.raises(lt.CaptureUnavailable, match=r"layer 0 has no attention here \((recurrent|convolution) layer"):
        again.attention(0, 0)
    assert again.hidden(0).shape[0] == len(other)


@pytest.mark.parametrize("own", [None, "77"])
def test_waiting_threads_give_the_core_back_soon(monkeypatch, own):
    """With OpenMP's own patience a machine that is busy otherwise writes a hundred times more slowly."""
    if own is None:
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    else:
        monkeypatch.setenv("GOMP_SPINCOUNT", own)
    with lt.open_model("smollm2") as model:
        model.tokenize("a")
        assert psutil.Process(model.worker_pid).environ()["GOMP_SPINCOUNT"] == (own or "2000")
