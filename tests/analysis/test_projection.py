"""Projections, their quality, clusters and drift: against scikit-learn, SciPy and definitions."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from sklearn.cluster import HDBSCAN
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.metrics import adjusted_rand_score

from llamatelemetry_widget.analysis import projection
from llamatelemetry_widget.analysis.clusters import clusters_of, find_clusters
from llamatelemetry_widget.analysis.drift import drift, onto
from llamatelemetry_widget.analysis.names import words_of
from llamatelemetry_widget.analysis.network import similar_pairs
from llamatelemetry_widget.analysis.projection import measured, pca, quality, umap, unit


def groups(n=60, count=4, width=32, seed=0):
    """Points around a few directions."""
    r = np.random.default_rng(seed)
    centers = r.normal(size=(count, width)) * 4
    return (np.repeat(centers, n, 0) + r.normal(size=(count * n, width))).astype(np.float32)


def test_pca_is_scikit_learn_s():
    x = groups()
    ours, theirs = pca(x), PCA(3, svd_solver="full").fit(x)
    placed = theirs.transform(x)
    signs = np.sign((ours.positions * placed).sum(0))
    np.testing.assert_allclose(ours.positions, placed * signs, atol=1e-3)
    share = theirs.explained_variance_ratio_.sum()
    assert ours.parameters["variance_share"] == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_few_vectors_are_a_picture_and_say_how(n):
    made = umap(groups(1, n))
    assert made.method == "pca" and "UMAP needs at least 5" in made.note
    assert made.positions.shape == (n, 3) and made.valid.all()


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 6, 11, 40])
def test_umap_of_small_inputs(n):
    made = umap(groups(n, 1))
    assert made.method == "umap" and made.valid.all() and made.positions.shape == (n, 3)


@pytest.mark.slow
def test_rows_that_cannot_be_placed_are_counted_and_keep_their_place():
    x = groups(30, 2)
    x[7], x[11, 3], x[20] = np.nan, np.inf, 0
    for made in (pca(x), umap(x)):
        assert np.flatnonzero(~made.valid).tolist() == [7, 11, 20] and "3 vectors" in made.note
    found = quality(x, made.positions)
    assert 0 < found.neighbours_kept <= 1 and 0 < found.trustworthiness <= 1 and found.rows == 57


@pytest.mark.slow
def test_an_isolated_point_is_said_not_drawn_at_nan():
    x = np.zeros((41, 8), np.float32)
    x[:, 0] = 1
    x[40, 0] = -1
    x[:40, 1:] = np.random.default_rng(0).normal(size=(40, 7)) * 0.01
    made = umap(x)
    assert made.valid[:40].all()
    assert made.valid[40] or "1 vectors have no neighbours" in made.note


@pytest.mark.slow
def test_the_same_seed_gives_the_same_picture_and_duplicates_are_no_harm():
    x = groups(25, 3)
    x[10:20] = x[0]
    a, b, c = umap(x, seed=1), umap(x, seed=1), umap(x, seed=2)
    np.testing.assert_array_equal(a.positions, b.positions)
    assert not np.array_equal(a.positions, c.positions)


def test_quality_is_trustworthiness_over_all_rows():
    x = groups()
    made = pca(x)
    found = quality(x, made.positions, k=5, sample=len(x))
    theirs = trustworthiness(x, made.positions, n_neighbors=5, metric="cosine")
    assert found.trustworthiness == pytest.approx(theirs, abs=2e-3) and 0 < found.neighbours_kept < 1
    some = quality(x, x[:, :3], k=5, sample=30)
    assert some.rows == 30, "an estimate says how many rows it comes from"
    assert some.trustworthiness == pytest.approx(quality(x, x[:, :3], k=5).trustworthiness, abs=0.1)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_what_cannot_be_measured_has_no_number(n):
    x = groups()[:n]
    assert quality(x, x[:, :3]) is None
    made = measured(x, pca(x))
    assert (made.trustworthiness, made.neighbours_kept, made.quality_rows) == (None, None, 0)


def test_clusters_are_found_named_and_nested():
    x = groups(80, 5, seed=3)
    labels = find_clusters(pca(x).positions, 12)
    assert labels.max() >= 3 and (np.bincount(labels[labels >= 0])[:-1] >= np.bincount(labels[labels >= 0])[1:]).all()
    truth = np.repeat(np.arange(5), 80)
    tokens = [f"·{chr(97 + i % 26)}{chr(97 + i // 26)}word{'abcde'[g]}" for g in range(5) for i in range(80)]
    found = clusters_of(truth.astype(np.int32), pca(x).positions, x, tokens)
    assert all(
        word[-1] == letter for name, letter in zip(found.names, "abcde", strict=True) for word in name.split(", ")
    )
    assert all(name.count(",") == 2 for name in found.names) and found.worded.tolist() == [1] * 5
    assert found.counts.tolist() == [80] * 5 and found.parents.shape == (5, 3) and found.unclustered == 0
    few = clusters_of(np.full(400, -1, np.int32), pca(x).positions, x, tokens)
    assert few.names == [] and few.unclustered == 1


def test_names_are_common_whole_words_that_tell_groups_apart():
    tokens = ["·lamp", "·lamps", "lamp", "·candle", "·candles", "·glow", "·glows", "lum", "·illumin", "·illuminate"]
    tokens += ["·river", "·rivers", "·lake", "·lakes", "·pond", "ake", "·both", "·BOTH", "iver", "·la"]
    r = np.random.default_rng(0)
    x = np.repeat(np.eye(8, dtype=np.float32)[:2], 10, axis=0) + r.normal(size=(20, 8)).astype(np.float32) * 0.02
    x[[16, 17]] = [1, 1, 0, 0, 0, 0, 0, 0]  # of both: it tells nothing apart
    words = words_of(tokens)
    whole = {token for token, begins in zip(tokens, words.begins, strict=True) if begins}
    assert {"·lamp", "·candle", "·river"} <= whole and not {"lamp", "lum", "·illumin", "ake", "·la"} & whole
    assert words.worth[0] > words.worth[2] > words.worth[7] and words.worth[16] > words.worth[17]
    labels = np.repeat(np.arange(2, dtype=np.int32), 10)
    lights, waters = clusters_of(labels, x[:, :3], x, tokens).names
    assert {word.rstrip("s") for word in lights.split(", ")} <= {"lamp", "candle", "glow", "illuminate"}
    assert {word.rstrip("s") for word in waters.split(", ")} == {"river", "lake", "pond"}
    pieces = clusters_of(np.zeros(4, np.int32), x[:4, :3], x[:4], ["ake", "iver", "ond", "·in"])
    assert set(pieces.names[0].split(", ")) == {"ake", "iver", "ond"} and pieces.worded[0] == 0.25


@pytest.mark.parametrize("n", [0, 1, 2, 1100])
def test_pairs_that_are_alike_are_those_of_the_whole_matrix(n):
    x = groups(n // 4 + 1, 4)[:n]
    if n > 9:
        x[[3, 7]] = [[0] * 32, [np.nan] * 32]
    good = np.setdiff1d(np.arange(n), [3, 7]) if n > 9 else np.arange(n)
    full = np.full((n, n), -np.inf)
    full[np.ix_(good, good)] = unit(x[good]) @ unit(x[good]).T
    np.fill_diagonal(full, -np.inf)
    nearest = {tuple(sorted((int(i), int(j)))) for i in good for j in np.argsort(-full[i])[: min(3, len(good) - 1)]}
    pairs, cosines = similar_pairs(x, 3)
    assert {tuple(pair) for pair in pairs.tolist()} == nearest and (np.diff(cosines) <= 0).all()
    above, alike = similar_pairs(x, threshold=0.8)
    assert len(above) == (np.triu(full, 1) >= 0.8).sum() and (alike >= 0.8 - 1e-6).all()
    np.testing.assert_allclose(alike, [full[i, j] for i, j in above], atol=1e-5)


def test_too_many_pairs_are_refused_and_a_newer_question_stops(monkeypatch):
    monkeypatch.setattr("llamatelemetry_widget.analysis.network.MOST_PAIRS", 100)
    with pytest.raises(ValueError, match="choose a larger one"):
        similar_pairs(groups(), threshold=0.1)
    with pytest.raises(ZeroDivisionError):
        similar_pairs(groups(), still=lambda: 1 / 0)


def test_drift_of_one_basis_and_of_two():
    r = np.random.default_rng(4)
    a = groups(50, 4)
    b = a + r.normal(size=a.shape).astype(np.float32) * 0.1
    b[5] = -a[5]
    same = drift(a, b)
    assert same.aligned == "none" and same.moved[5] == pytest.approx(2, abs=1e-5)
    expected = 1 - (unit(a) * unit(b)).sum(1)
    np.testing.assert_allclose(same.moved, np.maximum(expected, 0), atol=1e-5)
    assert same.rows == 200 and 0.3 < np.nanmean(same.kept) <= 1 and same.kept[5] < 0.5
    turn, _ = np.linalg.qr(r.normal(size=(32, 32)))
    turned = drift(a, (a @ turn).astype(np.float32))
    assert turned.aligned == "procrustes" and np.nanmax(turned.moved) < 1e-4 and np.nanmin(turned.kept) == 1
    rotation, _ = orthogonal_procrustes(unit((a @ turn).astype(np.float32)), unit(a))
    np.testing.assert_allclose(rotation, turn.T, atol=1e-4)
    b = (3 * a @ turn).astype(np.float32)
    b[9] = 0
    back = onto(a, b, "procrustes")
    assert np.isnan(back[9]).all() and onto(a, b, "none") is b
    keep = np.arange(len(a)) != 9
    np.testing.assert_allclose(back[keep], a[keep], atol=0.02)
    wide = onto(
        a, np.pad(a, ((0, 0), (0, 8))) @ np.linalg.qr(r.normal(size=(40, 40)))[0].astype(np.float32), "procrustes"
    )
    np.testing.assert_allclose(wide, a, atol=1e-3)
    with pytest.raises(ValueError, match="do not belong"):
        drift(a, a[:5])


def test_many_numbers_are_seen_through_principal_components_and_that_is_said(monkeypatch):
    x = groups(40, width=96)
    monkeypatch.setattr(projection, "DIRECT_NUMBERS", x.size - 1)
    made = umap(x)
    assert made.parameters["components"] == 64 and "first 64 principal components" in made.note
    assert quality(x, made.positions).trustworthiness > 0.85
    monkeypatch.setattr(projection, "DIRECT_NUMBERS", x.size)
    assert umap(x).note == ""


def test_groups_are_those_of_scikit_learn():
    rng = np.random.default_rng(3)
    points = np.concatenate([rng.normal(at, 0.1, (400, 3)) for at in range(5)] + [rng.uniform(-1, 5, (60, 3))])
    ours = find_clusters(points.astype(np.float32), 12)
    theirs = HDBSCAN(min_cluster_size=12, min_samples=5, copy=True).fit_predict(points)  # counts the point itself too
    assert ours.max() == theirs.max() == 4 and (ours[:2000] >= 0).mean() > 0.9
    assert adjusted_rand_score(ours, theirs) > 0.99


def test_cuml_is_taken_where_it_and_a_gpu_are_there(monkeypatch):
    """Stand-ins for cuML and CuPy: there is no GPU here."""
    devices, x = [1], groups(20)

    class Estimator:
        def __init__(self, **settings):
            self.settings = settings

        def fit_transform(self, data):
            assert self.settings["n_components"] == 3 and self.settings["metric"] == "cosine"
            return data[:, :3] * 2

        def fit_predict(self, data):
            return np.repeat([1, 0], [len(data) - 25, 25])

    runtime = SimpleNamespace(getDeviceCount=lambda: devices[0])
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=SimpleNamespace(runtime=runtime)))
    monkeypatch.setitem(sys.modules, "cuml", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cuml.manifold", SimpleNamespace(UMAP=Estimator))
    monkeypatch.setitem(sys.modules, "cuml.cluster", SimpleNamespace(HDBSCAN=Estimator))
    made = umap(x)
    np.testing.assert_array_equal(made.positions, x[:, :3] * 2)
    assert made.note == "by cuML, on the GPU"
    assert np.bincount(find_clusters(made.positions)).tolist() == [55, 25]
    devices[0] = 0
    assert "cuML" not in umap(x).note
