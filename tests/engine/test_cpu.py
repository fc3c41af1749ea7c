"""V2: threads are what this process may use, not what the host has."""

from __future__ import annotations

import math
import os
import subprocess
import sys

from llamatelemetry_widget.engine.cpu import cgroup_quota, usable_threads


def test_v2_affinity_limits_the_threads():
    code = "from llamatelemetry_widget.engine.cpu import usable_threads; print(usable_threads())"
    out = subprocess.run(["taskset", "-c", "0", sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "1"


def test_v2_a_cgroup_quota_limits_the_threads_and_is_rounded_down(tmp_path, monkeypatch):
    """The files are those that Linux shows in a container limited to 2.5 CPUs (a mock: tests may not make cgroups)."""
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    own = tmp_path / "own"
    own.write_text("0::/\n")
    assert cgroup_quota(tmp_path, own) == 2.5
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr("llamatelemetry_widget.engine.cpu.cgroup_quota", lambda: 2.5)
    assert usable_threads() == 2


def test_v2_the_strictest_group_on_the_way_up_counts(tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "a" / "cpu.max").write_text("100000 100000\n")
    (inner / "cpu.max").write_text("max 100000\n")
    own = tmp_path / "own"
    own.write_text("0::/a/b\n")
    assert cgroup_quota(tmp_path, own) == 1.0


def test_v1_quota_and_no_quota(tmp_path):
    group = tmp_path / "cpu"
    group.mkdir()
    (group / "cpu.cfs_quota_us").write_text("-1\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    assert cgroup_quota(tmp_path, tmp_path / "none") == math.inf
    (group / "cpu.cfs_quota_us").write_text("300000\n")
    assert cgroup_quota(tmp_path, tmp_path / "none") == 3.0
