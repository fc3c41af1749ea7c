"""`doctor()`: what works here and what does not, in one table, with the one command that mends each.

In: this process, its machine, its packages, its models. Out: `Report`. Nothing is changed, loaded or sent.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from html import escape
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..engine.backends import Backends, backends
from ..engine.cpu import CGROUP, cgroup_quota, usable_threads
from ..errors import LlamaTelemetryError
from ..export.picture import clean
from ..widgets.hosts import host, why_static

if TYPE_CHECKING:
    import pandas as pd

State = Literal["works", "absent", "problem"]
_MARKS = {"works": "✓", "absent": "·", "problem": "✗"}
_LITTLE_MEMORY, _LITTLE_DISK = 1e9, 2e9  # less than the smallest models of use need
_DRIVER = Path("/proc/driver/nvidia/version")
_STATIC = Path(__file__).parents[1] / "widgets" / "static"
_OURS = "pip install 'llamatelemetry-widget[{}]'"
_CUDA = 'CMAKE_ARGS="-DGGML_CUDA=ON" pip install --force-reinstall --no-cache-dir --no-binary=llama-cpp-python {}'
#: Module, the distributions that may bring it, what it is good for, the extra that installs it ("" = the command).
_LIBRARIES: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    ("umap", ("umap-learn",), "UMAP maps of a vocabulary; without it PCA", "umap"),
    ("fast_hdbscan", ("fast-hdbscan",), "clusters in EmbeddingSpace3D", "umap"),
    ("networkx", ("networkx",), "graph.to_networkx()", "graphistry"),
    ("pyarrow", ("pyarrow",), "tables and graphs to Parquet", "export"),
    ("pythreejs", ("pythreejs",), "EmbeddingSpace3D.to_pythreejs", "pythreejs"),
    ("graphistry", ("graphistry",), "lt.to_graphistry, for graphs too large for a page", "graphistry"),
    ("PIL", ("pillow",), "to_png", "export"),
    ("opentelemetry.sdk", ("opentelemetry-sdk",), "spans and metrics of runs", "otel"),
    ("pynvml", ("nvidia-ml-py",), "counters of NVIDIA GPUs", "gpu"),
)
#: The same for what needs an NVIDIA GPU; the extra, or package, ends in the version of CUDA.
_GPU_LIBRARIES: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    (
        "cupy",
        ("cupy-cuda12x", "cupy-cuda13x", "cupy"),
        "analysis of arrays that lie on the GPU",
        _OURS.format("gpu-{}"),
    ),
    ("cuml", ("cuml-cu12", "cuml-cu13", "cuml"), "UMAP on the GPU, same interface", _OURS.format("gpu-{}")),
    (
        "nx_cugraph",
        ("nx-cugraph-cu12", "nx-cugraph-cu13"),
        "NetworkX's analytics on the GPU",
        "pip install nx-cugraph-{}",
    ),
)
_DRIVER_OF_CUDA_13 = 580


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes
    ----------
    about : str
        What was looked at.
    state : str
        ``"works"``, ``"absent"`` (optional, and not there) or ``"problem"``.
    fact : str
        What was found.
    mend : str
        The one command, or step, that changes it; empty where there is nothing to do.
    """

    about: str
    state: State
    fact: str
    mend: str = ""


class Report:
    """What `doctor` found. It prints as a table, in a notebook as one of HTML.

    Attributes
    ----------
    findings : tuple of Finding
    """

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        self.findings = findings

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What keeps something from working."""
        return tuple(one for one in self.findings if one.state == "problem")

    @property
    def summary(self) -> str:
        """One line."""
        n = len(self.problems)
        return "everything needed works here" if not n else f"{n} problem{'s' * (n > 1)}: {_names(self.problems)}"

    def to_pandas(self) -> pd.DataFrame:
        """One row per finding: ``about``, ``state``, ``fact``, ``mend``."""
        import pandas as pd

        frame: pd.DataFrame = pd.DataFrame([asdict(one) for one in self.findings])
        return frame

    def __repr__(self) -> str:
        width = max(len(one.about) for one in self.findings)
        lines = [f"llamatelemetry-widget: {self.summary}"]
        for one in self.findings:
            lines.append(f"{_MARKS[one.state]} {clean(one.about):<{width}}  {clean(one.fact)}")
            if one.mend:
                lines.append(f"{'':<{width + 2}}  → {clean(one.mend)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The table for notebooks: text only ever as text, in the colours of its page."""
        cell = 'style="text-align:left;vertical-align:top;white-space:normal;padding:4px 12px 4px 0"'
        rows = []
        for one in self.findings:
            mend = f'<div style="opacity:.85">→ <code>{_html(one.mend)}</code></div>' if one.mend else ""
            weight = ";font-weight:600" if one.state == "problem" else ""
            rows.append(
                f"<tr><td {cell}>{_MARKS[one.state]}&nbsp;{one.state}</td><td {cell}>{_html(one.about)}</td>"
                f'<td {cell}><div style="overflow-wrap:anywhere{weight}">{_html(one.fact)}</div>{mend}</td></tr>'
            )
        return (
            f'<div><p><b>llamatelemetry-widget</b>: {_html(self.summary)}</p><table style="font-size:13px">'
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )


def doctor() -> Report:
    """Look at what this package needs and can use here.

    Returns
    -------
    Report
        Host, widgets, llama.cpp and its backends, threads, memory, disk, GPU, optional libraries, models; with the one
        command that mends each.

    Examples
    --------
    >>> lt.doctor().problems  # doctest: +SKIP
    ()
    """
    return Report(tuple(_findings()))


def _findings() -> Iterator[Finding]:
    yield _package()
    where = host()
    yield _guarded("host", lambda: _host(where))
    yield _guarded("widgets", lambda: _widgets(where))
    try:
        ours = backends()
        yield _llama(ours)
    except LlamaTelemetryError as error:
        ours = None
        yield Finding("llama.cpp", "problem", str(error), "pip install 'llama-cpp-python>=0.3.36,<0.4'")
    yield _guarded("threads", _threads)
    yield _guarded("memory", _memory)
    yield _guarded("disk", _disk)
    cuda, gpu = _gpu(ours)
    yield gpu
    yield _guarded("models", _models)
    for module, names, use, extra in _LIBRARIES:
        yield _library(module, names, use, _OURS.format(extra), needed=module != "pynvml" or bool(cuda))
    for module, names, use, mend in _GPU_LIBRARIES:
        yield _library(module, names, use, mend.format(cuda), needed=bool(cuda))


def _guarded(about: str, look: Callable[[], Finding]) -> Finding:
    """A look that fails is a finding, not the end of the table."""
    try:
        return look()
    except Exception as error:  # whatever this machine does that others do not
        return Finding(about, "problem", f"could not be looked at: {type(error).__name__}: {error}")


def _package() -> Finding:
    from .. import __version__

    system = f"Python {platform.python_version()} · {platform.system()} {platform.machine()}"
    fact = f"{__version__} · {system}"
    if sys.platform == "win32":
        return Finding("llamatelemetry-widget", "problem", f"{fact}: it runs on Linux and macOS", "wsl --install")
    if not (_STATIC / "attention_grid.js").exists():
        return Finding("llamatelemetry-widget", "problem", f"{fact}: the frontend was not built", "npm run build")
    return Finding("llamatelemetry-widget", "works", fact)


def _host(where: str) -> Finding:
    versions = {"JupyterLab": "jupyterlab", "Notebook": "notebook", "marimo": "marimo", "IPython": "ipython"}
    version = _version(versions[where]) if where in versions else None
    return Finding("host", "works", f"{where} {version}" if version else where)


def _widgets(where: str) -> Finding:
    static = why_static()
    if static:
        return Finding("widgets", "absent", static, "widget.to_html('page.html')")
    if where in ("IPython", "Python"):
        fact = f"{where} alone draws none: results print as text, to_html writes an interactive page"
        return Finding("widgets", "absent", fact, "jupyter lab" if _version("jupyterlab") else "pip install jupyterlab")
    own = f"anywidget {_version('anywidget')}, ipywidgets {_version('ipywidgets')}"
    if where not in ("JupyterLab", "Notebook", "Jupyter"):
        return Finding("widgets", "works", own)  # these load a widget's code from the kernel
    missing = [name for name in ("anywidget", "@jupyter-widgets/jupyterlab-manager") if not _extension(name)]
    if missing:
        fact = f"{own}; the notebook server's environment seems to lack {' and '.join(missing)}: install it there"
        return Finding("widgets", "problem", fact, "pip install anywidget jupyterlab_widgets")
    return Finding("widgets", "works", own)


def _extension(name: str) -> bool:
    """Whether a JupyterLab extension lies where a server would look for it."""
    try:
        from jupyter_core.paths import jupyter_path

        places = [Path(place) for place in jupyter_path("labextensions")]
    except ImportError:
        places = [Path(sys.prefix) / "share" / "jupyter" / "labextensions"]
    return any((place / name / "package.json").exists() for place in places)


def _llama(ours: Backends) -> Finding:
    names = ", ".join(device.name for device in ours.devices) or "no device"
    built = f"ggml {ours.ggml} ({ours.commit})" if ours.ggml else "ggml of unknown version"
    fact = f"llama-cpp-python {ours.llama_cpp_python} · {built} · {names}{' · RPC' if ours.rpc else ''}"
    if ours.problem:
        return Finding("llama.cpp", "problem", f"{fact}: {ours.problem}", "pip install 'llama-cpp-python>=0.3.36,<0.4'")
    return Finding("llama.cpp", "works", fact)


def _threads() -> Finding:
    used, there, quota = usable_threads(), os.cpu_count() or 1, cgroup_quota()
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    why = [f"affinity {affinity}"] if affinity < there else []
    why += [f"cgroup quota {quota:g}"] if math.isfinite(quota) else []
    fact = f"{used} of {there} CPUs" + (f" ({', '.join(why)})" if why else "")
    if quota < 1:
        fact += ": less than one CPU, so everything waits"
        return Finding("threads", "problem", fact, "docker update --cpus 2 CONTAINER")
    return Finding("threads", "works", fact)


def _memory() -> Finding:
    import psutil

    machine = psutil.virtual_memory()
    limit, used = _cgroup_memory()
    free = min(machine.available, limit - used)
    fact = f"{_size(free)} free of {_size(min(machine.total, limit))}"
    fact += " (limit of this container)" if limit < machine.total else ""
    if free < _LITTLE_MEMORY:
        return Finding("memory", "problem", f"{fact}: too little for most models", "close other kernels and models")
    return Finding("memory", "works", fact)


def _cgroup_memory() -> tuple[float, float]:
    """Bytes that this container may take, and takes; infinity without a limit."""
    for pair in ("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"):
        try:
            return float((CGROUP / pair[0]).read_text()), float((CGROUP / pair[1]).read_text())
        except (OSError, ValueError):  # no such limit, or "max"
            continue
    return math.inf, 0.0


def _disk() -> Finding:
    from ..models.find import cache_folder

    place = cache_folder()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    fact = f"{_size(free)} free where models are kept ({place})"
    if not os.access(place, os.W_OK):
        return Finding("disk", "problem", f"{fact}: it cannot be written", "export XDG_CACHE_HOME=/a/folder/of/yours")
    if free < _LITTLE_DISK:
        return Finding("disk", "problem", fact, "export XDG_CACHE_HOME=/a/folder/with/room")
    return Finding("disk", "works", fact)


def _gpu(ours: Backends | None) -> tuple[str, Finding]:
    """Which CUDA the NVIDIA driver here takes (``"cu12"``, ``"cu13"``, "" without one), and what llama.cpp makes of
    GPUs.
    """
    from .gpu import GpuTelemetry

    source = GpuTelemetry()
    sample = source.read()
    cards = [name for key, name in source.facts.items() if key.startswith("gpu")]
    offload = [device for device in ours.devices if device.is_gpu] if ours is not None else []
    cuda = _cuda(source.facts.get("driver", "")) if cards or _DRIVER.exists() else ""
    if offload:
        told = ", ".join(f"{one.name} {one.description} ({_size(one.free)} free)" for one in offload)
        pin = "open_model(…, devices=['CUDA0'])" if len(offload) > 1 else ""
        return cuda, Finding("GPU", "works", f"llama.cpp offloads to {told}", pin)
    if cuda:
        fact = f"{', '.join(cards) or 'an NVIDIA driver'} is here, but this llama.cpp was built without CUDA"
        version = f"llama-cpp-python=={ours.llama_cpp_python}" if ours is not None else "llama-cpp-python"
        return cuda, Finding("GPU", "problem", fact, _CUDA.format(version))
    return "", Finding("GPU", "absent", sample.notes.get("", source.title))


def _cuda(driver: str) -> str:
    major = driver.partition(".")[0]
    return "cu13" if major.isdigit() and int(major) >= _DRIVER_OF_CUDA_13 else "cu12"


def _models() -> Finding:
    from ..models.find import find_models

    found = find_models()
    good = [model.name for model in found if model.problem is None]
    broken = [model for model in found if model.problem is not None]
    if not good:
        return Finding("models", "problem", "none found", _OURS.format("demo"))
    shown = ", ".join(good[:5]) + (f" and {len(good) - 5} more" if len(good) > 5 else "")
    fact = f"{len(good)}: {shown}"
    if broken:
        return Finding("models", "works", f"{fact}; {len(broken)} cannot be opened", "lt.list_models()")
    return Finding("models", "works", fact)


def _library(module: str, names: tuple[str, ...], use: str, mend: str, needed: bool) -> Finding:
    """An optional library, found without importing it: importing some starts a GPU."""
    version = next((found for name in names if (found := _version(name)) is not None), None)
    about = names[0] if version is None else next(name for name in names if _version(name) is not None)
    if version is None:
        return Finding(about, "absent", use if needed else f"{use}; needs an NVIDIA GPU", mend if needed else "")
    try:
        there = util.find_spec(module) is not None
    except (ImportError, ValueError):
        there = False
    if not there:
        fact = f"{version} is installed but cannot be imported"
        return Finding(about, "problem", fact, f"pip install --force-reinstall {about}")
    return Finding(about, "works", f"{version}: {use}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _size(n: float) -> str:
    return f"{n / 1e9:.1f} GB"


def _names(findings: tuple[Finding, ...]) -> str:
    return ", ".join(one.about for one in findings)


def _html(text: str) -> str:
    return escape(clean(text))
