"""Texts cut into the blocks that a study runs: all of a text, or the windows of llama.cpp's perplexity tool.

In: token ids of texts. Out: `Block`s, each with the rows that are scored and the token that came after each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from ..errors import LlamaTelemetryError, PromptTooLong
from ..model import Model

Windows = Literal["blocks", "llama-perplexity"]
WINDOWS = ("blocks", "llama-perplexity")
_DEFAULT = ("prose", "code")


@dataclass(frozen=True)
class Block:
    """Tokens that are run together, from an empty context.

    Attributes
    ----------
    text : str
        Name of the text.
    number : int
        In the text, from 0.
    ids : tuple of int
        As they are run.
    first : int
        The first row that is scored; all from there on are, as many as there are targets.
    targets : tuple of int
        The token that came after each scored row.
    position : int
        Of the first target, in the text's tokens.
    """

    text: str
    number: int
    ids: tuple[int, ...]
    first: int
    targets: tuple[int, ...]
    position: int


def default_texts() -> dict[str, str]:
    """The texts that ship with this package: ``prose`` and ``code``, written for it."""
    folder = files("llamatelemetry_widget.studies") / "texts"
    return {name: (folder / f"{name}.txt").read_text("utf-8") for name in _DEFAULT}


def cut(
    model: Model, texts: Mapping[str, str], windows: Windows, n_ctx: int, n_blocks: int | None = None
) -> tuple[dict[str, list[int]], list[Block]]:
    """Token ids of each text and its blocks, in order.

    ``"blocks"``: each token of a text is predicted once, from all before it in its block of `n_ctx` tokens; a model
    that wants a start token gets it before every block. ``"llama-perplexity"``: whole blocks only, the second half of
    each is predicted, and the first token of a block gives way to the start token.

    Raises
    ------
    PromptTooLong
        The model's context is shorter than a block.
    LlamaTelemetryError
        There is no such kind of window, or a text is too short for one.
    """
    if windows not in WINDOWS:
        raise LlamaTelemetryError(f"windows {windows!r} do not exist: choose from {', '.join(WINDOWS)}")
    limit = model.info.context_length
    if not 8 <= n_ctx <= (limit or n_ctx):
        raise PromptTooLong(f"n_ctx {n_ctx} does not fit: give n_ctx from 8 to {limit}, this model's context")
    tokens: dict[str, list[int]] = {}
    blocks: list[Block] = []
    for name, text in texts.items():
        plain = windows == "blocks"
        ids = tokens[name] = model.tokenize(text, add_special=not plain)
        bos = model.info.bos_id if model._engine.facts.get("adds_bos") else None
        own = _whole(name, ids, n_ctx, bos) if plain else _halves(name, ids, n_ctx, bos)
        if not own:
            least = 2 if plain else n_ctx
            raise LlamaTelemetryError(f"the text {name!r} has {len(ids)} tokens, {least} are the least: give more text")
        blocks += own[:n_blocks]
    return tokens, blocks


def _whole(text: str, ids: Sequence[int], n_ctx: int, bos: int | None) -> list[Block]:
    before = () if bos is None else (bos,)
    size = n_ctx - len(before)
    made = []
    for number, at in enumerate(range(0, len(ids) - 1, size)):
        targets = tuple(ids[at + 1 : at + size + 1])
        made.append(Block(text, number, (*before, *ids[at : at + len(targets)]), len(before), targets, at + 1))
    return made


def _halves(text: str, ids: Sequence[int], n_ctx: int, bos: int | None) -> list[Block]:
    first, made = n_ctx // 2, []
    for number in range(len(ids) // n_ctx):
        at = number * n_ctx
        run = list(ids[at : at + n_ctx])
        targets = tuple(run[first + 1 :])
        if bos is not None:
            run[0] = bos
        made.append(Block(text, number, tuple(run[:-1]), first, targets, at + first + 1))
    return made
