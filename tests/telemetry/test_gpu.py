"""GPU counters as a source. There is no GPU here: all but the last test run on a mock of nvidia-ml-py and say so.

In: a module that answers as nvidia-ml-py does for two GPUs, one of which tells less. Out: samples.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from llamatelemetry_widget.telemetry.gpu import GpuTelemetry
from llamatelemetry_widget.telemetry.samples import QUANTITIES, Source


class NVMLError(Exception):
    """As nvidia-ml-py's."""


class MockOfNvml(ModuleType):
    """Two GPUs, ``a`` and ``b``; a name in `refuses` fails for ``b`` only, as an older or a virtual GPU does."""

    NVML_TEMPERATURE_GPU = 0
    NVMLError = NVMLError

    def __init__(self, *refuses: str, driver: bool = True, devices: str = "ab") -> None:
        super().__init__("pynvml")
        self.refuses, self.driver, self.devices = refuses, driver, devices

    def nvmlInit(self):
        if not self.driver:
            raise NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self):
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index):
        return self.devices[index]

    def nvmlDeviceGetName(self, device):
        return b"Mock GPU \xff" if device == "a" else "Mock GPU"

    def nvmlSystemGetDriverVersion(self):
        return "1.2"

    def nvmlDeviceGetUtilizationRates(self, device):
        return self._told("busy", device, SimpleNamespace(gpu=37))

    def nvmlDeviceGetMemoryInfo(self, device):
        return self._told("memory", device, SimpleNamespace(used=3, total=8))

    def nvmlDeviceGetPowerUsage(self, device):
        return self._told("power", device, 61_500)

    def nvmlDeviceGetEnforcedPowerLimit(self, device):
        return self._told("limit", device, 70_000)

    def nvmlDeviceGetTemperature(self, device, sensor):
        return self._told("temperature", device, 55)

    def _told(self, name, device, value):
        if name in self.refuses and device == "b":
            raise NVMLError("Not Supported")
        return value


def mocked(monkeypatch, *refuses: str, **how) -> GpuTelemetry:
    monkeypatch.setitem(sys.modules, "pynvml", MockOfNvml(*refuses, **how))
    return GpuTelemetry()


def test_every_counter_of_every_gpu_of_the_mock(monkeypatch):
    source = mocked(monkeypatch)
    assert isinstance(source, Source) and source.facts == {}
    sample = source.read()
    own = {"busy": 37, "memory_used": 3, "memory_total": 8, "power": 61.5, "power_limit": 70, "temperature": 55}
    assert sample.values == {f"gpu{i}.{name}": value for i in range(2) for name, value in own.items()}
    assert not sample.notes and {name.split(".")[1] for name in sample.values} <= set(QUANTITIES)
    assert source.facts == {"gpu0": "Mock GPU \ufffd", "gpu1": "Mock GPU", "driver": "1.2"}
    assert source.title == "2 × NVIDIA GPU"


@pytest.mark.parametrize(
    ("refused", "lost"),
    [
        ("busy", {"busy"}),
        ("memory", {"memory_used", "memory_total"}),
        ("power", {"power"}),
        ("limit", {"power_limit"}),
        ("temperature", {"temperature"}),
    ],
)
def test_each_counter_of_the_mock_fails_alone(monkeypatch, refused, lost):
    sample = mocked(monkeypatch, refused).read()
    missing = {name for name, value in sample.values.items() if value is None}
    assert missing == {f"gpu1.{name}" for name in lost} == set(sample.notes)
    assert all("Not Supported" in why for why in sample.notes.values())


def test_a_mock_that_lacks_a_counter_altogether(monkeypatch):
    """An old nvidia-ml-py has no such function: that counter alone is missing."""
    source = mocked(monkeypatch)
    monkeypatch.delattr(MockOfNvml, "nvmlDeviceGetEnforcedPowerLimit")
    sample = source.read()
    assert sample.values["gpu0.power_limit"] is None and sample.values["gpu0.power"] == 61.5


@pytest.mark.parametrize("how", [{"driver": False}, {"devices": ""}])
def test_without_a_gpu_there_is_one_sentence(monkeypatch, how):
    source = mocked(monkeypatch, **how)
    sample = source.read()
    assert sample.values == {} and sample.notes[""].startswith("CPU only, no NVIDIA GPU found")
    assert source.title == "CPU only, no NVIDIA GPU found" and source.facts == {}


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "[gpu]" in GpuTelemetry().read().notes[""]


def test_the_real_package_answers_or_says_that_there_is_no_gpu():
    pytest.importorskip("pynvml")
    source = GpuTelemetry()
    sample = source.read()
    assert sample.values if source.facts else "no NVIDIA GPU" in sample.notes[""]
