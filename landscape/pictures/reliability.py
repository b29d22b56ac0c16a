"""The reliability diagram of a `test` group: how often a network is right, against how sure it is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.pictures.canvas import MARKERS, caution_over, fitted, head, own_title, style
from landscape.runtime.errors import UserError
from landscape.store.comparable import caution, differences


def plot_reliability(tests: Mapping[str, xr.Dataset], diagram: Axes, histogram: Axes | None = None) -> None:
    """Accuracy against confidence over bins of about equal mass, with intervals of the accuracies; the diagonal is
    perfect calibration. Below it, the share of examples by confidence.
    """
    diagram.plot([0, 100], [0, 100], color="0.5", lw=0.8)
    edges = np.linspace(0, 100, 21)
    for i, (name, test) in enumerate(tests.items()):
        x, accuracy, low, high = (
            100 * test[f"bin_{part}"].values for part in ("confidence", "accuracy", "accuracy_low", "accuracy_high")
        )
        ece = 100 * np.array([float(test[part]) for part in ("ece", "ece_low", "ece_high")])
        interval = f" [{ece[1]:.1f}, {ece[2]:.1f}]" if np.isfinite(ece[1]) else ""
        label = f"{name}: " * (len(tests) > 1) + f"ECE {ece[0]:.1f}{interval} %"
        bars = np.maximum([accuracy - low, high - accuracy], 0)
        diagram.errorbar(x, accuracy, yerr=bars, **style(i), marker=MARKERS[i % len(MARKERS)], markersize=4, capsize=2,
                         lw=1.2, label=label)  # fmt: skip
        if histogram is not None:
            confidence = 100 * test["confidence"].values
            share = 100 * np.histogram(confidence, edges)[0] / len(confidence)
            histogram.stairs(share, edges, **style(i), fill=len(tests) == 1, alpha=0.6 if len(tests) == 1 else 1)
    diagram.set(ylabel="accuracy (%)", xlim=(0, 100), ylim=(-2, 102))
    (histogram or diagram).set_xlabel("confidence (%)")
    if histogram is not None:
        histogram.set(ylabel="share of\nexamples (%)", ylim=(0, None))


def plot(group: xr.Dataset, ax: Axes, *, title: str | None = None) -> Axes:
    """The reliability diagram alone, on axes.

    Raises UserError for a group that is not of a classification, or that is older than the diagram.
    """
    if "bin_accuracy" not in group:
        raise UserError(
            "this test has no confidences to draw: it is not of a classification, or older than their being stored"
        )
    plot_reliability({"": group}, ax)
    ax.legend(frameon=False, fontsize="small")
    head(ax, own_title(title, "reliability"), [_note(group)])
    return ax


def _note(group: xr.Dataset) -> str:
    return f"{int(group['examples'])} examples in {group.sizes['bin']} bins of about equal mass"


def _figure() -> tuple[Figure, Axes, Axes]:
    figure = Figure(figsize=fitted(4.6, 5.0), layout="constrained")
    diagram, histogram = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    return figure, diagram, histogram


def draw(group: xr.Dataset, name: str, prefix: str = "") -> dict[str, Figure]:
    """The reliability diagram; none for a group that is not of a classification, or that is older than the diagram."""
    if "bin_accuracy" not in group:
        return {}
    figure, diagram, histogram = _figure()
    plot_reliability({name: group}, diagram, histogram)
    figure.legend(loc="outside lower center", frameon=False, fontsize="small")
    head(diagram, f"{prefix}reliability", [_note(group)])
    return {f"{name}_reliability": figure}


def compare(groups: Mapping[str, xr.Dataset], name: str) -> dict[str, Figure]:
    """The reliability diagrams of several results files in one."""
    tests = {label: group for label, group in groups.items() if "bin_accuracy" in group}
    if len(tests) < 2:
        return {}
    figure, diagram, histogram = _figure()
    diagram.set_title("Reliability")
    plot_reliability(tests, diagram, histogram)
    figure.legend(loc="outside lower center", frameon=False, fontsize="small")
    caution_over(figure, caution(differences(tests)))
    return {f"{name}_reliability": figure}
