"""A record of what a study's folder has results of: another study with the same names does not continue there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from landscape.runtime.errors import UserError, a_few
from landscape.runtime.files import writing
from landscape.study.cells import Places
from landscape.study.declared import Study

ANYWHERE = ("device", "root", "eval_batch_size")  # settings of the subject that do not change the numbers
NAME = "declared.json"


def refuse_another(study: Study, places: Places) -> None:
    """Raise UserError, with the differences, if something of the same name differs in the study that the folder has.

    Additional networks, recipes, shares, seeds, groups, claims and analyses do not make it another study.
    """
    path = places.folder / NAME
    try:
        there = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        stored = dict(there) if isinstance(there, Mapping) else {}
    except (OSError, ValueError) as e:
        raise UserError(f"{path} cannot be read: {' '.join(str(e).split())}; choose another folder") from e
    asked = dict(_flat("", _numbers_of(study)))
    differing = [f"{name}: {stored[name]} there, {value} asked" for name, value in asked.items()
                 if name in stored and stored[name] != value]  # fmt: skip
    if differing:
        raise UserError(f"{places.folder} has another study ({a_few(differing)}); choose another folder with `out`")


def keep(study: Study, places: Places) -> None:
    """Record what the folder has results of."""
    asked = dict(_flat("", _numbers_of(study)))
    path = places.folder / NAME
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if {**before, **asked} == before:
        return
    with writing(path) as part:
        part.write_text(json.dumps({**before, **asked}, indent=1), encoding="utf-8")


def _numbers_of(study: Study) -> dict[str, Any]:
    """What the results of the study's trainings depend on, by name."""
    subject = {f.name: getattr(study.subject, f.name) for f in fields(study.subject) if f.name not in ANYWHERE}
    analyses = {
        name: {"analysis": analysis.name} | {k: v for k, v in analysis.asdict().items() if k not in analysis.unstored}
        for name, analysis in study.analyses.items()
    }
    return {
        "data": study.data, "equal_steps": study.equal_steps, "subject": subject, "analyses": analyses,
        "networks": {name: variant.model for name, variant in study.networks.items()},
        "recipes": {name: recipe.asdict() for name, recipe in study.recipes.items()},
        "moments": None if study.moments is None else study.moments.asdict(),
    }  # fmt: skip


def _flat(at: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Dotted names with their values, as in JSON."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flat(f"{at}.{name}" if at else str(name), part)
    else:
        yield at, json.loads(json.dumps(value, default=str))
