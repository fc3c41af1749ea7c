"""Messages and shared memory between kernel and worker."""

from __future__ import annotations

import gc
import json
import os
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from llamatelemetry_widget.engine.wire import Disconnected, SharedBlock, Wire


@pytest.fixture
def ends():
    a, b = socket.socketpair()
    left, right = Wire(a), Wire(b)
    yield left, right
    left.close()
    right.close()


def test_a_message_arrives_as_it_was_sent(ends):
    left, right = ends
    sent = {
        "do": "x",
        "text": "漢字\u2028",
        "empty": np.zeros((0, 3), np.float32),
        "a": np.arange(6, dtype="<i4").reshape(2, 3),
    }
    left.send(sent)
    got = right.receive()
    assert (got["do"], got["text"], got["fd"]) == ("x", "漢字\u2028", None)
    assert got["empty"].shape == (0, 3)
    np.testing.assert_array_equal(got["a"], sent["a"])


def test_messages_from_many_threads_do_not_mix(ends):
    left, right = ends
    threads = [
        threading.Thread(target=left.send, args=({"i": i, "a": np.full(50_000, i, np.int32)},)) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    seen = set()
    for _ in threads:
        message = right.receive(timeout=5)
        assert (message["a"] == message["i"]).all()
        seen.add(message["i"])
    assert seen == set(range(8))


def test_nothing_within_the_time_is_none_and_a_closed_end_is_disconnected(ends):
    left, right = ends
    assert right.receive(timeout=0.01) is None
    left.close()
    with pytest.raises(Disconnected):
        right.receive()


def test_nothing_that_arrives_is_executed(ends):
    """The worker reads hostile files: its messages are JSON and raw numbers; no object can be built from them."""
    left, right = ends
    header = json.dumps({"#": [["a", "|O", [1]]], "fd": False}).encode()
    left._socket.sendall(len(header).to_bytes(8, "little") + (8).to_bytes(8, "little") + header + b"12345678")
    with pytest.raises(ValueError):
        right.receive(timeout=1)


def test_a_shared_block_is_seen_by_both_sides_and_has_no_name(ends):
    left, right = ends
    before = set(os.listdir("/dev/shm"))
    made = SharedBlock(4096)
    left.send({"do": "block"}, fd=made.fd)
    made.release()
    theirs = SharedBlock(4096, right.receive()["fd"])
    made.array(64, "<f4", (2, 2))[:] = 7
    assert (theirs.array(64, "<f4", (2, 2)) == 7).all()
    assert set(os.listdir("/dev/shm")) == before


def test_arrays_keep_a_block_alive_and_the_last_one_frees_it():
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("memfd:llamatelemetry")

    gc.collect()
    opened, before = len(os.listdir("/proc/self/fd")), mapped()
    block = SharedBlock(1 << 20)
    array = block.array(0, "<f4", (1 << 18,))
    block.release()
    del block
    gc.collect()
    array[:] = 1
    assert array.sum() == 1 << 18 and mapped() == before + 1
    del array
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= opened
    assert mapped() == before
