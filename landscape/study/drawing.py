"""Pictures of results files, each drawn by the analysis that its group comes from."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landscape.catalogue import entry_of
from landscape.pictures import generic
from landscape.pictures.canvas import hide_notes, relabel
from landscape.pictures.files import save_picture, save_pictures
from landscape.pictures.look import LOOK, Look, styled
from landscape.pictures.names import drawable, plain
from landscape.runtime.errors import UserError, near_matches
from landscape.runtime.files import say_once
from landscape.store.comparable import caution, differences
from landscape.study.reading import broken, load

if TYPE_CHECKING:
    from landscape.study.run import Result

Files = Mapping[str, Mapping[str, xr.Dataset]]


def draw(groups: Mapping[str, xr.Dataset], label: str = "", *, look: Look = LOOK) -> dict[str, Figure]:
    """The pictures of the groups of one file, by name; a group that breaks its picture is reported instead."""
    figures: dict[str, Figure] = {}
    for name, group in groups.items():
        with _said(name, label):
            figures |= draw_group(group, name, label, look=look)
    return figures


@contextmanager
def _said(name: str, label: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as e:  # a stranger's arrays that gave numbers may still not give a picture
        say_once(f"{label}: the group {name} cannot be drawn ({broken(e)})")


def draw_group(group: xr.Dataset, name: str, label: str = "", *, look: Look = LOOK) -> dict[str, Figure]:
    """The pictures of one group, by name: the analysis's own, or else the generic one; none for a plane."""
    entry = entry_of(group, name)
    if entry is None:
        return {}
    return _drawn(_picture(entry.picture).draw, look, drawable(group), name, f"{plain(label)}: " if label else "")


def plot(result: Result | xr.Dataset, ax: Axes | None = None, **choices: Any) -> Axes:
    """The picture of a result, or of a group of a results file, on axes of your own.

    Parameters
    ----------
    result
        What `Subject.run` gave, or one group of `landscape.load`.
    ax
        Axes, anywhere in a figure of your own; on three-dimensional axes a surface is drawn as a relief. By default
        those of a new figure of pyplot.
    choices
        Those of `Look` that concern axes: quantity, limits, mark_points, notes, title, xlabel, ylabel.

    Returns
    -------
    Axes
        The axes that were drawn on, so that `ax.figure.savefig("fig.pdf")` saves the figure.

    Raises
    ------
    UserError
        For a group whose analysis has no picture on one pair of axes.
    """
    look = Look.asked(choices)
    group = result if isinstance(result, xr.Dataset) else result.data
    entry = entry_of(group)
    picture = None if entry is None else getattr(_picture(entry.picture), "plot", None)
    if picture is None:
        raise UserError("there is no picture of this on one pair of axes; result.plot() gives what there is")
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.figure(layout="constrained").add_subplot()
    drawn: Axes = picture(drawable(group), ax, title=look.title, **_chosen(picture, look))
    if not look.notes:
        hide_notes(drawn)
    relabel(drawn, look)
    return drawn


def draw_file(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    stem: str | None = None,
    look: Look = LOOK,
) -> list[Path]:
    """Draw the pictures of one results file, beside it or in `folder`.

    stem: what the names of the pictures begin with; by default the name of the file.
    """
    path = Path(path)
    stem = stem if stem is not None and folder is not None else path.stem
    return save_pictures(draw(load(path), stem, look=look), folder or path.parent, stem, look=look)


def compare(files: Files, *, look: Look = LOOK) -> dict[str, Figure]:
    """What several results files have in common, group by group, in one picture each where the analysis has one.

    Settings in which they differ stand beside each name, and a line at the top says where their numbers cannot be
    compared for that reason.
    """
    figures: dict[str, Figure] = {}
    for name, groups in in_common(files).items():
        entry = entry_of(next(iter(groups.values())), name)
        together = None if entry is None else getattr(_picture(entry.picture), "compare", None)
        if together is not None:
            named = {plain(label): drawable(group) for label, group in groups.items()}
            with _said(name, ", ".join(groups)):
                figures |= _drawn(together, look, named, name)
    return figures


def pictures_of(
    files: Files, picture: str | None = None, *, single: bool = False, look: Look = LOOK
) -> dict[tuple[str, str], Figure]:
    """The pictures of several results files by (label, name), and those of what they have in common by ("all", name).

    picture: only those of this name. single: there must be exactly one; with several files, those in common are
    considered first.

    Raises UserError if there is none of that name, or more than one where one is needed.
    """
    common = {("all", name): figure for name, figure in compare(files, look=look).items()} if len(files) > 1 else {}
    wanted = {key: figure for key, figure in common.items() if picture in (None, key[1])}
    if not (single and wanted):
        own = {
            (label, name): f for label, groups in files.items() for name, f in draw(groups, label, look=look).items()
        }
        common |= own
        wanted |= {key: figure for key, figure in own.items() if picture in (None, key[1])}
    names = list(dict.fromkeys(name for _, name in common))
    if not wanted:
        raise UserError(f"there is no picture {picture!r}; {near_matches(str(picture), names)}" if names else
                        "there is nothing to draw")  # fmt: skip
    if single and len(wanted) > 1:
        several = ", ".join(dict.fromkeys(name for _, name in wanted))
        raise UserError(f"one file holds one picture, and there are {len(wanted)}: {several}; choose with `picture`")
    return wanted


def written(
    figures: Mapping[tuple[str, str], Figure], single: Path | None, folders: Mapping[str, Path], *, look: Look = LOOK
) -> list[Path]:
    """Write pictures, each into the folder of its file, or the only one into the file `single`; return their paths."""
    if single is not None:
        (figure,) = figures.values()
        save_picture(figure, single, look=look)
        return [single]
    places: list[Path] = []
    stems: dict[tuple[Path, str], str] = {}
    for (label, name), figure in figures.items():
        folder = folders.get(label, next(iter(folders.values())))
        usual = re.sub(r"[/\\\s]+", "_", label.strip("/.")) or "_"
        tried = chain([usual], (f"{usual}_{i}" for i in count(2)))  # two labels may give the same name
        stem = next(s for s in tried if stems.setdefault((folder, s), label) == label)
        places += save_pictures({name: figure}, folder, stem, look=look)
    return places


def _drawn(picture: Callable[..., dict[str, Figure]], look: Look, *of: Any) -> dict[str, Figure]:
    """The figures of a picture, in the style asked for; `look` is passed to pictures that have choices of their own."""
    with styled(look):
        figures = picture(*of, **_chosen(picture, look))
        for figure in figures.values():
            if not look.with_notes:
                for ax in figure.axes:
                    hide_notes(ax)
            if figure.axes:
                relabel(figure.axes[0], look, alone=True)
    return figures


def _chosen(picture: Callable[..., Any], look: Look) -> dict[str, Look]:
    return {"look": look} if "look" in inspect.signature(picture).parameters else {}


def cautions(files: Files, *, quantity: str = "loss") -> list[str]:
    """The cautions that stand on the pictures of `compare`."""
    found = {}
    for name, groups in in_common(files).items():
        with _said(name, ", ".join(groups)):
            found[name] = caution(differences(groups, quantity=quantity))
    return [f"{name}: {text}" for name, text in found.items() if text]


def in_common(files: Files) -> dict[str, dict[str, xr.Dataset]]:
    """The groups that more than one file has, by name and by the file they are in; planes are left out."""
    names = dict.fromkeys(name for groups in files.values() for name in groups)
    shared = {name: {file: groups[name] for file, groups in files.items() if name in groups} for name in names}
    return {
        name: groups
        for name, groups in shared.items()
        if len(groups) > 1 and all(entry_of(group, name) is not None for group in groups.values())
    }


def _picture(module: str | None) -> Any:
    return generic if module is None else import_module(module)
