"""Statistics of per-mini-batch spectra, from their eigenvalues: NEP, APE and the medians of the extremes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from landscape.analyses.estimates import Estimate, in_place
from landscape.analyses.intervals import Interval, median, median_influence, positive_ratio, share
from landscape.objective.clusters import LEAST_UNITS, standard_error

ADDED = ("summary", "summarized", "unconverged", "statistic", "bound")  # what `summarize` gives


def summarize(spectrum: xr.Dataset, *, confidence: float = 0.95) -> xr.Dataset:
    """Statistics of a per-mini-batch spectrum, with intervals over mini-batches, for each part or checkpoint it has.

    nep: share of the gathered eigenvalues that are negative (`share`). ape: mean of the positive ones
    (`positive_ratio`; NaN without one). largest, smallest: medians over mini-batches of the extreme gathered
    eigenvalues (`median`). Mini-batches with an eigenvalue that is not a number are left out; ranks that no mini-batch
    has, of a part of fewer parameters than k, are not eigenvalues. An interval over fewer than LEAST_UNITS mini-batches
    is NaN. Intervals take the eigenvalues as they are: they contain no error of those that have not converged.

    `benchmarks/intervals.py` measures how often 95 % intervals over 8 to 64 mini-batches with 5 eigenvalues each cover
    the truth (800 samples each, of the ten spectra of results/study and of made-up ones): NEP .93 to .98, and up to
    .995 where few different counts are possible; APE .94 to .98, with two exceptions; largest and smallest .93 to .97.
    The first exception: where one mini-batch in 32 has 56 % of the sum of the positive eigenvalues (AlterNet, 1,000
    images), a sample without it cannot know of it, and the APE's interval covers .51, .65, .73 and .86 of the time at
    8, 16, 32 and 64. The second: where the logarithms are skewed too (ResNet, 1,000 images), it covers .85 of the time
    at 8, and .95 or more from 16 on. In the first case the low end holds, and withholding intervals does not help:
    samples that miss the large mini-batch look tamer than others, so that among the intervals left by a limit on the
    largest share, on the spread of the logarithms, or on Hill's index, fewer cover the truth.

    Parameters
    ----------
    spectrum
        With dims (..., batch, rank), as `hessian_spectrum` and `hessian_series` give it.
    confidence
        The confidence of the intervals.

    Returns
    -------
    xarray.Dataset
        summary (..., statistic, bound), bound being estimate, low, high; and, of each part or checkpoint, summarized,
        the number of mini-batches that count, and unconverged, the share of their eigenvalues that have not converged
        (NaN where the spectrum does not say).
    """
    eigenvalue = spectrum["eigenvalue"].transpose(..., "batch", "rank")
    leading, e = eigenvalue.dims[:-2], eigenvalue.values
    shape = e.shape[:-2]
    known = "converged" in spectrum
    converged = spectrum["converged"].transpose(*eigenvalue.dims).values if known else np.ones(e.shape, bool)
    summary = np.full((*shape, len(_STATISTICS), 3), np.nan)
    summarized, unconverged = np.zeros(shape, int), np.full(shape, np.nan)
    for index in np.ndindex(shape):
        rows, ranks = _gathered(e[index])
        gathered = e[index][np.ix_(rows, ranks)]
        summarized[index] = len(gathered)
        if gathered.size:
            summary[index] = [statistic(gathered, confidence) for statistic in _STATISTICS.values()]
            unconverged[index] = 1 - converged[index][np.ix_(rows, ranks)].mean() if known else np.nan
    about = {
        "long_name": f"statistics with {confidence:.0%} intervals over mini-batches",
        "confidence": confidence,
        "n": "summarized",
        "n_counts": "mini-batches",
        "least_n": LEAST_UNITS,
        "how": "nep: share; ape: positive_ratio; largest, smallest: median (landscape.analyses.intervals)",
    }
    return xr.Dataset(
        {
            "summary": ((*leading, "statistic", "bound"), summary, about),
            "summarized": (leading, summarized, {"long_name": "mini-batches that the summary counts"}),
            "unconverged": (leading, unconverged, {"long_name": "share of their eigenvalues not converged"}),
        },
        {"statistic": list(_STATISTICS), "bound": list(Interval._fields)},
    )


def statistics_of(group: xr.Dataset) -> xr.Dataset | None:
    """`summarize` of a stored group, so that a file of any version is shown with this version's intervals.

    None for a group without a summary, such as an unfinished one.
    """
    return summarize(group) if "summary" in group and "eigenvalue" in group else None


def summary_estimates(spectrum: xr.Dataset) -> list[Estimate]:
    """The NLL of the mini-batches of a spectrum, the extreme eigenvalues, NEP and APE."""
    found = []
    if "nll" in spectrum:
        done = spectrum["done"].values.astype(bool)
        nll = spectrum["nll"].values[done]
        if len(nll):
            found.append(
                Estimate(name="training NLL", value=float(nll.mean()), sem=float(standard_error(nll)), n=len(nll),
                         counts="mini-batches", how="standard error over mini-batches", compared="ratio",
                         influence=in_place(done, nll - nll.mean()))
            )  # fmt: skip
    statistics = statistics_of(spectrum)
    if statistics is None:
        return found
    unconverged, n = float(statistics["unconverged"]), int(statistics["summarized"])
    note = f"{unconverged:.1%} of these eigenvalues have not converged, and the intervals do not know their error"
    influences = _influences(spectrum["eigenvalue"].transpose("batch", "rank").values)
    for statistic, (name, symbol, how) in _WORDS.items():
        value, low, high = statistics["summary"].sel(statistic=statistic).values.tolist()
        found.append(
            Estimate(name=name, symbol=symbol, value=value, low=low, high=high, n=n, counts="mini-batches",
                     measure="%" if statistic == "nep" else "", how=how, note=note if unconverged > 0 else "",
                     compared="ratio" if statistic in ("ape", "largest") else "difference",
                     influence=influences.get(statistic))
        )  # fmt: skip
    return found


_WORDS = {
    "largest": ("largest", "", "order statistics over mini-batches"),
    "smallest": ("smallest", "", "order statistics over mini-batches"),
    "nep": ("NEP", "NEP", "Bayesian bootstrap over mini-batches"),
    "ape": ("APE", "APE", "the furthest of t, lognormal and Hall's interval over mini-batches"),
}


def _influences(e: np.ndarray) -> dict[str, np.ndarray]:
    """What each mini-batch of e (batch, rank) adds to each statistic, linearised; NaN for one that does not count."""
    rows, ranks = _gathered(e)
    x = e[np.ix_(rows, ranks)]
    if not x.size:
        return {}
    above = x > 0
    hits, count = (x < 0).sum(axis=1), above.sum(axis=1)
    found = {"nep": (hits - hits.mean()) / x.shape[1]}
    if above.any():
        found["ape"] = (np.where(above, x, 0).sum(axis=1) - x[above].mean() * count) / count.mean()
    for name, extreme in (("largest", x.max(axis=1)), ("smallest", x.min(axis=1))):
        found[name] = median_influence(extreme)
    counts = np.isin(np.arange(len(e)), rows)
    return {name: in_place(counts, values) for name, values in found.items()}


def _gathered(e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mini-batches and the ranks of e (batch, rank) whose eigenvalues are gathered."""
    ranks = ~np.isnan(e).all(axis=0)
    rows = np.isfinite(e[:, ranks]).all(axis=1) & ranks.any()
    return np.flatnonzero(rows), np.flatnonzero(ranks)


def _nep(e: np.ndarray, confidence: float) -> Interval:
    return share((e < 0).sum(axis=1), e.shape[1], confidence=confidence)


def _ape(e: np.ndarray, confidence: float) -> Interval:
    return positive_ratio(np.where(e > 0, e, 0).sum(axis=1), (e > 0).sum(axis=1), confidence=confidence)


def _largest(e: np.ndarray, confidence: float) -> Interval:
    return median(e.max(axis=1), confidence=confidence)


def _smallest(e: np.ndarray, confidence: float) -> Interval:
    return median(e.min(axis=1), confidence=confidence)


_STATISTICS: dict[str, Callable[[np.ndarray, float], Interval]] = {
    "nep": _nep,
    "ape": _ape,
    "largest": _largest,
    "smallest": _smallest,
}
