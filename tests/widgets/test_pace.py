"""W7: at most ten messages a second, the last of each kind always delivered."""

from __future__ import annotations

import itertools
import threading
import time

from llamatelemetry_widget.widgets.pace import SECONDS, Pacer


def test_w7_a_flood_is_paced_and_the_last_value_arrives():
    pacer, seen = Pacer(), []
    for value in range(200):
        pacer.put("progress", lambda value=value: seen.append((time.monotonic(), value)))
        time.sleep(0.002)
    time.sleep(3 * SECONDS)
    times = [at for at, _ in seen]
    assert seen[0][1] == 0
    assert seen[-1][1] == 199
    assert min(b - a for a, b in itertools.pairwise(times)) > 0.8 * SECONDS


def test_actions_under_different_keys_all_run_in_order():
    pacer, seen, done = Pacer(), [], threading.Event()
    for layer in range(4):
        pacer.put(layer, lambda layer=layer: seen.append(layer))
    pacer.put("end", done.set)
    assert done.wait(2)
    assert seen == [0, 1, 2, 3]


def test_after_clear_only_newer_actions_run_and_after_close_none():
    pacer, seen = Pacer(), []
    pacer.put("a", lambda: seen.append("first"))
    pacer.put("a", lambda: seen.append("forgotten"))
    pacer.clear()
    pacer.put("a", lambda: seen.append("newer"))
    time.sleep(3 * SECONDS)
    pacer.close()
    pacer.put("a", lambda: seen.append("closed"))
    time.sleep(2 * SECONDS)
    assert seen == ["first", "newer"]
