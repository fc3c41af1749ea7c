"""Running llama.cpp in a process of its own: the client that owns the worker, and the messages between the two."""
