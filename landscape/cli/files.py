"""Commands on existing files: show them, draw them, and import from or export to other software."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from landscape.cli.options import default_of, options_of, refuse_no_results_file, settled, with_commas
from landscape.pictures.look import Look, format_of
from landscape.runtime.errors import UserError, near_matches
from landscape.runtime.visible import say

Over = Annotated[tuple[str, ...] | None, Parameter(converter=with_commas, n_tokens=1)]
Quiet = Annotated[bool, Parameter(name=("--quiet", "-q"))]


def show(*files: str) -> None:
    """Show what a file holds and where it came from; for several results files, show one table.

    Example: landscape show vit.h5

    Parameters
    ----------
    files
        Checkpoints or results files; each may have a label of its own: FILE=LABEL.
    """
    from landscape.checkpoints.names import is_checkpoint
    from landscape.study.files import labelled
    from landscape.study.reading import load
    from landscape.study.words import describe_file, every_group, table

    if not files:
        raise UserError("show needs a file: a checkpoint or a results file")
    named = labelled(files)
    results = {label: file for label, file in named.items() if not is_checkpoint(file)}
    if len(results) > 1:
        held = {label: load(file) for label, file in results.items()}
        say(f"{table(held)}\n\n{every_group(held)}")
    for label, file in named.items():
        if len(results) < 2 or label not in results:
            say(describe_file(file))


def plot(*files: str, out: Path | None = None, picture: str | None = None, quiet: Quiet = False, look: Any) -> None:
    """Draw results files; if there are several, also draw what they have in common on one scale.

    Example: landscape plot resnet.h5=ResNet vit.h5=ViT --picture spectra --width single --out figure.pdf

    Parameters
    ----------
    files
        Results files, each with a label if you like: FILE=LABEL.
    out
        The folder for the pictures, by default that of each file; or the one file to write: fig.pdf, .svg or .png.
    picture
        Draw only this picture, by its name: spectrum, surface, surface_3d, spectra, ...
    quiet
        Print no report.
    look
        How they are drawn.
    """
    from landscape.study.drawing import cautions, pictures_of, written
    from landscape.study.files import labelled
    from landscape.study.reading import load

    if not files:
        raise UserError("plot needs a results file")
    named, chosen = labelled(files), settled(Look, look)
    single = None
    if out is not None and not out.is_dir() and out.suffix[1:].isalpha():  # a folder may be called study_0.1
        single = out
        chosen = replace(chosen, format=format_of(out, chosen))
    groups = {name: load(file) for name, file in named.items()}
    figures = pictures_of(groups, picture, single=single is not None, look=chosen)
    folders = {name: out or file.parent for name, file in named.items()}
    for place in written(figures, single, folders, look=chosen):
        if not quiet:
            say(f"wrote {place}")
    for line in cautions(groups, quantity=chosen.quantity) if len(files) > 1 else []:
        say(line, error=True)


plot.__annotations__ = {
    "files": str,
    "out": Path | None,
    "picture": str | None,
    "quiet": Quiet,
    "look": options_of(Look),
    "return": None,
}
plot.__kwdefaults__ = {**(plot.__kwdefaults__ or {}), "look": default_of(plot, "look")}


def import_(
    file: Path, *, out: Path, weight_decay: float | None = None, overwrite: bool = False, quiet: Quiet = False
) -> None:
    """Import a surface computed by other software into a results file.

    Example: landscape import cifar100_vit_ti_losslandscape.csv --out vit.h5 --weight-decay 0.05

    Parameters
    ----------
    file
        The CSV of the reference study, a CSV with a header, or the HDF5 of Li et al.
    out
        The results file (.h5) to write; other analyses in it are kept.
    weight_decay
        lambda of the study's penalty, lambda * sum of norms; by default no penalty is added.
    overwrite
        Replace another surface in the file.
    quiet
        No report.
    """
    from landscape import store
    from landscape.study.reading import stored as stored_group
    from landscape.study.words import describe
    from landscape.surfaces.imports import import_surface
    from landscape.surfaces.measures import measure

    refuse_no_results_file(out)
    imported = import_surface(file, weight_decay=weight_decay)
    imported = imported.merge(measure(imported), combine_attrs="override")
    stored = stored_group(out, "surface", damaged=overwrite)
    if stored is not None and stored.attrs.get("config") != imported.attrs["config"] and not overwrite:
        raise UserError(f"{out} has another surface already; choose another place, or replace it with --overwrite")
    store.save(out, surface=imported)
    if not quiet:
        say(f"wrote {out}\n{describe('surface', imported)}")


def export(
    *files: str,
    out: Path,
    group: str | None = None,
    numbers: bool = False,
    over: Over = None,
    quantity: str = "nll",
    quiet: Quiet = False,
) -> None:
    """Export results for other software: the values of a group or the numbers with intervals as a table, or a surface.

    Example: landscape export vit.h5=ViT resnet.h5=ResNet --numbers --out table.tex

    Parameters
    ----------
    files
        Results files, each with a label if you like: FILE=LABEL; more than one only with --numbers.
    out
        The file to write: .csv, .tex (booktabs), .json or .parquet; for a surface also .npz, and .vtu or .vtk for
        ParaView.
    group
        The analysis to export; by default the surface, and with --numbers all of them.
    numbers
        Export the numbers found, with their intervals: one row per number, and in a .tex one column per file.
    over
        For values, the dimensions that get rows, such as batch,rank; by default those of the units.
    quantity
        The height of the relief in ParaView: nll, loss, accuracy, or another quantity.
    quiet
        No report.
    """
    from landscape.study.files import labelled
    from landscape.study.frames import WRITTEN, latex_of, numbers_of, save_frame, values_of
    from landscape.study.reading import contents
    from landscape.surfaces.exports import WRITERS, export_surface

    endings = WRITTEN if numbers else (*dict.fromkeys((*WRITERS, *WRITTEN)),)
    if out.suffix not in endings:
        raise UserError(f"--out {out} must end in one of {', '.join(endings)}")
    if not files:
        raise UserError("export needs a results file")
    if len(files) > 1 and not numbers:
        raise UserError(f"the values of {len(files)} files make no single table; export each, or their --numbers")
    held = {label: contents(file) for label, file in labelled(files).items()}
    wanted = "surface" if group is None and not numbers else group
    for label, found in held.items():
        if wanted in found.bad:
            raise UserError(f"{label}: its {wanted} cannot be exported: {found.bad[wanted]}")
        if wanted is not None and wanted not in found.groups:
            raise UserError(f"{label} has no group {wanted!r}; {near_matches(wanted, found.groups)}")
    groups = {label: found.groups for label, found in held.items()}
    if numbers:
        only = [] if wanted is None else [wanted]
        save_frame(numbers_of(groups, only), out, latex=latex_of(groups, only))
    else:
        (one,) = groups.values()
        values = one[str(wanted)]
        if out.suffix in WRITERS and over is None and ("x" in values.dims or out.suffix not in WRITTEN):
            export_surface(values, out, quantity=quantity)
        else:
            save_frame(values_of(values, over), out)
    if not quiet:
        say(f"wrote {out}")
