"""What a group of tokens is called: a few words of its own, common ones that tell it from the other groups.

In: groups, vectors, tokens. Out: names. What is a word is read off the vocabulary: no dictionary, no language model.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .projection import unit

Floats = NDArray[np.float32]
Rows = Sequence[NDArray[np.int64]]
_NAMED_BY = 3
_CANDIDATES = 200  # of a group, that are compared with all other groups
_ALIKE = 5  # letters that two spellings of one word share
_SHORT = 3  # letters, up to which one inflected form may be chance
_MARK = "·"
_ENDINGS = ("s", "es", "ed", "ing", "ly", "er", "ers", "d", "r", "ings", "ness")
_INFLECTED = _ENDINGS[:6]


@dataclass(frozen=True, eq=False)
class Words:
    """Which tokens read like words.

    Attributes
    ----------
    begins : bool (n,)
        Begins a word, is of letters only, and is more than the beginning of longer words.
    worth : float32 (n,)
        How well it serves as a name: letters, other spellings, inflections (English ones; elsewhere nothing is gained
        or lost), length, and how early it stands in the vocabulary.
    """

    begins: NDArray[np.bool_]
    worth: Floats


def words_of(tokens: Sequence[str]) -> Words:
    """Judge tokens by each other.

    Parameters
    ----------
    tokens : sequence of str
        In the order of the vocabulary, a word's beginning marked by ``·``.
    """
    bare = [token.removeprefix(_MARK) for token in tokens]
    lettered = [bool(word) and all(unicodedata.category(c)[0] in "LM" for c in word) for word in bare]
    spellings = Counter(word.lower() for word, is_word in zip(bare, lettered, strict=True) if is_word)
    beginnings: set[str] = set()
    for token, word, is_word in zip(tokens, bare, lettered, strict=True):
        if is_word and token.startswith(_MARK):
            low = word.lower()
            beginnings.update(low[:k] for k in range(2, len(low)) if low[k:] not in _ENDINGS)
    begins, worth = np.zeros(len(tokens), bool), np.zeros(len(tokens), np.float32)
    for i, word in enumerate(bare):
        if not lettered[i]:
            continue
        low = word.lower()
        inflected = sum(low + ending in spellings for ending in _INFLECTED)
        stem = low in beginnings and inflected < (2 if len(low) <= _SHORT else 1)
        begins[i] = tokens[i].startswith(_MARK) and not stem
        known = 0.15 * min(3, spellings[low]) + 0.1 * min(2, inflected) + 0.06 * min(6, len(word))
        worth[i] = 1 + known - 0.8 * stem - 0.3 * (len(word) > 1 and word.isupper())
    rank = np.log(np.arange(len(tokens)) + 200) / np.log(len(tokens) + 200)
    return Words(begins, (0.35 * worth - 1.2 * rank).astype(np.float32))


def group_names(members: Rows, directions: Floats, vectors: Floats, tokens: Sequence[str], words: Words) -> list[str]:
    """A name for each group: its tokens with the best sum of worth, nearness to the group, and distance to the next.

    Parameters
    ----------
    members : sequence of int (rows,)
        Rows of each group, whose vectors are finite and not zero.
    directions : float (groups, width)
        Mean of each group's vectors at length 1.
    vectors : float (n, width)
    tokens : sequence of str
    words : Words
        Of these tokens.
    """
    counts = [len(rows) for rows in members]
    middle = np.zeros(vectors.shape[1], np.float32)
    if len(members) > 1:  # what all vectors share tells nothing apart
        middle = np.average(directions, axis=0, weights=counts).astype(np.float32)
    towards = _unit(directions - middle)
    names = []
    for group, rows in enumerate(members):
        own = _unit(unit(vectors[rows]) - middle)
        worth = words.worth[rows].copy()
        if words.begins[rows].mean() > 0.3:  # else it is a group of endings, and is to be called so
            worth += 0.175 * words.begins[rows]
        some = np.argsort(-(own @ towards[group] + worth), kind="stable")[:_CANDIDATES]
        alike = own[some] @ towards.T
        score = 1.5 * alike[:, group] + worth[some]
        if len(members) > 1:
            score -= np.delete(alike, group, axis=1).max(1)
        best = rows[some[np.argsort(-score, kind="stable")]]
        names.append(", ".join(_distinct([tokens[row] for row in best.tolist()])))
    return names


def _unit(x: Floats) -> Floats:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9), np.float32)


def _distinct(tokens: Sequence[str]) -> list[str]:
    """The first few that are no spellings or parts of each other."""
    chosen: dict[str, str] = {}
    for token in tokens:
        word = token.removeprefix(_MARK).strip()
        low = word.lower()
        if low and not any(low.startswith(own[:_ALIKE]) or own.startswith(low[:_ALIKE]) for own in chosen):
            chosen[low] = word
        if len(chosen) == _NAMED_BY:
            break
    return list(chosen.values()) or list(tokens[:1])
