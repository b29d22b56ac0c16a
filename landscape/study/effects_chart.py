"""How far networks differ, as figures of a page: ratios, and differences of shares, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from landscape.study.comparison import Compared, effect_in_words
from landscape.study.interactive import Figure, look, packed

ROW, AROUND = 26, 130  # pixels for each network in a row, and for the space around all rows


def effects(rows: Sequence[Compared]) -> list[Figure]:
    """A figure of the ratios and one of the differences of shares; none without an interval."""
    known = [row for row in rows if np.isfinite(row.effect.low) and np.isfinite(row.effect.high)]
    ratios = [row for row in known if row.effect.compared == "ratio"]
    shares = [row for row in known if row.effect.compared == "difference" and row.effect.measure == "%"]
    return [_figure(of, words) for of, words in ((ratios, "ratio"), (shares, "difference (points)")) if of]


def _figure(rows: Sequence[Compared], words: str) -> Figure:
    """The compared numbers from top to bottom, each a row with the networks beside each other."""
    ratio = rows[0].effect.compared == "ratio"
    names, networks = (list(dict.fromkeys(each)) for each in ((_name(r) for r in rows), (r.second for r in rows)))
    data = []
    for i, network in enumerate(networks):
        own = [row for row in rows if row.second == network]
        x, low, high = (np.array([getattr(row.effect, end) for row in own]) * (1 if ratio else 100)
                        for end in ("value", "low", "high"))  # fmt: skip
        y = np.array([names.index(_name(row)) for row in own]) + (i - (len(networks) - 1) / 2) * 0.6 / len(networks)
        data.append({
            "type": "scatter", "mode": "markers", "name": escape(network), **look(i), "x": packed(x), "y": packed(y),
            "error_x": {"type": "data", "symmetric": False, "array": packed(high - x), "arrayminus": packed(x - low)},
            "text": [escape(f"{_name(row)}: {effect_in_words(row.effect)}") for row in own], "hoverinfo": "text+name",
        })  # fmt: skip
    ticks = {"tickvals": list(range(len(names))), "ticktext": [escape(name) for name in names]}
    none: dict[str, Any] = {"type": "line", "x0": int(ratio), "x1": int(ratio), "y0": 0, "y1": 1, "yref": "paper",
                            "line": {"width": 1, "color": "#888888"}}  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": words}, "type": "log" if ratio else "linear", "zeroline": False},
        "yaxis": {**ticks, "range": [len(names) - 0.5, -0.5], "zeroline": False, "showgrid": False},
        "shapes": [none],
        "height": AROUND + ROW // 2 * len(names) * (2 + len(networks)),
    }
    first = rows[0].first
    each = "; ".join(f"{_name(row)} of {row.second}: {effect_in_words(row.effect)}" for row in rows[:8])
    more = f"; and {len(rows) - 8} more, which the tables have" if len(rows) > 8 else ""
    title = "Ratios" if ratio else "Differences of shares"
    return Figure(f"{title} to {first}" if ratio else f"{title} from {first}", f"95 % intervals. {each}{more}.",
                  data, layout, "effects")  # fmt: skip


def _name(row: Compared) -> str:
    return f"{row.heading} at NLL {row.at:.2g}" if np.isfinite(row.at) else row.heading
