"""`Model`: an opened GGUF, as users hold it. It joins the header (models/) with the worker that runs it (engine/).

In: a name that `models.find.resolve` understands; prompts. Out: `ModelInfo`, tokens, `Trace`s.
"""

from __future__ import annotations

import operator
import os
import re
import statistics
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from .analysis.lens import Lens
from .attribution import Attribution
from .engine.client import IDLE_SECONDS, Engine
from .engine.collector import Collector, GrowingCollector
from .engine.generation import Generation
from .engine.operators import OperatorGraph, operator_graph
from .engine.running import ProgressBar, RunningTrace, TraceEvent
from .engine.sizing import Fit, fit
from .engine.wire import Message, SharedBlock
from .errors import CaptureUnavailable, LlamaTelemetryError, ModelFileError, PromptTooLong
from .models.find import resolve
from .models.header import Header, read_header
from .models.info import ModelInfo, info_of
from .models.tree import ModelTree, TreeNode, model_tree
from .trace import RunTelemetry, Trace, display_token

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]
_POOLING = {1: "mean", 2: "first", 3: "last"}  # llama.cpp's pooling types
Prompt = str | bytes | Sequence[int] | Sequence[Mapping[str, str]]
Pick = tuple[str, int, int]
What = Literal["attention", "hidden", "outputs", "experts"]
EVERYTHING: tuple[What, ...] = ("attention", "hidden", "outputs", "experts")
_R = TypeVar("_R", bound=RunningTrace)
_UNITS = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}


def open_model(
    name: str | os.PathLike[str],
    *,
    n_gpu_layers: int | None = None,
    gpu: int | str | None = None,
    devices: Sequence[str] = (),
    rpc: Sequence[str] = (),
    idle_seconds: float = IDLE_SECONDS,
    download: bool = True,
) -> Model:
    """Open a GGUF model: its header is read, no weights are, and no process starts.

    Parameters
    ----------
    name : str or path
        A path, a folder with one model, a catalogue name (``"smollm2"``), ``"hf:owner/repo[/file]"``,
        ``"ollama:name[:tag]"``, or a name that `list_models` shows.
    n_gpu_layers : int, optional
        Layers to offload; by default llama.cpp's own choice (all, where it was built for a GPU).
    gpu : int or str, optional
        The only NVIDIA GPU that the worker sees, by nvidia-smi's number or its UUID; the notebook's own arrays may
        then lie on another one.
    devices : sequence of str
        ggml devices to use, e.g. ``["CUDA1"]``.
    rpc : sequence of str
        ``"host:port"`` of llama.cpp RPC servers that take the layers.
    idle_seconds : float
        The worker ends after so long without work; the next call starts it again.
    download : bool
        False: of an ``"hf:"`` model that is not here yet, only the header is fetched. `Model.info`, `Model.tree` and
        `Model.fit` then work, what runs the model says that its weights are missing.

    Returns
    -------
    Model

    Raises
    ------
    ModelNotFound, ModelFileError
    """
    header = read_header(resolve(name, download))
    return Model(
        info_of(header),
        header=header,
        n_gpu_layers=n_gpu_layers,
        gpu=gpu,
        devices=devices,
        rpc=rpc,
        idle_seconds=idle_seconds,
    )


class Model:
    """An opened GGUF model. Made by `open_model`.

    Attributes
    ----------
    info : ModelInfo
        What the header says; a missing value is None.
    """

    def __init__(
        self,
        info: ModelInfo,
        *,
        header: Header | None = None,
        n_gpu_layers: int | None = None,
        gpu: int | str | None = None,
        devices: Sequence[str] = (),
        rpc: Sequence[str] = (),
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self.info = info
        self._header = header
        self._placed: dict[str, Any] = {
            "n_gpu_layers": n_gpu_layers,
            "gpu": gpu,
            "devices": list(devices),
            "rpc": list(rpc),
        }
        self._engine = Engine({"path": os.fspath(info.path), **self._placed}, idle_seconds, _only(gpu))
        self._watchers: list[weakref.WeakMethod[Callable[[RunningTrace], None]]] = []
        self._finalizer = weakref.finalize(self, Engine.close, self._engine)

    def __repr__(self) -> str:
        return f"<Model: {self.info.name} {self.info.quant_type or ''} · {self.info.architecture} · {self.info.path}>"

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the worker, if there is one. The model can be used again; a new worker then starts."""
        self._engine.close()

    def _request(
        self, message: Message, on_message: Callable[[Message], None] | None = None, fd: int | None = None
    ) -> Message:
        """Ask the worker; a file that cannot run is refused before one starts."""
        if self.info.cannot_run is not None:
            raise ModelFileError(self.info.cannot_run)
        return self._engine.request(message, on_message, fd)

    def _watch(self, heard: weakref.WeakMethod[Callable[[RunningTrace], None]]) -> None:
        """Let somebody hear of each run that begins, for as long as they live."""
        self._watchers = [*(one for one in self._watchers if one() is not None), heard]

    def _told(self, run: _R) -> _R:
        for watcher in self._watchers:
            heard = watcher()
            if heard is not None:
                heard(run)
        return run

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker, while one runs."""
        return self._engine.pid

    @cached_property
    def tree(self) -> ModelTree:
        """The whole model as a tree: every tensor, every byte. Read off the header; no weights are."""
        return model_tree(self._header or read_header(self.info.path), self.info)

    # ------------------------------------------------------------------ tokens

    def tokenize(self, text: str | bytes, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of a text, as llama.cpp makes them.

        Parameters
        ----------
        text : str or bytes
        add_special : bool
            Add what the model expects around a text (e.g. Gemma's start token).
        parse_special : bool
            Turn the spelling of control tokens (``<|im_end|>``) into those tokens. Off: text is text.
        """
        data = text.encode() if isinstance(text, str) else text
        request = {
            "do": "tokenize",
            "text": np.frombuffer(data, np.uint8),
            "add_special": add_special,
            "parse_special": parse_special,
        }
        ids: list[int] = self._request(request)["ids"]
        return ids

    def token_bytes(self, ids: Sequence[int]) -> list[bytes]:
        """Exactly the bytes that each token stands for."""
        return self._pieces(ids)[0]

    def token_text(self, ids: Sequence[int]) -> str:
        """The text of some tokens: their bytes joined, then decoded (a character may be several tokens)."""
        return b"".join(self.token_bytes(ids)).decode("utf-8", "replace")

    def _pieces(self, ids: Sequence[int]) -> tuple[list[bytes], list[str]]:
        vocabulary = self.info.vocab_size
        for i in ids:
            if i < 0 or (vocabulary is not None and i >= vocabulary):
                raise LlamaTelemetryError(f"token id {i} is outside the vocabulary of {vocabulary} tokens")
        answer = self._request({"do": "pieces", "ids": [int(i) for i in ids]})
        return [bytes.fromhex(piece) for piece in answer["pieces"]], answer["kinds"]

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Chat messages as the model's own template writes them, ready for the reply.

        Parameters
        ----------
        messages : sequence of mapping
            With ``role`` and ``content``.
        """
        return str(self._template(messages)["text"])

    def _template(self, messages: Sequence[Mapping[str, str]]) -> Message:
        return self._request({"do": "template", "messages": [dict(m) for m in messages]})

    def _ids(self, prompt: Prompt) -> list[int]:
        """Token ids of any kind of prompt. A template's own start token is not doubled."""
        if isinstance(prompt, (str, bytes)):
            return self.tokenize(prompt)
        if isinstance(prompt, Sequence) and prompt and isinstance(prompt[0], Mapping):
            made = self._template(prompt)  # type: ignore[arg-type]
            text, bos = made["text"], made["bos_token"]
            return self.tokenize(text, add_special=not (bos and text.startswith(bos)), parse_special=True)
        try:
            ids = [operator.index(i) for i in prompt]  # type: ignore[arg-type]
        except TypeError:
            raise LlamaTelemetryError(f"{prompt!r:.80} is no prompt: give a text, token ids or chat messages") from None
        self._pieces(ids)
        return ids

    # ------------------------------------------------------------------- traces

    def trace(
        self,
        prompt: Prompt,
        layers: Literal["all"] | Iterable[int] = "all",
        *,
        capture: Collection[What] = EVERYTHING,
        logits: Literal["last", "all"] = "last",
        flash_attention: Literal["auto", "on", "off"] = "auto",
        kv_type: str = "f16",
        n_ubatch: int = 512,
        memory_budget: str | int = "2GB",
        decoder_prompt: str | Sequence[int] | None = None,
        n_predict: int = 0,
        progress: bool = True,
    ) -> Trace:
        """Run a prompt and keep what the model did with it.

        Parameters
        ----------
        prompt : str, sequence of int, or sequence of mapping
            A text, token ids, or chat messages (``role``, ``content``) for the model's own template.
        layers : "all" or iterable of int
            Layers to capture.
        capture : collection of str
            Any of ``"attention"``, ``"hidden"`` (residual stream), ``"outputs"`` (what attention and MLP add to it),
            ``"experts"``.
        logits : {"last", "all"}
            Of the last token, or of every token (they grow with the vocabulary; the last layer's hidden states come
            for the same rows).
        flash_attention : {"auto", "on", "off"}
            As llama.cpp is to run; capture works either way.
        kv_type : str
            Type of the KV cache, e.g. ``"f16"`` or ``"q8_0"``.
        n_ubatch : int
            Tokens computed at once.
        memory_budget : str or int
            The most that the trace may take, e.g. ``"500MB"``; bytes as a number.
        decoder_prompt : str or sequence of int, optional
            Encoder-decoders: what the decoder is given, as token ids or as text (its start token goes before it); by
            default the start token alone.
        n_predict : int
            Let the model write so many tokens, always the likeliest, and trace them too (`generate` tells each).
        progress : bool
            Show a bar when the run takes longer than a second.

        Returns
        -------
        Trace

        Raises
        ------
        PromptTooLong, MemoryBudgetExceeded, CaptureUnavailable, EngineCrashed, EngineCancelled
        """
        if n_predict:
            if logits != "last":
                raise CaptureUnavailable("logits='all' and n_predict do not go together: trace the whole text again")
            return self.generate(
                prompt,
                n_predict,
                layers=layers,
                capture=capture,
                flash_attention=flash_attention,
                kv_type=kv_type,
                n_ubatch=n_ubatch,
                memory_budget=memory_budget,
                decoder_prompt=decoder_prompt,
            ).result(progress)
        running = self.start_trace(
            prompt,
            layers,
            capture=capture,
            logits=logits,
            flash_attention=flash_attention,
            kv_type=kv_type,
            n_ubatch=n_ubatch,
            memory_budget=memory_budget,
            decoder_prompt=decoder_prompt,
        )
        return running.result(progress)

    def start_trace(
        self,
        prompt: Prompt,
        layers: Literal["all"] | Iterable[int] = "all",
        *,
        capture: Collection[What] = EVERYTHING,
        logits: Literal["last", "all"] = "last",
        flash_attention: Literal["auto", "on", "off"] = "auto",
        kv_type: str = "f16",
        n_ubatch: int = 512,
        memory_budget: str | int = "2GB",
        decoder_prompt: str | Sequence[int] | None = None,
    ) -> RunningTrace:
        """Start what `trace` does and return at once; the parameters are the same."""
        request = _trace_request("trace", layers, capture, logits, flash_attention, kv_type, n_ubatch, memory_budget)
        return self._told(RunningTrace(lambda emit: self._trace(prompt, decoder_prompt, request, emit), self.info.name))

    def _trace(
        self,
        prompt: Prompt,
        decoder_prompt: str | Sequence[int] | None,
        request: Message,
        emit: Callable[[TraceEvent], None],
    ) -> Trace:
        ids, decoder_ids = self._prompt_ids(prompt, decoder_prompt)
        return self._collect(Collector, ids, decoder_ids, request, emit)

    def _collect(
        self,
        kind: type[Collector],
        ids: list[int],
        decoder_ids: list[int],
        request: Message,
        emit: Callable[[TraceEvent], None],
    ) -> Trace:
        collector = kind(self.info, self._engine, ids, decoder_ids, request, emit)
        trace = collector.finish(self._request({**request, "ids": ids, "decoder_ids": decoder_ids}, collector))
        trace._ask = partial(_ask_again, weakref.ref(self))
        return trace

    def generate(
        self,
        prompt: Prompt,
        max_tokens: int = 64,
        *,
        temperature: float = 0.0,
        top_k: int = 40,
        typical_p: float = 1.0,
        top_p: float = 0.95,
        min_p: float = 0.05,
        repeat_penalty: float = 1.0,
        seed: int = 0,
        layers: Literal["all"] | Iterable[int] = "all",
        capture: Collection[What] = EVERYTHING,
        flash_attention: Literal["auto", "on", "off"] = "auto",
        kv_type: str = "f16",
        n_ubatch: int = 512,
        memory_budget: str | int = "2GB",
        decoder_prompt: str | Sequence[int] | None = None,
    ) -> Generation:
        """Let the model continue a prompt, and keep what it does meanwhile.

        Parameters
        ----------
        prompt, layers, capture, flash_attention, kv_type, n_ubatch, memory_budget, decoder_prompt
            As in `trace`.
        max_tokens : int
            The text ends there, or where the model ends it.
        temperature : float
            0: always the likeliest token, and the next four parameters have no effect.
        top_k : int
            Only so many of the likeliest tokens; 0 = all.
        typical_p, top_p, min_p : float
            llama.cpp's samplers of these names; 1, 1 and 0 switch them off.
        repeat_penalty : float
            Divides what the last 64 tokens speak for; 1 = off.
        seed : int
            Of the choice. The same seed gives the same text.

        Returns
        -------
        Generation
            An iterator of tokens, with a `trace` that grows.

        Raises
        ------
        PromptTooLong, MemoryBudgetExceeded, CaptureUnavailable, EngineCrashed
            When the first token is asked for.
        """
        request = _trace_request("generate", layers, capture, "last", flash_attention, kv_type, n_ubatch, memory_budget)
        sampler = {
            "temperature": float(temperature),
            "top_k": int(top_k),
            "typical_p": float(typical_p),
            "top_p": float(top_p),
            "min_p": float(min_p),
            "repeat_penalty": float(repeat_penalty),
            "seed": int(seed),
        }
        return self._written(prompt, decoder_prompt, max_tokens, sampler, request)

    def _written(
        self,
        prompt: Prompt,
        decoder_prompt: str | Sequence[int] | None,
        max_tokens: int,
        sampler: Message,
        request: Message,
    ) -> Generation:
        if max_tokens < 1:
            raise LlamaTelemetryError(f"max_tokens {max_tokens} is no number of tokens: give 1 or more")
        request |= {"max_tokens": int(max_tokens), "sampler": sampler}

        def work(emit: Callable[[TraceEvent], None]) -> Trace:
            ids, decoder_ids = self._prompt_ids(prompt, decoder_prompt, int(max_tokens))
            return self._collect(GrowingCollector, ids, decoder_ids, request, emit)

        return self._told(Generation(work, int(max_tokens), self.info.name))

    def _resumed(self, prompt: Prompt, decoder_prompt: Sequence[int] | None = None) -> Trace:
        """As `trace` without capture, from what the worker's cache still holds of the prompt."""
        run = RunningTrace(lambda emit: self._trace(prompt, decoder_prompt, _resuming("trace"), emit), self.info.name)
        return run.result()

    def _write_on(
        self,
        prompt: Prompt,
        max_tokens: int,
        sampler: Mapping[str, float],
        decoder_prompt: Sequence[int] | None = None,
    ) -> Generation:
        """As `generate` without capture, from what the worker's cache still holds; `sampler` as in `_sampled`."""
        return self._written(prompt, decoder_prompt, max_tokens, dict(sampler), _resuming("generate"))

    def _sampled(self, logits: Array, before: Sequence[int], sampler: Mapping[str, float]) -> tuple[Array, Array, int]:
        """What llama.cpp's sampler chain leaves of logits after some tokens: ids, probabilities, the one it chose.

        `sampler` has `generate`'s settings of these names, all of them.
        """
        asked = {"do": "chain", "logits": logits, "before": [int(i) for i in before], "sampler": dict(sampler)}
        answer = self._request(asked)
        return answer["ids"], answer["probabilities"], int(answer["chosen"])

    def _prompt_ids(
        self, prompt: Prompt, decoder_prompt: str | Sequence[int] | None, more: int = 0
    ) -> tuple[list[int], list[int]]:
        ids = self._ids(prompt)
        if not ids:
            raise LlamaTelemetryError("the prompt has no tokens: give at least one character")
        limit = self.info.context_length
        if limit is not None and len(ids) > limit:
            raise PromptTooLong(
                f"the prompt has {len(ids)} tokens, this model's context holds {limit}: "
                f"shorten the prompt by {len(ids) - limit}"
            )
        if limit is not None and len(ids) + more > limit:
            raise PromptTooLong(
                f"the prompt's {len(ids)} tokens and {more} more do not fit this model's context of {limit}: "
                f"ask for at most {limit - len(ids)}"
            )
        if not self._engine.facts.get("encoder_decoder"):
            return ids, []
        start = max(self._engine.facts["decoder_start"], 0)
        if decoder_prompt is None or isinstance(decoder_prompt, str):
            return ids, [start, *self.tokenize(decoder_prompt or "", add_special=False)]
        return ids, [int(i) for i in decoder_prompt]

    def fit(
        self,
        n_ctx: int | None = None,
        kv_type: str = "f16",
        gpu: str | int | None = None,
        *,
        n_ubatch: int = 512,
        flash_attention: Literal["auto", "on", "off"] = "auto",
        swa_full: bool = False,
    ) -> Fit:
        """What this model takes in memory, and what of it fits a GPU. Nothing is loaded, and no worker starts.

        Parameters
        ----------
        n_ctx : int, optional
            Tokens of the context; by default what the model was trained on.
        kv_type : str
            Type of the KV cache, e.g. ``"f16"`` or ``"q8_0"``.
        gpu : str or int, optional
            Memory of the GPU, e.g. ``"8GB"``, to say how many layers fit.
        n_ubatch : int
            Tokens computed at once: the compute buffer grows with them.
        flash_attention : {"auto", "on", "off"}
        swa_full : bool
            Windowed layers keep all tokens, as traces need; llama.cpp's server keeps the window only.

        Returns
        -------
        Fit

        Raises
        ------
        LlamaTelemetryError
            llama.cpp refuses the file or the settings.
        """
        length = n_ctx or self.info.context_length or 4096
        known = self.info.context_length or length
        contexts = [n for n in (512, 2048, 4096, 8192, 16384, 32768, 65536, 131072) if n <= max(known, length)]
        room = None if gpu is None else parse_bytes(gpu)
        path = os.fspath(self.info.path)
        return fit(self.tree, path, length, kv_type, room, contexts, int(n_ubatch), flash_attention, swa_full)

    def graph(
        self,
        prompt: Prompt = "The sea was calm.",
        *,
        repeats: int = 3,
        flash_attention: Literal["auto", "on", "off"] = "auto",
        kv_type: str = "f16",
        decoder_prompt: str | Sequence[int] | None = None,
    ) -> OperatorGraph:
        """The compute graph that llama.cpp builds for a prompt, with the time of every operation.

        Parameters
        ----------
        prompt, flash_attention, kv_type, decoder_prompt
            As in `trace`; the whole prompt is computed at once.
        repeats : int
            Timed runs, each beside one without stops; 0 = no times.

        Returns
        -------
        OperatorGraph
            Operations, shapes, backends, edges. Times are those of operations that are run one by one: what starting
            each costs is in them, so their sum is more than ``info["whole_seconds"]``, the same prompt without stops.
        """
        ids, decoder_ids = self._prompt_ids(prompt, decoder_prompt)
        answer = self._request(
            {
                "do": "graph",
                "ids": ids,
                "decoder_ids": decoder_ids,
                "flash_attention": flash_attention,
                "kv_type": kv_type,
                "repeats": int(repeats),
            }
        )
        facts = {"model": self.info.name, "quant_type": self.info.quant_type, "repeats": int(repeats)}
        return operator_graph(answer, {**facts, "device": self._engine.facts["device"]})

    def _values(
        self, ids: Sequence[int], decoder_ids: Sequence[int], picks: Sequence[Pick]
    ) -> list[tuple[Array, Array]]:
        """What operations of `graph` gave for the last token, and their parameters (int32).

        A pick is a part, an index of that graph, and the axis (ggml's order) along which the last slice is read.
        """
        asked = {"do": "values", "ids": list(ids), "decoder_ids": list(decoder_ids), "picks": [list(p) for p in picks]}
        answer = self._request({**asked, "flash_attention": "auto", "kv_type": "f16"})
        return [(answer[f"values_{at}"], answer[f"params_{at}"]) for at in range(len(picks))]

    @cached_property
    def token_list(self) -> tuple[list[bytes], list[str]]:
        """The whole vocabulary: exact bytes of every token, and its kind (as in `Trace.token_kinds`)."""
        answer = self._request({"do": "vocabulary"})
        data, ends = answer["pieces"].tobytes(), np.cumsum(answer["lengths"]).tolist()
        pieces = [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        return pieces, [answer["names"][kind] for kind in answer["kinds"].tolist()]

    def embeddings(
        self,
        what: Sequence[int] | Sequence[str] | None = None,
        *,
        matrix: Literal["input", "output"] = "input",
        layer: int | None = None,
        pooling: Literal["mean", "last", "first"] | None = None,
    ) -> Array:
        """Vectors of tokens, or of texts.

        Parameters
        ----------
        what : sequence of int or of str, optional
            Token ids: rows of a matrix, expanded from its quant type by ggml. None: the whole vocabulary. Texts: one
            vector each.
        matrix : {"input", "output"}
            The token embedding, or the output matrix (the same where the file stores one for both).
        layer : int, optional
            Of texts: pool the residual stream after this layer. By default the mean of their token embeddings; of
            BERT-type models the last layer with the model's own pooling, which is their sentence embedding.
        pooling : {"mean", "last", "first"}, optional
            How a text's tokens become one vector; "mean" by default.

        Returns
        -------
        ndarray of float32, shape (n, width)

        Raises
        ------
        LlamaTelemetryError
            There is no such token, matrix or text.
        """
        if what is not None and len(what) and isinstance(what[0], str):
            return np.stack([self._text_vector(str(text), matrix, layer, pooling) for text in what])
        ids = None if what is None else np.asarray([int(i) for i in what], np.int32)
        return self._rows(self._matrix(matrix), ids)

    def _rows(self, tensor: str, ids: Array | None = None) -> Array:
        """float32 (n, width): rows of a tensor, all or some."""
        where = self._stored(tensor)
        count = where["n_weights"] // where["width"]
        if ids is not None and (ids < 0).any() | (ids >= count).any():
            raise LlamaTelemetryError(f"a token id is outside the vocabulary of {count} tokens")
        found: list[SharedBlock] = []
        answer = self._request(
            {"do": "embeddings", "tensor": where, **({} if ids is None else {"ids": ids})},
            lambda message: found.append(SharedBlock(message["size"], message["fd"])),
        )
        return found[0].array(0, "<f4", tuple(answer["shape"]))

    def neighbours(
        self, what: int | str | Array, k: int = 10, *, matrix: Literal["input", "output"] = "input"
    ) -> pd.DataFrame:
        """The tokens whose embedding is nearest by cosine, exactly, in all dimensions.

        Parameters
        ----------
        what : int, str or ndarray
            A token id, a text (the mean of its tokens), or vectors, float (width,) or (n, width).
        k : int
            How many.
        matrix : {"input", "output"}

        Returns
        -------
        DataFrame
            ``query`` (row of `what`), ``rank`` from 1, ``id``, ``token``, ``cosine``. A token that is asked for is
            not its own neighbour.
        """
        import pandas as pd

        own: int | None = None
        if isinstance(what, str):
            ids = self.tokenize(what, add_special=False)
            own = ids[0] if len(ids) == 1 else None
            vectors = self.embeddings([what], matrix=matrix)
        elif isinstance(what, (int, np.integer)):
            own, vectors = int(what), self.embeddings([int(what)], matrix=matrix)
        else:
            vectors = np.atleast_2d(np.asarray(what, np.float32))
        if not np.isfinite(vectors).all() or (np.linalg.norm(vectors, axis=1) == 0).any():
            raise LlamaTelemetryError(
                "a vector of zeros, or one that is not finite, has no direction and no neighbours"
            )
        where = self._stored(self._matrix(matrix))
        if vectors.shape[1] != where["width"]:
            raise LlamaTelemetryError(f"these vectors have {vectors.shape[1]} numbers, the matrix has {where['width']}")
        most = min(k + 1, where["n_weights"] // where["width"])
        answer = self._request({"do": "neighbours", "tensor": where, "queries": vectors, "k": most})
        rows = []
        for query, (ids, cosines) in enumerate(zip(answer["ids"], answer["cosines"], strict=True)):
            pairs = [(int(i), float(c)) for i, c in zip(ids, cosines, strict=True) if i != own][:k]
            pieces = self.token_bytes([i for i, _ in pairs])
            for rank, ((i, cosine), piece) in enumerate(zip(pairs, pieces, strict=True), 1):
                rows.append((query, rank, i, display_token(piece), cosine))
        frame: pd.DataFrame = pd.DataFrame(rows, columns=["query", "rank", "id", "token", "cosine"])
        return frame

    def _matrix(self, which: str) -> str:
        """Name of the token embedding or of the output matrix."""
        names = {n.tensor.name for n in self.tree.root.tensors if n.tensor is not None}
        wanted = {"input": ("token_embd.weight",), "output": ("output.weight", "token_embd.weight")}
        if which not in wanted:
            raise LlamaTelemetryError(f"matrix {which!r} does not exist: choose input or output")
        found = next((name for name in wanted[which] if name in names), None)
        if found is None:
            raise LlamaTelemetryError(f"this model has no {which} matrix: model.tree.nodes lists its tensors")
        return found

    def _text_vector(
        self, text: str, matrix: Literal["input", "output"], layer: int | None, pooling: str | None
    ) -> Array:
        """float32 (width,) of one text."""
        own = self.info.metadata.get(f"{self.info.architecture}.pooling_type")
        if layer is None and own is None:
            rows = self.embeddings(self._ids_of(text), matrix=matrix)
        else:
            last = (self.info.n_layers or 1) - 1
            layer = last if layer is None else layer
            pooling = pooling or (_POOLING.get(int(own), "mean") if own is not None and layer == last else "mean")
            every: Literal["last", "all"] = "all" if layer == last and own is None else "last"
            hidden: tuple[What, ...] = ("hidden",)
            rows = self.trace(text, [layer], capture=hidden, logits=every, progress=False).hidden(layer)
        if pooling not in (None, "mean", "last", "first"):
            raise LlamaTelemetryError(f"pooling {pooling!r} does not exist: choose mean, last or first")
        picked = {"last": rows[-1], "first": rows[0]}.get(pooling or "mean")
        return np.asarray(rows.mean(0) if picked is None else picked, np.float32)

    def _ids_of(self, text: str) -> list[int]:
        ids = self.tokenize(text, add_special=False)
        if not ids:
            raise LlamaTelemetryError(f"the text {text!r} has no tokens, so it has no vector")
        return ids

    def tensor_stats(self, name: str) -> dict[str, Any]:
        """What the weights of one tensor are, expanded from its quant type in the worker.

        Parameters
        ----------
        name : str
            As in the file, e.g. ``"blk.0.ffn_down.weight"``.

        Returns
        -------
        dict
            ``count``, ``not_finite``, ``min``, ``max``, ``mean``, ``std``, ``rms``, ``zeros`` (how many),
            ``outliers`` (more than 6 standard deviations from the mean), ``histogram`` (int64 (64,)) and its ``edges``
            (65,). Only the first two where no weight is finite.

        Raises
        ------
        LlamaTelemetryError
            There is no such tensor, or its type cannot be expanded.
        """
        answer = self._request({"do": "tensor_stats", "tensor": self._stored(name)})
        return {key: value for key, value in answer.items() if key not in ("kind", "run", "fd")}

    def weight_error(self, other: Model) -> pd.DataFrame:
        """How far another file's weights are from this one's, tensor by tensor.

        Parameters
        ----------
        other : Model
            Another quantization of the same model. This one is the reference.

        Returns
        -------
        DataFrame
            One row per tensor of either file, the largest relative error first: ``tensor``, ``layer``, ``type_a``,
            ``type_b``, ``bytes_a``, ``bytes_b``, ``rmse``, ``relative`` (RMSE over the RMS of this file's weights),
            ``cosine``, ``note`` (why there is no error: only in one file, other shape, a type that cannot be expanded).
        """
        import pandas as pd

        mine, theirs = ({n.tensor.name: n for n in m.tree.root.tensors if n.tensor} for m in (self, other))
        rows = [_pair(name, mine.get(name), theirs.get(name)) for name in dict.fromkeys([*mine, *theirs])]
        both = [row for row in rows if not row["note"]]
        pairs = [[self._stored(row["tensor"]), other._stored(row["tensor"])] for row in both]
        answer = self._request({"do": "weight_error", "pairs": pairs}) if pairs else {"errors": []}
        for row, errors in zip(both, answer["errors"], strict=True):
            row |= errors
        columns = ["tensor", "layer", "type_a", "type_b", "bytes_a", "bytes_b", "rmse", "relative", "cosine", "note"]
        frame = pd.DataFrame(rows, columns=columns).astype({"layer": "Int64"})
        ordered: pd.DataFrame = frame.sort_values("relative", ascending=False, kind="stable", ignore_index=True)
        return ordered

    def _stored(self, name: str) -> Message:
        """Where a tensor lies, for the worker."""
        node = next((n for n in self.tree.root.tensors if n.tensor is not None and n.tensor.name == name), None)
        if node is None or node.tensor is None:
            raise LlamaTelemetryError(f"this model has no tensor {name!r}: model.tree.nodes lists them")
        t = node.tensor
        if t.n_bytes is None:
            raise LlamaTelemetryError(f"{name} is of {t.type_name}, which nobody here can expand")
        path = os.fspath(self.info.shards[t.shard] if self.info.shards else self.info.path)
        return {"path": path, "offset": t.offset, "type": t.type_code, "n_weights": t.n_weights, "width": t.shape[0]}

    def verify(
        self,
        prompt: Prompt,
        *,
        kv_type: str = "f16",
        n_ubatch: int = 512,
        decoder_prompt: str | Sequence[int] | None = None,
    ) -> pd.DataFrame:
        """Run a prompt without flash attention and compare the replay with llama.cpp's own scores and softmax.

        Returns
        -------
        DataFrame
            One row per (part, layer, head), over all cells: ``max_difference`` of the softmax, and
            ``scores_difference`` of q.k as a share of the head's largest score.
        """
        import pandas as pd

        ids, decoder_ids = self._prompt_ids(prompt, decoder_prompt)
        answer = self._request(
            {
                "do": "trace",
                "verify": True,
                "ids": ids,
                "decoder_ids": decoder_ids,
                "layers": None,
                "capture": ["attention"],
                "logits": "last",
                "flash_attention": "off",
                "kv_type": kv_type,
                "n_ubatch": n_ubatch,
                "memory_budget": parse_bytes("8GB"),
            }
        )
        own = [(part, layer, head) for part, layer, heads in answer["layers"] for head in range(heads)]
        frame: pd.DataFrame = pd.DataFrame(own, columns=["part", "layer", "head"])
        frame["scores_difference"], frame["max_difference"] = answer["differences"]
        return frame


def _only(gpu: int | str | None) -> dict[str, str]:
    """Environment of a worker that sees this NVIDIA GPU alone, counted as nvidia-smi does."""
    if gpu is None:
        return {}
    if not re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", str(gpu)):
        raise LlamaTelemetryError(f"gpu {gpu!r} is no GPU: give its number, or its UUID as nvidia-smi -L shows it")
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(gpu)}


def _trace_request(
    do: str,
    layers: Literal["all"] | Iterable[int],
    capture: Collection[What],
    logits: str,
    flash_attention: str,
    kv_type: str,
    n_ubatch: int,
    memory_budget: str | int,
) -> Message:
    """What the worker is asked for a run that is captured."""
    if isinstance(layers, str) and layers != "all":
        raise CaptureUnavailable(f"layers={layers!r} are no layers: write 'all' or their numbers, like range(8)")
    if isinstance(capture, str):
        raise CaptureUnavailable(f"capture={capture!r} is one word: write ({capture!r},), or several of them")
    unknown = sorted(set(capture) - set(EVERYTHING))
    if unknown:
        raise CaptureUnavailable(f"capture {unknown[0]!r} does not exist: choose from {', '.join(EVERYTHING)}")
    return {
        "do": do,
        "layers": None if layers == "all" else [int(layer) for layer in layers],
        "capture": list(capture),
        "logits": logits,
        "flash_attention": flash_attention,
        "kv_type": kv_type,
        "n_ubatch": int(n_ubatch),
        "memory_budget": parse_bytes(memory_budget),
    }


def _resuming(do: str) -> Message:
    """A run of which nothing is captured, and which goes on from tokens that the context holds."""
    return {**_trace_request(do, "all", (), "last", "auto", "f16", 512, "2GB"), "reuse": True}


def _pair(name: str, a: TreeNode | None, b: TreeNode | None) -> dict[str, Any]:
    """A tensor in two files, and why their weights cannot be compared, where they cannot."""
    one, two = (None if node is None else node.tensor for node in (a, b))
    either = a or b
    note = ""
    if one is None or two is None:
        note = "only in the other file" if one is None else "only in this file"
    elif one.shape != two.shape:
        note = f"other shape: {one.shape} and {two.shape}"
    elif one.n_bytes is None or two.n_bytes is None:
        note = "a type that cannot be expanded"
    return {
        "tensor": name,
        "layer": None if either is None else either.layer,
        "type_a": one and one.type_name,
        "type_b": two and two.type_name,
        "bytes_a": a and a.n_bytes,
        "bytes_b": b and b.n_bytes,
        "note": note,
    }


def _ask_again(model: weakref.ref[Model], trace: Trace, what: str, arguments: dict[str, Any]) -> Any:
    """What a trace does not hold, by running its tokens once more with the same settings.

    Raises
    ------
    CaptureUnavailable
        The model is gone.
    """
    own = model()
    if own is None:
        raise CaptureUnavailable(
            "the model of this trace is gone: keep it in a variable (model = lt.open_model(…)), and trace with that"
        )
    if what == "model":
        return own
    decoder = [] if trace.decoder is None else trace.decoder[0].tolist()
    ids = trace.token_ids.tolist()
    if what == "overhead":
        return _overhead(own, trace, ids, decoder, arguments["repeats"])
    settings = {**trace.info["settings"], "layers": None, "logits": "last"}
    if what == "token_stats":
        request = {**settings, "do": "trace", "capture": [], "token_stats": True}
        again = own._collect(Collector, ids, decoder, request, lambda _: None)
        return np.array(again._arrays["token_stats"])
    if what == "logits":
        request = {**settings, **arguments, "do": "trace", "capture": [], "logits": "all"}
        return own._collect(Collector, ids, decoder, request, lambda _: None).logits
    if own.info.metadata.get(f"{own.info.architecture}.pooling_type") is not None:
        raise CaptureUnavailable("this model has no output matrix, so its layers say no words")
    matrix = own._stored(own._matrix("output"))
    if what == "contributions":
        return Attribution(own, trace, matrix, settings)(**arguments)
    heard = arguments.pop("heard")
    request = {**settings, **arguments, "do": "lens", "ids": ids, "decoder_ids": decoder, "matrix": matrix}
    return _lens(own, trace, request, heard)


def _overhead(own: Model, trace: Trace, ids: list[int], decoder: list[int], repeats: int) -> dict[str, Any]:
    """The run again with capture and without, in turns, after one that warms up."""
    settings, written = trace.info["settings"], len(trace._generated)
    writes = "max_tokens" in settings
    if written:  # the prompt alone: the same settings write the same text
        del (decoder or ids)[-written:]
        settings = {**settings, "max_tokens": written}
    kind, do = (GrowingCollector, "generate") if writes else (Collector, "trace")
    names = ["prefill_seconds", "decode_seconds"] if written else ["prefill_seconds"]

    def run(capture: Collection[str]) -> RunTelemetry:
        return own._collect(kind, ids, decoder, {**settings, "do": do, "capture": capture}, lambda _: None).telemetry

    run([])
    pairs = [(run(settings["capture"]), run([])) for _ in range(repeats)]
    found: dict[str, Any] = {"repeats": repeats}
    for name in names:
        both = [[float(telemetry[name]) for telemetry in pair] for pair in pairs]  # type: ignore[literal-required]
        captured, plain = (statistics.median(seconds) for seconds in zip(*both, strict=True))
        found |= {name: captured, f"plain_{name}": plain, name.replace("seconds", "ratio"): captured / plain}
    return found


def _lens(own: Model, trace: Trace, request: Message, heard: Callable[[int, int], None] | None) -> Lens:
    """The lens of the trace's own streams; where it does not hold them, of another run."""
    bar = ProgressBar() if heard is None else None

    def on_message(message: Message) -> None:
        if bar is not None:
            bar.show(message["done"], message["total"], "layer" if message["stage"] == "lens" else "token")
        elif heard is not None and message["stage"] == "lens":
            heard(message["done"], message["total"])

    held = _held_streams(trace, request["rows"], request["positions"])
    try:
        if held is None:
            answer = own._request(request, on_message)
        else:
            block = SharedBlock(held.nbytes)
            block.array(0, "<f4", held.shape)[:] = held
            try:
                answer = own._request({**request, "size": held.nbytes}, on_message, block.fd)
            finally:
                block.release()
    finally:
        if bar is not None:
            bar.close()
    return Lens(
        answer["layers"],
        np.asarray(request["positions"], np.int32),
        answer["ids"],
        answer["probabilities"],
        answer["entropy"],
        answer["final"],
        answer["probability"],
        answer["rank"],
        answer["kl"],
        {int(i): bytes.fromhex(piece) for i, piece in zip(answer["words"], answer["pieces"], strict=True)},
    )


def _held_streams(trace: Trace, layers: list[int], positions: list[int]) -> Array | None:
    """float32 (layers and the last, positions, width): the residual stream, if the trace holds all of it."""
    if trace.info["settings"]["layers"] is not None or not trace._part_layers.get("self"):
        return None  # which layer is the last cannot be told

    def rows(name: str) -> Array | None:
        array, there = trace._arrays.get(name), trace._rows.get(name)
        if array is None or (there is not None and not set(positions) <= set(there)):
            return None
        return array[positions]

    def stream(layer: int) -> Array | None:
        if layer >= 0:
            return rows(f"hidden.self.{layer}")
        first, *added = (rows(f"{kind}.self.0") for kind in ("hidden", "attention_out", "mlp_out"))
        if first is None or any(part is None for part in added):
            return None
        return first - sum(part for part in added if part is not None)

    last = trace._part_layers["self"][-1]
    found = [stream(layer) for layer in (*layers, last)]
    return None if any(own is None for own in found) else np.stack([own for own in found if own is not None])


def parse_bytes(size: str | int) -> int:
    """Bytes of ``"2GB"``, ``"500 MB"`` (decimal units) or a plain number.

    Raises
    ------
    LlamaTelemetryError
        The text is no size.
    """
    if isinstance(size, int):
        return size
    text = size.strip().lower()
    unit = next((u for u in _UNITS if text.endswith(u)), "")
    try:
        return int(float(text.removesuffix(unit)) * _UNITS.get(unit, 1))
    except ValueError:
        raise LlamaTelemetryError(f"memory budget {size!r} is no size: write e.g. '2GB' or '500MB'") from None
