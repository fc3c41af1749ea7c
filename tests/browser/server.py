"""A real JupyterLab or Notebook 7 on a free loopback port, with nothing of the user's own configuration.

In: a folder to work in. Out: its address, and a kernel client for every notebook that runs in it.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jupyter_client.blocking.client import BlockingKernelClient

START = 60

#: News and update checks would ask jupyter.org; widget state is saved, as a user turns on who wants it to stay.
DISABLED = ["@jupyterlab/apputils-extension:announcements"]
SETTINGS = {"@jupyter-widgets/jupyterlab-manager/plugin": {"saveState": True}}


class Server:
    """One server process; `kind` is ``lab`` or ``notebook``."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.notebooks = folder / "notebooks"
        self.runtime = folder / "runtime"
        self.token = secrets.token_hex(16)
        for name in ("notebooks", "runtime", "data", "config/labconfig", "settings", "workspaces"):
            (folder / name).mkdir(parents=True)
        page = {"disabledExtensions": dict.fromkeys(DISABLED, True)}
        (folder / "config/labconfig/page_config.json").write_text(json.dumps(page))
        for name, values in SETTINGS.items():
            self.settings(name, values)
        self.log = (folder / "server.log").open("w")
        self.process = subprocess.Popen(self._command(), env=self._environment(), stdout=self.log, stderr=self.log)
        self.url = self._wait()

    def _command(self) -> list[str]:
        module = {"lab": "jupyterlab", "notebook": "notebook"}[self.kind]
        return [
            *(sys.executable, "-m", module, "--no-browser", "--allow-root"),
            *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--IdentityProvider.token={self.token}"),
            f"--ServerApp.root_dir={self.notebooks}",
            f"--LabApp.user_settings_dir={self.folder / 'settings'}",
            f"--LabApp.workspaces_dir={self.folder / 'workspaces'}",
            f"--JupyterNotebookApp.user_settings_dir={self.folder / 'settings'}",
            f"--JupyterNotebookApp.workspaces_dir={self.folder / 'workspaces'}",
            *("--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
        ]

    def _environment(self) -> dict[str, str]:
        own = {key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER", "LLAMATELEMETRY"))}
        return {
            **own,
            "HOME": str(self.folder),
            "JUPYTER_CONFIG_DIR": str(self.folder / "config"),
            "JUPYTER_DATA_DIR": str(self.folder / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.runtime),
        }

    def _wait(self) -> str:
        end = time.monotonic() + START
        while time.monotonic() < end and self.process.poll() is None:
            for path in self.runtime.glob("jpserver-*.json"):
                try:
                    url = json.loads(path.read_text())["url"]
                    self.get("api/status", url)
                    return str(url)
                except (OSError, ValueError):
                    pass
            time.sleep(0.1)
        self.stop()
        raise RuntimeError(f"{self.kind} did not start:\n{(self.folder / 'server.log').read_text()[-2000:]}")

    def settings(self, plugin: str, values: dict[str, object]) -> None:
        """Write a user setting, as the settings editor would; a page that is loaded later reads it."""
        path = self.folder / "settings" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))

    def get(self, path: str, url: str | None = None, method: str = "GET") -> object:
        """Ask the server's REST interface."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{url or self.url}{path}", headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def session(self, name: str) -> dict[str, dict[str, str]] | None:
        """The running session of a notebook."""
        found = [session for session in self.get("api/sessions") if session["path"] == name]  # type: ignore[union-attr]
        return found[0] if found else None

    def end_session(self, name: str) -> None:
        """Shut a notebook's kernel down."""
        session = self.session(name)
        if session is not None:
            self.get(f"api/sessions/{session['id']}", method="DELETE")

    def address(self, name: str) -> str:
        """Where a browser opens a notebook."""
        where = f"lab/tree/{name}?reset&" if self.kind == "lab" else f"notebooks/{name}?"
        return f"{self.url}{where}token={self.token}"

    def stop(self) -> None:
        """End its kernels, then itself."""
        if self.process.poll() is None and hasattr(self, "url"):
            for kernel in self.get("api/kernels"):  # type: ignore[attr-defined]
                self.get(f"api/kernels/{kernel['id']}", method="DELETE")
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Kernel:
    """A second client of a notebook's kernel: Python's side of what the browser shows.

    Lives in a thread of its own, because Playwright keeps an event loop running in the main one.
    """

    def __init__(self, server: Server, name: str) -> None:
        session = server.session(name)
        assert session is not None, f"{name} has no kernel"
        self._thread = ThreadPoolExecutor(1)
        path = server.runtime / f"kernel-{session['kernel']['id']}.json"
        self._client = self._thread.submit(self._connect, path).result(60)

    def _connect(self, path: Path) -> BlockingKernelClient:
        client = BlockingKernelClient(connection_file=str(path))
        client.load_connection_file()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        return client

    def run(self, code: str) -> str:
        """What the code prints."""
        return self._thread.submit(self._run, code).result(120)

    def _run(self, code: str) -> str:
        printed: list[str] = []

        def hear(message: dict[str, object]) -> None:
            content: dict[str, object] = message["content"]  # type: ignore[assignment]
            if message["msg_type"] == "stream":
                printed.append(str(content["text"]))

        reply = self._client.execute_interactive(code, store_history=False, output_hook=hear, timeout=100)
        assert reply["content"]["status"] == "ok", "\n".join(reply["content"].get("traceback", []))
        return "".join(printed)

    def value(self, expression: str) -> object:
        """The value of an expression that JSON can carry."""
        return json.loads(self.run(f"import json; print(json.dumps({expression}))"))

    def close(self) -> None:
        self._thread.submit(self._client.stop_channels).result(20)
        self._thread.shutdown()
