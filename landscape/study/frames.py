"""Results as tables of plain numbers: the values of one group, or the numbers that files give, with their intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from landscape.analyses.estimates import Estimate
from landscape.catalogue import settings_of
from landscape.runtime.errors import UserError, a_few
from landscape.runtime.files import writing
from landscape.study.numbers import Number, numbers
from landscape.study.run import Result
from landscape.study.tables import booktabs

if TYPE_CHECKING:
    import pandas as pd

Files = Mapping[str, Mapping[str, xr.Dataset]]
WRITTEN = (".csv", ".tex", ".json", ".parquet")
BOUND = "bound"  # the dim of an estimate with its interval: each of its values gets a column


def to_dataframe(
    result: Result | xr.Dataset | Mapping[str, xr.Dataset], *, over: Sequence[str] | None = None
) -> pd.DataFrame:
    """A result as a data frame of pandas.

    Parameters
    ----------
    result
        What an analysis gave, or a group of a results file: a row for each of its units, such as each eigenvalue of
        each mini-batch, and a column for each variable along these. Or all groups of a file, as `load` gives them: a
        row for each number, with its interval, what its n counts, and how it was made.
    over
        For a group: the dims whose every index has a row; () for the variables that are a single number.

    Returns
    -------
    pandas.DataFrame
        NaN and inf as they are; a unit that is not done has NaN, and False under done.

    Raises
    ------
    UserError
        For dims along which there is no variable.
    """
    if isinstance(result, Result):
        return values_of(result.data, over)
    if isinstance(result, xr.Dataset):
        return values_of(result, over)
    if over is not None:
        raise UserError("`over` is for the values of one group; a whole file has one row per number")
    return numbers_of({"": result}).drop(columns="file")


def values_of(group: xr.Dataset, over: Sequence[str] | None = None) -> pd.DataFrame:
    """The values of a group over some of its dims, by default those that its analysis names."""
    settings = settings_of(group)
    if over is None:
        over = settings.tabled(group) if settings is not None else _largest(group)
    if unknown := [dim for dim in over if dim not in group.dims]:
        raise UserError(f"there is no dimension {a_few(unknown)}; there are {a_few(map(str, group.dims), 12)}")
    along = {name: v for name, v in _columns(group).items() if set(v.dims) <= set(over) and (v.dims or not over)}
    if not along:
        raise UserError(f"nothing is over {', '.join(over)} alone; it has values over {a_few(_forms(group), 12)}")
    if not over:
        import pandas as pd

        return pd.DataFrame([{name: v.values.item() for name, v in along.items()}])
    rows = xr.Dataset({name: v for name, v in along.items() if name not in over}, {n: along[n] for n in over})
    return rows.to_dataframe(dim_order=list(over)).reset_index()


def _columns(group: xr.Dataset) -> dict[str, xr.Variable]:
    """Every variable and coordinate as a column; an estimate with its bounds has a column for each."""
    found: dict[str, xr.Variable] = {}
    for name, variable in group.variables.items():
        if BOUND in variable.dims and BOUND in group.coords and name != BOUND:
            labels = group[BOUND].values.astype(str)
            for label in labels:
                suffix = "" if label == labels[0] else f"_{label}"
                found[f"{name}{suffix}"] = variable.isel({BOUND: list(labels).index(label)})
        else:
            of_dim = name in group.dims and variable.dims != (name,)  # the nodes of a density are along (probe, node)
            found[f"{name}_value" if of_dim else str(name)] = variable
    for dim, size in group.sizes.items():
        found.setdefault(str(dim), xr.Variable((dim,), range(size)))
    return found


def _largest(group: xr.Dataset) -> tuple[str, ...]:
    sizes = {tuple(map(str, v.dims)): v.size for v in group.data_vars.values()}
    return max(sizes, key=lambda dims: sizes[dims], default=())


def _forms(group: xr.Dataset) -> list[str]:
    return list(dict.fromkeys(f"({', '.join(map(str, v.dims))})" for v in group.data_vars.values() if v.dims))


def numbers_of(files: Files, groups: Sequence[str] = ()) -> pd.DataFrame:
    """A row for each number of results files, or only for those of `groups`."""
    import pandas as pd

    rows = [{"file": file, **_plain(number)} for file, held in files.items() for number in _chosen(held, groups)]
    return pd.DataFrame(rows, columns=["file", *NUMBERS])


NUMBERS = ("group", "of", "number", "symbol", "value", "low", "high", "confidence", "sem", "n", "counts", "how", "note")


def _plain(number: Number) -> dict[str, Any]:
    e = number.estimate
    named = {"group": number.group, "of": number.label, "number": number.heading}
    return {**named, **{name: getattr(e, name) for name in NUMBERS[len(named) :]}}


def _chosen(groups: Mapping[str, xr.Dataset], only: Sequence[str]) -> Iterator[Number]:
    yield from (number for number in numbers(groups) if not only or number.group in only)


def latex_of(files: Files, groups: Sequence[str] = ()) -> str:
    r"""The numbers as a table for LaTeX (``\usepackage{booktabs}``), a column per file and rules between analyses."""
    found: dict[tuple[str, str], dict[str, Estimate]] = {}
    for file, held in files.items():
        for number in _chosen(held, groups):
            heading = ": ".join(filter(None, (number.label, number.heading)))
            found.setdefault((number.group, heading), {})[file] = number.estimate
    blocks = [
        [[heading, *(str(by.get(file, "-")) for file in files)] for (_, heading), by in rows]
        for _, rows in groupby(found.items(), key=lambda item: item[0][0])
    ]
    return booktabs([["", *files]], *blocks)


def save_frame(frame: pd.DataFrame, path: Path, *, latex: str | None = None) -> None:
    """Write a data frame whole or not at all, by the ending: .csv, .tex, .json (a list of rows) or .parquet.

    latex: the content of a .tex, if it is not the frame. JSON has no NaN and no infinity: they are "NaN", "Infinity"
    and "-Infinity" there. Raises UserError if the file cannot be written.
    """
    with writing(path, path.suffix) as part:
        match path.suffix:
            case ".csv":
                frame.to_csv(part, index=False, na_rep="nan")
            case ".tex":
                part.write_text((latex or booktabs(_cells(frame))) + "\n", encoding="utf-8")
            case ".json":
                rows = [{k: _named(v) for k, v in row.items()} for row in frame.to_dict("records")]
                part.write_text(json.dumps(rows, indent=1, allow_nan=False), encoding="utf-8")
            case ".parquet":
                frame.to_parquet(part, index=False)


def _cells(frame: pd.DataFrame) -> list[list[str]]:
    rows = [[f"{v:.6g}" if isinstance(v, float) else str(v) for v in row] for row in frame.itertuples(index=False)]
    return [list(map(str, frame.columns)), *rows]


def _named(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
