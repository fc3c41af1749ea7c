"""Run `examples/01_attention.ipynb` without a browser, say what it found, and write the grid as one HTML file.

In: nothing, or `--output FILE`. Out: a few lines on stdout, the last of which is the path of the page.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamatelemetry_widget.trace import Trace

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "01_attention.ipynb"
STRIKING = 5

#: The statistic that each name of a head comes from, the rarest pattern first.
STATISTIC = {
    "induction head": "induction",
    "previous-token head": "previous_token",
    "duplicate-token head": "duplicate_token",
    "diagonal head": "diagonal",
    "sink head": "sink",
    "broad head": "entropy",
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--output", type=Path, default=ROOT / "demo.html", help="where the page goes")
    run(options.parse_args().output.resolve())


def run(page: Path) -> None:
    """Execute the notebook and, in its kernel, `finish`; print what that printed."""
    import nbformat
    from nbformat.v4 import new_code_cell

    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    here = str(Path(__file__).parent)
    last = new_code_cell(  # type: ignore[no-untyped-call]
        f"import sys; sys.path.insert(0, {here!r}); import demo; demo.finish(trace, {str(page)!r})"
    )
    notebook.cells.append(last)
    start = time.perf_counter()
    execute(notebook, NOTEBOOK.parent)
    print(f"{NOTEBOOK.relative_to(ROOT)}: {cells} cells in {time.perf_counter() - start:.1f} s")
    print("".join(output.text for output in last.outputs if output.output_type == "stream").rstrip())


def execute(notebook: Any, folder: Path) -> None:
    """Run a notebook in `folder` with a kernel of this very interpreter, whatever kernels the machine knows by name.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        A cell failed; its traceback is in the message.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    class ThisPython(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            return KernelSpec(**get_kernel_dict())

    NotebookClient(
        notebook,
        km=AsyncKernelManager(kernel_spec_manager=ThisPython()),
        timeout=300,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=ERROR"],
    ).execute()


def finish(trace: Trace, page: str) -> None:
    """Say what a trace holds and write its grid, opened at the most striking head."""
    from llamatelemetry_widget import AttentionGrid

    heads, measured = trace.head_stats, trace.telemetry
    print(f"model   {trace.provenance}")
    print(f"tokens  {len(trace.tokens)}: {' '.join(trace.tokens)}")
    print(
        f"heads   {len(heads)} in {len(trace.layers)} layers, {int(heads['name'].notna().sum())} with a clear pattern"
    )
    print(
        f"time    {measured['total_seconds']:.2f} s: {measured['prefill_seconds']:.2f} s in llama.cpp with capture, "
        f"then {measured['reduce_seconds']:.2f} s for all statistics and thumbnails"
    )
    found = striking(trace)
    for at, (layer, head, name, value) in enumerate(found):
        print(f"{'' if at else 'found':<7} L{layer} H{head}: {name}, {STATISTIC[name].replace('_', ' ')} {value:.2f}")
    grid = AttentionGrid(trace)
    if found:
        layer, head = found[0][:2]
        query = len(trace.tokens) - 1
        weights = trace.attention(layer, head)[query]
        grid.select(layer, head)
        grid.selected_tokens = [query, int(weights.argmax())]
    Path(page).write_text(grid.to_html(), "utf-8")
    print(page)


def striking(trace: Trace) -> list[tuple[int, int, str, float]]:
    """(layer, head, name, value) of the strongest head of each name, then of the second strongest, and so on."""
    heads = trace.head_stats
    found = []
    for place, (name, statistic) in enumerate(STATISTIC.items()):
        own = heads[heads["name"] == name].sort_values(statistic, ascending=False)
        for rank, (layer, head, value) in enumerate(zip(own["layer"], own["head"], own[statistic], strict=True)):
            found.append((rank, place, (int(layer), int(head), name, float(value))))
    return [entry for _, _, entry in sorted(found)[:STRIKING]]


if __name__ == "__main__":
    main()
