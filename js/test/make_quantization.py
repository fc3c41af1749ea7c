"""Makes the quantization report's test data from a real study: python js/test/make_quantization.py.

In: the catalogue's "smollm2", expanded to F32 and quantized anew. Out: js/test/data/quantization.json, the traits as
the kernel sends them (buffers in base64), with the files' folder left out.
"""

import base64
import json
import os
import tempfile
from pathlib import Path

import llamatelemetry_widget as lt

CANDIDATES = ("Q8_0", "Q5_K_M", "Q4_K_M", "Q4_1", "Q2_K", "kv:q8_0")


def main() -> None:
    """Write the file."""
    model = lt.open_model("smollm2")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # the candidates' files
        base = lt.quantize(model, "F32", out=Path(folder) / "SmolLM2-135M.F32.gguf")
        study = lt.QuantizationStudy(base, CANDIDATES, n_ctx=128, n_blocks=3, speed=False)
        report = lt.QuantizationReport(study.run())
        report.selected_candidate = "Q4_K_M"
        made = {name: getattr(report, name) for name in ("facts", "strips")}
        made |= {
            name: base64.b64encode(getattr(report, name).tobytes()).decode() for name in ("layer_drift", "head_drift")
        }
        text = json.dumps(made).replace(folder, "/models")
        report.close()
    (Path(__file__).parent / "data" / "quantization.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
