"""Prompts of any length: what a shorter, longer, repeated or differently cut prompt must have in common."""

from __future__ import annotations

import pydoc_data.topics

import numpy as np
import pytest

import llamatelemetry_widget as lt

from .zoo import attention, hidden, relative

pytestmark = pytest.mark.parity

ENGLISH = "\n".join(pydoc_data.topics.topics.values())
WITH_ATTENTION = ["llama", "qwen3", "gemma2", "gemma3", "gpt2", "qwen3moe", "gpt-oss", "deepseek2", "lfm2", "mpt"]
PROMPT = [1, *range(3, 302)]


@pytest.fixture(scope="module")
def smollm2():
    with lt.open_model("smollm2") as model:
        yield model


@pytest.fixture(scope="module")
def gemma3():
    with lt.open_model("gemma3-270m") as model:
        yield model


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 257])
@pytest.mark.parametrize("flash", ["on", "off"])
def test_attention_is_exactly_tokens_by_tokens(smollm2, n, flash):
    ids = smollm2.tokenize(ENGLISH[:4000])[:n]
    trace = smollm2.trace(ids, flash_attention=flash, progress=False)
    assert len(trace.tokens) == n == len(trace.token_ids)
    for layer, head in ((0, 0), (17, 5), (29, 8)):
        p = trace.attention(layer, head)
        assert p.shape == (n, n) and np.isfinite(p).all()
        assert np.abs(p.sum(1) - 1).max() <= 1e-3
        assert (np.triu(p, 1) == 0).all()


@pytest.mark.parametrize("name", WITH_ATTENTION)
def test_a_prefix_and_a_longer_prompt_agree_with_the_prompt(zoo_file, name):
    """The longer prompt comes first, so that nothing it left behind may be found by the shorter ones."""
    model = zoo_file(name)
    most = min(300, model.info.context_length)
    longer, prompt, prefix = (
        model.trace(PROMPT[:n], logits="all", progress=False) for n in (most, most * 2 // 3, most // 4)
    )
    for shorter, whole in ((prompt, longer), (prefix, prompt)):
        n = len(shorter.token_ids)
        assert relative(attention(shorter), attention(whole)[:, :, :n, :n]) <= 2e-3
        assert relative(hidden(shorter), hidden(whole)[:, :n]) <= 1e-2
        assert relative(shorter.logits, whole.logits[:n]) <= 1e-2


@pytest.mark.parametrize("name", ["llama-q4-0", "llama", "bert", "mamba", "lfm2", "qwen3moe"])
def test_a_repeated_prompt_gives_identical_numbers(zoo_file, name):
    model = zoo_file(name)
    first = model.trace(PROMPT[:100], logits="all", progress=False)
    model.trace(PROMPT[40:90], progress=False)
    again = model.trace(PROMPT[:100], logits="all", progress=False)
    assert np.array_equal(hidden(first), hidden(again))
    if first.parts:
        assert np.array_equal(attention(first), attention(again))


@pytest.mark.parametrize("name", ["mamba", "lfm2"])
def test_recurrent_state_of_the_last_prompt_is_forgotten(zoo_file, name):
    """Two prompts that share a prefix: the second must not continue from the first."""
    used, fresh = zoo_file(name), zoo_file(name)
    used.trace(PROMPT[:60], progress=False)
    second = [*PROMPT[:40], *PROMPT[100:120]]
    one, other = (model.trace(second, logits="all", progress=False) for model in (used, fresh))
    assert np.array_equal(hidden(one), hidden(other)) and np.array_equal(one.logits, other.logits)


@pytest.mark.slow
def test_a_changed_token_in_a_windowed_prompt_is_computed_again(gemma3):
    ids = gemma3.tokenize(ENGLISH[:9000])[:1500]
    changed = [*ids[:300], ids[301], *ids[301:]]
    gemma3.trace(ids, layers=[17], capture=("hidden",), progress=False)
    reused = gemma3.trace(changed, layers=[17], capture=("hidden",), progress=False)
    with lt.open_model(gemma3.info.path) as fresh:
        own = fresh.trace(changed, layers=[17], capture=("hidden",), progress=False)
    assert np.abs(reused.logits - own.logits).max() <= 1e-3


@pytest.mark.parametrize("kv_type", ["q8_0", "q4_0"])
def test_a_quantized_cache_is_read_as_llama_cpp_reads_it(smollm2, kv_type):
    """It forces flash attention; the run's own check says whether keys and values were expanded as in the kernel."""
    ids = smollm2.tokenize(ENGLISH[:4000])[:300]
    trace = smollm2.trace(ids, kv_type=kv_type, n_ubatch=100, progress=False)
    exact = smollm2.trace(ids, progress=False)
    assert (trace.check.max_difference <= trace.check.tolerance).all() and len(trace.check) == 270
    mean = np.mean([np.abs(trace.attention(layer, 0) - exact.attention(layer, 0)).mean() for layer in range(30)])
    assert mean <= 1e-3


@pytest.mark.parametrize("flash", ["on", "off"])
def test_a_prompt_over_several_ubatches_has_every_row_once_and_no_gaps(smollm2, flash):
    ids = smollm2.tokenize(ENGLISH[:12000])[:1300]
    trace = smollm2.trace(ids, flash_attention=flash, n_ubatch=256, logits="all", progress=False)
    one = smollm2.trace(ids, flash_attention=flash, n_ubatch=2048, logits="all", progress=False)
    for layer in range(30):
        cut, whole = trace.hidden(layer), one.hidden(layer)
        assert cut.shape == whole.shape == (1300, 576)
        assert np.isfinite(cut).all() and (np.abs(cut).sum(1) > 0).all()
        assert relative(cut, whole) <= 1e-2
    for layer, head in ((0, 0), (16, 0), (29, 4)):
        p = trace.attention(layer, head)
        assert p.shape == (1300, 1300) and np.abs(p.sum(1) - 1).max() <= 1e-3
        assert np.abs(p - one.attention(layer, head)).mean() <= 1e-5
    assert trace.logits.shape == (1300, 49152) and np.isfinite(trace.logits).all()


@pytest.mark.slow
def test_ten_thousand_tokens_have_no_empty_rows(gemma3):
    ids = gemma3.tokenize(ENGLISH[:60000])[:10_300]
    trace = gemma3.trace(ids, layers=[0, 5, 17], capture=("attention", "hidden"), progress=False)
    assert len(trace.token_ids) == 10_300
    for layer in (0, 5, 17):
        for start in (0, 4990, 10_200):
            p = trace.attention(layer, 3, rows=slice(start, start + 100))
            assert np.isfinite(p).all() and np.abs(p.sum(1) - 1).max() <= 1e-3
    states = trace.hidden(5)
    assert np.isfinite(states).all() and (np.abs(states).sum(1) > 0).all()
    assert (trace.check.max_difference <= trace.check.tolerance).all()
