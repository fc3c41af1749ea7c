"""The magics in a real IPython shell."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget import magics

LAMP = "The old lighthouse keeper lit the lamp."


def run(shell, cell):
    return shell.run_cell(cell, store_history=True)


# ------------------------------------------------------------- the cell magic


def test_the_cell_is_drawn_and_its_trace_kept(shell):
    result = run(shell, f"%%llamatelemetry --model smollm2\n{LAMP}")
    assert isinstance(result.result, lt.AttentionGrid)
    assert shell.user_ns["_trace"].text == LAMP
    assert shell.user_ns["_"] is result.result


def test_predict_goes_on_with_the_text(shell):
    result = run(shell, f"%%llamatelemetry --predict 6 --into t\n{LAMP}")
    trace = shell.user_ns["t"]
    assert isinstance(result.result, lt.AttentionGrid) and result.result.trace is trace
    assert trace.text.startswith(LAMP) and len(trace.generation) == 6
    assert trace.attention(0, 0).shape == (len(trace.tokens),) * 2


def test_generate_writes_and_says_what_it_took(shell, capsys):
    cell = f"%%llamatelemetry generate --predict 5 --temperature 0.8 --seed 3 --into t\n{LAMP}"
    grid = run(shell, cell).result
    said, trace = capsys.readouterr().out, shell.user_ns["t"]
    assert isinstance(grid, lt.AttentionGrid) and len(trace.generation) == 5
    written = b"".join(trace.token_bytes[-5:]).decode()
    assert said.startswith(f"{written}\n\n5 tokens · first after ")
    assert "tokens/s, with capture · ends after as many as were asked for" in said
    other = run(shell, cell.replace("seed 3", "seed 4").replace(" t\n", " u\n"))
    assert other.success and shell.user_ns["u"].token_ids.tolist() != trace.token_ids.tolist()


def test_chat_is_the_model_s_own_template(shell):
    run(shell, "%%llamatelemetry layers --chat --into t\nHello")
    model = next(iter(shell.magics_manager.magics["cell"]["llamatelemetry"].__self__._opened.values()))
    assert shell.user_ns["t"].text == model.chat([{"role": "user", "content": "Hello"}])
    explorer = run(shell, "%%llamatelemetry tokens --chat --temperature 0.7 --predict 2\nHello").result
    assert explorer.facts["ids"] == shell.user_ns["t"].token_ids.tolist()
    assert explorer.temperature == 0.7 and set(explorer.tokens.how) == {"sampled"}
    assert "chat template" in explorer.facts["added"]


PROMPTS = [
    "no newline at the end",
    "one newline at the end\n",
    "two\n\n",
    "\n\nleading lines",
    ">>> a prompt that IPython would take away\n... and its second line",
    "In [1]: another\n   ...: one",
    "\ttabs \t and   spaces  \n   indented\n",
    "'quotes\" {braces} $dollar %percent !bang \\ backslash",
    "👩🏽‍💻 naïve 漢字 \u202ertl",
    "%%llamatelemetry\ninside",
    "a\r\nb",
]


def test_the_prompt_is_the_cell_byte_for_byte(shell):
    kept = []
    for prompt in PROMPTS:
        assert run(shell, f"%%llamatelemetry\n{prompt}").success
        kept.append(b"".join(shell.user_ns["_trace"].token_bytes).decode())
    assert kept == PROMPTS


def test_the_prompt_is_whole_inside_another_cell_magic(shell):
    run(shell, "%%capture\n%%llamatelemetry --into t\n>>> lamp\n\n")
    assert shell.user_ns["t"].text == ">>> lamp\n\n"


def test_variables_in_the_line_are_filled_in(shell):
    shell.user_ns["which"] = "smollm2"
    assert run(shell, "%%llamatelemetry --model {which}\n>>> lamp").success
    assert shell.user_ns["_trace"].text == ">>> lamp"


def test_a_magic_that_code_calls_gets_exactly_its_text(shell):
    run(shell, f"%%llamatelemetry --into first\n{LAMP}")
    shell.user_ns["go"] = lambda text: shell.run_cell_magic("llamatelemetry", "--into second", text)
    run(shell, "go('Every night the lamp.')")
    assert shell.user_ns["second"].text == "Every night the lamp."


def test_layers_flash_and_into_are_passed_on(shell):
    result = run(shell, f"%%llamatelemetry attention --layers 0-2,17 --flash off --into t\n{LAMP}")
    trace = shell.user_ns["t"]
    assert [layer.layer for layer in trace.layers if layer.kind == "attention"] == [0, 1, 2, 17]
    assert trace.info["settings"]["flash_attention"] == "off"
    assert result.result.trace is trace


def test_tokens_shows_the_next_and_writes(shell):
    result = run(shell, f"%%llamatelemetry tokens --predict 2 --into explorer\n{LAMP}").result
    assert isinstance(result, lt.TokenExplorer) and len(result.tokens) == 2
    assert shell.user_ns["explorer"] is result


def test_layers_draws_the_lens(shell):
    result = run(shell, f"%%llamatelemetry layers --into t\n{LAMP}").result
    assert isinstance(result, lt.LayerLens)
    assert result.trace is shell.user_ns["t"] and result.trace.text == LAMP
    result.close()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("%%llamatelemetry atention\nx", "view 'atention' does not exist: did you mean attention?"),
        (
            "%%llamatelemetry embeddings\nx",
            "view 'embeddings' does not exist: write %llamatelemetry embeddings with one %",
        ),
        ("%llamatelemetry layers", "command 'layers' does not exist: write %%llamatelemetry layers in a cell"),
        ("%%llamatelemetry --temperature 1\nx", "--temperature is for text that the model writes: add --predict N"),
        ("%%llamatelemetry --layers one\nx", "'one' are no layers"),
        ("%%llamatelemetry --layers 5-2\nx", "'5-2' is no range"),
        ("%%llamatelemetry --flash maybe\nx", "--flash: invalid choice: 'maybe'"),
        ("%%llamatelemetry --predict some\nx", "--predict: 'some' is no number of tokens"),
        ("%%llamatelemetry --temperature -1\nx", "--temperature"),
        ("%%llamatelemetry --temperature warm\nx", "'warm' is no temperature"),
        ("%%llamatelemetry --seed x\nx", "'x' is no seed"),
        ("%%llamatelemetry --into 1x\nx", "'1x' is no name of a variable"),
        ("%%llamatelemetry --into class\nx", "'class' is no name of a variable"),
        ("%%llamatelemetry --nonsense\nx", "--nonsense"),
        ("%%llamatelemetry --model\nx", "--model: expected one argument"),
        ("%%llamatelemetry --model 'x\nx", "No closing quotation"),
        ("%%llamatelemetry\n", "cell body is empty"),
        ("%llamatelemetry opne x", "command 'opne' does not exist: did you mean open?"),
        ("%llamatelemetry open", "say which model"),
        ("%llamatelemetry models x", "models takes no name"),
        ("%llamatelemetry architecture a b", "unrecognized arguments: b"),
        ("%llamatelemetry close nothing", "'nothing' was not opened here"),
        ("%llamatelemetry open a b", "unrecognized arguments: b"),
        ("%llamatelemetry quantize", "the following arguments are required: TYPE"),
        ("%llamatelemetry quantize Q8_0 a b", "unrecognized arguments: b"),
        ("%llamatelemetry compare smollm2", "the following arguments are required: CANDIDATE"),
        ("%llamatelemetry compare smollm2 Q8_0 --blocks x", "'x' is no number of text blocks"),
    ],
)
def test_a_mistake_is_one_line(shell, capsys, line, words):
    result = run(shell, line)
    said = capsys.readouterr().err.strip()
    assert type(result.error_in_exec).__name__ == "UsageError"
    assert said.startswith("UsageError: ")
    assert words in said
    assert "\n" not in said


def test_an_error_of_ours_is_one_line_and_keeps_its_type(shell, capsys):
    result = run(shell, "%%llamatelemetry --model no-such-model\nx")
    said = capsys.readouterr()
    lines = (said.out + said.err).strip().splitlines()
    assert isinstance(result.error_in_exec, lt.ModelNotFound)
    assert len(lines) == 1
    assert lines[0].startswith("ModelNotFound: ")


def test_other_errors_keep_their_traceback(shell, capsys, monkeypatch):
    monkeypatch.setattr(magics.Magics, "_draw", lambda *_: 1 / 0)
    result = run(shell, "%%llamatelemetry\nx")
    said = capsys.readouterr()
    assert isinstance(result.error_in_exec, ZeroDivisionError)
    assert "Traceback" in said.out + said.err


# ------------------------------------------------------------- the line magic


def test_models_are_listed_opened_and_closed(shell, capsys):
    table = run(shell, "%llamatelemetry models").result
    assert "smollm2" in set(table["name"])
    model = run(shell, "m = %llamatelemetry open smollm2\nm").result
    assert isinstance(model, lt.Model)
    assert run(shell, "%llamatelemetry open smollm2").result is model
    model.tokenize("x")
    assert model.worker_pid
    run(shell, "%llamatelemetry close smollm2")
    assert model.worker_pid is None
    run(shell, "%llamatelemetry help")
    assert "%%llamatelemetry [attention|layers|tokens|generate|tour]" in capsys.readouterr().out


def test_the_default_model_is_the_last_opened_then_the_environments_then_the_smallest(shell, monkeypatch):
    def used(prompt="The lamp"):
        run(shell, f"%%llamatelemetry\n{prompt}")
        return shell.user_ns["_trace"].info["file"]

    assert used().startswith("SmolLM2")
    run(shell, "import llamatelemetry_widget as lt; mine = lt.open_model('gemma3-270m')")
    assert used().startswith("gemma-3-270m")
    run(shell, "%llamatelemetry open smollm2")
    assert used().startswith("SmolLM2")
    run(shell, "mine.close(); del mine; %reset -f out")
    run(shell, "%reload_ext llamatelemetry_widget")
    monkeypatch.setenv("LLAMATELEMETRY_MODEL", "gemma3-270m")
    assert used().startswith("gemma-3-270m")


# ------------------------------------------------------- load, reload, unload


def hooks(shell):
    own = [c for kind in ("pre_run_cell", "post_run_cell") for c in shell.events.callbacks[kind] if "Magics" in repr(c)]
    table = shell.strdispatchers["complete_command"].strs
    completers = [len(list(table[key])) for key in ("%llamatelemetry", "%%llamatelemetry") if key in table]
    known = [kind for kind in ("line", "cell") if "llamatelemetry" in shell.magics_manager.magics[kind]]
    return len(own), completers, known


def test_loading_twice_reloading_and_unloading_leave_one_hook_or_none(shell):
    one = (2, [1, 1], ["line", "cell"])
    assert hooks(shell) == one
    run(shell, "%load_ext llamatelemetry_widget")
    run(shell, "%load_ext llamatelemetry")
    run(shell, "%reload_ext llamatelemetry")
    assert hooks(shell) == one
    run(shell, "%unload_ext llamatelemetry")
    assert hooks(shell) == (0, [], [])
    run(shell, "%unload_ext llamatelemetry_widget")
    run(shell, "%load_ext llamatelemetry")
    assert hooks(shell) == one
    assert run(shell, "%llamatelemetry help").success


def test_other_peoples_hooks_survive(shell):
    seen = []
    shell.events.register("pre_run_cell", lambda info: seen.append(info.raw_cell))
    run(shell, "%reload_ext llamatelemetry_widget")
    run(shell, "1")
    assert seen[-1] == "1"


def test_an_installed_sdk_of_the_same_name_is_never_imported(tmp_path):
    (tmp_path / "llamatelemetry").mkdir()
    (tmp_path / "llamatelemetry" / "__init__.py").write_text("raise SystemExit('the SDK was imported')")
    code = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        shell.run_cell("%load_ext llamatelemetry_widget")
        shell.run_cell("%llamatelemetry help")
        shell.run_cell("%%llamatelemetry\\nThe lamp")
        assert "llamatelemetry" not in sys.modules
        assert shell.user_ns["_trace"].tokens
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_architecture_of_a_model_is_shown_without_running_it(shell, zoo_models):
    named = run(shell, f"%llamatelemetry architecture {zoo_models / 'moe-large.gguf'}").result
    assert isinstance(named, lt.ArchitectureTree) and len(named.tree.root.tensors) == 5771
    last = run(shell, "m = %llamatelemetry open smollm2\n%llamatelemetry architecture").result
    assert last.model is shell.user_ns["m"] and last.model.worker_pid is None
    failed = run(shell, "%llamatelemetry architecture no-such-model")
    assert isinstance(failed.error_in_exec, lt.ModelNotFound)


def test_the_vocabulary_of_a_model_is_shown_as_a_space(shell, zoo_models):
    named = run(shell, f"%llamatelemetry embeddings {zoo_models / 'llama.gguf'}").result
    assert isinstance(named, lt.EmbeddingSpace3D)
    assert len(named.positions) == len(named.space.tokens) == named.space.model.info.vocab_size
    named.close()


def test_a_panel_follows_the_model_or_a_server_until_it_is_stopped(shell, zoo_models):
    code = f"m = %llamatelemetry open {zoo_models / 'llama.gguf'}\n%llamatelemetry telemetry start"
    panel = run(shell, code).result
    model = shell.user_ns["m"]
    model.generate([5, 6, 7], 3).result()
    assert isinstance(panel, lt.TelemetryPanel) and panel._runs[0].phase in ("decode", "done")
    server = run(shell, "%llamatelemetry telemetry http://127.0.0.1:9").result
    assert server._source.title.endswith("127.0.0.1:9")
    assert run(shell, "%llamatelemetry telemetry stop").result is None
    shown = panel._runs[0]
    model.generate([5, 6, 7], 3).result()
    assert panel._runs[0] is shown and server._stopped
    refused = run(shell, "%llamatelemetry telemetry smollm2")
    assert "start, stop or the address of a server" in str(refused.error_in_exec)
    for made in (panel, server):
        made.close()


def test_a_tour_of_our_sentence_or_of_the_cell(shell, zoo_models):
    path = zoo_models / "llama.gguf"
    ours = run(shell, f"%llamatelemetry tour --model {path}").result
    assert isinstance(ours, lt.Tour) and len(ours.facts["tokens"]) == 32
    own = run(shell, f"%%llamatelemetry tour --model {path}\nthe sea").result
    assert isinstance(own, lt.Tour) and own.trace.text.endswith("the sea")
    refused = run(shell, "%llamatelemetry tour smollm2")
    assert "unrecognized arguments: smollm2" in str(refused.error_in_exec)


def test_a_model_is_quantized_and_what_it_got_is_said(shell, capsys, zoo_models, tmp_path):
    out = tmp_path / "small.gguf"
    made = run(shell, f"%llamatelemetry quantize Q4_K_M '{zoo_models / 'llama.gguf'}' --out '{out}'").result
    assert isinstance(made, lt.Model) and made.info.path == out
    assert "MB, 6.31 bits per weight" in (said := capsys.readouterr().out) and "25 Q5_0, 9 F32, 5 Q8_0" in said
    refused = run(shell, f"%llamatelemetry quantize Q4 '{zoo_models / 'llama.gguf'}'")
    assert "no quant type 'Q4'" in str(refused.error_in_exec)


def test_files_are_compared_and_the_study_is_kept(shell, zoo_models, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = [f"'{zoo_models / name}.gguf'" for name in ("llama", "llama-q8-0", "llama-q4-0")]
    report = run(shell, f"%llamatelemetry compare {' '.join(names)} --blocks 1 --into mine").result
    assert isinstance(report, lt.QuantizationReport) and "Take llama-q8-0" in repr(report)
    assert shell.user_ns["mine"] is report.study and list(report.study.results["status"]) == ["done"] * 2
    refused = run(shell, f"%llamatelemetry compare {names[0]} Q99")
    assert "Q99" in str(refused.error_in_exec)
    report.close()


# ----------------------------------------------------------------- completion


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%llamatelemetry ", set(magics.COMMANDS)),
        ("%llamatelemetry mo", {"models"}),
        ("%llamatelemetry open smo", {"smollm2"}),
        ("%llamatelemetry architecture smo", {"smollm2"}),
        ("%llamatelemetry embeddings smo", {"smollm2"}),
        ("%llamatelemetry tour --model smo", {"smollm2"}),
        ("%llamatelemetry quantize Q4_K", {"Q4_K_M", "Q4_K_S"}),
        ("%llamatelemetry quantize Q4_K_M smo", {"smollm2"}),
        ("%llamatelemetry compare smo", {"smollm2"}),
        ("%llamatelemetry compare smollm2 Q4_K", {"Q4_K_M", "Q4_K_S"}),
        ("%llamatelemetry compare smollm2 Q8_0 --", {"--blocks", "--into"}),
        ("%llamatelemetry quantize Q4_K_M smollm2 --", {"--out", "--imatrix"}),
        ("%%llamatelemetry a", {"attention"}),
        ("%%llamatelemetry --", {"--model", "--layers", "--flash", "--predict", "--temperature", "--chat", "--into"}),
        ("%%llamatelemetry --model smo", {"smollm2"}),
        ("%%llamatelemetry attention --flash o", {"on", "off"}),
        ("%%llamatelemetry --model smollm2 --l", {"--layers"}),
    ],
)
def test_tab_completes(shell, text, expected):
    assert expected <= set(shell.complete("", text, len(text))[1])


def test_tab_completes_as_a_notebook_asks(shell):
    from IPython.core.completer import provisionalcompleter

    text = "%%llamatelemetry --flash of"
    with provisionalcompleter():
        found = [c.text for c in shell.Completer.completions(text, len(text))]
    assert "off" in found


def test_tab_completes_names_with_a_colon(shell, tmp_path, monkeypatch):
    models = tmp_path / "manifests" / "registry.ollama.ai" / "library" / "lamp"
    models.mkdir(parents=True)
    (models / "tiny").write_text(
        '{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:1"}]}'
    )
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "sha256-1").symlink_to(lt.open_model("smollm2").info.path)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    text = "%llamatelemetry open ollama:la"
    completed, found = shell.complete("", text, len(text))
    assert text[: len(text) - len(completed)] + found[0] == "%llamatelemetry open ollama:lamp:tiny"
