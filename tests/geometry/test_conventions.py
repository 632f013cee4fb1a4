"""Each convention against its package's definition, written anew in numpy and scipy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import linalg, spatial

from geodistill.geometry import (
    CONVENTIONS,
    SecondMoments,
    feature_gram_distance,
    procrustes_distance,
)

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 5)) + 0.5, RNG.normal(size=(30, 5)) * [3, 2, 1, 1, 0.3] + 1
Array = np.ndarray


def centred(x: Array) -> Array:
    return x - x.mean(0)


def unit(x: Array) -> Array:
    return centred(x) / np.linalg.norm(centred(x))


def aligned(x: Array, y: Array) -> Array:
    u, _, vt = np.linalg.svd(y.T @ x)
    return y @ u @ vt


def bures(x: Array, y: Array) -> float:
    k, el = unit(x) @ unit(x).T, unit(y) @ unit(y).T
    values = np.sort(np.real(linalg.eigvals(unit(x).T @ unit(y) @ unit(y).T @ unit(x))))
    overlap = np.sqrt(values).sum()
    return float(np.sqrt(np.trace(k) + np.trace(el) - 2 * overlap))


def angle(x: Array, y: Array) -> float:
    a, b = centred(x), aligned(centred(x), centred(y))
    return float(np.arccos((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b))))


def gram_cka(x: Array, y: Array) -> float:
    h = np.eye(len(x)) - 1 / len(x)
    k, el = h @ x @ x.T @ h, h @ y @ y.T @ h
    return float((k * el).sum() / np.sqrt((k * k).sum() * (el * el).sum()))


def song(x: Array, y: Array) -> float:
    def hsic(k: Array, el: Array) -> float:
        n = len(k)
        k, el = k - np.diag(np.diag(k)), el - np.diag(np.diag(el))
        traces = k.sum() * el.sum() / ((n - 1) * (n - 2))
        return float((k * el).sum() + traces - 2 / (n - 2) * k.sum(0) @ el.sum(0))

    k, el = x @ x.T, y @ y.T
    return hsic(k, el) / np.sqrt(hsic(k, k) * hsic(el, el))


PEERS: dict[str, Callable[[Array, Array], float]] = {
    "netrep, euclidean": lambda x, y: np.linalg.norm(centred(x) - aligned(centred(x), centred(y))),
    "netrep, angular": angle,
    "sim_metric": lambda x, y: 2 - 2 * np.linalg.norm(unit(x).T @ unit(y), "nuc"),
    "anatome": lambda x, y: 1 - np.linalg.norm(unit(x).T @ unit(y), "nuc"),
    "scipy, disparity": lambda x, y: spatial.procrustes(x, y)[2],
    "quantum information: Bures": bures,
    "Kornblith et al. (2019): biased": gram_cka,
    "Song et al. (2012): debiased": song,
    "Dasgupta and Cohn (2025): root": lambda x, y: np.sqrt(gram_cka(x, y)),
}


@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda convention: convention.used_by)
def test_each_convention_is_the_peers_number(convention: object) -> None:
    value = convention.function(torch.from_numpy(X), torch.from_numpy(Y), **convention.options)
    assert float(value) == pytest.approx(PEERS[convention.used_by](X, Y), rel=1e-10)


def test_they_are_different_numbers() -> None:
    values = sorted(peer(X, Y) for peer in PEERS.values())
    assert min(np.diff(values)) > 1e-3


@pytest.mark.parametrize("n", [4, 30])
def test_gram_distance_keeps_six_digits_at_a_distance_of_1e_4(n: int) -> None:
    x, noise = RNG.normal(size=(n, 6)), RNG.normal(size=(n, 6))
    for size in (1e-3, 4e-5):
        y = x + size * noise
        exact = np.linalg.norm(x @ noise.T + noise @ x.T + size * noise @ noise.T) * size
        value = feature_gram_distance(torch.from_numpy(x), torch.from_numpy(y))
        assert float(value) == pytest.approx(exact, rel=1e-6)
    assert exact < 2e-4 * np.linalg.norm(x @ x.T)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("rows", [3, 30])
def test_rms_gives_a_mean_squared_row_norm_of_one(center: bool, rows: int) -> None:
    x, y = (a[:rows] - center * a[:rows].mean(0) for a in (X, Y))
    x, y = (a / np.sqrt((a**2).sum(1).mean()) for a in (x, y))
    expected = {
        procrustes_distance: np.linalg.norm(x - aligned(x, y)),
        feature_gram_distance: np.linalg.norm(x @ x.T - y @ y.T),
    }
    moments = SecondMoments(5, 5)
    moments.update(torch.tensor(X[:rows]), torch.tensor(Y[:rows]))
    for measure, value in expected.items():
        for features in ((torch.tensor(X[:rows]), torch.tensor(Y[:rows])), (moments,)):
            measured = measure(*features, center=center, scale="rms")
            assert float(measured) == pytest.approx(value, abs=1e-7)
            assert value > 0.5
