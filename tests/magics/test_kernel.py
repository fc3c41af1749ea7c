"""The magics and the widget in a real kernel, as a notebook sees them."""

from __future__ import annotations

import time

import nbformat
from nbclient import NotebookClient

WIDGET = "application/vnd.jupyter.widget-view+json"
LAMP = "The old lighthouse keeper lit the lamp."


def results(outputs):
    return [o for o in outputs if o["output_type"] in ("execute_result", "display_data")]


def test_the_cell_gives_a_widget_with_a_picture(kernel):
    outputs = kernel.run(f"%%llamatelemetry\n{LAMP}", cell="magic")
    last = results(outputs)[-1]
    assert last["output_type"] == "execute_result"
    assert {WIDGET, "text/html", "text/plain"} <= set(last["data"])
    assert "data:image/svg+xml" in last["data"]["text/html"]
    assert kernel.value("_trace.text") == repr(LAMP)


def test_a_long_run_fills_in_and_ends_as_the_cells_result(kernel):
    outputs = kernel.run("%%llamatelemetry\n" + LAMP * 60, cell="long")
    kinds = [o["output_type"] for o in outputs]
    assert kinds == ["display_data", "clear_output", "execute_result"]
    live, final = results(outputs)
    assert live["data"][WIDGET]["model_id"] == final["data"][WIDGET]["model_id"]
    assert "data:image/svg+xml" in final["data"]["text/html"]


def test_errors_are_one_line(kernel):
    (error,) = [o for o in kernel.run("%%llamatelemetry --model nothing-like-it\nx") if o["output_type"] == "error"]
    assert error["ename"] == "ModelNotFound"
    assert len(error["traceback"]) == 1
    assert error["traceback"][0].startswith("ModelNotFound: no model 'nothing-like-it'")


def test_w3_stop_works_while_the_cell_runs(kernel):
    subshell = kernel.subshell()
    stopped = []

    def stop(output):
        if not stopped and WIDGET in output.get("data", {}):
            stopped.append(time.monotonic())
            kernel.say(output["data"][WIDGET]["model_id"], {"type": "stop"}, subshell)

    outputs = kernel.run("%%llamatelemetry\n" + LAMP * 150, cell="stopped", on_output=stop)
    assert stopped
    assert time.monotonic() - stopped[0] < 5
    assert [o["ename"] for o in outputs if o["output_type"] == "error"] == ["EngineCancelled"]
    assert results(kernel.run(f"%%llamatelemetry\n{LAMP}"))


def test_e7_an_interrupt_ends_the_run_and_the_model_stays_usable(kernel):
    began = []

    def interrupt(output):
        if not began and WIDGET in output.get("data", {}):
            began.append(time.monotonic())
            kernel.manager.interrupt_kernel()

    outputs = kernel.run("%%llamatelemetry\n" + LAMP * 150, cell="interrupted", on_output=interrupt)
    assert time.monotonic() - began[0] < 5
    (error,) = [o for o in outputs if o["output_type"] == "error"]
    assert error["ename"] == "EngineCancelled"
    assert len(error["traceback"]) == 1
    assert results(kernel.run(f"%%llamatelemetry\n{LAMP}"))


def test_w8_ten_runs_of_a_cell_leave_one_widget(kernel):
    kernel.run(f"import llamatelemetry_widget as lt\nt = lt.open_model('smollm2').trace({LAMP!r}, progress=False)")
    kernel.comms.clear()
    code = "lt.AttentionGrid(t)"
    kernel.run(code, cell="grown")
    once = sum(kernel.comms.values())
    for _ in range(9):
        kernel.run(code, cell="grown")
    kernel.run("1")
    assert sum(kernel.comms.values()) <= 1.1 * once
    assert 100_000 < once < 1_500_000


def test_w9_in_jupyterlab_a_picture_stands_above_the_widget_and_outlives_it(kernel):
    kernel.run(f"import llamatelemetry_widget as lt\nt = lt.open_model('smollm2').trace({LAMP!r}, progress=False)")
    kernel.run("import os; os.environ['JPY_SESSION_NAME'] = 'lamp.ipynb'")
    picture, widget = results(kernel.run("lt.AttentionGrid(t)", cell="stacked"))
    kernel.run("del os.environ['JPY_SESSION_NAME']")
    assert WIDGET not in picture["data"]
    assert "run the cell again" in picture["data"]["text/html"]
    assert "SmolLM2" in picture["data"]["text/html"]
    assert "data:image/svg+xml" in picture["data"]["text/html"]
    assert set(widget["data"]) == {WIDGET, "text/plain"}
    assert kernel.value("type(_).__name__") == "'AttentionGrid'"


def test_two_cells_and_two_widgets_of_one_cell_live_side_by_side(kernel):
    kernel.run(f"import llamatelemetry_widget as lt\nt = lt.open_model('smollm2').trace({LAMP!r}, progress=False)")
    kernel.run("a, b = lt.AttentionGrid(t), lt.AttentionGrid(t)", cell="pair")
    kernel.run("c = lt.AttentionGrid(t)", cell="single")
    assert kernel.value("[w.comm is not None for w in (a, b, c)]") == "[True, True, True]"
    kernel.run("c = None; d = lt.AttentionGrid(t)", cell="pair")
    assert kernel.value("[w.comm is not None for w in (a, b, d)]") == "[False, False, True]"


def test_g3_works_with_a_running_loop_in_async_code_and_in_a_thread(kernel):
    code = f"""
import asyncio, threading
async def inside():
    await asyncio.sleep(0)
    return get_ipython().run_cell_magic("llamatelemetry", "--into in_async", {LAMP!r})
grid = await inside()
thread = threading.Thread(target=lambda: get_ipython().run_cell_magic("llamatelemetry", "--into in_thread", {LAMP!r}))
thread.start(); thread.join()
"""
    kernel.run(code)
    assert kernel.value("[in_async.text, in_thread.text]") == repr([LAMP, LAMP])


def test_w9_a_saved_notebook_holds_picture_and_widget(tmp_path):
    wait = "import time; time.sleep(0.5)"  # updates are paced, and this client leaves with the last cell
    cells = ["%load_ext llamatelemetry_widget", f"%%llamatelemetry\n{LAMP}", "_.select(17, 5)", wait]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    NotebookClient(notebook, timeout=120, kernel_name="python3", store_widget_state=True).execute()
    saved = tmp_path / "saved.ipynb"
    nbformat.write(notebook, saved)
    again = nbformat.read(saved, 4)
    data = again.cells[1].outputs[-1]["data"]
    state = again.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    own = state[data[WIDGET]["model_id"]]
    assert "data:image/svg+xml" in data["text/html"]
    assert "SmolLM2" in data["text/plain"]
    assert own["state"]["facts"]["phase"] == "done"
    assert own["state"]["selected_layer"] == 17
    assert list(own["state"]["embedded"]) == ["17,5"]
    names = {tuple(buffer["path"]) for buffer in own["buffers"]}
    assert {("thumbnails",), ("statistics",), ("embedded_data", 0)} <= names
    assert saved.stat().st_size < 2_500_000
