"""Headers: the same as the reference reader's; cut, damaged, hostile and strange files are refused in one line."""

from __future__ import annotations

import os
import random
import re
import struct
import tempfile
import threading
import time
import tracemalloc
from pathlib import Path

import gguf as oracle
import pytest

from llamatelemetry_widget.errors import ModelFileError, ModelNotFound
from llamatelemetry_widget.models.ggml_types import ggml_type
from llamatelemetry_widget.models.header import LongArray, read_header, shard_paths
from llamatelemetry_widget.models.info import model_info

from . import make

ZOO = Path(__file__).parents[1] / "data" / "zoo" / "models"
WHOLE = sorted(p.name for p in ZOO.glob("*.gguf") if p.name != "moe-large.gguf")  # that one is a header alone


def write(folder: Path, data: bytes, name: str = "model.gguf") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def refusal(path: Path) -> str:
    """The words of a refusal: one line that names the file; quickly and in little memory."""
    tracemalloc.start()
    began = time.perf_counter()
    try:
        with pytest.raises(ModelFileError) as caught:
            read_header(path)
        assert time.perf_counter() - began < 1
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    words = str(caught.value)
    assert "\n" not in words and str(path) in words
    return words


# ------------------------------------------------------------------- the oracle


def check_metadata(ours, reader):
    fields = {k: f for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    assert list(ours) == list(fields)
    for key, field in fields.items():
        theirs = field.contents()
        if isinstance(ours[key], LongArray):
            assert len(ours[key]) == len(theirs) > 1024
        else:
            assert ours[key] == theirs, key


@pytest.mark.parametrize("name", WHOLE)
def test_every_header_of_the_zoo_reads_as_the_reference_reader_does(name):
    header = read_header(ZOO / name)
    readers = [oracle.GGUFReader(path) for path in header.shards]
    check_metadata(header.metadata, readers[0])
    theirs = [
        (t.name, tuple(map(int, t.shape)), int(t.tensor_type), int(t.n_bytes), int(t.data_offset), shard)
        for shard, reader in enumerate(readers)
        for t in reader.tensors
    ]
    assert [(t.name, t.shape, t.type_code, t.n_bytes, t.offset, t.shard) for t in header.tensors] == theirs
    assert header.n_bytes == sum(os.path.getsize(path) for path in header.shards)
    assert header.complete


def test_the_catalogue_model_reads_as_the_reference_reader_does(smollm2_path):
    header = read_header(smollm2_path)
    reader = oracle.GGUFReader(smollm2_path)
    assert list(header.metadata) == [k for k in reader.fields if not k.startswith("GGUF.")]
    tokens = header.metadata["tokenizer.ggml.tokens"]
    assert len(tokens) == len(reader.fields["tokenizer.ggml.tokens"].data) == 49152
    with open(smollm2_path, "rb") as file:
        file.seek(tokens.offset)
        assert file.read(8 + 13) == make.text("<|endoftext|>")
    assert [(t.name, t.n_bytes, t.offset) for t in header.tensors] == [
        (t.name, t.n_bytes, t.data_offset) for t in reader.tensors
    ]


def test_a_vocabulary_of_262144_tokens_is_stepped_over_quickly(gemma3_path):
    read_header(gemma3_path)
    took = []
    for _ in range(3):
        began = time.perf_counter()
        header = read_header(gemma3_path)
        took.append(time.perf_counter() - began)
    assert len(header.metadata["tokenizer.ggml.tokens"]) == 262144
    assert min(took) < 0.15


def test_types_are_as_the_loaded_llama_cpp_has_them():
    import ctypes

    library = ctypes.CDLL(
        str(next((Path(pytest.importorskip("llama_cpp").__file__).parent / "lib").glob("*ggml-base*")))
    )
    library.ggml_type_name.restype = ctypes.c_char_p
    library.ggml_blck_size.restype = ctypes.c_int64
    library.ggml_type_size.restype = ctypes.c_size_t
    for code in range(43):
        block = library.ggml_blck_size(code)
        if block:  # 0: removed from llama.cpp
            known = ggml_type(code)
            name = library.ggml_type_name(code).decode().upper()
            assert (known.name.upper(), known.block, known.size) == (name, block, library.ggml_type_size(code))


# -------------------------------------------------------------------- M1: length


def cut(source: Path, target: Path, size: int) -> Path:
    """The beginning of a file, made long enough by a hole: as a download that reserved no space."""
    with open(source, "rb") as file:
        target.write_bytes(file.read(min(size, 2_000_000)))
    os.truncate(target, size)
    return target


def test_m1_truncated_file_is_refused(smollm2_path, tmp_path):
    whole = smollm2_path.stat().st_size
    for size in (whole * 6 // 10, whole - 1):
        words = refusal(cut(smollm2_path, tmp_path / "half.gguf", size))
        assert "cut off" in words and str(size) in words and str(whole) in words


def test_m1_cut_anywhere_is_refused_or_is_the_header_alone(tmp_path):
    data = (ZOO / "llama-q4-0.gguf").read_bytes()
    start = read_header(ZOO / "llama-q4-0.gguf").tensors[0].offset
    for size in [*range(0, start + 200, 37), start - 1, start + 1]:
        path = write(tmp_path, data[:size])
        try:
            header = read_header(path)
        except ModelFileError as error:
            assert str(path) in str(error)
        else:  # all of the header is there, and nothing behind it
            assert start - 32 < size <= start and not header.complete


def test_m1_file_growing_while_it_is_read_is_refused_until_it_is_whole(tmp_path):
    data = (ZOO / "wide.gguf").read_bytes()
    path = write(tmp_path, b"GGUF")

    def download():
        with path.open("ab", buffering=0) as file:
            for begin in range(4, len(data), 4001):
                file.write(data[begin : begin + 4001])
                time.sleep(0.0005)

    thread = threading.Thread(target=download)
    thread.start()
    refused = 0
    while thread.is_alive():
        try:
            assert read_header(path).n_bytes == len(data)
        except ModelFileError as error:
            assert str(path) in str(error)
            refused += 1
    thread.join()
    assert refused
    assert len(read_header(path).tensors) == 291


def test_m1_file_that_changes_its_size_under_the_reader_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path, make.model())
    fstat = os.fstat

    def grown(descriptor):
        with path.open("ab") as file:
            file.write(b"more")
        return fstat(descriptor)

    monkeypatch.setattr(os, "fstat", grown)
    assert "while it was read" in refusal(path)


# --------------------------------------------------------------- M2: split files


def test_any_shard_opens_the_whole_set():
    headers = [read_header(path) for path in shard_paths(ZOO / "llama-split-00001-of-00003.gguf")]
    assert headers[0] == headers[1] == headers[2]
    assert headers[0].path.name == "llama-split-00001-of-00003.gguf"
    assert {t.shard for t in headers[0].tensors} == {0, 1, 2} and len(headers[0].tensors) == 39


def shards(folder: Path) -> list[Path]:
    return [write(folder, p.read_bytes(), p.name) for p in shard_paths(ZOO / "llama-split-00001-of-00003.gguf")]


def test_m2_concatenated_shards_are_refused_with_their_reason(tmp_path):
    data = [p.read_bytes() for p in shard_paths(ZOO / "llama-split-00001-of-00003.gguf")]
    for name in ("joined.gguf", "llama-split-00001-of-00003.gguf"):
        words = refusal(write(tmp_path, data[0] + data[1], name))
        assert "is shard 1 of 3 with" in words and "extra data" in words
        assert "keep the shards apart and open the first" in words
    assert "is shard 2 of 3 with" in refusal(write(tmp_path, data[1] + data[2], "joined.gguf"))


def test_m2_concatenated_models_are_refused(tmp_path):
    assert "is one GGUF with" in refusal(write(tmp_path, make.model() * 2))


def test_missing_shard_is_named(tmp_path):
    paths = shards(tmp_path)
    paths[1].unlink()
    assert "llama-split-00002-of-00003.gguf" in refusal(paths[2])


def test_renamed_shard_says_what_it_should_be_called(tmp_path):
    assert "NAME-00001-of-00003.gguf" in refusal(shards(tmp_path)[0].rename(tmp_path / "model.gguf"))


def test_shard_under_another_ones_name_is_refused(tmp_path):
    paths = shards(tmp_path)
    paths[2].write_bytes(paths[1].read_bytes())
    with pytest.raises(ModelFileError, match=re.escape(f"{paths[2]} says it is not shard 3 of 3")):
        read_header(paths[0])


def test_cut_shard_is_named(tmp_path):
    paths = shards(tmp_path)
    os.truncate(paths[1], paths[1].stat().st_size - 1)
    with pytest.raises(ModelFileError, match=re.escape(str(paths[1])) + " is cut off"):
        read_header(paths[0])


# -------------------------------------------------------------- M3: unknown types


def test_m3_unknown_type_codes_can_be_looked_at(tmp_path):
    known = ("output.weight", (32, 4), 8, 136)
    data = make.gguf({"general.architecture": "llama"}, [("a", (256, 2), 250, 64), known, ("b", (256, 2), 200, 64)])
    path = write(tmp_path, data)
    tensors = read_header(path).tensors
    assert [t.type_name for t in tensors] == ["unknown type 250", "Q8_0", "unknown type 200"]
    assert [t.n_bytes for t in tensors] == [None, 136, None]
    info = model_info(path)
    assert info.bits_per_weight == 8.5  # of the known tensor alone
    assert info.unknown_types == ("unknown type 200", "unknown type 250")
    assert info.quant_type_counts == {"unknown type 250": 1, "Q8_0": 1, "unknown type 200": 1}
    assert "unknown type 200" in info.cannot_run and str(path) in info.cannot_run


def test_m3_type_code_41_has_the_name_it_has_since_in_llama_cpp(tmp_path):
    path = write(tmp_path, make.gguf({}, [("a", (256, 2), 41, 72), ("b", (256, 2), 200, 64)]))
    assert [t.type_name for t in read_header(path).tensors] == ["Q1_0", "unknown type 200"]
    assert model_info(path).bits_per_weight == 8 * 18 / 128


# ------------------------------------------------------------ M6: crafted counts


def padded(data: bytes) -> bytes:
    return data.ljust(64, b"\0")


NESTED = make.Raw(9, struct.pack("<IQ", 9, 1) * 999 + struct.pack("<IQ", 4, 0))
CRAFTED = {
    "metadata count 2^60": padded(make.gguf({}, n_metadata=1 << 60)),
    "tensor count 2^62": padded(make.gguf({}, n_tensors=1 << 62)),
    "tensor count that the file could just hold": make.gguf({}, n_tensors=1000) + bytes(24_000),
    "key length 2^63-1": padded(make.gguf({}, n_metadata=1) + struct.pack("<Q", (1 << 63) - 1)),
    "text length 2^63-1": padded(make.gguf({"a": make.Raw(8, struct.pack("<Q", (1 << 63) - 1))})),
    "text length 2^64-1": padded(make.gguf({"a": make.Raw(8, struct.pack("<Q", (1 << 64) - 1))})),
    "array of 2^61 numbers": padded(make.gguf({"a": make.Raw(9, struct.pack("<IQ", 10, 1 << 61))})),
    "array of 2^40 texts": padded(make.gguf({"a": make.Raw(9, struct.pack("<IQ", 8, 1 << 40))})),
    "a text of an array as long as everything": make.gguf(
        {"a": make.Raw(9, struct.pack("<IQ", 8, 2000) + struct.pack("<Q", (1 << 64) - 8) * 2000)}
    ),
    "dimension product over 2^64": make.gguf({}, [("a", (1 << 33, 1 << 33), 0, 64)]),
    "dimension product 0 mod 2^64": make.gguf({}, [("a", (1 << 32, 1 << 32), 0, 64)]),
    "dimension 2^64-1": make.gguf({}, [("a", ((1 << 64) - 1, 0), 0, 64)]),
    "five dimensions": make.gguf({}, [("a", (2,) * 5, 0, 128)]),
    "2^32-1 dimensions": make.gguf({}, n_tensors=1) + make.text("a") + b"\xff" * 64,
    "arrays nested 1000 deep": make.gguf({"a": NESTED}),
    "alignment 0": make.gguf({"general.alignment": 0}),
    "alignment 2^31": make.gguf({"general.alignment": 1 << 31}),
    "alignment no power of two": make.gguf({"general.alignment": 48}),
    "value type 77": make.gguf({"a": make.Raw(77, bytes(16))}),
    "array of type 77": make.gguf({"a": make.Raw(9, struct.pack("<IQ", 77, 4))}),
    "row that is no whole block": make.gguf({}, [("a", (33, 4), 8, 136)]),
    "two tensors of one name": make.gguf({}, [("a", (32,), 0, 128), ("a", (32,), 0, 128)]),
    "layers 2^32-1": make.model(**{"llama.block_count": (1 << 32) - 1}),
}


@pytest.mark.parametrize("what", CRAFTED)
def test_m6_crafted_counts_are_refused_quickly(what, tmp_path):
    path = write(tmp_path, CRAFTED[what])
    if what.startswith("layers"):
        with pytest.raises(ModelFileError, match="4294967295 layers"):
            model_info(path)
    else:
        assert "damaged or cut off" in refusal(path)


def test_m6_key_that_comes_twice_is_refused(tmp_path):
    entry = make.text("a") + struct.pack("<II", 4, 1)
    assert "'a' comes twice" in refusal(write(tmp_path, make.gguf({}, n_metadata=2)[:24] + entry * 2 + bytes(64)))


def test_m6_shard_count_that_no_set_has_is_refused(tmp_path):
    for count in (0xFFFFFFFF, 99_999):
        path = write(tmp_path, make.model(**{"split.count": count, "split.no": 0}), f"m-00001-of-{count:05d}.gguf")
        assert "shard 1 of" in refusal(path)


def mutate(data: bytes, chance: random.Random) -> bytes:
    """One to four changes, most of them in the header."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(min(len(changed), 14_000) if chance.random() < 0.9 else len(changed))
        kind = chance.randrange(5)
        if kind == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[at : at + 8] = struct.pack("<Q", chance.choice([0, 1, 1 << 31, 1 << 40, 1 << 63, (1 << 64) - 1]))
        elif kind == 2:
            del changed[at : at + chance.randint(1, 5000)]
        elif kind == 3:
            changed[at:at] = chance.randbytes(chance.randint(1, 64))
        else:
            changed[at : at + 16] = changed[(b := chance.randrange(14_000)) : b + 16]
    return bytes(changed)


@pytest.mark.parametrize("name", ["llama-q4-0.gguf", "odd-tokens.gguf"])
def test_m6_mutated_files_open_or_are_refused_and_nothing_else(name, tmp_path):
    data = (ZOO / name).read_bytes()
    refused = 0
    for seed in range(200):
        path = write(tmp_path, mutate(data, random.Random(f"{name} {seed}")))
        began = time.perf_counter()
        try:
            assert model_info(path).n_bytes == path.stat().st_size
        except ModelFileError as error:
            assert "\n" not in str(error)
            refused += 1
        assert time.perf_counter() - began < 1, seed
    assert 50 < refused < 200


# ------------------------------------------------------------- what is no GGUF


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty (0 bytes)"),
        (b"GGUF\3\0\0", "is cut off after 7 bytes"),
        (struct.pack("<Q", 40) + b'{"__metadata__":{}}'.ljust(40), "a safetensors file"),
        (b"PK\x03\x04" + bytes(100), "a zip archive, as PyTorch checkpoints are"),
        (b"\n<!DOCTYPE html>\n<html>", "a web page"),
        (b"<HTML><head>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "a git-lfs pointer"),
        (b"tjgg" + bytes(100), "older than GGUF"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "a big-endian GGUF"),
        (make.gguf({}, version=1), "has GGUF version 1, known are 2 and 3"),
        (make.gguf({}, version=99), "has GGUF version 99"),
        (b"\x7fELF" + bytes(100), "is no GGUF: it begins with b'\\x7fELF'"),
    ],
)
def test_what_is_no_gguf_is_called_by_its_name(data, what, tmp_path):
    assert what in refusal(write(tmp_path, data))


def test_folder_pipe_and_missing_file_are_told_apart(tmp_path):
    assert "is a folder" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.gguf")
    assert "is a pipe" in refusal(tmp_path / "pipe.gguf")
    for path in (tmp_path / "none.gguf", tmp_path / "pipe.gguf" / "x.gguf"):
        with pytest.raises(ModelNotFound, match=re.escape(f"there is no file {path}")):
            read_header(path)


def test_header_alone_opens_and_says_that_it_cannot_be_run():
    header = read_header(ZOO / "moe-large.gguf")
    assert len(header.tensors) == 5771 and not header.complete
    assert sum(t.n_bytes or 0 for t in header.tensors) > 300e9
    assert "header alone" in str(model_info(ZOO / "moe-large.gguf").cannot_run)


def test_unreadable_bytes_in_names_do_not_break_the_line(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff\nb.gguf"))
    path.write_bytes(b"nothing")
    with pytest.raises(ModelFileError) as caught:
        read_header(path)
    assert str(caught.value).isprintable()


@pytest.fixture
def another_user():
    """A folder that everybody may enter, and what is needed to be somebody else for a while."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
        os.seteuid(0)


def test_file_of_another_user_says_which_and_whose(another_user):
    path = write(another_user, make.model())
    path.chmod(0o600)
    os.seteuid(65534)
    words = refusal(path)
    assert f"{path} belongs to root" in words and "not found" not in words


def test_folder_of_another_user_says_which_and_whose(another_user):
    path = write(another_user, make.model())
    another_user.chmod(0o700)
    os.seteuid(65534)
    assert f"{another_user} belongs to root" in refusal(path)


@pytest.mark.parametrize("text", [20, 40])
def test_a_tensor_table_longer_than_a_window_reads_as_the_reference_reader_does(tmp_path, text):
    """Entries lie across the ends of what is read at once, wherever these are."""
    tensors = [(f"blk.{i}.ffn_down.{'x' * (i % 7)}.weight", (32,), 0, 128) for i in range(24_000)]
    path = tmp_path / "long.gguf"
    path.write_bytes(make.gguf({"general.architecture": "llama", "general.name": "n" * text}, tensors))
    header = read_header(path)
    assert [(t.name, t.shape) for t in header.tensors] == [(name, shape) for name, shape, *_ in tensors]
