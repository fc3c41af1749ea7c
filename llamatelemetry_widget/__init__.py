"""See what llama.cpp really computes with any GGUF model, inline in a notebook.

Only the public names stand here; each is loaded on first use, so that importing the package is quick and starts
nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .analysis.attention import decode_thumbnail
    from .engine.generation import Generation
    from .engine.running import RunningTrace
    from .errors import (
        BackendMissing,
        CaptureUnavailable,
        EngineCancelled,
        EngineCrashed,
        LlamaTelemetryError,
        MemoryBudgetExceeded,
        ModelFileError,
        ModelNotFound,
        PromptTooLong,
    )
    from .export.graphistry import to_graphistry
    from .export.graphs import Graph, attention_graph, graph_of, similarity_graph
    from .export.together import save_html
    from .magics import load_ipython_extension, unload_ipython_extension
    from .model import Model, open_model
    from .models.find import list_models
    from .models.info import ModelInfo
    from .settings import config
    from .studies.quantization import QuantizationStudy, StudyEvent
    from .studies.quantize import imatrix, quantize
    from .studies.saved import load_study
    from .telemetry.doctor import doctor
    from .telemetry.gpu import GpuTelemetry
    from .telemetry.otel import Instrumentation, instrument
    from .telemetry.samples import Sample
    from .telemetry.server import Telemetry
    from .trace import GeneratedToken, Trace, load_trace
    from .widgets.architecture_tree import ArchitectureTree
    from .widgets.attention_grid import AttentionGrid
    from .widgets.embedding_space import EmbeddingSpace3D
    from .widgets.expert_strip import ExpertStrip
    from .widgets.head_comparison import HeadComparison
    from .widgets.layer_lens import LayerLens
    from .widgets.links import link
    from .widgets.quantization_report import QuantizationReport
    from .widgets.telemetry_panel import TelemetryPanel
    from .widgets.token_explorer import TokenExplorer
    from .widgets.tour import Tour
    from .widgets.trace_views import TraceViews
    from .widgets.workspace import Workspace

__version__ = "0.1.0"

_HOMES = {
    "open_model": "model",
    "Model": "model",
    "Generation": "engine.generation",
    "RunningTrace": "engine.running",
    "ModelInfo": "models.info",
    "list_models": "models.find",
    "GeneratedToken": "trace",
    "Trace": "trace",
    "load_trace": "trace",
    "ArchitectureTree": "widgets.architecture_tree",
    "AttentionGrid": "widgets.attention_grid",
    "EmbeddingSpace3D": "widgets.embedding_space",
    "ExpertStrip": "widgets.expert_strip",
    "HeadComparison": "widgets.head_comparison",
    "LayerLens": "widgets.layer_lens",
    "QuantizationReport": "widgets.quantization_report",
    "TelemetryPanel": "widgets.telemetry_panel",
    "TokenExplorer": "widgets.token_explorer",
    "Tour": "widgets.tour",
    "TraceViews": "widgets.trace_views",
    "Workspace": "widgets.workspace",
    "GpuTelemetry": "telemetry.gpu",
    "Sample": "telemetry.samples",
    "Telemetry": "telemetry.server",
    "doctor": "telemetry.doctor",
    "Instrumentation": "telemetry.otel",
    "instrument": "telemetry.otel",
    "decode_thumbnail": "analysis.attention",
    "link": "widgets.links",
    "imatrix": "studies.quantize",
    "quantize": "studies.quantize",
    "QuantizationStudy": "studies.quantization",
    "StudyEvent": "studies.quantization",
    "load_study": "studies.saved",
    "config": "settings",
    "Graph": "export.graphs",
    "attention_graph": "export.graphs",
    "graph_of": "export.graphs",
    "similarity_graph": "export.graphs",
    "to_graphistry": "export.graphistry",
    "save_html": "export.together",
    "load_ipython_extension": "magics",
    "unload_ipython_extension": "magics",
    **dict.fromkeys(
        [
            "LlamaTelemetryError",
            "ModelNotFound",
            "ModelFileError",
            "EngineCrashed",
            "EngineCancelled",
            "PromptTooLong",
            "CaptureUnavailable",
            "BackendMissing",
            "MemoryBudgetExceeded",
        ],
        "errors",
    ),
}
__all__ = [
    "ArchitectureTree",
    "AttentionGrid",
    "BackendMissing",
    "CaptureUnavailable",
    "EmbeddingSpace3D",
    "EngineCancelled",
    "EngineCrashed",
    "ExpertStrip",
    "GeneratedToken",
    "Generation",
    "GpuTelemetry",
    "Graph",
    "HeadComparison",
    "Instrumentation",
    "LayerLens",
    "LlamaTelemetryError",
    "MemoryBudgetExceeded",
    "Model",
    "ModelFileError",
    "ModelInfo",
    "ModelNotFound",
    "PromptTooLong",
    "QuantizationReport",
    "QuantizationStudy",
    "RunningTrace",
    "Sample",
    "StudyEvent",
    "Telemetry",
    "TelemetryPanel",
    "TokenExplorer",
    "Tour",
    "Trace",
    "TraceViews",
    "Workspace",
    "attention_graph",
    "config",
    "decode_thumbnail",
    "doctor",
    "graph_of",
    "imatrix",
    "instrument",
    "link",
    "list_models",
    "load_ipython_extension",
    "load_study",
    "load_trace",
    "open_model",
    "quantize",
    "save_html",
    "similarity_graph",
    "to_graphistry",
    "unload_ipython_extension",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        import difflib

        near = difflib.get_close_matches(name, __all__, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
