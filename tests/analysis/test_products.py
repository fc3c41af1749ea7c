"""Products made of pieces are the product, whatever its shape."""

from __future__ import annotations

import numpy as np
import pytest

from llamatelemetry_widget.analysis.products import product


@pytest.mark.parametrize("rows", [0, 1, 2, 63, 64, 65, 300])
@pytest.mark.parametrize("keys", [0, 1, 64, 100, 4097])
@pytest.mark.parametrize("d", [1, 16, 64, 80, 256])
def test_pieces_make_the_whole(rows: int, keys: int, d: int) -> None:
    r = np.random.default_rng(rows)
    q, k = (r.normal(size=(n, d)).astype(np.float32) for n in (rows, keys))
    np.testing.assert_allclose(product(q, k), q.astype(np.float64) @ k.astype(np.float64).T, atol=2e-4)


def test_arrays_that_are_cut_out_of_others() -> None:
    whole = np.random.default_rng(1).normal(size=(2, 300, 64)).astype(np.float32)
    q, k = whole[1, ::2], whole[0, 5:290, :]
    np.testing.assert_allclose(product(q, k), q @ k.T, atol=1e-4)
