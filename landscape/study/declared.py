"""What a study declares: which networks are trained, and how; what is studied; which claims are judged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from landscape.analyses.base import Analysis
from landscape.runtime.errors import UserError, a_few, near_matches
from landscape.runtime.settings import Settings
from landscape.study.claims import Claim
from landscape.study.subject import SubjectSettings
from landscape.training.recipe import Recipe

ALONE = ("similarity",)  # may take several checkpoints; a cell has it for its end alone
PATH = ("trajectory",)  # takes every checkpoint on the way
NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_.+-]*")  # names that become parts of the names of files
Share = Annotated[float, Gt(0), Le(1)]


@dataclass(frozen=True, kw_only=True)
class Variant(Settings):
    """A network of a study.

    Parameters
    ----------
    model
        A name of landscape.models, with settings in brackets, timm:NAME, or file.py:function.
    recipes
        The recipes that it is trained by; by default all of the study's.
    shares
        The shares of the training examples that it is trained on; by default all of the study's.
    analyses
        The analyses of its trainings, by their names in the study; by default all.
    """

    model: str
    recipes: tuple[str, ...] | None = None
    shares: tuple[Share, ...] | None = None
    analyses: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Group(Settings):
    """What a claim names: the trainings of a network, by one recipe on one share of the data.

    Parameters
    ----------
    network
        A network of the study.
    recipe
        One of its recipes; by default the first.
    share
        One of its shares; by default the first.
    """

    network: str
    recipe: str | None = None
    share: Share | None = None


@dataclass(frozen=True, kw_only=True)
class Moments(Settings):
    """The moments of a training at which analyses of several checkpoints look, besides its end.

    Parameters
    ----------
    epochs
        The epochs after which they look.
    losses
        The training NLLs around which they look: at the last checkpoint before and the first after each is crossed.
    """

    epochs: tuple[Annotated[int, Ge(0)], ...] = ()
    losses: tuple[Annotated[float, Gt(0)], ...] = ()

    def check(self) -> None:
        """Epochs or losses, not both."""
        if bool(self.epochs) == bool(self.losses):
            raise UserError("moments are `epochs` or `losses`: give one of the two")


@dataclass(frozen=True)
class Cell:
    """One training of a study.

    Parameters
    ----------
    network, recipe_name, share
        The network, the recipe and the share, as the study names them.
    model
        The network, as checkpoints name it.
    recipe
        The recipe in full, with seed and share.
    """

    network: str
    recipe_name: str
    share: float
    model: str
    recipe: Recipe

    @property
    def seed(self) -> int:
        """The seed of its first weights and of every draw of its training."""
        return self.recipe.seed

    @property
    def name(self) -> str:
        """Its own name, which its files have."""
        return f"{self.network}-{self.recipe_name}-{self.share:g}-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Study(Settings):
    """A declared experiment.

    Parameters
    ----------
    title
        The title of its page.
    data
        digits, torch/NAME, hfds/NAME-or-folder, or an image folder.
    networks
        The networks, by name.
    recipes
        The recipes, by name.
    shares
        Shares of the training examples, the same of each class, drawn by the training's seed.
    equal_steps
        Epochs are counted over all examples: on a share of them there are more, so that the steps are as many.
    seeds
        The seeds, each of which has a training.
    groups
        Groups of trainings, by the names that claims use; each network, by its first recipe on its first share, is also
        a group.
    moments
        When analyses of several checkpoints look; None if they do not.
    analyses
        The analyses of each training, by name.
    subject
        The settings of the loss and the frozen examples that the analyses study.
    claims
        The claims to be judged.
    interactive
        Whether the page has interactive figures, which take about 5 MB, or pictures.
    """

    title: str
    data: str
    networks: Mapping[str, Variant]
    recipes: Mapping[str, Recipe]
    shares: tuple[Share, ...] = (1.0,)
    equal_steps: bool = False
    seeds: tuple[Annotated[int, Ge(0)], ...] = (0,)
    groups: Mapping[str, Group] = field(default_factory=dict)
    moments: Moments | None = None
    analyses: Mapping[str, Analysis] = field(default_factory=dict)
    subject: SubjectSettings = field(default_factory=SubjectSettings)
    claims: tuple[Claim, ...] = ()
    interactive: bool = False

    def check(self) -> None:
        """Everything that is named exists, and has a name that files can have."""
        for what, named in {"networks": self.networks, "recipes": self.recipes, "seeds": self.seeds,
                            "shares": self.shares, "analyses": self.analyses}.items():  # fmt: skip
            if not named:
                raise UserError(f"the study has no {what}; it needs one at least")
        for what, numbers in {"seeds": self.seeds, "shares": self.shares}.items():
            if len(set(numbers)) < len(numbers):
                raise UserError(f"{what} {a_few(map(str, numbers), 9)}: one is there twice")
        for name in (*self.networks, *self.recipes, *self.groups):
            if not NAME.fullmatch(name) or len(name) > 80:
                raise UserError(f"{name!r} is no name for files: letters, digits, _ . + -, and 80 of them at most")
        for name, variant in self.networks.items():
            refuse_unknown(f"networks.{name}: recipe", variant.recipes, self.recipes)
            refuse_unknown(f"networks.{name}: share", variant.shares, self.shares)
            refuse_unknown(f"networks.{name}: analysis", variant.analyses, self.analyses)
        for name, group in self.groups.items():
            refuse_unknown(f"groups.{name}: network", [group.network], self.networks)
            refuse_unknown(f"groups.{name}: recipe", [group.recipe], self.recipes_of(group.network))
            refuse_unknown(f"groups.{name}: share", [group.share], self.shares_of(group.network))
        self._check_looking()
        self._check_groups()
        self._check_claims()

    def _check_looking(self) -> None:
        over = [analysis.name for analysis in self.analyses.values() if over_moments(analysis)]
        if over and self.moments is None:
            raise UserError(f"{over[0]} is of several checkpoints; say in [moments] at which `epochs` or `losses`")
        if self.moments is not None and not over:
            raise UserError("[moments] are for series or dynamics, and the study has neither in [analyses]")
        for epoch in self.moments.epochs if self.moments is not None else ():
            for name, recipe in self.recipes.items():
                if epoch > recipe.epochs:
                    raise UserError(f"moments.epochs {epoch} is after the end of recipes.{name}, {recipe.epochs}")

    def _check_groups(self) -> None:
        held: dict[str, str] = {}
        for name, analysis in self.analyses.items():
            if analysis.group in held:
                raise UserError(f"analyses.{name} and analyses.{held[analysis.group]} are one group of a results file, "
                                f"{analysis.group}; leave one out")  # fmt: skip
            held[analysis.group] = name

    def _check_claims(self) -> None:
        names = [claim.name for claim in self.claims]
        for claim in self.claims:
            if names.count(claim.name) > 1:
                raise UserError(f"two claims are named {claim.name}; give each a name of its own")
            if claim.at == "losses" and self.moments is None and set(claim.groups) <= set(self.all_groups):
                raise UserError(f"claim {claim.name} is at equal losses: it needs [moments], and series in [analyses]")

    def recipes_of(self, network: str) -> tuple[str, ...]:
        """The recipes by which a network is trained."""
        return self.networks[network].recipes or tuple(self.recipes)

    def shares_of(self, network: str) -> tuple[float, ...]:
        """The shares of the examples on which it is trained."""
        return self.networks[network].shares or self.shares

    def analyses_of(self, network: str) -> list[Analysis]:
        """The analyses that the trainings of a network have."""
        asked = self.networks[network].analyses
        return [analysis for name, analysis in self.analyses.items() if asked is None or name in asked]

    @property
    def all_groups(self) -> dict[str, Group]:
        """The groups that are named, and each network by its first recipe on its first share."""
        return {name: Group(network=name) for name in self.networks} | dict(self.groups)

    def cells(self) -> list[Cell]:
        """Every training, in the order that decides claims soonest: all cells of one seed before those of the next."""
        return [
            self._cell(network, recipe, share, seed)
            for seed in self.seeds
            for network in self.networks
            for recipe in self.recipes_of(network)
            for share in self.shares_of(network)
        ]

    def _cell(self, network: str, name: str, share: float, seed: int) -> Cell:
        own = self.recipes[name]
        epochs = self.in_epochs(own.epochs, share)
        warm_up = self.in_epochs(own.warmup_epochs, share)
        return Cell(network, name, share, self.networks[network].model,
                    replace(own, epochs=epochs, warmup_epochs=warm_up, fraction=share, seed=seed))  # fmt: skip

    def in_epochs(self, epochs: int, share: float) -> int:
        """Epochs over all examples, as epochs over a share of them."""
        return round(epochs / share) if self.equal_steps else epochs

    def cells_of(self, group: Group) -> list[Cell]:
        """The trainings of a group."""
        recipe = group.recipe or self.recipes_of(group.network)[0]
        share = group.share or self.shares_of(group.network)[0]
        return [self._cell(group.network, recipe, share, seed) for seed in self.seeds]


def over_moments(analysis: Analysis) -> bool:
    """Whether an analysis looks at the moments of a training."""
    return analysis.several and analysis.name not in (*ALONE, *PATH)


def refuse_unknown(what: str, asked: Any, known: Any) -> None:
    """Raise UserError, with near matches, if something is asked for by a name or number that is not known."""
    for one in asked or ():
        if one is not None and one not in known:
            raise UserError(f"{what} {one} is not in the study; {near_matches(str(one), map(str, known))}")
