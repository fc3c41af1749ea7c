"""`Model.generate`: a text that is written while its trace grows, against a trace of the whole text and llama.cpp."""

from __future__ import annotations

import threading
import time

import llama_cpp
import numpy as np
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.analysis.thumbnails import edges

STORY = "The old lighthouse keeper lit the lamp at dusk, while the sea was calm. Every night the old"
IDS = list(range(5, 21))
WRITERS = ("llama", "gemma2", "gemma3", "gpt-oss", "gpt2", "mpt", "qwen3moe", "deepseek2", "lfm2", "mamba")


@pytest.mark.parametrize("flash", ["auto", "off"])
@pytest.mark.parametrize("name", WRITERS)
def test_the_trace_that_grew_is_the_trace_of_the_text(zoo_model, name, flash):
    model = zoo_model(name)
    generation = model.generate(IDS, 8, flash_attention=flash)
    written = [token.id for token in generation]
    grown = generation.result()
    assert grown.token_ids.tolist() == IDS + written and len(written) == 8
    whole = model.trace(IDS + written, flash_attention=flash)
    for layer in whole.layers:
        if layer.layer != whole.layers[-1].layer:
            np.testing.assert_allclose(grown.hidden(layer.layer), whole.hidden(layer.layer), rtol=2e-3, atol=2e-3)
        for head in range(layer.heads):
            a, b = grown.attention(layer.layer, head), whole.attention(layer.layer, head)
            assert np.linalg.norm(a - b) <= 3e-3 * np.linalg.norm(b)
    np.testing.assert_allclose(grown.logits, whole.logits, atol=5e-3 * np.abs(whole.logits).max())
    assert grown.head_stats.shape == whole.head_stats.shape
    assert set(grown.experts) == set(whole.experts)
    for layer, (ids, weights) in whole.experts.items():
        rows = len(ids)  # the last layer is computed for the rows that give logits only
        np.testing.assert_array_equal(grown.experts[layer][0][-rows:], ids)
        np.testing.assert_allclose(grown.experts[layer][1][-rows:], weights, atol=2e-3)
    assert (grown.check.max_difference <= grown.check.tolerance).all()


def test_rows_are_there_as_their_tokens_come(smollm2):
    generation, seen = smollm2.generate(STORY, 6), []
    for token in generation:
        trace = generation.trace
        seen.append(trace.attention(17, 5, rows=slice(token.position, token.position + 1)))
        assert trace.tokens[token.position] == token.text
        assert trace.hidden(3).shape[0] >= token.position + 1
    final = generation.result().attention(17, 5)
    for row, token in zip(seen, generation.tokens, strict=True):
        n = token.position + 1
        np.testing.assert_allclose(row[0, :n], final[token.position, :n], atol=1e-6)
        assert row.sum() == pytest.approx(1, abs=1e-5)


def test_events_lay_the_prompt_out_over_the_longest_text(smollm2):
    generation, events = smollm2.generate(STORY, 70), []
    generation.subscribe(events.append)
    trace = generation.result()
    kinds = [event.kind for event in events if event.kind != "progress"]
    assert kinds == ["start", *["layer"] * 30, *["token"] * 70, "done"]
    n, n_max = trace.token_ids.size - 70, generation.n_max
    cells = int((edges(n_max, 64) < n).sum())
    assert n_max == n + 70 and events[2].reduced.thumb_max.shape == (9, cells, cells)
    assert trace.thumbnails.shape == (30, 9, 64, 64)


def test_greedy_is_what_llama_cpp_writes(smollm2):
    own = llama_cpp.Llama(str(smollm2.info.path), n_ctx=256, n_threads=2, verbose=False, logits_all=True)
    answer = own.create_completion(STORY, max_tokens=12, temperature=0, logprobs=5)
    generation = smollm2.generate(STORY, 12, flash_attention="off")
    tokens = list(generation)
    assert generation.text == answer["choices"][0]["text"]
    likely = np.exp(answer["choices"][0]["logprobs"]["token_logprobs"])
    np.testing.assert_allclose([t.probability for t in tokens], likely, rtol=1e-3)
    assert all(t.rank == 1 and t.top[0][0] == t.id and t.top[0][2] == pytest.approx(t.probability) for t in tokens)
    own.close()


def test_samplers_are_llama_cpp_s(smollm2):
    def write(**more):
        return [token.id for token in smollm2.generate(STORY, 12, temperature=1.2, **more)]

    assert write(seed=7) == write(seed=7) != write(seed=8)
    greedy = [token.id for token in smollm2.generate(STORY, 12)]
    assert write(seed=7, top_k=1) == greedy == write(seed=3, top_p=1e-6) == write(seed=3, min_p=1.0)
    again = [token.id for token in smollm2.generate(STORY, 40)]
    other = [token.id for token in smollm2.generate(STORY, 40, repeat_penalty=1.5)]
    assert len(set(other)) > len(set(again))


def test_probability_rank_and_entropy_are_those_of_the_tokens(smollm2):
    trace = smollm2.trace(STORY, n_predict=6)
    told, seen = trace.generation, trace.token_stats.iloc[-6:]
    np.testing.assert_allclose(told.probability, seen.probability, rtol=1e-3)
    np.testing.assert_allclose(told.entropy, seen.entropy, rtol=1e-3)
    assert told["rank"].tolist() == seen["rank"].tolist()
    assert told.token.tolist() == seen.token.tolist()


def test_stop_keeps_what_was_written(smollm2):
    generation = smollm2.generate(STORY, 400)
    for count, _ in enumerate(generation, 1):
        if count == 5:
            generation.cancel()
    trace = generation.result()
    assert generation.finish_reason == "cancelled" and 5 <= len(generation.tokens) < 400
    n = trace.token_ids.size
    assert trace.attention(29, 8).shape == (n, n) and len(trace.generation) == len(generation.tokens)
    assert trace.token_ids[-1] == generation.tokens[-1].id
    np.testing.assert_allclose(trace.attention(29, 8).sum(1), 1, atol=1e-5)
    assert smollm2.trace("it runs again").tokens[0] == "it"


def test_an_interrupt_ends_the_wait_and_the_run(smollm2):
    import _thread

    generation = smollm2.generate(STORY, 3000)
    next(generation)
    threading.Timer(0.3, _thread.interrupt_main).start()
    started = time.monotonic()
    with pytest.raises(lt.EngineCancelled, match="interrupted"):
        for _ in generation:
            pass
    assert time.monotonic() - started < 5 and generation.done and len(generation.tokens) >= 1


def test_the_model_s_own_end_ends_the_text(smollm2):
    generation = smollm2.generate([{"role": "user", "content": "Say hi."}], 200)
    text = "".join(token.text for token in generation)
    assert generation.finish_reason == "stop" and 0 < len(generation.tokens) < 200 and "<|im_end|>" not in text


def test_encoder_decoders_write_with_their_decoder(zoo_model):
    generation = zoo_model("t5").generate(IDS, 5, decoder_prompt=[0, 5, 9])
    assert len(list(generation)) == 5
    trace = generation.result()
    assert trace.attention(1, 0, part="decoder").shape == (8, 8)
    assert trace.attention(1, 0, part="cross").shape == (8, len(IDS))
    assert len(trace.token_stats) == 8


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"max_tokens": 0}, lt.LlamaTelemetryError, "max_tokens 0"),
        ({"max_tokens": 8190}, lt.PromptTooLong, "ask for at most"),
        ({"max_tokens": 8, "memory_budget": "1MB"}, lt.MemoryBudgetExceeded, "budget"),
    ],
)
def test_what_cannot_be_is_said(smollm2, arguments, error, words):
    with pytest.raises(error, match=words):
        next(smollm2.generate(STORY, **arguments))


def test_an_encoder_writes_nothing(zoo_model):
    with pytest.raises(lt.CaptureUnavailable, match="writes no text"):
        next(zoo_model("bert").generate(IDS, 4))


def test_a_saved_trace_knows_what_was_written(smollm2, tmp_path):
    trace = smollm2.trace(STORY, n_predict=4)
    before = trace.token_stats
    back = lt.load_trace(trace.save(tmp_path / "t.safetensors"))
    assert back.generation.equals(trace.generation) and back.token_stats.equals(before)
    assert back._generated[0].top == trace._generated[0].top
