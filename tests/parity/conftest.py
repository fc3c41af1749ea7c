"""Models for the parity tests: one file of the zoo at a time, and the two real ones."""

from __future__ import annotations

import pytest

import llamatelemetry_widget as lt

from .zoo import ZOO, cases


@pytest.fixture(scope="module", params=cases(), ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def reference(case):
    return case.load()


@pytest.fixture(scope="module")
def model(case):
    with lt.open_model(case.path) as opened:
        yield opened


@pytest.fixture(scope="module")
def run(model, reference):
    """Traces the reference's own prompt."""

    def traced(**settings):
        ids, decoder = reference["ids"].tolist(), reference.get("dec_ids")
        if decoder is not None:
            settings["decoder_prompt"] = decoder.tolist()
        return model.trace(ids, logits="all", progress=False, **settings)

    return traced


@pytest.fixture
def zoo_file():
    """Opens any file of the zoo by name, and closes it after the test."""
    opened = []

    def open_one(name):
        opened.append(lt.open_model(ZOO / "models" / f"{name}.gguf"))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture(scope="module", params=["smollm2", "gemma3"])
def real(request):
    """Name of a real model's stored arrays, and the model."""
    catalogue = {"smollm2": "smollm2", "gemma3": "gemma3-270m"}
    with lt.open_model(catalogue[request.param]) as opened:
        yield request.param, opened
