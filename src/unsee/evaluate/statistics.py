"""Numbers that travel with their n and an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal."""

FEWEST = 6
"""Pairs that can differ at the 5 % level: five changes have one sign by chance in 2 of 2^5 cases, six in 2 of 2^6."""


@dataclass(frozen=True)
class Score:
    """A measured value with its 95 % interval.

    value, low, high  the estimate and the interval's ends
    n                 how many pictures it rests on
    """

    value: float
    low: float
    high: float
    n: int


def rate(hits: Sequence[bool]) -> Score:
    """The share of hits with Wilson's interval (Wilson, 1927).

    centre = (p + z^2 / 2n) / (1 + z^2 / n),   half = z sqrt(p (1 - p) / n + z^2 / 4n^2) / (1 + z^2 / n)
    """
    n = len(hits)
    p = sum(hits) / n
    scale = 1 + Z95**2 / n
    centre = (p + Z95**2 / (2 * n)) / scale
    half = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2)) / scale
    return Score(p, max(0.0, centre - half), min(1.0, centre + half), n)


@dataclass(frozen=True)
class Difference:
    """What changed between two measurements of the same prompts and seeds, second minus first, with its 95 % interval.

    differs  whether the change is more than chance explains at the 5 % level
    """

    value: float
    low: float
    high: float
    n: int
    differs: bool


def paired_rates(first: Sequence[bool], second: Sequence[bool]) -> Difference:
    """The change of a share, from pairs of which b are hits only at first and c only at second.

    value      (c - b) / n
    interval   d +- z sqrt(b + c + 1 - (c - b)^2 / (n + 2)) / (n + 2) with d = (c - b) / (n + 2): half a pair is added
               to each of the four kinds (Agresti and Min, 2005), so no change in n pairs is no certainty
    differs    exact McNemar test: c of b + c coins, two-sided
    """
    n = len(first)
    b = sum(x and not y for x, y in zip(first, second, strict=True))
    c = sum(y and not x for x, y in zip(first, second, strict=True))
    centre = (c - b) / (n + 2)
    half = Z95 * math.sqrt(b + c + 1 - (c - b) ** 2 / (n + 2)) / (n + 2)
    chance = 2 * sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    return Difference((c - b) / n, max(-1.0, centre - half), min(1.0, centre + half), n, chance < 0.05)


def bootstrap(values: Sequence[float], seed: int = 0, times: int = 2000) -> Score:
    """The mean with the percentile interval of its bootstrap (Efron, 1979)."""
    data = np.asarray(values, float)
    low, high = resampled(len(data), lambda rows: data[rows].mean(1), seed, times)
    return Score(float(data.mean()), low, high, len(data))


def paired_means(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Difference:
    """The change of a mean, bootstrapped over pairs; it differs if the interval leaves zero out.

    Of fewer than FEWEST pairs it never does: a bootstrap of them is too sure of itself.
    """
    change = bootstrap([y - x for x, y in zip(first, second, strict=True)], seed)
    differs = change.n >= FEWEST and not change.low <= 0 <= change.high
    return Difference(change.value, change.low, change.high, change.n, differs)


def resampled(
    n: int, statistic: Callable[[NDArray[np.int64]], ArrayLike], seed: int = 0, times: int = 2000
) -> tuple[float, float]:
    """The 2.5 and 97.5 % quantiles of a statistic over `times` draws of n rows with replacement.

    statistic  of some draws' row numbers (K, n), a number for each (K,)
    """
    rng = np.random.default_rng(seed)
    block = max(1, 2**20 // max(1, n))  # draws at a time, to take little memory
    sizes = [min(block, times - done) for done in range(0, times, block)]
    found = np.concatenate([np.asarray(statistic(rng.integers(0, n, (size, n)))) for size in sizes])
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


GROUPS, QUANTILE = 10, 2.262
"""Of a jackknife, and what 97.5 % of Student's t with one degree of freedom less lie below."""


def jackknifed(n: int, statistic: Callable[[NDArray[np.int64]], float]) -> float:
    """Half of a 95 % interval of a statistic of n rows, by leaving out a tenth of them at a time (Tukey, 1958).

    v = (g - 1) / g sum_i (s_i - mean s)^2 with s_i, the statistic of the rows without group i; unlike drawing rows with
    replacement, this repeats none, which a Frechet distance would take for less variety.
    """
    groups = np.arange(n) % min(n, GROUPS)
    found = np.array([statistic(np.flatnonzero(groups != k)) for k in range(min(n, GROUPS))])
    g = len(found)
    return float(QUANTILE * math.sqrt((g - 1) / g * ((found - found.mean()) ** 2).sum()))


def frechet(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """The Frechet distance of two sets of features (N, D) and (M, D), FID for Inception's (Heusel et al., 2017).

    |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x^1/2 C_y C_x^1/2)^1/2);  biased upwards for small N: compare equal N only.

    With x' and y' the centred features, that root has the trace |x' y'^T|_* / sqrt((N - 1) (M - 1)), a sum of singular
    values, which is less work where there are fewer pictures than features.
    """
    a, b = ((z - z.mean(0)) / math.sqrt(len(z) - 1) for z in (x, y))
    shift = ((x.mean(0) - y.mean(0)) ** 2).sum()
    if min(len(x), len(y)) < x.shape[1]:
        root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    else:
        values, vectors = np.linalg.eigh(a.T @ a)
        half = vectors * np.sqrt(values.clip(0)) @ vectors.T
        root = np.sqrt(np.linalg.eigvalsh(half @ (b.T @ b) @ half).clip(0)).sum()
    return float(max(0.0, shift + (a**2).sum() + (b**2).sum() - 2 * root))


def kernel_distance(
    x: NDArray[np.float64], y: NDArray[np.float64], pairs: NDArray[np.int64] | None = None, block: int = 1000
) -> float:
    """KID (Binkowski et al., 2018): the unbiased squared MMD with the kernel (a.b / D + 1)^3; may be below zero.

    pairs  (N,), for each x the y of the same prompt. They are left out, as no picture is compared with itself within x
           or y: of one list of prompts, pairs of one prompt would else be more frequent across than within.
    Of more than a `block` of pictures, the mean over blocks, as the authors do: memory then does not grow with N^2.
    """
    if (parts := min(len(x), len(y)) // block) > 1:
        rows, others = (np.array_split(np.arange(len(z)), parts) for z in (x, y))
        inside = [None if pairs is None else pairs[a] - b[0] for a, b in zip(rows, others, strict=True)]
        blocks = zip(rows, others, inside, strict=True)
        return float(np.mean([kernel_distance(x[a], y[b], some, 2 * block) for a, b, some in blocks]))
    n, m, d = len(x), len(y), x.shape[1]

    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        inner: NDArray[np.float64] = a @ b.T / d + 1
        return inner * inner * inner  # far faster than ** 3

    within_x, within_y = kernel(x, x), kernel(y, y)
    same = (within_x.sum() - np.trace(within_x)) / (n * (n - 1)) + (within_y.sum() - np.trace(within_y)) / (m * (m - 1))
    across = kernel(x, y)
    count, total = across.size, across.sum()
    if pairs is not None:
        own = np.flatnonzero((pairs >= 0) & (pairs < m))
        count, total = count - len(own), total - across[own, pairs[own]].sum()
    return float(same - 2 * total / count)
