"""Which file, and what is in it: finding GGUF models and reading their headers. Nothing here runs a model."""
