"""How far networks differ: every ratio and difference of shares with its interval, on two axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.analyses.estimates import Estimate
from landscape.pictures.axes import log_axis
from landscape.pictures.canvas import COLORS, MARKERS, new_figure, new_row

Named = tuple[str, str, Estimate]  # what is compared, the network, and the effect


def plot_effects(effects: Sequence[Named], ax: Axes) -> None:
    """Effects of one kind (ratios or differences of shares) from top to bottom, with a colour and marker per network.

    What is compared stands at the left, with the networks beside each other in its row.
    """
    rows, networks = list(dict.fromkeys(e[0] for e in effects)), list(dict.fromkeys(e[1] for e in effects))
    ratio = effects[0][2].compared == "ratio"
    for i, network in enumerate(networks):
        own = [(rows.index(what), e) for what, name, e in effects if name == network]
        y = np.array([row for row, _ in own]) + (i - (len(networks) - 1) / 2) * 0.7 / len(networks)
        x, low, high = (np.array([getattr(e, end) for _, e in own]) * (1 if ratio else 100)
                        for end in ("value", "low", "high"))  # fmt: skip
        ax.errorbar(x, y, xerr=[x - low, high - x], fmt=MARKERS[i % len(MARKERS)], color=COLORS[i % len(COLORS)],
                    markersize=4.5, capsize=2.5, lw=1.3, label=network)  # fmt: skip
    ax.axvline(1 if ratio else 0, color="0.3", lw=0.8)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel("ratio" if ratio else "difference (points)")
    if ratio:
        log_axis(ax, "x")


def draw_effects(effects: Sequence[Named], first: str) -> Figure | None:
    """The picture of a comparison with the network `first`: ratios at the left, shares at the right; None without any
    interval.
    """
    known = [effect for effect in effects if np.isfinite(effect[2].low) and np.isfinite(effect[2].high)]
    ratios = [effect for effect in known if effect[2].compared == "ratio"]
    shares = [effect for effect in known if effect[2].compared == "difference" and effect[2].measure == "%"]
    shown = [part for part in (ratios, shares) if part]
    if not shown:
        return None
    networks = list(dict.fromkeys(name for _, name, _ in known))
    height = 1.3 + 0.16 * max(len({w for w, _, _ in part}) for part in shown) * (1 + len(networks))
    figure, axes = new_row(3.4 * len(shown), height, columns=2) if len(shown) == 2 else _alone(3.4, height)
    for part, ax in zip(shown, axes, strict=True):
        plot_effects(part, ax)
    against = f"{networks[0]} against {first}" if len(networks) == 1 else f"against {first}"
    figure.suptitle(f"{against}; 95 % intervals", fontsize="medium")
    if len(networks) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", frameon=False,
                      ncols=min(len(networks), 4), fontsize="small")  # fmt: skip
    return figure


def _alone(width: float, height: float) -> tuple[Figure, list[Axes]]:
    figure, ax = new_figure(width, height)
    return figure, [ax]
