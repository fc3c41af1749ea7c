"""What runs inside the worker process: llama.cpp, the taps on its graph, and the loop that answers requests."""
