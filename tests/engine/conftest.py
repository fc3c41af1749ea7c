"""Real models for the engine's tests, opened once and closed at the end."""

from __future__ import annotations

import pytest

import llamatelemetry_widget as lt


@pytest.fixture(scope="session")
def smollm2(smollm2_path):
    with lt.open_model(smollm2_path) as model:
        yield model


@pytest.fixture(scope="session")
def gemma3(gemma3_path):
    with lt.open_model(gemma3_path) as model:
        yield model


@pytest.fixture
def zoo_model(zoo_models):
    """Opens a file of the zoo; every one is closed after the test."""
    opened = []

    def open_one(name, **options):
        opened.append(lt.open_model(zoo_models / f"{name}.gguf", **options))
        return opened[-1]

    yield open_one
    for model in opened:
        model.close()
