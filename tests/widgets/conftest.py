"""A real trace of the lighthouse prompt, and a grid whose messages are recorded instead of sent."""

from __future__ import annotations

import pytest

import llamatelemetry_widget as lt

PROMPT = (
    "The old lighthouse keeper lit the lamp at dusk, while the sea was calm. "
    "Every night the old lighthouse keeper lit the"
)


@pytest.fixture(scope="session")
def model():
    with lt.open_model("smollm2") as opened:
        yield opened


@pytest.fixture(scope="session")
def trace(model):
    return model.trace(PROMPT, progress=False)


class Wire:
    """What a widget sends, and a way to say something to it as a browser does."""

    def __init__(self, widget):
        self.widget, self.sent = widget, []
        widget._send = lambda message, buffers=None: self.sent.append((message, list(buffers or [])))

    def say(self, **content):
        data = {"method": "custom", "content": content}
        self.widget._handle_msg({"content": {"data": data}, "buffers": []})

    def change(self, **state):
        data = {"method": "update", "state": state, "buffer_paths": []}
        self.widget._handle_msg({"content": {"data": data}, "buffers": []})

    def customs(self, kind=None):
        found = [(m["content"], b) for m, b in self.sent if m["method"] == "custom"]
        return [(c, b) for c, b in found if kind in (None, c["type"])]

    def updates(self):
        return [m["state"] for m, _ in self.sent if m["method"] == "update"]


@pytest.fixture
def wired():
    made = []

    def wire(*arguments, **options):
        widget = lt.AttentionGrid(*arguments, **options)
        made.append(widget)
        return widget, Wire(widget)

    yield wire
    for widget in made:
        widget.close()


@pytest.fixture(scope="session")
def zoo_hybrid(zoo_models):
    """A trace of a small model in which only some layers have attention."""
    with lt.open_model(zoo_models / "lfm2.gguf") as opened:
        return opened.trace(list(range(5, 45)), progress=False)
