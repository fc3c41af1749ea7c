"""Lets `%load_ext llamatelemetry` work: forwards to `llamatelemetry_widget`.

Where the `llamatelemetry` SDK is installed its package of the same name comes first; `%load_ext llamatelemetry_widget`
always works.
"""

from llamatelemetry_widget import load_ipython_extension, unload_ipython_extension

__all__ = ["load_ipython_extension", "unload_ipython_extension"]
