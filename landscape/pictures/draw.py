"""A results group and a matplotlib Axes -> a picture. Nothing here knows a model."""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr
from matplotlib.figure import Figure

from landscape.pictures.canvas import caution_over, new_figure, new_row
from landscape.pictures.density import plot_density
from landscape.pictures.parts import plot_parts
from landscape.pictures.series import plot_series, plot_statistic
from landscape.pictures.spectra import plot_spectrum, spectrum_title, variant_of
from landscape.pictures.surfaces import draw_surface, side_by_side
from landscape.pictures.top import plot_top
from landscape.pictures.trace import plot_trace
from landscape.store.comparable import caution, differences


def draw(groups: Mapping[str, xr.Dataset], name: str = "", *, quantity: str = "nll") -> dict[str, Figure]:
    """The pictures of one results file, by the names of its groups; of a surface also one in relief, and its maps.

    quantity: of the surfaces: nll, loss (with its penalty), accuracy or another that they have.
    """
    figures: dict[str, Figure] = {}
    prefix = f"{name}: " if name else ""
    for group, data in groups.items():
        analysis = data.attrs.get("config", {}).get("analysis", group)
        variant = variant_of(data)
        if "part" in data.dims:
            figures[group], ax = new_figure(6.4, max(3.0, 1.4 + 0.2 * data.sizes["part"]))
            per = data.attrs.get("config", {}).get("per") or "part"
            plot_parts(data, ax, title=f"{prefix}{variant} eigenvalues per {per}\n")
        elif analysis == "surface":
            figures |= draw_surface(data, group, prefix, quantity=quantity)
        elif analysis == "spectrum":
            figures[group], ax = new_figure(6.4, 4.1)
            plot_spectrum({name or "spectrum": data}, ax, title=spectrum_title([data], prefix))
        elif analysis == "top":
            figures[group], ax = new_figure(5.6, 3.8)
            plot_top(data, ax, title=f"{prefix}top {variant} eigenvalues, whole data\n")
        elif analysis in ("density", "trace"):
            figures[group], ax = new_figure(6.4, 4.0)
            plot = plot_density if analysis == "density" else plot_trace
            what = "spectral density" if analysis == "density" else "trace"
            plot(data, ax, title=f"{prefix}{what} of the {variant}" + "\n" * (analysis == "trace"))
        elif analysis == "series":
            figures[group], ax = new_figure(6.4, 4.0)
            plot_series(data, ax, title=f"{prefix}Hessian eigenvalues over checkpoints")
    return figures


def compare(files: Mapping[str, Mapping[str, xr.Dataset]], *, quantity: str = "nll") -> dict[str, Figure]:
    """What several results files have in common, in one picture each: their spectra, NEP and APE of their series, and
    their surfaces on one scale. In what their settings differ is said beside each name, and a line on top says where
    their numbers cannot be compared for it.

    files: the groups of each file, by its name. Only surfaces of two dimensions stand side by side.
    """
    spectra, series, surfaces = (comparable_groups(files)[group] for group in ("spectrum", "series", "surface"))
    figures = {"spectra": overlay(spectra)} if spectra else {}
    if len(series) > 1:
        figures["series"], axes = new_row(12.0, 4.2, columns=2)
        for statistic, ax in zip(("nep", "ape"), axes, strict=True):
            plot_statistic(series, statistic, ax)
        figures["series"].legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
        caution_over(figures["series"], caution(differences(series)))
    if len(surfaces) > 1:
        figures["surfaces"] = side_by_side(surfaces, quantity=quantity)
        figures["surfaces_3d"] = side_by_side(surfaces, quantity=quantity, relief=True)
    return figures


def cautions(files: Mapping[str, Mapping[str, xr.Dataset]], *, quantity: str = "loss") -> list[str]:
    """The cautions that stand on the pictures of `compare`."""
    found = {group: caution(differences(those, quantity=quantity)) for group, those in comparable_groups(files).items()}
    return [f"{group}: {text}" for group, text in found.items() if text]


def comparable_groups(files: Mapping[str, Mapping[str, xr.Dataset]]) -> dict[str, dict[str, xr.Dataset]]:
    """What `compare` draws: the groups of each name, by the file they are in."""
    wanted = {
        "spectrum": lambda groups: "spectrum" in groups,
        "series": lambda groups: "summary" in groups.get("series", {}),
        "surface": lambda groups: "y" in groups.get("surface", {}),
    }
    return {
        group: {name: groups[group] for name, groups in files.items() if has(groups)} for group, has in wanted.items()
    }


def overlay(spectra: Mapping[str, xr.Dataset]) -> Figure:
    """The spectra of several results files in one picture."""
    figure, ax = new_figure(6.4, 3.8 + 0.27 * len(spectra))
    plot_spectrum(spectra, ax, title=spectrum_title(list(spectra.values())))
    return figure
