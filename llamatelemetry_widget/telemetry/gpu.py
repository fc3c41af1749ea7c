"""Counters of this machine's NVIDIA GPUs, read by the driver's own library: busy, memory, power, temperature.

In: nothing. Out: samples, one set of figures a GPU; a counter that a GPU does not have is None and says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .samples import Polled, Sample

_FIGURES = ("busy", "memory_used", "memory_total", "power", "power_limit", "temperature")


class GpuTelemetry(Polled):
    """The NVIDIA GPUs of the machine where this runs, as a source of live figures.

    Their names in samples are ``gpu0``, ``gpu1``, … as nvidia-smi counts them. Without the driver or the package
    nvidia-ml-py (extra ``gpu``) every sample is empty and its note ``""`` says what is missing.

    Parameters
    ----------
    every : float
        Seconds between two readings while somebody listens.

    Attributes
    ----------
    facts : dict
        ``gpu0`` and so on to the GPU's name, ``driver`` to its version; empty without a GPU.
    """

    def __init__(self, *, every: float = 0.5) -> None:
        super().__init__(every)
        self.facts: dict[str, str] = {}
        self._library: Any = None
        self._devices: list[Any] = []

    @property
    def title(self) -> str:
        """How many GPUs there are, once they were read."""
        return "CPU only, no NVIDIA GPU found" if not self._devices else f"{len(self._devices)} × NVIDIA GPU"

    def read(self) -> Sample:
        """Read all counters now."""
        why = self._open()
        if why:
            return Sample(time.time(), {}, {"": why})
        values: dict[str, float | None] = {}
        notes: dict[str, str] = {}
        for i, device in enumerate(self._devices):
            for name in _FIGURES:
                value, why = self._figure(name, device)
                values[f"gpu{i}.{name}"] = value
                if why:
                    notes[f"gpu{i}.{name}"] = why
        return Sample(time.time(), values, notes)

    def _open(self) -> str:
        """Find the GPUs once; why there are none."""
        if self._devices:
            return ""
        try:
            import pynvml
        except ImportError:
            return "GPU counters need nvidia-ml-py: pip install 'llamatelemetry-widget[gpu]'"
        try:
            pynvml.nvmlInit()
            self._devices = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
            self._library = pynvml
            names = {f"gpu{i}": _text(pynvml.nvmlDeviceGetName(one)) for i, one in enumerate(self._devices)}
            self.facts = names and {**names, "driver": _text(pynvml.nvmlSystemGetDriverVersion())}
        except pynvml.NVMLError as error:
            self._devices = []
            return f"CPU only, no NVIDIA GPU found ({error})"
        return "" if self._devices else "CPU only, no NVIDIA GPU found"

    def _figure(self, name: str, device: Any) -> tuple[float | None, str]:
        """One counter of one GPU, and why it is None: each fails alone."""
        nvml = self._library
        readers: dict[str, Callable[[], float]] = {
            "busy": lambda: nvml.nvmlDeviceGetUtilizationRates(device).gpu,
            "memory_used": lambda: nvml.nvmlDeviceGetMemoryInfo(device).used,
            "memory_total": lambda: nvml.nvmlDeviceGetMemoryInfo(device).total,
            "power": lambda: nvml.nvmlDeviceGetPowerUsage(device) / 1000,  # milliwatts
            "power_limit": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(device) / 1000,
            "temperature": lambda: nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU),
        }
        try:
            return float(readers[name]()), ""
        except (nvml.NVMLError, AttributeError) as error:  # this GPU, or this nvidia-ml-py, does not have it
            return None, f"this GPU does not tell it ({error})"


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
