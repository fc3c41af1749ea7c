"""`Tour`: a walk through a model and a prompt, from text to the next token, in about twenty short steps.

In: a model and a prompt. Out: an interactive widget whose every number was read out of llama.cpp, and the same as HTML.
"""

from __future__ import annotations

import os
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import traitlets

from ..errors import LlamaTelemetryError, PromptTooLong
from ..model import Model
from ..trace import Trace
from .base import Message, TelemetryWidget
from .tour_facts import facts
from .tour_values import read
from .traits import Index, Tokens

if TYPE_CHECKING:
    from ..export.page import Part
    from ..model import Prompt

#: Some of its words come twice, so that heads have something to find.
PROMPT = (
    "The old lighthouse keeper lit the lamp at dusk, while the sea was calm. "
    "Every night the old lighthouse keeper lit the"
)
TOKENS = 32  # of a prompt at most: every one is drawn
SHOWN = -1  # in `predictions`: the answer was asked for
_PAGE_TRAITS = ("step", "predictions", "selected_layer", "selected_head", "selected_tokens", "theme")


class Tour(TelemetryWidget):
    """What happens between a prompt and its next token, step by step, with this model's own numbers.

    Each step lights its place in the model, says what is true there, and asks a question before it shows the answer.
    What an architecture does not have is replaced by what it does instead.

    Parameters
    ----------
    model : Model
        It runs the prompt when the tour is made; the tour itself needs it no longer.
    prompt : str, sequence of int, or sequence of mapping, optional
        At most 32 tokens; a sentence of ours by default.
    **traits
        Any of the attributes below.

    Attributes
    ----------
    step : int
        The step that is shown, from 0. Default 0.
    predictions : dict of str to int
        What was answered, by the key of the step: the number of the option, or -1 where the answer was asked for.
        Default ``{}``.
    selected_layer, selected_head : int or None
        What the step looks at, for linked widgets.
    selected_tokens : list of int
    theme : {"auto", "light", "dark"}
        ``auto`` follows the host. Default ``"auto"``.

    Raises
    ------
    PromptTooLong
        The prompt has more than 32 tokens.

    Examples
    --------
    >>> tour = Tour(model)  # doctest: +SKIP
    >>> lt.link(tour, lt.AttentionGrid(tour.trace))  # doctest: +SKIP
    """

    bundle = "tour"

    step = traitlets.Int(0, min=0).tag(sync=True)
    predictions = traitlets.Dict(value_trait=traitlets.Int(), key_trait=traitlets.Unicode()).tag(sync=True)
    selected_layer = Index().tag(sync=True)
    selected_head = Index().tag(sync=True)
    selected_tokens = Tokens().tag(sync=True)
    theme = traitlets.Enum(("auto", "light", "dark"), "auto").tag(sync=True)

    facts = traitlets.Dict().tag(sync=True)

    def __init__(self, model: Model, prompt: Prompt | None = None, **traits: Any) -> None:
        if not isinstance(model, Model):
            raise LlamaTelemetryError(f"Tour walks through a Model (open_model(…)), not {type(model).__name__}")
        ids = model._ids(PROMPT if prompt is None else prompt)
        if prompt is None:
            ids = ids[:TOKENS]
        if len(ids) > TOKENS:
            raise PromptTooLong(f"the tour draws every token, so it takes {TOKENS} at most: this prompt has {len(ids)}")
        reading = read(model, ids)
        self._trace, self._part = reading.trace, reading.part
        super().__init__(facts=facts(reading), **traits)
        self._look()

    def __repr__(self) -> str:
        return f"<Tour: {self.facts['provenance']} · step {self.step + 1} of {len(self.steps)}>"

    @property
    def trace(self) -> Trace:
        """The run that the tour shows, for other widgets."""
        return self._trace

    @property
    def steps(self) -> list[str]:
        """Keys of the steps, in order."""
        return [own["key"] for own in self.facts["steps"]]

    # ----------------------------------------------------------------------- selection

    @traitlets.validate("step")
    def _valid_step(self, proposal: Any) -> Any:
        count = len(self.facts["steps"])
        if proposal["value"] >= count:
            raise traitlets.TraitError(f"step {proposal['value']} does not exist: there are steps 0 to {count - 1}")
        return proposal["value"]

    @traitlets.validate("selected_tokens")
    def _valid_tokens(self, proposal: Any) -> Any:
        tokens, n = proposal["value"], len(self.facts["tokens"])
        if any(token >= n for token in tokens):
            raise traitlets.TraitError(f"token {max(tokens)} does not exist: the prompt has tokens 0 to {n - 1}")
        return tokens

    @traitlets.observe("step")
    def _look(self, _: Any = None) -> None:
        """Select what the step is about."""
        if "steps" not in self.facts:
            return
        own = self.facts["steps"][self.step]
        at_head = own["inside"] and self.facts["head"] is not None
        with self.hold_sync(), self.hold_trait_notifications():
            self.selected_layer = self.facts["layer"] if at_head else None
            self.selected_head = self.facts["head"] if at_head else None
            self.selected_tokens = own["tokens"]

    def _answer(self, message: Message) -> None:
        raise LlamaTelemetryError(f"message {message.get('type')!r} is not known: reload the page")

    # ------------------------------------------------------------------------- exports

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """The tour as one HTML file that needs no kernel and no network; all of it works there.

        Parameters
        ----------
        path : path, optional
            Where to write it; its size is then printed. A folder gets a file named after the model.

        Returns
        -------
        str
            The page.
        """
        from ..export.page import page

        text = page(self.page_part())
        if path is not None:
            target = Path(path)
            if target.is_dir():
                model = re.sub(r"[^\w.-]+", "_", self.facts["model"]).strip("._")[:80] or "model"
                target = target / f"tour-{model}.html"
            target.write_text(text, "utf-8")
            print(f"{target} · {target.stat().st_size / 1e6:.1f} MB · {len(self.steps)} steps")
        return text

    def page_part(self) -> Part:
        """The widget as a part of a page with several, for `save_html`."""
        from ..export.page import Part

        state = {name: getattr(self, name) for name in _PAGE_TRAITS}
        state["facts"] = {**self.facts, "live": False}
        shares = [(self._trace, self._part)] if self._part else []
        return Part(
            f"Guided tour · {self.facts['model'] or 'model'}", self._esm, state, {}, self._static_html(""), shares
        )

    def _static_html(self, why: str) -> str:
        """The step that is shown, in words, and the way; answers are not in it."""
        own = self.facts["steps"][self.step]
        line = f"<p>{escape(why)}</p>" if why else ""
        said = "".join(f"<p>{escape(words)}</p>" for words in own["says"])
        way = "".join(f"<li>{escape(each['title'])}</li>" for each in self.facts["steps"])
        name = f"{self.facts['title']} · {self.facts['provenance']}"
        return f"<div>{line}<p><b>{escape(own['title'])}</b></p>{said}<ol>{way}</ol><p>{escape(name)}</p></div>"
