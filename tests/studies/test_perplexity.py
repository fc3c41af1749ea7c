"""The same windows of the same text as llama.cpp's own perplexity tool: its figures, within its errors."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import llamatelemetry_widget as lt

STORED = json.loads((Path(__file__).parents[1] / "data" / "perplexity.json").read_text("utf-8"))
TYPES = ("Q8_0", "Q4_K_M")


@pytest.fixture(scope="module")
def study(smollm2_path, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        base = lt.quantize(smollm2_path, "F32")
        made = lt.QuantizationStudy(
            base, ["F32", *TYPES], STORED["text"], windows="llama-perplexity", drift=False, speed=False
        )
        yield made.run()
        for path in {base.info.path, *(Path(path) for path in made.results.path)}:
            path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("kind", TYPES)
def test_figures_are_those_of_llama_perplexity(study, kind):
    told = STORED["types"][kind]["chunks"]["2"]
    row = study.results.set_index("name").loc[kind]
    assert row.n_tokens == 2 * 255
    for name, ours in {
        "ppl": row.ppl,
        "log_ratio": math.log(row.ppl_ratio),
        "kl": row.kl,
        "rms_dp": 100 * row.rms_dp,
        "same_top": 100 * row.same_top,
    }.items():
        assert ours == pytest.approx(told[name], abs=told[f"{name}_error"])
    for name, ours in {
        "ppl_error": row.ppl_error,
        "log_ratio_error": row.ppl_ratio_error / row.ppl_ratio,
        "kl_error": row.kl_error,
        "rms_dp_error": 100 * row.rms_dp_error,
        "same_top_error": 100 * row.same_top_error,
    }.items():
        assert ours == pytest.approx(told[name], rel=0.1)


@pytest.mark.slow
def test_the_base_is_alike_and_its_own_floor_is_zero(study):
    row = study.results.iloc[0]
    assert (row["name"], row.kl, row.kl_max, row.same_top, row.ppl_ratio) == ("F32", 0, 0, 1, 1)
    told = STORED["types"]["Q8_0"]["chunks"]["2"]
    assert study.base_facts["perplexity"] == pytest.approx(told["ppl"] / math.exp(told["log_ratio"]), rel=1e-3)


@pytest.mark.slow
def test_a_base_that_was_quantized_before_says_so(study):
    assert study.base_facts["made_from"] == "Q4_1"
    assert "Q5_0" in study.results.set_index("name").got["Q4_K_M"]  # asked for, got: rows of 576 do not fit Q4_K
