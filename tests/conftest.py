"""Where the test models lie, for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def zoo_models() -> Path:
    """The folder of tiny models."""
    return DATA / "zoo" / "models"


@pytest.fixture(scope="session")
def zoo_refs() -> Path:
    """The folder of their references."""
    return DATA / "zoo" / "refs"


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M Q4_1, from the catalogue."""
    from llamatelemetry_widget.models.find import resolve

    return resolve("smollm2")


@pytest.fixture(scope="session")
def gemma3_path() -> Path:
    """Gemma 3 270M Q4_K_M, from the catalogue."""
    from llamatelemetry_widget.models.find import resolve

    return resolve("gemma3-270m")
