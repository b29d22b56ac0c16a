"""How a picture is drawn and written: what a user chooses, and how it goes together with a matplotlib style."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import AfterValidator, FiniteFloat

from landscape.pictures.names import typeset
from landscape.runtime.errors import UserError, near_matches
from landscape.runtime.settings import Settings

WIDTHS = {"single": 3.31, "double": 6.85}  # inches: 84 and 174 mm, which the columns of most journals take
Words = Annotated[str, AfterValidator(typeset)]
FORMATS: tuple[Literal["png", "pdf", "svg"], ...] = ("png", "pdf", "svg")


@dataclass(frozen=True, kw_only=True)
class Look(Settings):
    """How pictures are drawn and written.

    Parameters
    ----------
    quantity
        What surfaces show: nll, loss (with its penalty), accuracy, or another quantity that they have.
    format
        png, pdf or svg; fonts are embedded.
    dpi
        Dots per inch; by default 150, or 300 if a width is given.
    width
        single or double for a column (84 mm) or a page (174 mm) of a paper, or inches; by default for a screen.
    style
        A matplotlib style, as a name or a file. Your matplotlibrc applies in any case.
    title
        The title, instead of the picture's own; "" for none.
    xlabel, ylabel
        The labels of the axes, instead of the picture's own.
    limits
        The range of colours, or of the heights of a curve, such as 0,3.
    scale
        The scale of surfaces: linear, cut off at a height that keeps the minima visible; or log, above the minimum.
    spectra
        What spectra of mini-batches show over the ticks of every eigenvalue: ecdf, the share of eigenvalues up to each
        value; or density, smoothed by a kernel, as Park & Kim draw it.
    mark_points
        Mark every point of a surface's grid.
    notes
        Small lines on how the numbers were made; by default on pictures for a screen, and otherwise only in the
        description within the file.
    """

    quantity: str = "nll"
    format: Literal["png", "pdf", "svg"] = "png"
    dpi: Annotated[int, Ge(10), Le(2400)] | None = None
    width: Literal["single", "double"] | Annotated[FiniteFloat, Ge(0.5), Le(100)] | None = None
    style: str | None = None
    title: Words | None = None
    xlabel: Words | None = None
    ylabel: Words | None = None
    limits: tuple[FiniteFloat, FiniteFloat] | None = None
    scale: Literal["linear", "log"] = "linear"
    spectra: Literal["ecdf", "density"] = "ecdf"
    mark_points: bool = False
    notes: bool | None = None

    def check(self) -> None:
        """The limits must be a range, and a picture no larger than what is drawn on takes."""
        if (side := (self.inches or WIDTHS["double"]) * (self.dpi or 150)) > 20_000:
            raise UserError(f"width={self.width} at dpi={self.dpi} are {side:.0f} pixels; there can be 20000")
        if self.limits is not None and self.limits[0] >= self.limits[1]:
            raise UserError(f"limits={self.limits[0]:g},{self.limits[1]:g} must be the lower limit, then the higher")
        if self.style is not None:
            with _context(self.style):
                pass

    @property
    def inches(self) -> float | None:
        """The width of the picture; None for that of a screen."""
        return WIDTHS[self.width] if isinstance(self.width, str) else self.width

    @property
    def with_notes(self) -> bool:
        """Whether there are small lines."""
        return self.width is None if self.notes is None else self.notes


LOOK = Look()


def format_of(path: Path, look: Look = LOOK) -> Literal["png", "pdf", "svg"]:
    """The format that a file's ending names. Raises UserError if it names none, or another than was asked for."""
    for known in FORMATS:
        if path.suffix == f".{known}":
            if look.format not in (known, LOOK.format):
                raise UserError(f"{path} is not a .{look.format}; leave out `format`, or give a name in .{look.format}")
            return known
    raise UserError(f"{path}: a picture is a .png, .pdf or .svg; or give a folder, without an ending")


@contextmanager
def styled(look: Look = LOOK) -> Iterator[None]:
    """The matplotlib settings under which pictures are drawn and saved: the user's, and ours where these say nothing.

    Raises UserError for a style that does not exist or is not valid.
    """
    import matplotlib

    with _context(look.style), matplotlib.rc_context(_ours(look)):
        yield


@contextmanager
def _context(name: str | None) -> Iterator[None]:
    from matplotlib import style

    context = style.context(name or [])
    try:
        context.__enter__()
    except (OSError, ValueError) as e:  # the latter for a file that is not text
        known = f"; {near_matches(str(name), style.available)}" if name not in style.available else ""
        raise UserError(f"style={name!r} is no matplotlib style{known}") from e
    try:
        yield
    finally:
        context.__exit__(None, None, None)


def _ours(look: Look) -> Any:
    from matplotlib import rcParams, rcParamsDefault

    held: Any = rcParams
    shipped: Any = rcParamsDefault
    wished: dict[str, Any] = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.hashsalt": "landscape", "figure.dpi": 150,
                              "savefig.dpi": 150}  # fmt: skip
    inches = look.inches
    if inches is not None:
        wished |= {"savefig.dpi": 300, "font.size": 8, "axes.titlesize": "medium", "axes.linewidth": 0.6,
                   "xtick.major.width": 0.6, "ytick.major.width": 0.6}  # fmt: skip
    ours = {key: value for key, value in wished.items() if held[key] == shipped[key]}
    if inches is not None:
        ours["figure.figsize"] = (inches, 0.65 * inches)
    if look.dpi is not None:
        ours["savefig.dpi"] = look.dpi
    return ours
