"""How many threads this process may really use: CPU affinity and the cgroup's quota, never the host's core count.

In a container the host's count makes llama.cpp tens of times slower; both sides of the engine ask here.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_threads() -> int:
    """Threads that can run at once: the smaller of CPU affinity and cgroup quota (rounded down), at least 1."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        allowed = os.cpu_count() or 1
    quota = cgroup_quota()
    return max(1, allowed if math.isinf(quota) else min(allowed, math.floor(quota)))


def cgroup_quota(root: Path = CGROUP, own: Path = Path("/proc/self/cgroup")) -> float:
    """CPUs that the cgroup's quota allows (v2 and v1, the strictest on the way to the root); infinity without one."""
    quotas = [math.inf]
    for folder in _own_groups(root, own):
        v2, v1 = folder / "cpu.max", folder / "cpu.cfs_quota_us"
        try:
            if v2.exists():
                limit, period = v2.read_text().split()
            elif v1.exists():
                limit, period = v1.read_text().strip(), (folder / "cpu.cfs_period_us").read_text().strip()
            else:
                continue
            if limit not in ("max", "-1"):
                quotas.append(int(limit) / int(period))
        except (OSError, ValueError, ZeroDivisionError):
            continue  # a quota that cannot be read does not limit us
    return min(quotas)


def _own_groups(root: Path, own: Path) -> list[Path]:
    """Folders of this process's cgroups, from its own up to the root; inside a container the root is its own."""
    folders = [root, root / "cpu"]
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        base = root / "cpu" if "cpu" in controllers.split(",") else root
        group = Path(path.lstrip("/"))
        folders += [base / part for part in (group, *group.parents)]
    return folders
