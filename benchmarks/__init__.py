"""Every speed and size claim of this project, measured: `python -m benchmarks` runs all of them."""
