"""The one family of errors that users meet. Each message is one line: what was wrong, with the value, and what next."""

from __future__ import annotations


class LlamaTelemetryError(Exception):
    """Base of everything this package raises on purpose."""


class ModelNotFound(LlamaTelemetryError):
    """No GGUF file answers to the name that was given."""


class ModelFileError(LlamaTelemetryError):
    """The file is not a GGUF that can be read: cut off, damaged, hostile, or in a form nobody can load."""


class EngineCrashed(LlamaTelemetryError):
    """The worker process died; the notebook did not. `log` holds llama.cpp's last lines.

    Parameters
    ----------
    message : str
        What happened, the likely cause and what to do.
    log : list of str
        The last 50 lines that llama.cpp wrote.
    """

    def __init__(self, message: str, log: list[str] | None = None) -> None:
        super().__init__(message)
        self.log = log or []


class EngineCancelled(LlamaTelemetryError):
    """The run was stopped by its user; the model stays usable."""


class PromptTooLong(LlamaTelemetryError):
    """The prompt has more tokens than the context holds; nothing was run."""


class CaptureUnavailable(LlamaTelemetryError):
    """What was asked for does not exist in this run, e.g. attention of a recurrent layer."""


class BackendMissing(LlamaTelemetryError):
    """An optional package or llama.cpp backend is needed; the message names what to install."""


class MemoryBudgetExceeded(LlamaTelemetryError):
    """The request cannot fit; the message says how many GB it needs and what to ask for instead."""
