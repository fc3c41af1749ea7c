"""llama.cpp's own sampler chain, in its own order, and what the model thought of the token that it chose.

In: settings, a context with fresh logits. Out: the next token with its probability, rank and entropy; of logits that
are given, what the chain leaves of them.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as L

from ...analysis.tokens import token_statistics
from .llama import Context, Llama

TOP = 5  # likeliest tokens that are told with each
_PENALIZED = 64  # last tokens that a repeat penalty looks at, llama.cpp's own default


class Sampler:
    """A chain of llama.cpp's samplers: penalties, top-k, typical, top-p, min-p, temperature, then the choice.

    Parameters
    ----------
    llama : Llama
        The model.
    settings : dict
        ``temperature`` (0 = the likeliest), ``top_k``, ``typical_p``, ``top_p``, ``min_p``, ``repeat_penalty``,
        ``seed``.
    before : list of int
        The prompt: a repeat penalty counts it.
    """

    def __init__(self, llama: Llama, settings: dict[str, Any], before: list[int]) -> None:
        self._llama = llama
        self._chain = _chain(llama.n_vocab, settings, before)

    def __call__(self, context: Context) -> dict[str, Any]:
        """The next token, and the model's own distribution (before any sampler) where it stands in it."""
        token = int(L.llama_sampler_sample(self._chain, context.pointer, -1))
        logits = context.logits(1)
        found = token_statistics(logits, np.array([token], np.int32))
        row = logits[0]
        top = np.argpartition(-row, TOP)[:TOP] if len(row) > TOP else np.arange(len(row))
        top = top[np.argsort(-row[top], kind="stable")]
        own = token_statistics(np.repeat(logits, len(top), 0), top.astype(np.int32))["probability"]
        pieces, kinds = self._llama.pieces([token, *top.tolist()])
        return {
            "id": token,
            "piece": pieces[0].hex(),
            "token_kind": kinds[0],
            "probability": float(found["probability"][0]),
            "entropy": float(found["entropy"][0]),
            "rank": int(found["rank"][0]),
            "top": [[int(i), piece.hex(), float(p)] for i, piece, p in zip(top, pieces[1:], own, strict=True)],
        }

    def close(self) -> None:
        """Free the chain."""
        L.llama_sampler_free(self._chain)


def apply_chain(n_vocab: int, settings: dict[str, Any], before: list[int], logits: Any) -> dict[str, Any]:
    """What llama.cpp's chain makes of logits: the tokens that are left, their probabilities, and the one it chose.

    Parameters
    ----------
    n_vocab : int
    settings : dict
        As in `Sampler`.
    before : list of int
        The tokens so far: a repeat penalty counts them.
    logits : float32 (vocab,)

    Returns
    -------
    dict
        ``ids`` int32 and ``probabilities`` float32 of the tokens that are left, ``chosen``.
    """
    table = np.zeros(len(logits), [("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
    table["id"], table["logit"] = np.arange(len(logits)), logits
    data = table.ctypes.data_as(ctypes.POINTER(L.llama_token_data))
    array = L.llama_token_data_array(data, len(table), -1, False)
    chain = _chain(n_vocab, settings, before)
    try:
        L.llama_sampler_apply(chain, ctypes.byref(array))
        left = table[: array.size].copy()
    finally:
        L.llama_sampler_free(chain)
    chosen = int(left["id"][array.selected])
    if settings["temperature"] <= 0:  # the greedy sampler chooses and leaves all as it was
        left = left[array.selected : array.selected + 1]
        left["p"] = 1
    return {"ids": left["id"].copy(), "probabilities": left["p"].copy(), "chosen": chosen}


def _chain(n_vocab: int, settings: dict[str, Any], before: list[int]) -> Any:
    """A chain that has seen the tokens before. The caller frees it."""
    chain = L.llama_sampler_chain_init(L.llama_sampler_chain_default_params())
    for sampler in _samplers(n_vocab, settings):
        L.llama_sampler_chain_add(chain, sampler)
    for token in before:
        L.llama_sampler_accept(chain, token)
    return chain


def _samplers(n_vocab: int, s: dict[str, Any]) -> list[Any]:
    chain = []
    if s["repeat_penalty"] != 1.0:
        chain.append(L.llama_sampler_init_penalties(n_vocab, _PENALIZED, s["repeat_penalty"], 0.0, 0.0))
    if s["temperature"] <= 0:
        return [*chain, L.llama_sampler_init_greedy()]
    return [
        *chain,
        L.llama_sampler_init_top_k(s["top_k"]),
        L.llama_sampler_init_typical(s["typical_p"], 1),
        L.llama_sampler_init_top_p(s["top_p"], 1),
        L.llama_sampler_init_min_p(s["min_p"], 1),
        L.llama_sampler_init_temp(s["temperature"]),
        L.llama_sampler_init_dist(s["seed"] & 0xFFFFFFFF),
    ]
