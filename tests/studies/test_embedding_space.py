"""The space of a model: UMAP in its own process, kept on disk, stopped, and what it says of two models."""

from __future__ import annotations

import os
import threading

import numpy as np
import psutil
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.studies import embedding_space
from llamatelemetry_widget.studies.embedding_space import EmbeddingSpace


@pytest.fixture
def model(zoo_models):
    with lt.open_model(zoo_models / "llama.gguf") as opened:
        yield opened


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_pca_is_there_at_once_with_its_quality(model):
    space = EmbeddingSpace(model)
    made = space.pca()
    assert made.positions.shape == (400, 3) and 0 < made.trustworthiness <= 1 and 0 <= made.neighbours_kept <= 1
    table = space.to_pandas()
    assert list(table.columns) == ["id", "token", "kind", "norm"] and len(table) == 400
    np.testing.assert_allclose(table.norm, np.linalg.norm(model.embeddings(), axis=1), rtol=1e-5)


@pytest.mark.slow
def test_umap_tells_its_progress_and_is_kept(model, monkeypatch):
    space, told = EmbeddingSpace(model), []
    picture = space.umap(progress=lambda done, total: told.append((done, total)))
    assert picture.projected.method == "umap" and picture.projected.valid.all()
    assert picture.projected.trustworthiness is not None
    table = space.to_pandas(picture)
    assert {"x", "y", "z", "cluster"} <= set(table.columns)
    monkeypatch.setattr(embedding_space, "_run", lambda *_: pytest.fail("computed again"))
    again = EmbeddingSpace(model).umap()
    np.testing.assert_array_equal(again.projected.positions, picture.projected.positions)
    assert again.clusters.names == picture.clusters.names
    with pytest.raises(pytest.fail.Exception):
        EmbeddingSpace(model).umap(seed=1)


@pytest.mark.slow
def test_a_projection_can_be_stopped_and_leaves_no_process(model):
    before = {p.pid for p in psutil.Process(os.getpid()).children(recursive=True)}
    stop = threading.Event()
    threading.Timer(1.0, stop.set).start()
    with pytest.raises(lt.EngineCancelled, match="stopped"):
        EmbeddingSpace(model).umap(cancelled=stop.is_set)
    after = {p.pid for p in psutil.Process(os.getpid()).children(recursive=True)}
    assert after - before <= {model.worker_pid}


def test_what_kills_the_process_is_one_line(model, monkeypatch):
    monkeypatch.setattr(embedding_space, "_BOOT", "import sys; print('out of luck'); sys.exit(3)")
    with pytest.raises(lt.EngineCrashed, match="the projection failed: out of luck"):
        EmbeddingSpace(model).umap()


def test_texts_and_some_tokens(model):
    texts = EmbeddingSpace(model, ["one", "two", "the sea"], layer=1)
    assert texts.kinds == ["text"] * 3 and texts.vectors.shape[0] == 3 and texts.ids.tolist() == [-1, -1, -1]
    some = EmbeddingSpace(model, [7, 3])
    assert some.ids.tolist() == [7, 3] and some.tokens == [lt_token(model, 7), lt_token(model, 3)]
    assert texts.umap().projected.method == "pca"


def test_a_prompt_s_path_through_the_layers(model):
    trace = model.trace("the old sea")
    space = EmbeddingSpace.of_trace(model, trace)
    n, layers = len(trace.tokens), len(trace.layers) - 1  # of the last only one row was computed
    assert space.vectors.shape == (n * layers, 64) and space.steps.tolist()[n] == [1, 0]
    np.testing.assert_array_equal(space.vectors[n : 2 * n], trace.hidden(1))
    assert space.pca().positions.shape == (n * layers, 3)
    with pytest.raises(lt.LlamaTelemetryError, match="of all tokens"):
        EmbeddingSpace.of_trace(model, trace, [trace.layers[-1].layer])


def lt_token(model, token):
    from llamatelemetry_widget.trace import display_token

    return display_token(model.token_bytes([token])[0])


def test_drift_between_two_quantizations(model, zoo_models):
    with lt.open_model(zoo_models / "llama-q4-0.gguf") as small, lt.open_model(zoo_models / "odd-tokens.gguf") as other:
        found = EmbeddingSpace(model).drift(EmbeddingSpace(small))
        assert found.aligned == "none" and 0 < np.nanmax(found.moved) < 0.1 and np.nanmean(found.kept) > 0.6
        with pytest.raises(lt.LlamaTelemetryError, match="only models with one vocabulary"):
            EmbeddingSpace(model).drift(EmbeddingSpace(other))
