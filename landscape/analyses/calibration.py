"""How far a classifier's probabilities are to be believed: scores, calibration error, recalibration. Arrays alone.

Throughout, z (N, classes) are logits, y (N,) classes, and clusters (N,) integers, equal for examples that are not
independent of each other. Where the logarithm of a probability serves, the probability is never formed, so that a gap
of hundreds between logits does not become an infinity.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy
from scipy.special import erf, log_softmax, ndtri, softmax

from landscape.objective.clusters import LEAST_UNITS, fold_of, mean_and_sem

CONFIDENT = 0.9  # the confidence in "accuracy at 90 % confidence"
TOP = 5
FOLDS = 5  # of the examples, each recalibrated by the others
HOTTEST, COLDEST = 1e3, 1e-3  # the temperatures among which the best is sought


class Bins(NamedTuple):
    """Bins of examples of about equal confidence: the number, the mean confidence and the accuracy of each bin."""

    examples: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


class CalibrationError(NamedTuple):
    """The expected calibration error over bins, the same without the part due to chance, and the interval of that."""

    plugin: float
    debiased: float
    low: float
    high: float


class Temperature(NamedTuple):
    """The best temperature on one half, with its interval, and how much it changes the NLL on the other half."""

    value: float
    low: float
    high: float
    nll_change: float
    nll_change_sem: float
    fitted: int
    judged: int


def scores(z: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """What each example says of the probabilities, (N,) each.

    confidence, the largest probability; right, whether it is that of the class; top5, whether the class is among the
    five most probable; brier, sum_k (p_k - [k = y])^2 (Brier 1950), from 0 to 2. Where a logit is not finite they are
    NaN, except right and top5, which are 0. Of equal logits the first counts as the larger.
    """
    z = np.asarray(z, float)
    finite = np.isfinite(z).all(axis=1)
    own = z[np.arange(len(y)), y][:, None]
    with np.errstate(invalid="ignore"):
        p = softmax(np.where(finite[:, None], z, np.nan), axis=1)
        before = (z > own).sum(1) + ((z == own) & (np.arange(z.shape[1]) < y[:, None])).sum(1)
    error = p.copy()
    error[np.arange(len(y)), y] -= 1
    return {
        "confidence": p.max(axis=1),
        "right": (finite & (before == 0)).astype(float),
        "top5": (finite & (before < TOP)).astype(float),
        "brier": np.square(error).sum(axis=1),
    }


def nll(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """-log p_y of each example, (N,), by log-softmax: finite wherever the logits are."""
    with np.errstate(invalid="ignore"):
        return np.asarray(-log_softmax(np.asarray(z, float), axis=1)[np.arange(len(y)), y])


def equal_mass_bins(confidence: np.ndarray, most: int) -> np.ndarray:
    """The bin of each example, (N,): up to `most` bins of about equal numbers; equal confidences share a bin."""
    place = ((scipy.stats.rankdata(confidence, "min") - 1) * most // len(confidence)).astype(int)
    return np.unique(place, return_inverse=True)[1]


def binned(confidence: np.ndarray, right: np.ndarray, bins: np.ndarray) -> Bins:
    """The number, mean confidence and accuracy of each bin."""
    count = np.bincount(bins)
    return Bins(count, np.bincount(bins, weights=confidence) / count, np.bincount(bins, weights=right) / count)


def calibration_error(
    confidence: np.ndarray, right: np.ndarray, bins: np.ndarray, *, level: float = 0.95
) -> CalibrationError:
    """ECE = sum_b (n_b / N) |accuracy_b - confidence_b| over bins (Naeini et al. 2015; Guo et al. 2017).

    Chance alone makes each |gap| positive, so that the plug-in value of a perfectly calibrated network is not 0. A gap
    is nearly normal about its true value, with the binomial variance s_b^2 (to which one more success and one more
    failure, of half weight each, are added, so that a bin without a mistake is not taken for certain). Under true gaps
    mu_b, the mean and the variance of the plug-in value are those of folded normals (Leone, Nelson & Nottingham 1961).
    Along the ray mu_b = c max(|gap_b|, s_b), c >= 0, the debiased value is the ECE whose mean plug-in value is the one
    observed; the ends of its interval are the ECEs under which a plug-in value as large, or as small, has a probability
    of (1 - level) / 2. They are NaN for fewer than LEAST_UNITS examples. The error is that of the binned probabilities;
    that of the confidences themselves can only be larger.
    """
    of = binned(confidence, right, bins)
    weight, gap = of.examples / of.examples.sum(), np.abs(of.accuracy - of.confidence)
    plugin = float(weight @ gap)
    if len(right) < LEAST_UNITS or not np.isfinite(plugin):
        return CalibrationError(plugin, np.nan, np.nan, np.nan)
    shrunk = (of.accuracy * of.examples + 0.5) / (of.examples + 1)
    s = np.sqrt(shrunk * (1 - shrunk) / of.examples)
    ray, tail = np.maximum(gap, s), (1 - level) / 2

    def excess(c: float, deviations: float) -> float:
        """How far the plug-in value lies above its mean under c plus this many of its standard deviations."""
        mean = s * np.sqrt(2 / np.pi) * np.exp(-0.5 * (c * ray / s) ** 2) + c * ray * erf(c * ray / s / np.sqrt(2))
        variance = np.square(weight) @ ((c * ray) ** 2 + s**2 - mean**2)
        return plugin - float(weight @ mean) - deviations * float(np.sqrt(variance))

    ends = []
    for deviations in (0.0, -float(ndtri(tail)), float(ndtri(tail))):
        far = 1.0
        while excess(far, deviations) > 0:
            far *= 2
        c = 0.0 if excess(0.0, deviations) <= 0 else scipy.optimize.brentq(excess, 0.0, far, args=(deviations,))
        ends.append(min(float(c * (weight @ ray)), 1.0))
    return CalibrationError(plugin, *ends)


def brier_parts(z: np.ndarray, y: np.ndarray, clusters: np.ndarray) -> dict[str, np.ndarray]:
    """The parts of each example's Brier score, (N,) each: miscalibration - discrimination + uncertainty, exactly.

    These are Murphy's parts (1973) without his bins (Dimitriadis, Gneiting & Jordan 2021). With S(q) the Brier score of
    probabilities q, r the probabilities recalibrated class by class by isotonic regression, and b the shares of the
    classes, miscalibration = S(p) - S(r), discrimination = S(b) - S(r), and uncertainty = S(b). r and b of an example
    come from the other folds of the examples, so that none flatters itself: miscalibration is what recalibration would
    really save, and is slightly below 0 for a calibrated network.
    """
    from sklearn.isotonic import IsotonicRegression

    p, fold = softmax(np.asarray(z, float), axis=1), fold_of(clusters, FOLDS)
    own, recalibrated, base = (np.zeros(len(y)) for _ in range(3))
    for k in range(p.shape[1]):
        hit = (y == k).astype(float)
        own += (p[:, k] - hit) ** 2
        for f in range(fold.max() + 1):
            here = fold == f
            fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(p[~here, k], hit[~here])
            recalibrated[here] += (fitted.predict(p[here, k]) - hit[here]) ** 2
            base[here] += (hit[~here].mean() - hit[here]) ** 2
    return {"miscalibration": own - recalibrated, "discrimination": base - recalibrated, "uncertainty": base}


def best_temperature(z: np.ndarray, y: np.ndarray) -> float:
    """The T from COLDEST to HOTTEST with the least NLL of softmax(z / T) (Guo et al. 2017).

    There is one such T, since the NLL is convex in 1 / T.
    """

    def slope(log_beta: float) -> float:
        return float(_temperature_scores(z, y, np.exp(log_beta)).mean())

    ends = -np.log(HOTTEST), -np.log(COLDEST)
    if slope(ends[0]) >= 0:
        return HOTTEST
    if slope(ends[1]) <= 0:
        return COLDEST
    return float(np.exp(-scipy.optimize.brentq(slope, *ends)))


def temperature(z: np.ndarray, y: np.ndarray, clusters: np.ndarray, *, level: float = 0.95) -> Temperature:
    """The best temperature, fitted on one half of the examples and judged on the other; no cluster is in both.

    The interval is that of an M-estimator (Huber 1967) for log T: with s_i the derivative of example i's loss by
    beta = 1 / T, the variance of beta is sum s_i^2 / (sum ds_i / dbeta)^2, with clusters summed first. It is NaN for
    halves of fewer than LEAST_UNITS clusters, and at the ends of the range, where nothing is known of the spread.
    """
    half = fold_of(clusters, 2) == 0
    a, b = half, ~half
    T = best_temperature(z[a], y[a])
    beta = 1 / T
    curvature = float(_variances(z[a], beta).sum())
    summed = np.bincount(clusters[a], weights=_temperature_scores(z[a], y[a], beta))
    enough = len(np.unique(clusters[a])) >= LEAST_UNITS and COLDEST < T < HOTTEST
    sem = float(np.sqrt(np.square(summed).sum()) / curvature / beta) if enough else np.nan
    reach = -float(ndtri((1 - level) / 2)) * sem
    change = nll(z[b] * beta, y[b]) - nll(z[b], y[b])
    mean, mean_sem = mean_and_sem(change, np.unique(clusters[b], return_inverse=True)[1])
    return Temperature(T, T * np.exp(-reach), T * np.exp(reach), mean, mean_sem, int(a.sum()), int(b.sum()))


def measured(z: np.ndarray, y: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """The means over the examples of the Brier score and its parts, with standard errors, and the temperature."""
    z = np.asarray(z, float)
    found: dict[str, float] = {}
    if not np.isfinite(z).all() or len(np.unique(clusters)) < 2:
        return found
    for name, values in {"brier": scores(z, y)["brier"], **brier_parts(z, y, clusters)}.items():
        found[name], found[f"{name}_sem"] = mean_and_sem(values, clusters)
    best = temperature(z, y, clusters)
    found |= {"temperature": best.value, "temperature_low": best.low, "temperature_high": best.high}
    return found | {"temperature_nll_change": best.nll_change, "temperature_nll_change_sem": best.nll_change_sem}


def _temperature_scores(z: np.ndarray, y: np.ndarray, beta: float) -> np.ndarray:
    """The derivative of each example's NLL at inverse temperature beta: the mean logit under p less that of y."""
    return (softmax(beta * z, axis=1) * z).sum(axis=1) - z[np.arange(len(y)), y]


def _variances(z: np.ndarray, beta: float) -> np.ndarray:
    """The variance of each example's logits under its probabilities."""
    p = softmax(beta * z, axis=1)
    return (p * np.square(z - (p * z).sum(axis=1, keepdims=True))).sum(axis=1)
