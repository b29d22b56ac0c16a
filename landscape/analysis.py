"""From a checkpoint to its results file and pictures: what the commands do, step by step."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure

from landscape import distributed, plots, store
from landscape.builders import builder
from landscape.checkpoints import load_checkpoint
from landscape.data import FrozenData, MissingSplit, load_data
from landscape.errors import UserError, a_few
from landscape.files import alone
from landscape.fitting import ARGUMENTS, Fit, best_reading, closest, fitting
from landscape.intervals import LEAST_UNITS, standard_error
from landscape.measures import describe_measures
from landscape.objective import Objective
from landscape.penalty import formula, in_heights, in_trace, loss_label
from landscape.resumable import Save, refuse_other
from landscape.spectrum_plots import with_sources
from landscape.stated import stated, stated_network
from landscape.summaries import statistics_of
from landscape.weights import Checkpoint, is_checkpoint, read_checkpoint

RECIPE = ("auto_augment", "mixup", "cutmix", "smoothing")


@dataclass(frozen=True)
class Subject:
    """A network and the data it is studied on; what its checkpoint says of its recipe holds where nothing was asked."""

    model: torch.nn.Module
    provenance: dict[str, Any]
    data: str
    data_settings: dict[str, Any]
    objective_settings: dict[str, Any]
    part: dict[str, Any]  # of the training split that it was trained on
    progress: bool

    def frozen(
        self,
        *,
        split: str = "train",
        transform: str = "train",
        samples: int | None = None,
        at_most: int | None = None,
    ) -> FrozenData:
        """Examples of a split, drawn once; how many, as in `load_data`."""
        settings = dict(self.data_settings)
        if transform == "eval":
            settings = {k: v for k, v in settings.items() if k not in RECIPE}
        if split == "train":
            settings |= self.part
        return load_data(
            self.data,
            split=split,
            transform=transform,
            samples=samples,
            at_most=at_most,
            progress=self.progress,
            **settings,
        )

    def objective(self, data: FrozenData) -> Objective:
        return Objective(self.model, data, provenance=self.provenance, **self.objective_settings)


def open_subject(
    checkpoint: str | os.PathLike[str],
    model: str | None,
    data: str,
    *,
    device: str,
    seed: int = 0,
    eval_batch_size: int = 256,
    num_classes: int | None = None,
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    weight_decay: float = 0.0,
    penalty: str = "l2",
    recipe: Mapping[str, Any] | None = None,
    root: str | None = None,
    download: bool = True,
    progress: bool = False,
) -> Subject:
    """Load the network, and settle each setting: as asked, else as the checkpoint's metadata has it, else the default.

    recipe: auto_augment, mixup, cutmix and smoothing, None where not asked.
    download: whether data that are not here may be fetched.
    weight_decay: of a penalty to study with the loss. The recipe's is not taken over: a decoupled one, as of AdamW,
        belongs to no loss that was ever minimised.

    Raises UserError for a form of penalty without a weight_decay.
    """
    if penalty != "l2" and not weight_decay:
        raise UserError(f"--penalty {penalty} adds nothing without its lambda; give that with --weight-decay")
    network, provenance = load_checkpoint(
        checkpoint, model, num_classes=num_classes, image_size=image_size, device=device
    )
    metadata = provenance["metadata"]
    asked = {"mean": mean, "std": std, **{key: (recipe or {}).get(key) for key in RECIPE}}
    settled = {key: value if value is not None else stated(metadata, key, checkpoint) for key, value in asked.items()}
    data_settings = {
        **{key: value for key, value in settled.items() if value not in (None, "none", "")},
        "image_size": provenance["image_size"] or image_size,
        "in_channels": provenance["in_channels"],
        "num_classes": provenance["num_classes"],
        "batch_size": eval_batch_size,
        "seed": seed,
        "root": root,
        "download": download,
    }
    objective_settings = {"weight_decay": weight_decay, "penalty": penalty, "device": device}
    fraction, drawn = (stated(metadata, key, checkpoint) for key in ("fraction", "seed"))
    part = {"fraction": 1.0 if fraction is None else fraction, "fraction_seed": drawn or 0}
    return Subject(network, provenance, data, data_settings, objective_settings, part, progress)


def into(
    path: str | os.PathLike[str],
    group: str,
    compute: Callable[[xr.Dataset | None, Save], xr.Dataset],
    **beside: xr.Dataset,
) -> xr.Dataset:
    """Compute a group of a results file, going on from what the file has of it, and store it.

    compute: from (the stored group or None, a function that stores an unfinished one) to the finished one. Under
        torchrun each process computes, and the first alone writes. Another run of the same group is waited for.
    beside: groups that are stored together with it, once it has found that it may go on.
    """
    path = Path(path)
    writes = distributed.rank() == 0
    with alone(path, group) if writes else nullcontext():
        stored = store.stored(path, group) if writes else None
        if stored is None and writes:  # a place that cannot be written is better known before than after
            store.save(path)
        stored = distributed.from_first(stored)
        result = compute(stored, lambda unfinished: store.save(path, **{group: unfinished}, **beside))
        if writes:
            store.save(path, **{group: result}, **beside)
    return result


def evaluate_test(subject: Subject, out: str | os.PathLike[str] | None = None) -> xr.Dataset | None:
    """Accuracy and NLL on the test split, each with its standard error over examples; None without such a split.

    out: a results file to keep them in, and to take them from where it has those of the same network and data.
    """
    try:
        data = subject.frozen(split="test", transform="eval")
    except MissingSplit:
        return None
    objective = subject.objective(data)
    config = json.loads(json.dumps({"analysis": "test", "objective": _without_penalty(objective.config())}))

    def compute(stored: xr.Dataset | None, _: Save | None = None) -> xr.Dataset:
        if stored is not None:
            there = stored.attrs.get("config", {})
            refuse_other({**there, "objective": _without_penalty(there.get("objective", {}))}, config)
            return stored
        values = objective.evaluate().asdict()
        kept = {name: values[name] for name in ("nll", "nll_sem", "accuracy", "accuracy_sem", "examples")}
        return xr.Dataset(kept, attrs={"config": config})

    return compute(None) if out is None else into(out, "test", compute)


def _without_penalty(objective: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of an objective of which only the NLL and the accuracy are used."""
    return {key: value for key, value in objective.items() if key not in ("weight_decay", "penalty", "decay")}


def save_pictures(figures: Mapping[str, Figure], folder: str | os.PathLike[str], stem: str) -> list[Path]:
    """Write each figure as FOLDER/STEM-NAME.png, and say where. Raises UserError where that cannot be written."""
    folder = Path(folder)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            path = folder / f"{stem}-{name}.png"
            figure.savefig(path, metadata={"Software": None}, bbox_inches="tight", pad_inches=0.08)
            written.append(path)
    except OSError as e:
        raise UserError(f"cannot write pictures into {folder}: {e.strerror or e}; choose another place") from e
    return written


def draw_file(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    quantity: str = "nll",
    stem: str | None = None,
) -> list[Path]:
    """The pictures of one results file, beside it or in `folder`.

    quantity: what is drawn of its surfaces. stem: what their names begin with; None for the file's own.
    """
    path = Path(path)
    stem = stem if stem is not None and folder is not None else path.stem
    return save_pictures(plots.draw(store.load(path), stem, quantity=quantity), folder or path.parent, stem)


HEADINGS = ("network", "parameters", "test accuracy", "training NLL", "largest", "smallest", "NEP", "APE")


def table(files: Mapping[str, Mapping[str, xr.Dataset]]) -> str:
    """One row a results file: parameters, test accuracy, NLL of the mini-batches, median largest and smallest
    eigenvalue per batch, NEP, APE; and one a checkpoint of a series.

    Accuracy with its standard error over examples, the NLL over mini-batches, the others with their intervals over
    mini-batches, as `summarize` gives them; "-" where a file does not have it, and no error below LEAST_UNITS
    mini-batches. A star marks statistics of eigenvalues not all of which have converged; lines below say so.
    """
    notes: dict[str, None] = {}
    rows = [HEADINGS, *(row for name, groups in files.items() for row in _rows(name, groups, notes))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *notes])


def _rows(name: str, groups: Mapping[str, xr.Dataset], notes: dict[str, None]) -> Iterator[tuple[str, ...]]:
    parameters = next((p for g in groups.values() if (p := _provenance(g).get("parameters"))), None)
    size = f"{parameters:,}" if parameters else "-"
    series = groups.get("series", xr.Dataset())
    if "test" in groups or "spectrum" in groups or "summary" not in series:
        accuracy = percent(groups["test"]) if "test" in groups else "-"
        yield name, size, accuracy, *_statistics(name, groups.get("spectrum", xr.Dataset()), notes)
    if "summary" in series:
        for label in series["checkpoint"].values:
            row = f"{name}: {label}"
            yield row, size, "-", *_statistics(row, series.sel(checkpoint=label), notes)


def _statistics(name: str, spectrum: xr.Dataset, notes: dict[str, None]) -> Iterator[str]:
    if "nll" in spectrum:
        nll = spectrum["nll"].values[spectrum["done"].values]
        error = f" +- {standard_error(nll):.2g}" if len(nll) >= LEAST_UNITS else ""
        yield f"{nll.mean():.3g}{error}" if len(nll) else "-"
    else:
        yield "-"
    statistics = statistics_of(spectrum)
    if statistics is None:
        yield from ["-"] * 4
        return
    star = "*" if statistics["unconverged"] > 0 else ""
    if star:
        share = f"{float(statistics['unconverged']):.1%}"
        notes[
            f"* {name}: {share} of these eigenvalues have not converged, and the intervals do not know their error"
        ] = None
    if statistics["summarized"] < LEAST_UNITS:
        notes[f"no interval and no standard error is given for fewer than {LEAST_UNITS} mini-batches"] = None
    for statistic, form in (("largest", ".3g"), ("smallest", ".3g"), ("nep", ".1%"), ("ape", ".3g")):
        estimate, low, high = statistics["summary"].sel(statistic=statistic).values
        interval = f" [{low:{form}}, {high:{form}}]" if np.isfinite(low) else ""
        yield f"{estimate:{form}}{star}{interval}" if np.isfinite(estimate) else "-"


def percent(test: xr.Dataset) -> str:
    """Accuracy in per cent with its standard error."""
    return f"{100 * float(test['accuracy']):.2f} +- {100 * float(test['accuracy_sem']):.2f} %"


def _provenance(group: xr.Dataset) -> dict[str, Any]:
    return group.attrs.get("config", {}).get("objective", {}).get("provenance", {})


def _centre(surface: xr.Dataset) -> str:
    """The NLL where the network itself stands, and the largest standard error within a quarter of the range of it."""
    axes = [axis for axis in ("x", "y") if axis in surface.dims]
    if "nll_sem" not in surface or any(0 not in surface[axis] for axis in axes):
        return ""
    here = surface.sel(dict.fromkeys(axes, 0.0))
    near = surface["nll_sem"]
    for axis in axes:
        near = near.where(abs(near[axis]) <= abs(surface[axis]).max() / 4)
    largest = float(near.max())
    centre = f"NLL {float(here['nll']):.4g} +- {float(here['nll_sem']):.2g} at the centre"
    return f"{centre}, errors up to {largest:.2g} near it"


def describe(name: str, group: xr.Dataset) -> str:
    """One line on a group: what it is, how much of it is done, its settings, and what did not converge or diverged."""
    config = group.attrs.get("config", {})
    plain = {k: v for k, v in config.items() if not isinstance(v, dict) and k != "analysis" and v is not None}
    parts = [", ".join(f"{k}={v}" for k, v in plain.items())]
    if "done" in group:
        done = group["done"].values
        parts.append(f"{done.sum()} of {done.size} done")
    if "converged" in group:
        pairs = group["converged"].values[np.isfinite(group["eigenvalue"].values)]
        marked = ", and every statistic of them is marked *" if "summary" in group and not pairs.all() else ""
        parts.append(f"{(~pairs).sum()} of {pairs.size} eigenvalues not converged{marked}")
        if "complete" in group and config.get("method") != "pyhessian":
            unsure = int((group["done"] & ~group["complete"]).sum())
            parts.append(f"{unsure} searches stopped before nothing could be missing" if unsure else "")
        parts.append(f"{int(group['products'].sum())} Hessian products")
    if "nll" in group and "loss" in group and "done" in group:
        parts.append(_centre(group))
        diverged = int((group["done"] & ~np.isfinite(group["nll"])).sum())
        finite = group["nll"].values[np.isfinite(group["nll"].values)]
        lowest = f"NLL {finite.min():.4g} at the lowest, " if finite.size else ""
        parts.append(f"{lowest}{diverged} points diverged")
        share = in_heights(group)
        parts.append(f"loss = {loss_label(group)}, {share}" if share else "")
        if {"gradient_norm", "eigenvalue_high"} & set(group.data_vars) and formula(config):
            parts.append(f"gradient and eigenvalues with the penalty {formula(config)}")
    elif "penalty" not in group:
        parts.append(in_trace(group))
    if "interpolated" in group:
        filled = group["interpolated"].values.astype(bool)
        error = group["nll_error"].values[filled] if "nll_error" in group else np.zeros(0)
        error = error[np.isfinite(error)]
        upto = f", nll_error up to {error.max():.2g}" if error.size else ""
        held = f" to the larger of {config['adaptive']:g} and nll_sem" if config.get("adaptive") else ""
        parts.append(f"{filled.sum()} points interpolated{held}{upto}" if filled.any() else "")
    parts += describe_measures(group)
    if "source" in config:
        source = config["source"]
        parts.append(f"imported from {source['file']}, {source['format']}, sha256 {source['sha256']}")
    if "trace" in group:
        parts.append(f"trace {with_sources(group, 'trace')}")
        parts.append(f"squared Frobenius norm {with_sources(group, 'frobenius_squared')}")
    if name == "test":
        parts.append(f"accuracy {percent(group)} of {int(group['examples'])}")
    return f"{name}: " + "; ".join(p for p in parts if p)


def describe_file(path: Path) -> str:
    """What a checkpoint or a results file holds, and where it came from."""
    if is_checkpoint(path):
        return _describe_checkpoint(path)
    groups = store.load(path)
    origins = [p for g in groups.values() if (p := _provenance(g))]
    lines = [f"{path}: results of {origins[0]['model']}, {origins[0]['file']}" if origins else f"{path}: results"]
    if origins:
        lines.append(f"checkpoint sha256 {origins[0]['sha256']}")
    lines += [describe(name, group) for name, group in groups.items()]
    software: dict[str, str] = next((g.attrs["software"] for g in groups.values() if "software" in g.attrs), {})
    lines.append("made with " + ", ".join(f"{name} {version}" for name, version in software.items()))
    return "\n".join([*lines, table({path.stem: groups})])


def _describe_checkpoint(path: Path) -> str:
    checkpoint = read_checkpoint(path)
    tensors = list(checkpoint.state.values())
    held = f"{len(tensors)} tensors, {sum(t.numel() for t in tensors):,} numbers"
    where = f" under {checkpoint.container!r}" if checkpoint.container else ""
    where += f" (not read: {a_few(map(repr, checkpoint.beside))})" if checkpoint.beside else ""
    prefix = f", prefix {checkpoint.prefix!r} removed" if checkpoint.prefix else ""
    left_out = checkpoint.left_out(checkpoint.prefix)
    prefix += f", without {a_few(left_out)}" if left_out else ""
    lines = [f"{path}: {held}{where}{prefix}", f"sha256 {checkpoint.sha256}", _describe_fits(checkpoint)]
    lines += [f"{k}: {_short(v)}{_hint(k, v)}" for k, v in sorted(checkpoint.metadata.items())]
    return "\n".join(lines)


def _hint(key: str, value: Any) -> str:
    if key != "weight_decay" or not value:
        return ""
    return f" (of the optimiser; no analysis adds it to the loss unless asked: --weight-decay {value})"


def _describe_fits(checkpoint: Checkpoint) -> str:
    fits = fitting(checkpoint.state)
    try:
        named = stated_network(checkpoint.metadata, "the file")
        asked = {k: stated(checkpoint.metadata, k, "the file") for k in ARGUMENTS}
    except UserError as e:
        return f"{_describe_closest(checkpoint, fits)}; {e}"
    if named is not None:
        build, name = builder(*named)
        fit = best_reading(build, name, checkpoint.spellings, asked)
        if fit is not None and not fit.differing:
            fits = [fit, *(other for other in fits if other.model != name)]
    return _describe_closest(checkpoint, fits)


def _describe_closest(checkpoint: Checkpoint, fits: list[Fit]) -> str:
    if fits:
        return "fits the networks: " + ", ".join(map(str, fits))
    near = closest(checkpoint.state)
    if near is None:
        return "fits the networks: none of this toolkit's, nor nearly"
    return f"fits the networks: none of this toolkit's; nearly {near}, but for {near.differences()}"


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 6:
        return f"{value[0]} ... {value[-1]} ({len(value)} entries)"
    return str(value)
