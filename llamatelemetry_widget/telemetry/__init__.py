"""What a run costs, from wherever it is told: a llama.cpp server, the machine's GPUs; and out to OpenTelemetry."""
