"""Networks compared: each number of one network beside that of another, as a table, CSV, LaTeX or a data frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from landscape.analyses.contrasts import Contrast
from landscape.analyses.estimates import Estimate
from landscape.study.tables import aligned, as_html, booktabs

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One number of two networks, and how they differ.

    Parameters
    ----------
    group, heading
        The analysis, and the number: "spectrum", "APE".
    at
        The training NLL of the comparison; NaN for the networks as they are.
    first, second
        The names of the networks; the second is compared with the first.
    of_first, of_second
        The number of each network: for several trainings, the mean over them.
    effect
        The difference second - first, or the ratio second / first, with its interval.
    contrast
        The effect on the scale that it was computed on (logarithms for a ratio), with its variances.
    trainings
        The number of trainings of each network.
    """

    group: str
    heading: str
    first: str
    second: str
    of_first: Estimate
    of_second: Estimate
    effect: Estimate
    contrast: Contrast
    trainings: tuple[int, int]
    at: float = np.nan

    @property
    def p(self) -> float:
        """The two-sided p-value of no difference; NaN if the bounds are certain, or no interval is known."""
        return self.contrast.p if self.effect.confidence < 1 else np.nan

    def __str__(self) -> str:
        """The effect: "+20.6 points [14.1, 27.2]", "x 0.81 [0.74, 0.88]"."""
        return effect_in_words(self.effect)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `landscape.compare` found.

    Attributes
    ----------
    networks
        The number of trainings of each network, by name; the others are compared with the first.
    rows
        One for each number and network compared.
    differing
        In words, how the files differ, and what could not be compared for that reason.
    remarks
        What the intervals do not say.
    """

    networks: dict[str, int]
    rows: list[Compared]
    differing: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """The table, with its remarks below."""
        blocks = ["\n".join(aligned(self.cells(second))) for second in self.seconds]
        return "\n".join(["\n\n".join(blocks), *self.differing, *self.remarks])

    def _repr_html_(self) -> str:
        """The same in a notebook."""
        tables = "".join(as_html(self.cells(second)) for second in self.seconds)
        return tables + "".join(f"<div>{escape(line)}</div>" for line in (*self.differing, *self.remarks))

    def to_dataframe(self) -> pd.DataFrame:
        """A row for each number and network, with columns of plain numbers and words."""
        import pandas as pd

        return pd.DataFrame([_plain(row) for row in self.rows])

    def to_latex(self) -> str:
        r"""A table for LaTeX with the rules of booktabs (``\usepackage{booktabs}``), one for each network compared."""
        return "\n\n".join(booktabs([row[:-1] for row in self.cells(second)]) for second in self.seconds)

    def plot(self) -> Figure | None:
        """The ratios and the differences of shares with their intervals; None if there is no interval."""
        from landscape.pictures.effects import draw_effects

        named = [(f"{row.heading} at NLL {row.at:.2g}" if np.isfinite(row.at) else row.heading, row.second, row.effect)
                 for row in self.rows]  # fmt: skip
        return draw_effects(named, next(iter(self.networks)))

    @property
    def seconds(self) -> list[str]:
        """The networks that are compared with the first."""
        return list(dict.fromkeys(row.second for row in self.rows))

    def cells(self, second: str) -> list[list[str]]:
        """The table of one network against the first, with its heading first."""
        rows = [row for row in self.rows if row.second == second]
        if not rows:
            return []
        several = any(np.isfinite(row.at) for row in rows)
        named = [f"{name} ({self.networks[name]} trainings)" if self.networks[name] > 1 else name
                 for name in (rows[0].first, second)]  # fmt: skip
        heading = ["", *(["training NLL"] if several else []), *named, f"{second} against {rows[0].first}", ""]
        ambiguous = {r.heading for r in rows if len({o.group for o in rows if o.heading == r.heading}) > 1}
        found = [heading]
        for row in rows:
            name = f"{row.heading} ({row.group})" if row.heading in ambiguous else row.heading
            at = [f"{row.at:.3g}" if np.isfinite(row.at) else "at the end"] if several else []
            found.append([name, *at, str(row.of_first), str(row.of_second), str(row), row.effect.how])
        return found


def effect_in_words(effect: Estimate) -> str:
    """A difference with its sign, in points for shares; a ratio with a times sign."""
    if not np.isfinite(effect.value):
        return "-"
    ratio = effect.compared == "ratio"
    scale = 100 if effect.measure == "%" and not ratio else 1
    point, low, high = (scale * x for x in (effect.value, effect.low, effect.high))
    mark = "*" if effect.note else ""
    shown = f"x {point:.3g}{mark}" if ratio else f"{point:+.3g}{mark}{' points' if scale == 100 else ''}"
    return shown if np.isnan(low) else f"{shown} [{low:.3g}, {high:.3g}]"


def _plain(row: Compared) -> dict[str, object]:
    """One row of the data frame."""
    e = row.effect
    ends = {
        f"{which}{end}": getattr(of, name)
        for which, of in (("first", row.of_first), ("second", row.of_second))
        for end, name in (("_value", "value"), ("_low", "low"), ("_high", "high"))
    }
    return {
        "analysis": row.group, "estimate": row.heading, "training_nll": row.at, "first": row.first,
        "second": row.second, "first_trainings": row.trainings[0], "second_trainings": row.trainings[1], **ends,
        "compared_by": e.compared, "effect": e.value, "low": e.low, "high": e.high, "confidence": e.confidence,
        "p": row.p, "how": e.how, "note": e.note,
    }  # fmt: skip
