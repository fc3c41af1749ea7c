"""Settings of a session: `llamatelemetry_widget.config`.

In: assignments. Out: values that widgets and exports read when they are used.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Config:
    """What a session may set.

    Attributes
    ----------
    graphistry_threshold : int
        Nodes above which a widget offers Graphistry, where `graphistry.register` was called.
    """

    graphistry_threshold: int = 5000


config = Config()
