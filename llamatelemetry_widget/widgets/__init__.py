"""The widgets: each holds traits, asks the trace, and is drawn by one ES module under `static/`."""
