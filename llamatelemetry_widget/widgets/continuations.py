"""A small tree of continuations of one prompt: every token that was sampled, taken or chosen, and what it was part of.

In: tokens as they are written. Out: plain nodes for the browser, the ids and the exact bytes of any branch.
"""

from __future__ import annotations

import codecs
from typing import Any

from ..trace import display_token

ROOT = 0  # the prompt


class Continuations:
    """Nodes, the prompt first; each other is one token after its parent.

    Parameters
    ----------
    prompt : bytes
        What the prompt's tokens stand for, joined: a character may begin there.
    """

    def __init__(self, prompt: bytes) -> None:
        self._bytes = [prompt]
        self.nodes: list[dict[str, Any]] = [{"parent": None, "token": None}]

    def add(self, parent: int, token: int, piece: bytes, kind: str, **facts: Any) -> int:
        """Put a token after a node, or find it there; returns its node."""
        for at, node in enumerate(self.nodes):
            if node["parent"] == parent and node["token"] == token:
                node |= {name: value for name, value in facts.items() if value is not None}
                return at
        made = {"parent": parent, "token": token, "text": display_token(piece), "kind": kind}
        self.nodes.append({**made, "joins": self._joins(parent, piece), **facts})
        self._bytes.append(piece)
        return len(self.nodes) - 1

    def path(self, node: int) -> list[int]:
        """The nodes from the first token to this one."""
        found: list[int] = []
        while node != ROOT:
            found.append(node)
            node = self.nodes[node]["parent"]
        return found[::-1]

    def ids(self, node: int) -> list[int]:
        """Token ids after the prompt."""
        return [self.nodes[at]["token"] for at in self.path(node)]

    def data(self, node: int) -> bytes:
        """Exactly the bytes after the prompt."""
        return b"".join(self._bytes[at] for at in self.path(node))

    def _joins(self, parent: int, piece: bytes) -> str | None:
        """The character that this token completes, where earlier ones hold its first bytes."""
        reader = codecs.getincrementaldecoder("utf-8")("replace")
        reader.decode(self._bytes[ROOT] + self.data(parent))
        begun = bytes(reader.getstate()[0])
        if not begun:
            return None
        joined = reader.decode(piece)
        return joined[0] if joined and joined[0] != "\ufffd" else None
