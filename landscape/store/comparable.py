"""Results side by side: in which settings they differ, and whether their numbers can still be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from landscape.runtime.errors import a_few

KINDS = {
    "hessian": "Hessian",
    "ggn": "Gauss-Newton matrix",
    "residual": "Hessian minus Gauss-Newton",
    "fisher": "Fisher matrix",
    "fisher_mc": "Monte-Carlo Fisher matrix",
}
METHODS = {"lanczos": "Lanczos", "pyhessian": "PyHessian"}
MIXING = ("auto_augment", "mixup", "cutmix", "smoothing")


Config = Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """A setting that some results do not share.

    Attributes
    ----------
    setting
        The name of the setting.
    values
        Its values in words, by the name of the result; "" if one is not stated.
    decisive
        Whether numbers under different values are different quantities; otherwise only their errors, or their
        resolution, differ.
    """

    setting: str
    values: Mapping[str, str]
    decisive: bool


def differences(groups: Mapping[str, xr.Dataset], *, quantity: str = "loss") -> list[Difference]:
    """The settings in which groups of one analysis differ, by their stored configurations, the decisive ones first.

    Networks are what is compared, so their weights, input sizes and normalisation are not differences; nor are seeds,
    or different names for the same examples. A setting that some files state and others do not is a difference.

    quantity: for surfaces, what is compared; "nll" and "accuracy" do not depend on the penalty.
    """
    configs = {name: group.attrs.get("config", {}) for name, group in groups.items()}
    found = []
    for setting, decisive, words in _settings(configs, quantity):
        values = {name: words(groups[name], config) for name, config in configs.items()}
        if len(set(values.values())) > 1:
            found.append(Difference(setting, values, decisive))
    return sorted(found, key=lambda difference: not difference.decisive)


def caution(found: Iterable[Difference]) -> str:
    """One line on what keeps numbers from being compared; "" if nothing does."""
    decisive = [difference for difference in found if difference.decisive]
    parts = [" / ".join(dict.fromkeys(d.values.values())) for d in decisive if all(d.values.values())]
    unstated = [d.setting for d in decisive if not all(d.values.values())]
    parts += [f"{', '.join(unstated)} not stated of all"] if unstated else []
    return f"not comparable: {'; '.join(parts)}" if parts else ""


def distinctions(found: Iterable[Difference], name: str) -> list[str]:
    """The values of one result, in words, for every setting that differs."""
    values = {difference.setting: difference.values[name] for difference in found}
    unstated = [setting for setting, value in values.items() if not value]
    return [*filter(None, values.values()), *([f"{', '.join(unstated)} not stated"] if unstated else [])]


def minibatches_of(group: xr.Dataset) -> str:
    """How many mini-batches a group has, "3 of 8" if it is unfinished; "" for the whole data."""
    if "batch" not in group.dims:
        return ""
    size = group.sizes["batch"]
    done = size
    if "done" in group and "batch" in group["done"].dims:
        done = int(group["done"].all([dim for dim in group["done"].dims if dim != "batch"]).sum())
    return str(size) if done == size else f"{done} of {size}"


Words = Callable[[xr.Dataset, Config], str]


def _settings(configs: Mapping[str, Config], quantity: str) -> list[tuple[str, bool, Words]]:
    """Settings as (name, whether decisive, the value of a group in words, or "" if it is not stated)."""
    of_surfaces = {config.get("analysis") for config in configs.values()} == {"surface"}
    contents = {_objective(config).get("data_sha256") for config in configs.values()}
    same_examples = len(contents) == 1 and None not in contents
    return [
        ("k", True, _stated("k", "k = {}")),
        ("which", True, _stated("which", "{}")),
        ("matrix", True, lambda _, config: KINDS.get(config.get("kind", "hessian"), "")),
        ("method", True, lambda _, config: METHODS.get(config.get("method", "lanczos"), "")),
        ("batch size", True, _stated("batch_size", "batch size {}")),
        ("blocks", True, lambda _, config: f"per {config['per']}" if config.get("per") else "whole"),
        ("parameters", True, _parameters),
        ("directions", True, _directions),
        ("range", True, _range),
        ("BatchNorm", True, _batchnorm),
        ("loss", True, lambda _, config: str(_objective(config).get("loss", ""))),
        *([] if of_surfaces and quantity != "loss" else [("penalty", True, _penalty)]),
        *([] if same_examples else [("data", True, _data), ("transform", True, _transform), ("part", False, _part)]),
        ("examples", False, _examples),
        ("tolerance", False, _stated("tol", "tol {}")),
        ("probes", False, _stated("probes", "{} probes")),
        ("steps", False, _stated("steps", "{} steps")),
        ("estimator", False, _stated("estimator", "{}")),
        ("grid", False, _grid),
        ("precision", False, _precision),
    ]


def _stated(key: str, form: str) -> Words:
    return lambda _, config: form.format(config[key]) if config.get(key) is not None else ""


def _objective(config: Config) -> Config:
    found: Config = config.get("objective", {})
    return found


def _parameters(_: xr.Dataset, config: Config) -> str:
    plane = config.get("plane", {})
    chosen = config.get("parameters") or plane.get("parameters")  # a density has their number here, which is no choice
    some = f"only {a_few(chosen)}" if isinstance(chosen, list) else "all parameters"
    return f"{some}, biases too" if plane.get("biases") else some


def _directions(_: xr.Dataset, config: Config) -> str:
    plane = config.get("plane", {})
    known = {"random": "random directions", "eigenvectors": "Hessian eigenvectors", "pca": "principal components",
             "interpolation": "from network to network", "checkpoints": "towards networks"}  # fmt: skip
    words = known.get(plane.get("directions", ""), "")
    return f"{plane['normalize']}-normalised {words}" if words and plane.get("normalize") else words


def _range(group: xr.Dataset, _: Config) -> str:
    ends = [(float(group[axis].min()), float(group[axis].max())) for axis in ("x", "y") if axis in group.coords]
    return " by ".join(dict.fromkeys(f"from {low:.3g} to {high:.3g}" for low, high in ends))


def _grid(group: xr.Dataset, _: Config) -> str:
    sizes = [str(group.sizes[axis]) for axis in ("x", "y") if axis in group.sizes]
    return f"{' x '.join(sizes)} points" if sizes else ""


def _batchnorm(_: xr.Dataset, config: Config) -> str:
    form = config.get("batchnorm", "stored")
    return "stored BatchNorm" if form == "stored" else "recalibrated BatchNorm"


def _penalty(_: xr.Dataset, config: Config) -> str:
    objective = _objective(config)
    if "weight_decay" not in objective:
        return ""
    form = "" if objective.get("penalty", "l2") == "l2" else f"{objective['penalty']} "
    decay = objective["weight_decay"]
    return f"{form}penalty {decay:g}" if decay else "no penalty"


def _data(_: xr.Dataset, config: Config) -> str:
    data = _objective(config).get("data", {})
    return f"{data['name']}, {data.get('split', 'train')}" if data.get("name") else ""


def _transform(_: xr.Dataset, config: Config) -> str:
    data = _objective(config).get("data", {})
    mixed = [f"{key} {data[key]}" for key in MIXING if data.get(key)]
    return ", ".join([f"{data['transform']} transform", *mixed]) if data.get("transform") else ""


def _part(_: xr.Dataset, config: Config) -> str:
    share = _objective(config).get("data", {}).get("fraction") or [1.0]
    return f"{100 * share[0]:.3g} % of the training data" if share[0] != 1 else "all training data"


def _examples(group: xr.Dataset, config: Config) -> str:
    batches = minibatches_of(group)
    n = _objective(config).get("examples")
    return f"{batches} mini-batches" if batches else f"{n} examples" if n else ""


def _precision(_: xr.Dataset, config: Config) -> str:
    of_data = _objective(config).get("dtype", "float32")
    return str(config.get("precision", of_data) if of_data == "float32" else of_data)
