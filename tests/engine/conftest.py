"""Real models for the engine's tests, opened once and closed at the end."""

from __future__ import annotations

import gguf
import pytest

import llamatelemetry_widget as lt


@pytest.fixture(scope="session")
def smollm2(smollm2_path):
    with lt.open_model(smollm2_path) as model:
        yield model


@pytest.fixture(scope="session")
def gemma3(gemma3_path):
    with lt.open_model(gemma3_path) as model:
        yield model


@pytest.fixture
def with_template(zoo_models, tmp_path):
    """A tiny llama with a chat template of the test's own; returns its path."""

    def make(template):
        target = tmp_path / "with-template.gguf"
        reader, writer = gguf.GGUFReader(zoo_models / "llama.gguf"), gguf.GGUFWriter(target, "llama")
        for name, field in reader.fields.items():
            if not name.startswith("GGUF.") and name != "general.architecture":
                inner = field.types[-1] if len(field.types) > 1 else None
                writer.add_key_value(name, field.contents(), field.types[0], inner)
        writer.add_chat_template(template)
        writer.add_bool("tokenizer.ggml.add_bos_token", True)
        for tensor in reader.tensors:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return target

    return make


@pytest.fixture
def zoo_model(zoo_models):
    """Opens a file of the zoo; every one is closed after the test."""
    opened = []

    def open_one(name, **options):
        opened.append(lt.open_model(zoo_models / f"{name}.gguf", **options))
        return opened[-1]

    yield open_one
    for model in opened:
        model.close()
