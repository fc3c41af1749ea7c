"""Tests of `llamatelemetry_widget.analysis`; a package, so that they share `reference`."""
