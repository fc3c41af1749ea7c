"""The OpenTelemetry names in force, all in this one place: they are still "development" and may change.

Spans, attributes and metrics of generative AI as the semantic conventions have them; what they do not know is ours and
begins with ``llamatelemetry.``.
"""

from __future__ import annotations

PROVIDER = "llama.cpp"  # the conventions allow a value of one's own
OPERATIONS = {"generate": "text_completion", "trace": "trace", "study": "study"}

OPERATION = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
MODEL = "gen_ai.request.model"
MAX_TOKENS = "gen_ai.request.max_tokens"
TEMPERATURE = "gen_ai.request.temperature"
TOP_K = "gen_ai.request.top_k"
TOP_P = "gen_ai.request.top_p"
SEED = "gen_ai.request.seed"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOKEN_TYPE = "gen_ai.token.type"
ERROR_TYPE = "error.type"

DURATION = "gen_ai.client.operation.duration"
TOKEN_USAGE = "gen_ai.client.token.usage"
FIRST_TOKEN = "gen_ai.client.operation.time_to_first_chunk"
PER_TOKEN = "gen_ai.client.operation.time_per_output_chunk"

QUANT_TYPE = "llamatelemetry.quant_type"
DEVICE = "llamatelemetry.device"
THREADS = "llamatelemetry.threads"
CAPTURE = "llamatelemetry.capture"
SECONDS = "llamatelemetry.seconds."  # and "load", "prefill", "reduce", "decode"
MEMORY = "llamatelemetry.memory."  # and the owner, in bytes

#: Each with unit, description, and the bucket limits that the conventions advise.
HISTOGRAMS: dict[str, tuple[str, str, tuple[float, ...]]] = {
    DURATION: (
        "s",
        "Time of a run",
        (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    ),
    TOKEN_USAGE: (
        "{token}",
        "Tokens read and written by a run",
        tuple(4**i for i in range(14)),
    ),
    FIRST_TOKEN: (
        "s",
        "From the request to the choice of the first token",
        (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    ),
    PER_TOKEN: (
        "s",
        "Between the choices of two tokens, with capture",
        (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
    ),
}

CAPTURE_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
