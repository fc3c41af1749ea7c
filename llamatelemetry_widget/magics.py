"""IPython magics: `%%llamatelemetry` draws the attention of the cell's text, `%llamatelemetry` opens and lists models.

In: lines and cells as they were typed. Out: widgets, tables, one-line errors.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import keyword
import os
import re
import shlex
import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import LlamaTelemetryError, ModelNotFound

if TYPE_CHECKING:
    from .engine.running import RunningTrace
    from .model import Model, Prompt
    from .trace import Trace
    from .widgets.attention_grid import AttentionGrid
    from .widgets.telemetry_panel import TelemetryPanel

NAME = "llamatelemetry"
VIEWS = ("attention", "layers", "tokens", "generate", "tour")
COMMANDS = (
    *("models", "open", "architecture", "embeddings", "tour", "quantize", "compare", "telemetry", "doctor", "close"),
    "help",
)
FLASH = ("auto", "on", "off")
INTO = "_trace"
STUDY = "_study"
_WRITTEN = 64  # tokens, where `generate` is not told how many
_QUICK_SECONDS = 0.3  # a run this short shows its result at once, without a widget that fills in

HELP = f"""\
%%{NAME} [attention|layers|tokens|generate|tour] [--model NAME] [--layers all|0-5,8] [--flash auto|on|off]
                 [--predict N] [--temperature T] [--seed N] [--chat] [--into NAME]
    The cell is the prompt, byte for byte. Draws the attention of every head, or (layers) what the model would say
    after each layer; the trace is kept as {INTO} or NAME. Or (tokens) its next token and what samplers leave of it.
    --predict N: the model then writes N tokens and the picture grows with them; --temperature T, --seed N: sampled,
    else always the likeliest. Or (generate) 64 tokens where no N is given, with the text and what it took in words.
    Or (tour) from the cell, of 32 tokens at most, to its next token step by step.
    --chat: the cell is what a user says, in the model's own chat template.
    Without --model: the model opened last, else $LLAMATELEMETRY_MODEL, else the smallest installed of the catalogue.
%{NAME} models          every model that is found on this machine
%{NAME} open NAME       open a model: a path, a name of the table, hf:owner/repo[/file], ollama:name[:tag]
%{NAME} architecture [NAME]    every tensor and every byte of a model; without NAME of the default one
%{NAME} embeddings [NAME]    the whole vocabulary of a model as a space to fly through
%{NAME} tour [--model NAME]    from a sentence of ours to its next token, step by step
%{NAME} quantize TYPE [NAME] [--out FILE] [--imatrix FILE]    a smaller file of a model, by llama.cpp's quantizer
%{NAME} compare BASE CANDIDATE … [--blocks N] [--into NAME]    quantized files, types (made from BASE) and kv:TYPE
                 measured against BASE; the study is kept as {STUDY} or NAME
%{NAME} telemetry [start|stop|URL]    a panel of what the runs of the default model cost, or of a llama.cpp server
%{NAME} doctor          what works here and what does not, with the command that mends it
%{NAME} close [NAME]    end the worker of a model, or of all
%{NAME} help            this text

Where the llamatelemetry SDK is installed too, load this extension with %load_ext llamatelemetry_widget."""


class _Options(argparse.ArgumentParser):
    """Arguments of one magic; a mistake is IPython's one-line UsageError."""

    def __init__(self, **more: Any) -> None:
        super().__init__(add_help=False, allow_abbrev=False, **more)

    def error(self, message: str) -> NoReturn:
        raise _usage_error(f"{message} (%{NAME} help shows what there is)")


def _usage_error(message: str) -> Exception:
    from IPython.core.error import UsageError

    return UsageError(" ".join(message.split()))


def _cell_options() -> argparse.ArgumentParser:
    options = _Options(prog=f"%%{NAME}")
    options.add_argument("view", nargs="?", default=VIEWS[0])
    options.add_argument("--model")
    options.add_argument("--layers", type=_layers, default="all")
    options.add_argument("--flash", choices=FLASH, default=FLASH[0])
    options.add_argument("--predict", type=_count, default=0)
    options.add_argument("--temperature", type=_temperature, default=0.0)
    options.add_argument("--seed", type=_seed, default=0)
    options.add_argument("--chat", action="store_true")
    options.add_argument("--into", type=_variable, default=INTO)
    return options


def _line_options() -> argparse.ArgumentParser:
    options = _Options(prog=f"%{NAME}")
    options.add_argument("command", nargs="?", default="help")
    options.add_argument("name", nargs="?")
    return options


def _tour_options() -> argparse.ArgumentParser:
    options = _Options(prog=f"%{NAME} tour")
    options.add_argument("--model")
    return options


def _compare_options() -> argparse.ArgumentParser:
    options = _Options(prog=f"%{NAME} compare")
    options.add_argument("base", metavar="BASE")
    options.add_argument("candidates", metavar="CANDIDATE", nargs="+")
    options.add_argument("--blocks", type=_blocks)
    options.add_argument("--into", type=_variable, default=STUDY)
    return options


def _quantize_options() -> argparse.ArgumentParser:
    options = _Options(prog=f"%{NAME} quantize")
    options.add_argument("type", metavar="TYPE")
    options.add_argument("name", nargs="?")
    options.add_argument("--out")
    options.add_argument("--imatrix")
    return options


def _layers(text: str) -> str | list[int]:
    """``all``, or numbers and ranges: ``0-5,8``."""
    if text == "all":
        return text
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} are no layers: write all, or numbers and ranges like 0-5,8")
    found: set[int] = set()
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        if int(last or first) < int(first) or int(last or first) - int(first) > 10_000:
            raise argparse.ArgumentTypeError(f"{piece!r} is no range of layers: write e.g. 0-5")
        found.update(range(int(first), int(last or first) + 1))
    return sorted(found)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of tokens: write 1 or more")
    return int(text)


def _blocks(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of text blocks: write 1 or more")
    return int(text)


def _temperature(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no temperature: write 0 (the likeliest) or more, like 0.8")
    return float(text)


def _seed(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: write 0 or more")
    return int(text)


def _variable(text: str) -> str:
    if not text.isidentifier() or keyword.iskeyword(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a variable")
    return text


def _words(line: str) -> list[str]:
    """The words of a line; quotes keep spaces. On Windows a backslash belongs to a path."""
    try:
        if sys.platform != "win32":
            return shlex.split(line)
        return [word.strip("\"'") for word in shlex.split(line, posix=False)]
    except ValueError as error:
        raise _usage_error(f"{error} in: {line}") from None


def _known(word: str, words: tuple[str, ...], what: str) -> None:
    """Refuse a word that does not exist; one of the other magic leads there."""
    if word in words:
        return
    near = difflib.get_close_matches(word, words, 1)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(words)}"
    if not near and word in VIEWS:
        hint = f"write %%{NAME} {word} in a cell, and the prompt in the lines below"
    elif not near and word in COMMANDS:
        hint = f"write %{NAME} {word} with one %"
    raise _usage_error(f"{what} {word!r} does not exist: {hint}")


class Magics:
    """The magics of one IPython shell, and the models that they opened."""

    def __init__(self, shell: Any) -> None:
        self._shell = weakref.ref(shell)
        self._opened: dict[str, Model] = {}
        self._last: Callable[[], Model | None] = lambda: None
        self._seen: weakref.WeakSet[Model] = weakref.WeakSet()
        self._panels: weakref.WeakSet[TelemetryPanel] = weakref.WeakSet()
        self._raw, self._depth = "", 0

    # ------------------------------------------------------------------- the magics

    def cell(self, line: str, cell: str) -> Any:
        """`%%llamatelemetry`: run the cell's text as a prompt and draw every head's attention."""
        arguments = _cell_options().parse_args(_words(line))
        _known(arguments.view, VIEWS, "view")
        return self._short_errors(self._draw, arguments, self._typed(cell))

    def line(self, line: str) -> Any:
        """`%llamatelemetry`: list, open, show and close models."""
        words = _words(line)
        if words[:1] == ["compare"]:
            return self._short_errors(self._compare, _compare_options().parse_args(words[1:]))
        if words[:1] == ["quantize"]:
            return self._short_errors(self._quantize, _quantize_options().parse_args(words[1:]))
        if words[:1] == ["tour"]:
            return self._short_errors(self._tour, _tour_options().parse_args(words[1:]).model, None)
        arguments = _line_options().parse_args(words)
        _known(arguments.command, COMMANDS, "command")
        return self._short_errors(getattr(self, f"_{arguments.command}"), arguments.name)

    def magic(self, line: str, cell: str | None = None) -> Any:
        return self.line(line) if cell is None else self.cell(line, cell)

    magic.__doc__ = HELP  # what `%llamatelemetry?` shows

    def _short_errors(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run; an error of this package is shown as one line, without a traceback."""
        try:
            return work(*arguments)
        except LlamaTelemetryError as error:
            words = f"{type(error).__name__}: {' '.join(str(error).split())}"
            error._render_traceback_ = lambda: [words]  # type: ignore[attr-defined]  # what IPython asks an error for
            raise

    def _models(self, name: str | None) -> Any:
        from .models.find import list_models

        self._no_more("models", name)
        return list_models()

    def _open(self, name: str | None) -> Model:
        if name is None:
            raise _usage_error(f"say which model: %{NAME} open NAME (%{NAME} models lists them)")
        return self._model(name)

    def _architecture(self, name: str | None) -> Any:
        from .widgets.architecture_tree import ArchitectureTree

        return ArchitectureTree(self._model(name))

    def _embeddings(self, name: str | None) -> Any:
        from .widgets.embedding_space import EmbeddingSpace3D

        return EmbeddingSpace3D(self._model(name))

    def _compare(self, arguments: argparse.Namespace) -> Any:
        """The report of a study, which fills in while the study runs in a notebook; elsewhere it is waited for."""
        from .studies.quantization import QuantizationStudy
        from .widgets.hosts import why_static
        from .widgets.quantization_report import QuantizationReport

        study = QuantizationStudy(self._model(arguments.base), arguments.candidates, n_blocks=arguments.blocks)
        shell = self._shell()
        if shell is not None:
            shell.user_ns[arguments.into] = study
        report = QuantizationReport(study)
        if why_static() or not hasattr(shell, "kernel"):
            study.run()
        else:
            study.start()
        return report

    def _quantize(self, arguments: argparse.Namespace) -> Model:
        """The new file, opened; what its tensors got is said, as it is not always what was asked for."""
        from .engine.quantize import quant_type
        from .engine.running import ProgressBar
        from .studies.quantize import quantize

        quant_type(arguments.type)  # before the model is looked for: where the two were swapped, that is the reason
        bar = ProgressBar()
        try:
            made = quantize(
                self._model(arguments.name),
                arguments.type,
                arguments.out,
                arguments.imatrix,
                progress=lambda done, total: bar.show(done, total, "tensor"),
            )
        finally:
            bar.close()
        got = ", ".join(f"{count} {kind}" for kind, count in made.info.quant_type_counts.items())
        print(f"{made.info.n_bytes / 1e6:.1f} MB, {made.info.bits_per_weight:.2f} bits per weight, tensors: {got}")
        return made

    def _telemetry(self, name: str | None) -> Any:
        """A panel of the default model or of a server; ``stop`` ends those that were opened here."""
        from .widgets.telemetry_panel import TelemetryPanel

        if name == "stop":
            for panel in self._panels:
                panel.stop()
            return None
        if name not in (None, "start"):
            from .telemetry.server import Telemetry

            if not str(name).startswith(("http://", "https://")):
                raise _usage_error(f"telemetry takes start, stop or the address of a server, not {name!r}")
            panel = TelemetryPanel(Telemetry(str(name)))
        else:
            panel = TelemetryPanel(self._model(None))
        self._panels.add(panel)
        return panel

    def _doctor(self, name: str | None) -> Any:
        from .telemetry.doctor import doctor

        self._no_more("doctor", name)
        return doctor()

    def _tour(self, name: str | None, prompt: Prompt | None) -> Any:
        from .widgets.tour import Tour

        return Tour(self._model(name), prompt)

    def _close(self, name: str | None) -> None:
        if name is not None and name not in self._opened:
            there = ", ".join(self._opened) or "none"
            raise _usage_error(f"{name!r} was not opened here: open are {there}")
        for own in [name] if name is not None else list(self._opened):
            self._opened.pop(own).close()

    def _help(self, name: str | None) -> None:
        self._no_more("help", name)
        print(HELP)

    def _no_more(self, command: str, name: str | None) -> None:
        if name is not None:
            raise _usage_error(f"{command} takes no name, but {name!r} was given")

    # ---------------------------------------------------------------------- drawing

    def _draw(self, arguments: argparse.Namespace, prompt: str) -> Any:
        if not prompt:
            raise _usage_error("the cell is empty: write the prompt below the magic")
        if arguments.temperature and not arguments.predict and arguments.view in ("attention", "layers"):
            raise _usage_error("--temperature is for text that the model writes: add --predict N")
        asked: Prompt = [{"role": "user", "content": prompt}] if arguments.chat else prompt
        if arguments.view == "tokens":
            return self._explore(arguments, asked)
        if arguments.view == "tour":
            return self._tour(arguments.model, asked)
        if arguments.view == "generate":
            arguments.predict = arguments.predict or _WRITTEN
        running = self._run(arguments, asked)
        grid = None
        try:
            grid = self._show_live(running) if arguments.view in ("attention", "generate") else None
            trace = running.result(progress=grid is None)
        except KeyboardInterrupt:  # wherever it lands, the run ends and says so
            running.cancel()
            trace = running.result()
        if grid is not None:
            from IPython.display import clear_output

            # The cell's result is the same widget, now with its picture for readers who have no kernel.
            clear_output(wait=True)  # type: ignore[no-untyped-call]
        shell = self._shell()
        if shell is not None:
            shell.user_ns[arguments.into] = trace
        if arguments.view == "generate":
            print(_account(running))
        return self._widget(arguments.view, trace, grid)

    def _explore(self, arguments: argparse.Namespace, prompt: Prompt) -> Any:
        """The next token of a prompt, and what is written where tokens are to be predicted."""
        from .widgets.token_explorer import TokenExplorer

        warm = {"temperature": arguments.temperature} if arguments.temperature else {}
        explorer = TokenExplorer(self._model(arguments.model), prompt, seed=arguments.seed, **warm)
        if arguments.predict:
            (explorer.sample if warm else explorer.greedy)(arguments.predict)
        shell = self._shell()
        if shell is not None and arguments.into != INTO:
            shell.user_ns[arguments.into] = explorer
        return explorer

    def _widget(self, view: str, trace: Trace, grid: AttentionGrid | None) -> Any:
        """What the cell displays; `grid` is one that shows the trace already."""
        if view == "layers":
            from .widgets.layer_lens import LayerLens

            return LayerLens(trace)
        from .widgets.attention_grid import AttentionGrid
        from .widgets.trace_views import TraceViews

        grid = grid or AttentionGrid(trace)
        return grid if len(trace.parts) < 2 and not trace.experts else TraceViews(trace, grid)

    def _run(self, arguments: argparse.Namespace, prompt: Prompt) -> RunningTrace:
        """The run of a cell's prompt, and of what the model is to write after it."""
        model = self._model(arguments.model)
        if arguments.predict:
            how = {"temperature": arguments.temperature, "seed": arguments.seed}
            capture = {"layers": arguments.layers, "flash_attention": arguments.flash}
            return model.generate(prompt, arguments.predict, **how, **capture)
        return model.start_trace(prompt, arguments.layers, flash_attention=arguments.flash)

    def _show_live(self, running: RunningTrace) -> Any:
        """A widget that fills in, for runs that take a while in a notebook; None where that is not so."""
        from IPython.display import display

        from .widgets.attention_grid import AttentionGrid
        from .widgets.hosts import why_static

        if _ends_within(_QUICK_SECONDS, running) or why_static() or not hasattr(self._shell(), "kernel"):
            return None
        grid = AttentionGrid(running)
        display(grid)  # type: ignore[no-untyped-call]
        return grid

    def _typed(self, cell: str) -> str:
        """The cell as its user typed it: IPython adds a newline at the end and takes prompts like `>>>` away."""
        shell, raw = self._shell(), self._raw
        while shell is not None:  # the raw text is of this call only if IPython makes this call of it
            call = _cell_call(shell.transform_cell(raw))
            if call is None:
                break
            raw = raw.lstrip().partition("\n")[2]
            if call[0] == NAME:
                return raw if call[1] == cell else cell
        return cell

    # ----------------------------------------------------------------------- models

    def _model(self, name: str | None) -> Model:
        """The model of this name, opened once; without a name the default."""
        from .model import open_model

        if name is None:
            last = self._last()
            if last is not None:
                return last
            name = _default_name()
        model = self._opened.get(name)
        if model is None:
            model = self._opened[name] = open_model(name)
        self._note(model)
        return model

    def _note(self, model: Model) -> None:
        self._seen.add(model)
        self._last = weakref.ref(model)

    # ----------------------------------------------------- what the shell tells us

    def before_cell(self, info: Any) -> None:
        """Keep the cell as it was typed, and see which models the user's own code opened."""
        self._depth += 1
        if self._depth == 1:  # %%time and the like run a cell inside the cell
            self._raw = info.raw_cell or ""
        module, shell = sys.modules.get(f"{__package__}.model"), self._shell()
        if module is None or shell is None:
            return
        for value in list(shell.user_ns.values()):
            if isinstance(value, module.Model) and value not in self._seen:
                self._note(value)

    def after_cell(self, _: Any) -> None:
        """The cell has ended, one way or another."""
        self._depth = max(self._depth - 1, 0)

    def complete(self, _: Any, event: Any) -> list[str]:
        """What may stand at the cursor: sub-commands, options, their values, model names."""
        words = event.text_until_cursor.split()
        current = "" if event.text_until_cursor[-1:].isspace() else words[-1]
        before = words[1:] if not current else words[1:-1]
        is_cell = words[0].startswith("%%")
        found = [word for word in self._choices(is_cell, before) if word.startswith(current)]
        # IPython replaces only what follows its last delimiter, e.g. the colon of hf:owner/repo.
        symbol = getattr(event, "symbol", current) or ""
        cut = len(current) - len(symbol) if current.endswith(symbol) else 0
        return [word[cut:] for word in found]

    def _choices(self, is_cell: bool, before: list[str]) -> list[str]:
        last = before[-1] if before else ""
        if not is_cell:
            if not before:
                return list(COMMANDS)
            if before == ["telemetry"]:
                return ["start", "stop", "http://127.0.0.1:8080"]
            if before == ["tour"]:
                return ["--model"]
            if before in (["open"], ["architecture"], ["embeddings"], ["tour", "--model"]):
                return _model_names()
            if before[0] == "compare":
                return self._compare_choices(before)
            if before[0] == "quantize":
                return self._quantize_choices(before)
            return list(self._opened) if before == ["close"] else []
        if last == "--model":
            return _model_names()
        values = {"--flash": list(FLASH), "--layers": ["all"], "--predict": ["16", "64"], "--into": [INTO]}
        values |= {"--temperature": ["0.8"], "--seed": ["0"]}
        if last in values:
            return values[last]
        options = [word for word in ("--model", *values, "--chat") if word not in before]
        return options if before else [*VIEWS, *options]

    @staticmethod
    def _compare_choices(before: list[str]) -> list[str]:
        from .engine.quantize import QUANT_TYPES

        values = {"--blocks": ["4"], "--into": [STUDY]}
        if before[-1] in values:
            return values[before[-1]]
        options = [word for word in values if word not in before]
        return _model_names() if len(before) == 1 else [*QUANT_TYPES, "kv:q8_0", "kv:q4_0", *_model_names(), *options]

    @staticmethod
    def _quantize_choices(before: list[str]) -> list[str]:
        from .engine.quantize import QUANT_TYPES

        options = [word for word in ("--out", "--imatrix") if word not in before]
        if before[-1] in ("--out", "--imatrix"):
            return []
        return list(QUANT_TYPES) if len(before) == 1 else [*(_model_names() if len(before) == 2 else []), *options]

    def close(self) -> None:
        """End the workers of the models that were opened here."""
        self._close(None)


def _cell_call(code: str) -> tuple[str, str] | None:
    """Name and cell of the cell magic that a transformed cell calls; None where it is other code."""
    try:
        statements = ast.parse(code).body
    except SyntaxError:
        return None
    call = statements[0].value if len(statements) == 1 and isinstance(statements[0], ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or call.func.attr != "run_cell_magic":
        return None
    values = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    return (str(values[0]), str(values[2])) if len(values) == 3 else None


def _default_name() -> str:
    """`LLAMATELEMETRY_MODEL`, else the smallest model of the catalogue that is installed."""
    from .models.find import installed_catalogue

    named = os.environ.get("LLAMATELEMETRY_MODEL")
    if named:
        return named
    catalogue = installed_catalogue()
    if not catalogue:
        raise ModelNotFound(
            "no model is open: give --model NAME, set LLAMATELEMETRY_MODEL, "
            "or pip install 'llamatelemetry-widget[demo]' for a small one"
        )
    return catalogue[0]


def _account(written: Any) -> str:
    """What a model wrote, and what that took, in words."""
    spent, count = written.telemetry, len(written.tokens)
    speed = spent.get("decode_tokens_per_second")
    ends = {"length": "ends after as many as were asked for", "stop": "ended by the model", "cancelled": "stopped"}
    facts = [f"{count} token{'' if count == 1 else 's'}"]
    if "first_token_seconds" in spent:
        facts.append(f"first after {spent['first_token_seconds']:.2f} s")
    facts += [f"then {speed:.1f} tokens/s, with capture"] if speed else []
    return f"{written.text}\n\n{' · '.join([*facts, ends[written.finish_reason]])}"


def _ends_within(seconds: float, running: RunningTrace) -> bool:
    """Wait for a run, so long at most."""
    ended = threading.Event()
    running.subscribe(lambda event: ended.set() if event.kind in ("done", "error", "cancelled") else None)
    return ended.wait(seconds)


def _model_names() -> list[str]:
    """Names to complete; a broken folder of models is no reason to disturb who types."""
    from .models.find import find_models, installed_catalogue

    try:
        return sorted({*installed_catalogue(), *(found.name for found in find_models() if found.problem is None)})
    except (LlamaTelemetryError, OSError):
        return []


# ------------------------------------------------------------------------ load, unload

_loaded: weakref.WeakKeyDictionary[Any, Magics] = weakref.WeakKeyDictionary()


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext llamatelemetry` or `%load_ext llamatelemetry_widget`; a second time does nothing."""
    if shell in _loaded:
        return
    magics = _loaded[shell] = Magics(shell)
    shell.register_magic_function(magics.magic, "line_cell", NAME)
    shell.events.register("pre_run_cell", magics.before_cell)
    shell.events.register("post_run_cell", magics.after_cell)
    for key in (f"%{NAME}", f"%%{NAME}"):
        shell.set_hook("complete_command", magics.complete, str_key=key)


def unload_ipython_extension(shell: Any) -> None:
    """Take everything away again and end the workers; without effect where nothing is loaded."""
    magics = _loaded.pop(shell, None)
    if magics is None:
        return
    shell.events.unregister("pre_run_cell", magics.before_cell)
    shell.events.unregister("post_run_cell", magics.after_cell)
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop(NAME, None)
    for key in (f"%{NAME}", f"%%{NAME}"):  # IPython has no way to take a completer away but its own table
        shell.strdispatchers["complete_command"].strs.pop(key, None)
    magics.close()
