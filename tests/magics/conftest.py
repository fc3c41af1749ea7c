"""A real IPython shell, and a real kernel that is talked to as a notebook does."""

from __future__ import annotations

import sys
import time

import pytest
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.manager import start_new_kernel


@pytest.fixture
def shell():
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance(colors="nocolor")
    made.run_cell("%load_ext llamatelemetry_widget")
    yield made
    made.run_cell("%unload_ext llamatelemetry_widget")
    InteractiveShell.clear_instance()


class Kernel:
    """Runs cells in a kernel and gathers what a notebook would get."""

    def __init__(self, manager, client):
        self.manager, self.client = manager, client
        self.comms = {}  # open widget models: id -> bytes of their state, as a notebook would save it

    def run(self, code, cell=None, seconds=120, on_output=None):
        """Outputs of a cell; `cell` is the notebook's id of it, `on_output` is told of each as it comes."""
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        message = self.client.session.msg("execute_request", content, metadata={"cellId": cell} if cell else {})
        self.client.shell_channel.send(message)
        outputs, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            got = self.client.get_iopub_msg(timeout=end - time.monotonic())
            kind, said = got["msg_type"], got["content"]
            self._follow(got)
            if got["parent_header"].get("msg_id") != message["header"]["msg_id"]:
                continue
            if kind in ("display_data", "execute_result", "error", "stream", "clear_output", "update_display_data"):
                outputs.append({"output_type": kind, **said})
                if on_output is not None:
                    on_output(outputs[-1])
            if kind == "status" and said["execution_state"] == "idle":
                return outputs
        raise TimeoutError(code)

    def _follow(self, message):
        kind, said = message["msg_type"], message["content"]
        if kind == "comm_open":
            size = len(str(said["data"])) + sum(len(b) for b in message["buffers"])
            self.comms[said["comm_id"]] = size
        elif kind == "comm_close":
            self.comms.pop(said["comm_id"], None)

    def subshell(self):
        """A second shell of the kernel. JupyterLab sends widgets' messages there: they come while a cell runs."""
        request = self.client.session.msg("create_subshell_request", {})
        self.client.control_channel.send(request)
        reply = self.client.get_control_msg(timeout=10)
        return reply["content"]["subshell_id"]

    def say(self, model_id, content, subshell):
        """A custom message to a widget, as its browser side sends it."""
        data = {"method": "custom", "content": content}
        message = self.client.session.msg("comm_msg", {"comm_id": model_id, "data": data})
        message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)

    def value(self, expression):
        """repr of an expression in the kernel."""
        (output,) = self.run(f"print(repr({expression}))")
        assert output["output_type"] == "stream", output
        return output["text"].strip()


@pytest.fixture(scope="session")
def kernel():
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=60, extra_arguments=[])
    made = Kernel(manager, client)
    made.run(f"import sys; assert sys.executable == {sys.executable!r}\n%load_ext llamatelemetry_widget")
    yield made
    client.stop_channels()
    manager.shutdown_kernel(now=True)
