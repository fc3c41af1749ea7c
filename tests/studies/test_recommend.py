"""What is recommended, and what is said of it.

The figures are llama-perplexity's of SmolLM2-135M expanded from Q4_1 to F32 (16 chunks of 512 tokens) and the sizes of
those files; intervals, blocks and speeds are set per test, being the inputs of a pure function.
"""

from __future__ import annotations

import json
import math
import shlex

import pandas as pd
import pytest

from llamatelemetry_widget.errors import LlamaTelemetryError
from llamatelemetry_widget.studies.recommend import number, overlaps, recommend, share, short_names, size

BASE = {
    "name": "SmolLM2 F32",
    "path": "/m/base file.gguf",
    "bytes": 540_000_000,
    "types": {"F32": 272},
    "made_from": "",
}
NAN = math.nan
# name, bytes, bits per weight, KL, its interval, 99 %, same top token, perplexity ratio
MEASURED = [
    ("Q8_0", 144_811_904, 8.51, 0.004142, 0.0004, 0.02, 0.9549, 1.0053),
    ("Q5_K_M", 112_000_000, 6.56, 0.071336, 0.0068, 0.34, 0.8253, 1.0725),
    ("Q4_K_M", 105_000_000, 6.17, 0.052144, 0.0046, 0.2457, 0.84314, 1.063673),
    ("Q2_K", 88_200_000, 5.14, 0.449156, 0.0351, 1.41, 0.5892, 1.4677),
]


def rows(**changes):
    """The results; `changes` sets columns of all rows, or of one: ``Q8_0={"kl": 1.0}``."""
    made = []
    for name, bytes_, bits, kl, ci, worst, same, ratio in MEASURED:
        row = {"name": name, "kind": "type", "path": f"/m/{name}.gguf", "bytes": bytes_, "bits_per_weight": bits}
        row |= {"status": "done", "error": "", "n_tokens": 4096, "kl": kl, "kl_ci": ci, "kl_99": worst}
        row |= {"same_top": same, "ppl": 52.3684 * ratio, "ppl_ratio": ratio, "decode_tps": NAN, "speed_note": ""}
        row |= {column: value for column, value in changes.items() if not isinstance(value, dict)}
        made.append(row | changes.get(name, {}))
    return pd.DataFrame(made)


def blocks(count=8, **kl):
    """Text blocks of some candidates: every block has the candidate's mean."""
    means = {name: own for name, _, _, own, *_ in MEASURED} | kl
    table = [
        {"candidate": name, "text": "text", "block": block, "n_tokens": 256, "kl": own, "same_top": 0.9}
        for name, own in means.items()
        for block in range(count)
    ]
    return pd.DataFrame(table, columns=["candidate", "text", "block", "n_tokens", "kl", "same_top"])


def test_the_closest_wins_with_its_figures_and_how_sure():
    found = recommend(BASE, rows(), blocks())
    assert found.name == "Q8_0"
    assert found.sentence.startswith("Take Q8_0. It is the closest to the base: KL 0.0041 ± 0.0004, 95.5")
    assert found.sure == "the intervals of Q8_0 and Q4_K_M do not touch; 8 of 8 text blocks agree."
    assert found.tie == []
    assert any("12.6 times as far from the base" in reason for reason in found.reasons)
    assert any("4096 tokens" in reason for reason in found.reasons)
    assert found.limits == []


def test_a_budget_leaves_larger_files_out_and_says_so():
    found = recommend(BASE, rows(), blocks(), max_bytes=110_000_000)
    assert found.name == "Q4_K_M"
    assert found.body.startswith("Within 110\u202fMB it is the closest to the base")
    assert not any("Q8_0" in reason for reason in found.reasons)


def test_overlapping_intervals_are_a_tie_and_the_smaller_file_wins():
    results = rows(Q5_K_M={"kl": 0.055})
    found = recommend(BASE, results, blocks(), max_bytes=120_000_000)
    assert found.name == "Q4_K_M" and found.tie == ["Q5_K_M", "Q4_K_M"]
    assert "smallest of 2 that are equally close" in found.body
    assert found.sure.startswith("a tie: its interval overlaps that of Q5_K_M")


def test_the_smaller_of_a_tie_wins_though_the_larger_is_closer():
    results = rows(Q5_K_M={"kl": 0.050})
    found = recommend(BASE, results, blocks(), max_bytes=120_000_000)
    assert found.name == "Q4_K_M" and set(found.tie) == {"Q5_K_M", "Q4_K_M"}
    assert any(reason.startswith("Q5_K_M is closer (KL 0.0500") for reason in found.reasons)


def test_without_intervals_nothing_is_called_closer():
    found = recommend(BASE, rows(kl_ci=NAN), blocks(1))
    assert len(found.tie) == 4 and found.name == "Q2_K"
    assert any("Only 1 text block" in limit for limit in found.limits)


def test_the_smallest_that_keeps_a_kl():
    found = recommend(BASE, rows(), blocks(), max_kl=0.06)
    assert found.name == "Q4_K_M" and found.body.startswith("With KL of at most 0.0600 it is the smallest: ")
    assert found.sure == "its interval lies below the limit."
    near = recommend(BASE, rows(), blocks(), max_kl=0.0525)
    assert near.name == "Q4_K_M" and near.sure.startswith("not quite: its interval reaches 0.0567")


def test_nothing_fits():
    found = recommend(BASE, rows(), blocks(), max_bytes=50_000_000, max_kl=0.001)
    assert found.name is None and found.commands == {} and found.markdown == ""
    assert found.sentence == (
        "No candidate fits. None was measured within 50.0\u202fMB and with KL of at most 0.0010: "
        "the smallest, Q2_K, has 88.2\u202fMB, the closest, Q8_0, has KL 0.0041 ± 0.0004."
    )


def test_a_base_that_was_quantized_is_said_aloud_with_the_case_that_shows_it():
    found = recommend(BASE | {"made_from": "Q4_1"}, rows(), blocks())
    assert found.limits[0] == (
        "The base was itself made from a Q4_1 file, so every other type pays twice, and Q5_K_M (0.0713) even loses to "
        "Q4_K_M (0.0521). To choose a type for the original model, study its F16 file."
    )
    twice = recommend(BASE | {"made_from": "Q8_0 > F16 > Q4_1"}, rows(), blocks())
    assert twice.limits[0].startswith("The base was itself made from a Q4_1 file")
    assert not any("made from" in limit for limit in recommend(BASE | {"made_from": "F16"}, rows(), blocks()).limits)


def test_the_type_that_the_model_already_has():
    results = rows(Q4_K_M={"name": "Q4_1", "kl": 0.0031, "kl_ci": 0.0004})
    found = recommend(BASE | {"made_from": "Q4_1"}, results, blocks(Q4_1=0.0031), max_bytes=110_000_000)
    assert found.headline == "Keep Q4_1, the type this model already has."
    file = rows(Q8_0={"name": "my.file", "kind": "file", "got": "210 Q4_1, 1 Q8_0"})
    assert recommend(BASE | {"made_from": "Q4_1"}, file, blocks()).headline.startswith("Keep my.file, the type")
    assert recommend(BASE | {"made_from": None}, file, blocks()).headline == "Take my.file."


def test_near_the_base_kl_no_longer_separates():
    results = rows(Q4_K_M={"kl": 0.008, "kl_ci": 0.0001})
    found = recommend(BASE, results, blocks())
    assert any(limit.startswith("Q8_0, Q4_K_M all lie below 0.01") for limit in found.limits)


def test_failed_and_unmeasured_candidates_are_named():
    results = rows(
        Q5_K_M={"status": "failed", "error": "llama.cpp stopped", "kl": NAN},
        Q2_K={"status": "waiting", "kl": NAN},
    )
    found = recommend(BASE, results, blocks())
    assert found.name == "Q8_0"
    assert "Q5_K_M failed and is no part of this choice: llama.cpp stopped" in found.limits
    assert "Not measured yet: Q2_K." in found.limits
    assert "| Q5_K_M | – | – | llama.cpp stopped |" in found.markdown


def test_what_is_measured_in_part_counts_and_is_said():
    results = rows(Q8_0={"status": "running"}, Q2_K={"status": "cancelled", "kl": NAN})
    found = recommend(BASE, results, blocks())
    assert found.name == "Q8_0"
    assert any(limit.startswith("Measured in part so far: Q8_0.") for limit in found.limits)
    assert "Not measured yet: Q2_K." in found.limits and "| Q2_K | – | – | cancelled |" in found.markdown


def test_nothing_measured_yet():
    with pytest.raises(LlamaTelemetryError, match="run the study first"):
        recommend(BASE, rows(status="waiting", kl=NAN), blocks(0))


def test_speed_is_a_limit_only_where_it_is_comparable():
    note = "repeats differ by 31 %"
    with pytest.raises(LlamaTelemetryError, match=f"by speed: {note}"):
        recommend(BASE, rows(speed_note=note), blocks(), min_speed=10)
    results = rows(decode_tps=90.0, Q8_0={"decode_tps": NAN, "speed_note": note})
    found = recommend(BASE, results, blocks(), min_speed=80)
    assert found.name == "Q4_K_M" and "Speed is not comparable for Q8_0, left out for it." in found.limits
    assert recommend(BASE, results, blocks(), min_speed=100).name is None


def test_the_cache_of_keys_and_values_is_chosen_only_among_its_own():
    results = rows(Q8_0={"kind": "kv", "name": "kv:q8_0", "path": "/m/base.gguf"})
    assert recommend(BASE, results, blocks()).name == "Q4_K_M"
    found = recommend(BASE, results.head(1), blocks())
    assert found.name == "kv:q8_0"
    assert found.commands["llama-server"].endswith("--cache-type-k q8_0 --cache-type-v q8_0")
    assert "llama-quantize" not in found.commands


def test_commands_are_ready_for_a_shell():
    commands = recommend(BASE, rows(), blocks()).commands
    assert shlex.split(commands["llama-quantize"]) == [
        "llama-quantize",
        "/m/base file.gguf",
        "/m/Q8_0.gguf",
        "Q8_0",
    ]
    assert commands["llama-server"] == "llama-server -m /m/Q8_0.gguf"
    quantized = recommend(BASE | {"types": {"F32": 61, "Q4_1": 210}}, rows(), blocks()).commands["llama-quantize"]
    assert shlex.split(quantized)[1] == "--allow-requantize"
    spaced = recommend(BASE, rows(Q8_0={"kind": "file", "path": "/my models/a.gguf"}), blocks()).commands
    assert spaced == {
        "llama-server": "llama-server -m '/my models/a.gguf'",
        "Modelfile": 'FROM "/my models/a.gguf"\n',
    }


def test_the_card_is_a_table_that_no_text_can_break():
    results = rows(Q2_K={"status": "failed", "error": "a|b\nc", "kl": NAN})
    card = recommend(BASE, results, blocks()).markdown
    table = [line for line in card.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 4 and all(line.replace("\\|", "").count("|") == 8 for line in table)
    assert "| **Q8_0** | 145\u202fMB | 8.51 | 0.0041 ± 0.0004 |" in card


def test_json_holds_all_of_it():
    found = recommend(BASE, rows(), blocks())
    told = json.loads(found.to_json())
    assert told["name"] == "Q8_0" and told["sentence"] == found.sentence and told["reasons"] == found.reasons
    assert found.headline in found._repr_markdown_() and found.sentence in repr(found)


def test_how_numbers_are_written():
    assert size(98_400_000) == "98.4\u202fMB" and size(540_000_000) == "540\u202fMB" and size(12) == "12\u202fB"
    assert number(0.00414) == "0.0041" and number(0) == "0" and number(2e-6) == "2.0e-06" and number(NAN) == "–"
    assert number(1.5) == "1.500" and share(0.976) == "97.6\u202f%" and share(NAN) == "–"
    assert short_names(["m-1.Q8_0", "m-1.Q4_K_M", "kv:q8_0"]) == ["Q8_0", "Q4_K_M", "kv:q8_0"]
    assert short_names(["m.Q8_0"]) == ["m.Q8_0"] and short_names(["Q4_0", "Q4_K"]) == ["Q4_0", "Q4_K"]
    assert overlaps({"kl": 1.0, "kl_ci": 0.3}, {"kl": 1.5, "kl_ci": 0.3})
    assert not overlaps({"kl": 1.0, "kl_ci": 0.2}, {"kl": 1.5, "kl_ci": 0.2})
