"""QuantizationReport in Python: what it tells the browser of a real study, how it answers, its files."""

from __future__ import annotations

import json
import time

import numpy as np
import pandas as pd
import pytest
import traitlets

import llamatelemetry_widget as lt
from llamatelemetry_widget.studies.quantization import StudyEvent
from llamatelemetry_widget.widgets import quantization_facts

from .conftest import Wire

TEXTS = {
    "prose": "The quick brown fox jumps over the lazy dog, and then the token looks back at the first two words. " * 4,
    "code": "def largest(values):\n    best = values[0]\n    return best\n" * 4,
}


def study_of(zoo_models, folder, *names, drift=False):
    files = [name if ":" in name else zoo_models / f"{name}.gguf" for name in names]
    options = {"n_ctx": 64, "n_blocks": 4, "drift": drift, "speed": False, "directory": folder}
    return lt.QuantizationStudy(files[0], files[1:], TEXTS, **options)


@pytest.fixture(scope="module")
def study(zoo_models, tmp_path_factory):
    names = ("llama", "llama-q8-0", "llama-q4-0", "llama", "kv:f16")
    return study_of(zoo_models, tmp_path_factory.mktemp("study"), *names, drift=True).run()


@pytest.fixture
def report(study):
    made = lt.QuantizationReport(study)
    yield made
    made.close()


@pytest.fixture
def wire(report):
    return Wire(report)


def until(found):
    """What `found` finds, once it does."""
    for _ in range(600):
        if own := found():
            return own
        time.sleep(0.05)
    raise TimeoutError


# --------------------------------------------------------------- what is told


def test_facts_say_what_the_study_measured(report, study):
    facts, results = report.facts, study.results
    assert [row["name"] for row in facts["rows"]] == list(results["name"])
    for row, own in zip(facts["rows"], results.to_dict("records"), strict=True):
        assert row["kl"] == pytest.approx(own["kl"]) and row["bytes"] == own["bytes"] and row["status"] == "done"
    assert len(facts["blocks"]) == (study.blocks["kl"] > 0).sum() > 10
    assert {row["text"] for row in facts["texts"]} == set(TEXTS)
    assert "measured in llama.cpp" in facts["provenance"] and not facts["running"] and facts["live"]
    json.dumps(facts, allow_nan=False)


def test_drift_is_that_of_the_study(report, study):
    layers, heads = report.layer_drift, report.head_drift
    assert report.facts["shapes"] == [layers.shape[1], *heads.shape[1:]] and heads.shape == study.head_drift.shape
    np.testing.assert_array_equal(layers[1], study.layer_drift.iloc[1].to_numpy(np.float32))
    assert layers[1].min() > 0 == layers[2].max() and heads[1].max() > 0


def test_choices_are_those_of_the_study_at_every_budget(report, study):
    choices = report.facts["choices"]
    assert choices[0]["least"] is None and choices[0]["name"] == study.recommend().name
    assert [own["least"] for own in choices[1:]] == sorted({0, *study.results.query("kind != 'kv'")["bytes"]})
    for own in choices[1:]:
        found = study.recommend(max_bytes=own["least"])
        assert own["name"] == found.name and own["headline"] == found.headline
        assert "{budget}" in own["body"] and own["body"].count("{budget}") == 1
    assert choices[1]["name"] is None


def test_the_base_itself_has_nothing_to_lose(report, study):
    assert study.recommend().name == "llama" and report.recommendation.name == "llama"
    assert report.facts["rows"][2]["kl"] == 0 and report.facts["rows"][2]["same_top"] == 1
    report.max_bytes = int(study.results["bytes"].min())
    assert report.recommendation.name == study.results.sort_values("bytes")["name"].iloc[0]
    assert report.recommendation.name in repr(report)


def test_the_text_of_the_chosen_candidate(report, study):
    name = study.results["name"][1]
    report.selected_candidate = name
    strip, tokens = report.strips[name], study.tokens(name)
    assert strip["count"] == (tokens["text"] == strip["text"]).sum() == len(strip["tokens"])
    worst = tokens.loc[tokens["kl"].idxmax()]
    block, token, before, after, kl, same, at, text = strip["worst"][0]
    assert (block, token, text) == (worst["block"], worst["token"], worst["text"])
    assert [before, after, kl] == pytest.approx([worst["base_probability"], worst["probability"], worst["kl"]])
    assert same == worst["same_top"] and strip["tokens"][at - strip["first"]][:2] == [block, token]


def test_of_a_long_text_the_part_around_the_worst_token_is_sent(study, monkeypatch):
    monkeypatch.setattr(quantization_facts, "STRIP", 20)
    for name in study.results["name"]:
        strip = quantization_facts.strip(study, name)
        places = [row[6] for row in strip["worst"] if row[7] == strip["text"]]
        assert len(strip["tokens"]) == 20 and 0 <= places[0] - strip["first"] < 20


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"name": "Q4_K_M", "kind": "type", "got": ""}, (4, "k")),
        ({"name": "IQ1_S", "kind": "type", "got": ""}, (2, "iq")),
        ({"name": "my-Q2", "kind": "file", "got": "166 Q5_0, 16 Q4_K"}, (5, "legacy")),
        ({"name": "kv:q8_0", "kind": "kv", "got": "211 F32"}, (8, "legacy")),
        ({"name": "strange", "kind": "file", "got": ""}, (None, "unknown")),
        ({"name": "BF16", "kind": "type", "got": ""}, (16, "plain")),
    ],
)
def test_a_candidates_colour_is_that_of_its_tensors(row, expected):
    assert tuple(quantization_facts.look(row).values()) == expected


# --------------------------------------------------------------- choosing


def test_what_does_not_exist_is_refused(report):
    with pytest.raises(traitlets.TraitError, match="candidate 'Q9' does not exist: choose from llama-q8-0"):
        report.selected_candidate = "Q9"
    with pytest.raises(lt.LlamaTelemetryError, match="shows a QuantizationStudy, not str"):
        lt.QuantizationReport("llama")
    with pytest.raises(lt.LlamaTelemetryError, match=r"'kv:f16' has no file of its own"):
        report.compare_heads("kv:f16")


def test_heads_of_the_base_and_a_candidate(report, wire):
    report.selected_layer, report.selected_head = 1, 0
    wire.say(type="compare", id="a-1", candidate="llama-q4-0")
    until(lambda: wire.customs("compare") or wire.customs("error"))
    assert wire.customs("error") == []
    heads = report.comparison
    assert isinstance(heads, lt.HeadComparison) and (heads.selected_layer, heads.selected_head) == (1, 0)
    assert wire.updates()[-1]["comparison"] == f"IPY_MODEL_{heads.model_id}"
    again = report.compare_heads("llama-q8-0", prompt="The quick brown fox")
    assert report.comparison is again and heads.comm is None
    report.theme = "dark"
    assert again.theme == "dark"
    report.comparison = None
    assert again.comm is None


# --------------------------------------------------------------- while it runs


def test_it_starts_stops_and_goes_on(zoo_models, tmp_path):
    study = study_of(zoo_models, tmp_path, "llama", "llama-q4-0", "llama-q8-0")
    report = lt.QuantizationReport(study)
    wire = Wire(report)
    try:
        assert report.facts["choices"] == [] and report.strips == {} and "0 of 2" in repr(report)
        wire.say(type="start", id="a-1")
        until(lambda: any(row["kl"] is not None for row in report.facts["rows"]))
        wire.say(type="stop", id="a-2")
        until(lambda: not report.facts["running"])
        wire.say(type="start", id="a-3")
        until(lambda: all(row["status"] == "done" for row in report.facts["rows"]) and not report.facts["running"])
        assert [c["type"] for c, _ in wire.customs()] == ["start", "stop", "start"]
        assert report.facts["choices"] and report.strips
        updates = [state["facts"] for state in wire.updates() if "facts" in state]
        assert any(facts["running"] for facts in updates)
    finally:
        report.close()


def test_a_failed_candidate_is_a_row_that_says_why(zoo_models, tmp_path):
    study = study_of(zoo_models, tmp_path, "llama", "llama-q4-0", "odd-tokens").run()
    report = lt.QuantizationReport(study)
    failed = report.facts["rows"][1]
    assert failed["status"] == "failed" and "vocabulary" in failed["error"] and failed["kl"] is None
    assert any("odd-tokens failed" in limit for limit in report.recommendation.limits)
    assert "failed" in report._static_html("") and failed["error"][:30] in report.to_svg()
    report.close()


def test_progress_and_failure_are_told(report):
    report._heard(StudyEvent("progress", None, 3, 12, "block 2 of code"))
    until(lambda: report.facts["progress"] == "block 2 of code · 25 %")
    report._heard(StudyEvent("error", None, 3, 12, "the base cannot be run"))
    until(lambda: report.facts["progress"] == "the base cannot be run")
    report._heard(StudyEvent("cancelled", None, 3, 12, "stopped"))
    until(lambda: report.facts["progress"] == "")


def test_a_closed_report_hears_no_more(study):
    report = lt.QuantizationReport(study)
    wire = Wire(report)
    report.close()
    report._heard(StudyEvent("progress"))
    assert wire.updates() == []


# --------------------------------------------------------------- files


def test_files(report, study, tmp_path, capsys):
    told = json.loads(report.to_json(tmp_path))
    assert told["recommendation"]["name"] == "llama" and told["rows"][1]["kl"] == study.results["kl"][1]
    assert json.loads((tmp_path / "quantization-llama.json").read_text("utf-8")) == told
    frame = pd.read_parquet(report.to_parquet(tmp_path))
    np.testing.assert_array_equal(frame["kl"], study.results["kl"])
    assert set(study.results.columns) - {"dp_percentiles"} < set(frame.columns)
    assert frame["dp_50"][1] == study.results["dp_percentiles"][1][50]
    assert report.to_png(tmp_path, theme="dark")[:4] == b"\x89PNG" and report.to_svg().startswith("<svg")
    page = report.to_html(tmp_path)
    assert "https://" not in page.split("lt-data")[0] and "quantization-llama.html" in capsys.readouterr().out
    part = report.page_part()
    assert set(part.state["strips"]) == set(study.results["name"]) and not part.state["facts"]["live"]
    assert report.to_pandas().equals(study.results)


@pytest.mark.parametrize("kind", ["PNG", "HTML", "JSON", "Parquet"])
def test_the_browser_asks_for_files(wire, kind):
    wire.say(type="export", id="a-1", kind=kind)
    ((content, buffers),) = until(lambda: wire.customs("export"))
    assert content["name"] == f"quantization-llama.{kind.lower()}" and len(buffers[0]) > 500


def test_what_is_not_known_is_refused(wire):
    wire.say(type="dance", id="a-1")
    assert "not known" in wire.customs("error")[-1][0]["message"]
    wire.say(type="export", id="a-2", kind="GIF")
    assert "choose from PNG" in until(lambda: wire.customs("error")[1:])[0][0]["message"]
