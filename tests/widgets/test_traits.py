"""Trait types refuse what does not fit, and take NumPy's scalars."""

from __future__ import annotations

import ipywidgets
import numpy as np
import pytest
import traitlets

from llamatelemetry_widget.widgets.traits import Buffer, Buffers, Index, Ranges, Switch, Tokens


class Holder(ipywidgets.Widget):
    index = Index().tag(sync=True)
    switch = Switch(True).tag(sync=True)
    tokens = Tokens().tag(sync=True)
    ranges = Ranges().tag(sync=True)
    codes = Buffer(np.uint8, "heads rows keys")
    table = Buffer(np.float32, "heads statistics")
    blobs = Buffers()


@pytest.fixture
def holder():
    return Holder()


@pytest.fixture
def sent(holder):
    states = []
    holder._send = lambda message, buffers=None: states.append((message["state"], buffers))
    return states


def test_w5_numpy_scalars_become_plain_values(holder):
    holder.index, holder.switch = np.int64(3), np.bool_(False)
    holder.tokens = np.array([23, 6])
    holder.ranges = {"sink": (np.float32(0.5), np.int16(1))}
    assert [type(v) for v in (holder.index, holder.switch, holder.tokens[0], holder.ranges["sink"][1])] == [
        int,
        bool,
        int,
        float,
    ]


@pytest.mark.parametrize("wrong", [True, np.bool_(True), -1, 1.5, "3", float("nan")])
def test_an_index_refuses(holder, wrong):
    with pytest.raises(traitlets.TraitError, match="whole number from 0"):
        holder.index = wrong


@pytest.mark.parametrize("wrong", [3, [1, 2, -3], [-1], [1.5], [True], "12"])
def test_tokens_refuse(holder, wrong):
    with pytest.raises(traitlets.TraitError, match=r"\[query, key, ...\]"):
        holder.tokens = wrong


@pytest.mark.parametrize("wrong", [3, {"sink": 1}, {"sink": [1]}, {"sink": [0.9, 0.1]}, {"sink": [float("nan"), 1]}])
def test_ranges_refuse(holder, wrong):
    with pytest.raises(traitlets.TraitError, match="lowest, highest"):
        holder.ranges = wrong


def test_an_infinite_end_is_an_open_end(holder):
    holder.ranges = {"sink": [-np.inf, np.inf]}
    assert holder.ranges == {"sink": [None, None]}


def test_a_value_changed_in_place_and_assigned_again_is_sent(holder, sent):
    holder.ranges = {"sink": [0.1, None]}
    changed = holder.ranges
    changed["sink"][0] = 0.5
    holder.ranges = changed
    assert [state["ranges"]["sink"][0] for state, _ in sent] == [0.1, 0.5]


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 2, 2), np.float32), np.zeros((2, 2), np.uint8), [[[1]]], b"abc", np.zeros((1, 1, 1), ">u2")]
)
def test_a_buffer_names_what_it_takes_and_what_came(holder, wrong):
    with pytest.raises(
        traitlets.TraitError, match=r"Holder.codes takes an array of uint8 with the axes \(heads, rows, keys\), not"
    ):
        holder.codes = wrong


def test_a_buffer_travels_as_bytes(holder, sent):
    array = np.arange(12, dtype=np.float32).reshape(6, 2)[::2]  # not contiguous
    holder.table = array
    assert bytes(sent[-1][1][0]) == np.ascontiguousarray(array).tobytes()


def test_every_assignment_of_a_buffer_is_sent(holder, sent):
    for value in (0, 0, 1):
        holder.codes = np.full((1, 1, 1), value, np.uint8)
    assert len(sent) == 3


def test_an_empty_buffer_travels(holder):
    assert bytes(holder.get_state("codes")["codes"]) == b""


def test_bytes_travel_as_a_list_of_buffers(holder, sent):
    holder.blobs = [b"ab", memoryview(b"cde")]
    assert [bytes(buffer) for buffer in sent[-1][1]] == [b"ab", b"cde"]
    for wrong in ([np.zeros(2)], b"ab", ["ab"]):
        with pytest.raises(traitlets.TraitError, match="a list of bytes"):
            holder.blobs = wrong
