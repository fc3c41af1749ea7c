"""What a step of a tour is: a place in the model, what is true there, drawings, and a question before the answer.

In: words, numbers, figures. Out: plain JSON. What would give the answer away stands under ``after``: the browser shows
it once the user has predicted, or asked to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .tour_figures import Figure, number

Step = dict[str, Any]


def step(
    key: str,
    place: str,
    title: str,
    says: Sequence[str],
    figures: Sequence[Figure],
    question: Figure,
    after: Sequence[Figure] = (),
    tokens: Sequence[int] = (),
    inside: bool = False,
    see: str = "",
) -> Step:
    """One step.

    Parameters
    ----------
    key : str
        Its name, the same for every model.
    place : str
        The box of the map that is lit.
    title : str
    says : sequence of str
        Sentences with this model's numbers.
    figures : sequence of dict
    question : dict
        Of `ask`.
    after : sequence of dict
        Figures that come with the answer.
    tokens : sequence of int
        What is selected in linked widgets.
    inside : bool
        It belongs to the layer that is looked at.
    see : str
        The widget that shows this for every layer, head or token.
    """
    return {
        "key": key,
        "place": place,
        "title": title,
        "says": list(says),
        "figures": list(figures),
        "question": question,
        "after": list(after),
        "tokens": [int(at) for at in tokens],
        "inside": inside,
        "see": see,
    }


def ask(text: str, options: Sequence[str], answer: str, because: str) -> Figure:
    """A question; `answer` is one of the options, which stay in the order given; a single one gets another."""
    unique = list(dict.fromkeys(options))
    unique += ["none of these"] if len(unique) == 1 else []
    return {"text": text, "options": unique, "answer": unique.index(answer), "because": because}


def ask_number(text: str, answer: float, others: Sequence[float], because: str) -> Figure:
    """A question whose options are numbers, in their order."""
    words = {number(value): value for value in (*others, answer)}
    return ask(text, sorted(words, key=lambda word: words[word]), number(answer), because)


def ask_range(text: str, value: float, edges: Sequence[float], words: Sequence[str], because: str) -> Figure:
    """A question whose options are ranges: `words` has one more than `edges`, which belong to the range above them."""
    return ask(text, words, words[sum(value >= edge for edge in edges)], because)
