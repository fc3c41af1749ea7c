"""Every architecture of the zoo against Hugging Face: attention, hidden states, logits, and llama.cpp's own softmax."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import llamatelemetry_widget

from .zoo import ATTENTION, HIDDEN, attention, correlation, hidden, long_ids, relative

pytestmark = pytest.mark.parity

SETTINGS = [(flash, kv_type) for flash in ("on", "off") for kv_type in ("f16", "f32")]


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda s: f"flash-{s[0]}-{s[1]}")
def settings(request):
    return dict(zip(("flash_attention", "kv_type"), request.param, strict=True))


@pytest.fixture(scope="module")
def trace(run, settings):
    return run(**settings)


def test_attention_agrees_with_hugging_face(case, reference, trace, settings):
    expected = [part for part, name in ATTENTION.items() if name in reference]
    assert list(trace.parts) == expected
    least = case.threshold(*settings.values())
    for part in expected:
        want, got = reference[ATTENTION[part]], attention(trace, part)
        assert correlation(got, want) >= least
        assert np.abs(got - want).mean() <= (1e-3 if case.rounded else 2e-4)
        worst = min(
            correlation(g, w)
            for g, w in zip(got.reshape(-1, *got.shape[2:]), want.reshape(-1, *want.shape[2:]), strict=True)
        )
        assert worst >= (0.99 if case.rounded else 0.999)


def test_the_layers_with_attention_are_those_of_the_reference(reference, trace):
    if "attn_layers" in reference:
        assert [facts.layer for facts in trace.layers if facts.kind == "attention"] == reference["attn_layers"].tolist()
    for facts in trace.layers:
        assert bool(facts.reason) == (facts.kind == "none")


def test_hidden_states_agree_with_hugging_face(case, reference, trace, settings):
    least = case.threshold(*settings.values())
    for part, name in HIDDEN.items():
        if name in reference:
            got = hidden(trace, part if part in trace.parts else None)
            assert correlation(got, reference[name]) >= least
            assert relative(got, reference[name]) <= (3e-2 if case.rounded else 1e-2)


def test_logits_agree_with_hugging_face(case, reference, trace, settings):
    if "logits" not in reference:
        with pytest.raises(llamatelemetry_widget.CaptureUnavailable, match="no logits"):
            trace.logits  # noqa: B018 - reading it raises
        return
    assert correlation(trace.logits, reference["logits"]) >= case.threshold(*settings.values())
    assert relative(trace.logits, reference["logits"]) <= (3e-2 if case.rounded else 1e-2)


def test_the_run_checks_every_head_against_the_output_llama_cpp_wrote(trace):
    heads = sum(facts.heads for part in trace.parts for facts in trace.layers_of(part))
    assert len(trace.check) == heads
    assert (trace.check.max_difference <= trace.check.tolerance).all()


def test_windows_are_read_from_the_mask(reference, trace):
    windows = reference.get("window")
    if windows is None or "attn_layers" not in reference:
        return
    for facts in trace.layers:
        if facts.kind == "attention":
            assert facts.window == (int(windows[facts.layer]) or None)


@pytest.mark.parametrize("kv_type", ["f16", "f32"])
def test_the_replay_is_llama_cpp_s_own_softmax(model, reference, kv_type):
    if not any(name in reference for name in ATTENTION.values()):
        with pytest.raises(llamatelemetry_widget.CaptureUnavailable):
            model.verify(reference["ids"].tolist(), kv_type=kv_type)
        return
    decoder = reference["dec_ids"].tolist() if "dec_ids" in reference else None
    table = model.verify(reference["ids"].tolist(), kv_type=kv_type, decoder_prompt=decoder)
    assert table.scores_difference.max() <= 1e-5
    heads = sum(int(np.prod(reference[name].shape[:2])) for name in ATTENTION.values() if name in reference)
    assert len(table) == heads
    assert table.max_difference.max() <= 1e-4


@pytest.mark.parametrize("flash", ["on", "off"])
def test_small_ubatches_agree_with_hugging_face(case, reference, run, flash):
    """Seven tokens at once: the 24 of the reference come in four pieces (models without a cache take them whole)."""
    trace = run(flash_attention=flash, kv_type="f32", n_ubatch=7)
    for part, name in ATTENTION.items():
        if name in reference:
            assert correlation(attention(trace, part), reference[name]) >= (0.9995 if case.rounded else 0.9999)
    if "logits" in reference:
        assert correlation(trace.logits, reference["logits"]) >= (0.9995 if case.rounded else 0.9999)


@pytest.mark.parametrize("flash", ["on", "off"])
def test_ubatch_sizes_agree_on_a_longer_prompt(case, model, reference, flash):
    limit = model.info.context_length
    ids = long_ids(reference["ids"], min(300, limit))
    decoder = reference["dec_ids"].tolist() if "dec_ids" in reference else None
    traces = {
        n: model.trace(
            ids, flash_attention=flash, kv_type="f32", n_ubatch=n, logits="all", decoder_prompt=decoder, progress=False
        )
        for n in (512, 64, 100)
    }
    whole = traces[512]
    for n in (64, 100):
        for part in whole.parts:
            got, want = attention(traces[n], part), attention(whole, part)
            assert np.isfinite(got).all()
            # llama.cpp's fused kernel for fewer than 64 rows (300 = 4 * 64 + 44) sums in half precision: single cells
            # then differ by more, and where activations are rounded, one may tip over.
            assert relative(got, want) <= (1e-2 if case.rounded else 2e-3)
            assert np.abs(got - want).mean() <= (1e-4 if case.rounded else 1e-5)
            assert flash == "on" or np.abs(got - want).max() <= 1e-3
        got, want = hidden(traces[n]), hidden(whole)
        assert np.isfinite(got).all() and relative(got, want) <= 1e-2
    assert whole.parts == () or model.verify(ids, n_ubatch=100, decoder_prompt=decoder).max_difference.max() <= 1e-4


def test_a_very_deep_model_without_a_reference_agrees_with_itself(zoo_file):
    model, ids = zoo_file("deep"), list(range(3, 27))
    on = model.trace(ids, flash_attention="on", capture=("attention",), progress=False)
    off = model.trace(ids, flash_attention="off", capture=("attention",), progress=False)
    assert len(on.layers) == 420 and len(on.check) == 840
    first = slice(0, 20)  # what two kernels round differently grows from layer to layer
    assert correlation(attention(on)[first], attention(off)[first]) >= 0.9999
    assert model.verify(ids).max_difference.max() <= 1e-4


def test_the_code_knows_operations_and_not_architectures():
    """No string of the engine or the analysis is an architecture's name: one that nobody listed works too."""
    from gguf import MODEL_ARCH_NAMES

    root = Path(llamatelemetry_widget.__file__).parent
    known = set(MODEL_ARCH_NAMES.values()) - {"llama"}  # also the name of the library
    for path in [*root.glob("engine/**/*.py"), *root.glob("analysis/**/*.py"), root / "model.py", root / "trace.py"]:
        texts = {
            n.value
            for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.Constant) and isinstance(n.value, str)
        }
        assert not texts & known, path
