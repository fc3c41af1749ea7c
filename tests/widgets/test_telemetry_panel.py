"""TelemetryPanel in Python: what it tells of runs and sources, when it draws, what it refuses, its tables and files."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import traitlets

import llamatelemetry_widget as lt
from llamatelemetry_widget.engine.operator_kinds import KINDS
from llamatelemetry_widget.telemetry.samples import Polled, Sample
from llamatelemetry_widget.widgets.telemetry_facts import Record, memory_places, threads_used

from .conftest import Wire

IDS = list(range(5, 21))


@pytest.fixture(scope="module")
def tiny(zoo_models):
    with lt.open_model(zoo_models / "llama.gguf") as opened:
        yield opened


@pytest.fixture(scope="module")
def run(tiny):
    return tiny.generate(IDS, 6).result()


@pytest.fixture
def made():
    panels = []

    def make(*arguments, **options):
        panels.append(lt.TelemetryPanel(*arguments, **options))
        return panels[-1]

    yield make
    for panel in panels:
        panel.close()


class Counter(Polled):
    """A source that counts its readings."""

    title, facts = "a counter", {"made": "by a test"}

    def __init__(self, every=0.01):
        super().__init__(every)
        self.read_times = 0

    def read(self):
        self.read_times += 1
        values = {"decode_tps": float(self.read_times), "gpu0.power": None}
        return Sample(1e9 + self.read_times, values, {"gpu0.power": "this GPU does not tell it"})


def until(true, seconds=20.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


# ------------------------------------------------------------------------- a run


def test_facts_are_those_of_the_run(made, run):
    panel = made(run)
    (told,) = panel.facts["runs"]
    assert told["phase"] == "done" and told["prompt"] == 16
    assert told["provenance"].endswith("16 + 6 tokens · CPU, " + f"{run.info['n_threads']} threads")
    numbers, own = told["numbers"], run.telemetry
    assert numbers["decode"] == own["decode_tokens_per_second"] and numbers["first"] == 1e3 * own["first_token_seconds"]
    assert (numbers["used"], numbers["size"]) == (22, 256)
    series = np.frombuffer(panel.series[0], np.float32).reshape(3, 6)
    np.testing.assert_allclose(series[0], 1e3 * run.generation["seconds"], rtol=1e-6)
    np.testing.assert_allclose(series[2], -np.log2(run.generation["probability"]), rtol=1e-5)
    assert panel.words == [run.generation["token"].tolist()]
    json.dumps(panel.facts, allow_nan=False)


def test_a_prompt_alone_has_figures_and_no_tokens(made, tiny):
    panel = made(tiny.trace(IDS))
    numbers = panel.facts["runs"][0]["numbers"]
    assert numbers["decode"] is None and numbers["first"] is None and numbers["prefill"] > 0
    assert panel.words == [[]] and panel.to_pandas().empty


def test_memory_by_owner_adds_up_to_the_process(made, run):
    panel = made(run)
    table = panel.memory.set_index(["place", "owner"])["bytes"]
    assert table["Engine process"].sum() == run.telemetry["worker_memory_bytes"]
    assert {"weights", "kv", "compute", "capture", "rest"} <= set(table["Engine process"].index)


def test_buffers_on_a_device_are_a_place_of_their_own_and_weights_that_are_not_resident_are_said():
    rows = [("weights", "CPU_Mapped", 900), ("kv", "CUDA0", 50), ("compute", "CUDA0", 7), ("compute", "CUDA_Host", 5)]
    memory = [dict(zip(("owner", "where", "bytes"), row, strict=True)) for row in rows]
    host, device, kernel = memory_places(
        {"memory": memory, "worker_memory_bytes": 300, "kernel_memory_bytes": 80, "n_threads": 2}
    )
    assert (device["place"], device["total"]) == ("CUDA0", 57) and kernel["total"] == 80
    assert [part["owner"] for part in host["parts"]] == ["weights", "compute"] and "read from the file" in host["note"]


def test_two_runs_stand_over_each_other(made, run, tiny):
    panel = made(run, compare=tiny.generate(IDS, 3, capture=()).result())
    assert [len(words) for words in panel.words] == [6, 3] and len(panel.series) == 2
    assert panel.to_pandas().groupby("run").size().tolist() == [6, 3]
    assert " against " in repr(panel)
    with pytest.raises(lt.LlamaTelemetryError, match="beside another run"):
        lt.TelemetryPanel(run, compare=tiny)
    with pytest.raises(lt.LlamaTelemetryError, match="not str"):
        lt.TelemetryPanel("run")


def test_a_text_that_is_written_is_told_while_somebody_looks_and_whole_at_the_end(made, tiny):
    generation = tiny.generate(IDS, 200)
    panel = made(generation)
    wire = Wire(panel)
    wire.say(type="watch", id="a-1", on=True)
    generation.result()
    until(lambda: panel.facts["runs"][0]["phase"] == "done")
    assert len(panel.words[0]) == 200 and wire.customs("watch")
    assert panel.facts["runs"][0]["numbers"]["memory"]


def test_nobody_who_looks_nothing_is_sent_until_the_end(made, tiny):
    generation = tiny.generate(IDS, 60)
    panel = made(generation)
    wire = Wire(panel)
    generation.result()
    until(lambda: panel.facts["runs"][0]["phase"] == "done")
    assert len([state for state in wire.updates() if "series" in state]) == 1


def test_a_model_s_runs_follow_each_other(made, tiny):
    panel = made(tiny)
    assert panel.facts["runs"][0]["phase"] == "waiting" and not panel._has_picture()
    tiny.generate(IDS, 4).result()
    until(lambda: panel.facts["runs"][0]["phase"] == "done")
    assert len(panel.words[0]) == 4
    panel.selected_tokens = [17]
    tiny.trace(IDS[:8])
    until(lambda: panel.facts["runs"][0]["phase"] == "done" and panel.facts["runs"][0]["prompt"] == 8)
    assert panel.words == [[]] and panel.selected_tokens == []


def test_a_run_that_fails_says_why(made, tiny):
    generation = tiny.generate(IDS, 5, memory_budget=10)
    panel = made(generation)
    with pytest.raises(lt.MemoryBudgetExceeded):
        generation.result()
    until(lambda: panel.facts["runs"][0]["phase"] == "failed")
    assert "budget" in panel.facts["runs"][0]["message"]


def test_the_cost_of_capture_is_measured_on_request(made, tiny):
    trace = tiny.generate(IDS, 3).result()
    panel = made(trace)
    assert panel.facts["runs"][0]["numbers"]["overhead"] is None
    wire = Wire(panel)
    wire.say(type="overhead", id="a-1")
    until(lambda: wire.customs("overhead") or wire.customs("error"))
    assert not wire.customs("error")
    assert panel.facts["runs"][0]["numbers"]["overhead"] == trace.telemetry["overhead"]


# ------------------------------------------------------------ layers, operations


@pytest.fixture(scope="module")
def graph(tiny):
    return tiny.graph(IDS, repeats=1)


def test_times_of_layers_and_operations_add_up_to_the_graph_s(made, run, graph):
    panel = made(run, times=graph)
    layers, operations = panel.layers, panel.operations
    assert layers["stage"].tolist() == ["input", *["layers"] * 4, "output"]
    assert layers["layer"].dropna().tolist() == [0, 1, 2, 3]
    whole = 1e3 * graph.nodes["seconds"].sum()
    for table in (layers, operations):
        assert table["milliseconds"].sum() == pytest.approx(whole)
        np.testing.assert_allclose(table[list(KINDS)].sum(axis=1), table["milliseconds"])
    assert operations["milliseconds"].is_monotonic_decreasing and operations["share"].sum() == pytest.approx(1)
    assert operations["operations"].sum() == graph.nodes["index"].notna().sum() == layers["operations"].sum()
    told = panel.operation_times
    assert told["kinds"] == ["attention", "MLP", "norm", "other"] and told["tokens"] == 16
    assert [bar["layer"] for bar in told["layers"]] == [None, 0, 1, 2, 3, None]
    assert told["ms"] == pytest.approx(whole) and told["whole_ms"] == 1e3 * graph.info["whole_seconds"]["self"]
    assert json.loads(panel.to_json())["operation_times"] == told


def test_both_stacks_of_an_encoder_decoder_are_there(made, zoo_models):
    with lt.open_model(zoo_models / "t5.gguf") as model:
        panel = made(model.generate([5, 6, 7], 2), times=model.graph([5, 6, 7], repeats=1))
    parts = panel.layers.groupby("part", sort=False)["stage"].agg(list)
    assert parts.index.tolist() == ["encoder", "decoder"] and all(
        {"input", "layers", "output"} == set(p) for p in parts
    )


def test_without_times_there_are_empty_tables_and_a_graph_that_was_not_timed_is_none(made, run, tiny):
    for panel in (made(run), made(run, times=tiny.graph(IDS, repeats=0))):
        assert panel.operation_times == {} and json.loads(panel.to_json())["operation_times"] is None
    assert made(run).layers.empty and "milliseconds" in made(run).operations
    with pytest.raises(lt.LlamaTelemetryError, match="times are of a run"):
        lt.TelemetryPanel(Counter(), times=tiny.graph(IDS, repeats=0))


def test_times_are_measured_on_request_of_the_prompt_alone(made, tiny):
    panel = made(tiny.generate(IDS, 3).result())
    wire = Wire(panel)
    wire.say(type="times", id="a-1")
    until(lambda: wire.customs("times") or wire.customs("error"))
    assert not wire.customs("error")
    assert panel.operation_times["tokens"] == 16 and panel.operation_times["repeats"] == 3


def test_a_run_without_a_model_says_why_it_cannot_be_timed(made, run, tmp_path):
    run.save(tmp_path / "t.safetensors")
    wire = Wire(made(lt.load_trace(tmp_path / "t.safetensors")))
    wire.say(type="times", id="a-1")
    until(lambda: wire.customs("error"))
    assert "keep the model open" in wire.customs("error")[0][0]["message"]


def test_the_next_run_of_a_model_drops_what_was_measured_and_keeps_what_was_given(made, tiny, graph):
    own, given = made(tiny), made(tiny, times=graph)
    own._show_times(graph)
    tiny.generate(IDS[:6], 2).result()
    until(lambda: own.facts["runs"][0]["phase"] == "done")
    assert own.operation_times == {} and given.operation_times["tokens"] == 16


def test_a_layer_is_shared_and_one_that_was_not_timed_is_refused(made, tiny, graph):
    trace = tiny.generate(IDS, 2).result()
    panel, grid = made(trace, times=graph), lt.AttentionGrid(trace)
    link = lt.link(panel, grid)
    panel.selected_layer = 2
    assert grid.selected_layer == 2
    grid.select(1, 0)
    assert panel.selected_layer == 1
    link.unlink()
    grid.close()
    with pytest.raises(traitlets.TraitError, match="layer 4 was not timed: there are 0 to 3"):
        panel.selected_layer = 4
    panel.selected_layer = 3
    assert "op by op" in panel.to_svg() and "MUL_MAT × " in panel.to_svg(theme="dark")
    assert "measured op by op" not in made(trace).to_svg()


# ------------------------------------------------------------------- CPU threads


def tokens_of(trace, seconds, cpu):
    """The same run, as if its tokens had taken so long."""
    (token, *_) = trace._generated
    return [replace(token, seconds=s, cpu_seconds=c) for s, c in zip(seconds, cpu, strict=True)]


def test_threads_are_told_over_a_window_and_never_as_more_than_there_are(made, tiny):
    trace = tiny.generate(IDS, 2).result()
    trace.info["n_threads"] = 2
    # Both threads always busy; the second one's time is counted at ticks of 10 ms, as kernels do.
    ends = np.arange(101) * 0.007
    counted = ends + np.floor(ends / 0.01) * 0.01
    trace._generated[:] = tokens_of(trace, np.diff(ends), np.diff(counted))
    assert (np.diff(counted) / np.diff(ends)).max() > 2.2
    threads = np.frombuffer(made(trace).series[0], np.float32).reshape(3, -1)[1]
    np.testing.assert_allclose(threads, 2)
    trace._generated[50:] = [replace(token, cpu_seconds=0.007) for token in trace._generated[50:]]
    threads = np.frombuffer(made(trace).series[0], np.float32).reshape(3, -1)[1]
    assert threads[0] == 2 and threads[-1] == 1 and (np.diff(threads) <= 0).all()


def test_a_time_that_is_too_short_tells_no_threads(made, tiny):
    trace = tiny.generate(IDS, 2).result()
    trace._generated[:] = tokens_of(trace, [0.1, 0.1], [0.1, 0.1])
    assert np.isnan(np.frombuffer(made(trace).series[0], np.float32).reshape(3, -1)[1]).all()
    assert threads_used(2.4, 0.09, 2) is None and threads_used(None, 1.0, 2) is None
    assert threads_used(1.6, 0.12, 2) == 1.5 and threads_used(2.04, 0.3, 2) == 2
    assert threads_used(2.4, 1.0, 2) == pytest.approx(2.4)  # other threads of the engine: not hidden


# ---------------------------------------------------------------------- a source


def test_a_source_is_read_only_while_somebody_looks(made):
    source = Counter()
    panel = made(source)
    wire = Wire(panel)
    time.sleep(0.05)
    assert source.read_times == 0
    wire.say(type="watch", id="a-1", on=True)
    wire.say(type="watch", id="b-1", on=True)
    until(lambda: panel.samples.shape[1] > 2)
    wire.say(type="watch", id="a-2", on=False)
    count = source.read_times
    until(lambda: source.read_times > count)
    wire.say(type="watch", id="b-2", on=False)
    until(lambda: source._thread is None)
    time.sleep(0.05)
    count = source.read_times
    time.sleep(0.1)
    assert source.read_times == count
    table = panel.to_pandas()
    assert list(table) == ["time", "decode_tps", "gpu0.power"] and table["gpu0.power"].isna().all()
    assert [f["device"] for f in panel.facts["figures"]] == ["", "gpu0"]
    assert panel.facts["figures"][1]["note"] == "this GPU does not tell it"


def test_a_view_that_went_away_without_a_word_counts_for_a_while_only(made, monkeypatch):
    monkeypatch.setattr("llamatelemetry_widget.widgets.telemetry_panel._LOOKED", 0.05)
    source = Counter()
    wire = Wire(made(source))
    wire.say(type="watch", id="a-1", on=True)
    until(lambda: source.read_times > 0)
    until(lambda: source._thread is None)


def test_a_closed_panel_reads_nothing(made):
    source = Counter()
    panel = made(source)
    Wire(panel).say(type="watch", id="a-1", on=True)
    panel.close()
    until(lambda: source._thread is None)


def test_a_record_keeps_columns_that_come_later():
    record = Record()
    record.add(Sample(1.0, {"slots": 2.0}))
    record.add(Sample(2.0, {"slots": None, "busy": 5.0}))
    np.testing.assert_array_equal(record.columns(), [[1, 2], [2, np.nan], [np.nan, 5]])


# --------------------------------------------------------------- state and files


def test_what_cannot_be_is_refused(made, run):
    panel = made(run)
    with pytest.raises(traitlets.TraitError, match="token 22 does not exist"):
        panel.selected_tokens = [22]
    with pytest.raises(traitlets.TraitError, match="no range"):
        panel.span = [3, 3]
    panel.span = [1, 4]
    lens = made(run)
    link = lt.link(panel, lens)
    panel.selected_tokens = [18]
    assert lens.selected_tokens == [18]
    link.unlink()
    wire = Wire(panel)
    wire.say(type="nonsense", id="a-1")
    assert "is not known" in wire.customs("error")[0][0]["message"]


def test_files_hold_what_is_shown(made, run, tmp_path):
    panel = made(run, expanded=True)
    again = pd.read_parquet(panel.to_parquet(tmp_path))
    pd.testing.assert_frame_equal(again, panel.to_pandas())
    told = json.loads(panel.to_json(tmp_path / "run.json"))
    assert told["runs"][0]["telemetry"]["decode_seconds"] == run.telemetry["decode_seconds"]
    assert [row["token"] for row in told["runs"][0]["tokens"]] == run.generation["token"].tolist()
    page = panel.to_html(tmp_path)
    assert (tmp_path / "telemetry-llama_F32.html").read_text() == page and "16 + 6 tokens" in page
    assert panel.to_png().startswith(b"\x89PNG") and "Memory: engine process" in panel.to_svg(theme="dark")
    assert "<script" not in panel._static_html("no widgets here")


def test_a_token_that_takes_next_to_no_time_beside_a_slow_one_is_drawn(made, tiny):
    trace = tiny.generate(IDS, 2).result()
    trace._generated[:] = [replace(t, seconds=s) for t, s in zip(trace._generated, (1e-6, 10.0), strict=True)]
    assert made(trace).to_png().startswith(b"\x89PNG")


def test_a_source_without_samples_and_with_some_is_drawn(made):
    source = Counter()
    panel = made(source)
    assert "a counter" in panel.to_svg()
    for _ in range(3):
        panel._record.add(source.read())
    assert "decode" in panel.to_svg() and json.loads(panel.to_json())["samples"][2]["decode_tps"] == 3.0
