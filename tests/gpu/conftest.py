"""Tests that need a CUDA device. Without one each is skipped and says what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gpu import missing


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    why = missing()
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if why:
                item.add_marker(pytest.mark.skip(reason=why))
