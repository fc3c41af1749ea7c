"""Thumbnails laid out over more tokens than there are yet: the cells that exist are those of the later picture."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from llamatelemetry_widget.analysis.attention import decode_thumbnail, reduce, replay
from llamatelemetry_widget.analysis.reduce import reduce_any
from llamatelemetry_widget.analysis.rows import row_facts
from llamatelemetry_widget.analysis.thumbnails import edges, edges_within

from . import reference as ref


@pytest.mark.parametrize(("n", "side", "extent"), [(10, 8, 30), (24, 64, 88), (100, 16, 101), (64, 64, 64), (1, 4, 9)])
def test_cells_lie_where_those_of_the_whole_lie(n, side, extent):
    s = ref.scoring(3, 4, 2, n, n, values=ref.causal(n))
    ids = np.arange(n, dtype=np.int32) % 5
    reduced = reduce(s, ids, side, extent=extent)
    bounds = edges(extent, min(side, extent))
    cells = int((bounds < n).sum())
    assert reduced.thumb_max.shape == (4, cells, cells)
    for head in range(4):
        whole = np.zeros((extent, extent))
        whole[:n, :n] = replay(s, head)
        own = np.array([[whole[a:b, c:d].max() for c, d in pairwise(bounds)] for a, b in pairwise(bounds)])
        own = own[:cells, :cells]
        np.testing.assert_allclose(decode_thumbnail(reduced.thumb_max[head]), np.where(own < 1e-4, 0, own), rtol=0.02)
    other = reduce_any(s, row_facts(s, ids), side, extent)
    assert np.abs(other.thumb_max.astype(int) - reduced.thumb_max).max() <= 1
    assert np.abs(other.thumb_mean.astype(int) - reduced.thumb_mean).max() <= 1


def test_statistics_do_not_depend_on_the_layout():
    s = ref.scoring(5, 4, 2, 40, 40, values=ref.causal(40))
    ids = np.arange(40, dtype=np.int32) % 7
    here, there = reduce(s, ids, 16), reduce(s, ids, 16, extent=100)
    for name, values in here.statistics.items():
        np.testing.assert_allclose(there.statistics[name], values, rtol=1e-5, atol=1e-6)


def test_edges_end_at_the_last_token():
    assert edges_within(10, 4, 20).tolist() == [0, 5, 10]
    assert edges_within(11, 4, 20).tolist() == [0, 5, 10, 11]
    assert edges_within(7, 4, None).tolist() == edges(7, 4).tolist()
