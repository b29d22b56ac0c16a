"""The command that trains."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from landscape.cli.options import default_of, options_of, settled
from landscape.runtime.visible import say
from landscape.study.training import Training, carry_out, stated_drop_path
from landscape.training.recipe import Recipe
from landscape.training.recipe import recipe as named_recipe


def train(*, what: Any, how: Any) -> None:
    """Train a network, and save it with all that an analysis needs to know of it; started again, it continues.

    Example: landscape train --model vit_xs --data digits --out vit.safetensors
    """
    from landscape.runtime import processes
    from landscape.runtime.devices import chosen_device

    asked = settled(Training, what)
    override = {f.name: getattr(how, f.name) for f in fields(Recipe)}
    if override["drop_path"] is None:
        override["drop_path"] = stated_drop_path(asked.model)
    recipe = named_recipe(asked.recipe, **override)
    losses = carry_out(asked, recipe)
    if asked.quiet or processes.rank() != 0:
        return
    if losses is None:
        say(f"{asked.out} has this training, finished; nothing to do")
        return
    accuracy = _test_accuracy(asked, recipe.seed, chosen_device(asked.device))
    say(f"wrote {asked.out}: training loss {losses[-1]:.4g}, {accuracy}")


train.__annotations__ = {"what": options_of(Training), "how": options_of(Recipe, optional=True), "return": None}
train.__kwdefaults__ = {"how": default_of(train, "how")}


def _test_accuracy(asked: Training, seed: int, device: str) -> str:
    from landscape.analyses.test import Test
    from landscape.data.sources import MissingSplit
    from landscape.study.subject import Subject, SubjectSettings

    settings = SubjectSettings(model=asked.model, data=asked.data, device=device, seed=seed, root=asked.root)
    try:
        accuracy = Subject(asked.out, settings, progress=True).run(Test()).estimates[0]
    except MissingSplit:
        return "no test split found"
    return f"test accuracy {accuracy}"
