"""Random directions, normalised to the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch

import numpy as np
import torch
from torch import Tensor, nn

from landscape.objective.networks import refuse_lazy, unwrapped
from landscape.objective.parameters import Direction, chosen
from landscape.planes.filters import Filters, filters_of
from landscape.planes.plane import Plane, _inner, config_of
from landscape.runtime.errors import UserError

NORMALIZATIONS = ("filter", "layer", "weight", "column", "none")
POSITION_EMBEDDINGS = (
    "*pos_emb*", "*position_emb*", "*positional_e*", "*relative_position*", "*rel_pos*", "*attention_biases*",
    "*wpe.weight",
)  # fmt: skip


def normalized(d: Tensor, theta: Tensor, normalize: str, filters: Filters | None = None) -> Tensor:
    """The direction `d` normalised to the weights `theta`, which have the same shape.

    Parameters
    ----------
    d
        The direction.
    theta
        The weights.
    normalize
        filter: d_f / ||d_f|| * ||theta_f|| for each filter f (Li et al. 2018, sec. 4). layer: d / ||d|| * ||theta||;
        weight: d * theta, elementwise (both as in the code of Li et al.). column: like filter, with norms over axis 0,
        that is, across filters (as in the code of Park & Kim). none: d as drawn. For vectors (biases, norms, scales),
        which are one filter, filter and column are the same as layer. So they are where a filter or column would have a
        single number, because only the sign of that would be random.
    filters
        How theta splits into filters, as `landscape.planes.filters.filters_of` gives it; by default along axis 0.

    Returns
    -------
    Tensor
        The normalised direction, 0 where the norm of d is 0.

    Raises
    ------
    UserError
        For an unknown normalisation.
    """
    filters = filters or Filters(vector=theta.ndim < 2)
    if normalize == "filter":
        norms = filters.norms
    elif normalize == "layer" or (normalize == "column" and (filters.vector or theta.shape[0] == 1)):
        norms = Filters(vector=True).norms
    elif normalize == "column":
        norms = _column_norms
    elif normalize == "weight":
        return d * theta
    elif normalize == "none":
        return d
    else:
        raise UserError(f"normalize={normalize!r} is not one of {', '.join(NORMALIZATIONS)}")
    norm = norms(d)
    return torch.where(norm > 0, d / norm * norms(theta), torch.zeros_like(d))


def _column_norms(t: Tensor) -> Tensor:
    return torch.linalg.vector_norm(t, dim=0, keepdim=True).expand_as(t)


def random_plane(
    model: nn.Module,
    *,
    normalize: str = "filter",
    seed: int = 0,
    exclude: Sequence[str] = POSITION_EMBEDDINGS,
    parameters: str | Sequence[str] | None = None,
    biases: bool = False,
    frozen: bool = False,
    orthogonal: bool = False,
    dims: int = 2,
) -> Plane:
    """`dims` random Gaussian directions, normalised.

    They are drawn from `seed` on the CPU, whatever the device of the model.

    Parameters
    ----------
    model
        The network, the caller's or an objective's, to whose weights the directions are normalised.
    normalize
        filter, layer or weight, as in Li et al.; column, over axis 0, as in the code of Park & Kim; or none.
    seed
        The seed of the draws.
    exclude
        Patterns of the names of parameters that do not move, by default position embeddings. Buffers never move.
    parameters
        Names or patterns (`layer1.*`; a name stands for all below it) of the parameters that move; None for all.
    biases
        Move vectors too, each as one filter, with draws of their own. By default they stay ("biasbn" in the code of Li
        et al.). Vectors are biases, norms of any number of dimensions, scales of one number per filter or head
        (weight_norm's, temperatures), and class tokens, which are added to every example as a bias is. A parameter of
        one number never moves: its direction would be +-theta.
    frozen
        Move parameters that require no gradient too. By default they stay, as in the training that froze them.
    orthogonal
        Make the directions orthogonal to each other, in the inner product over all parameters, and still normalised.
    dims
        How many directions: 2, or 1 for a line.

    Returns
    -------
    Plane
        The directions, with these settings as its configuration.

    Raises
    ------
    UserError
        If nothing is left to move, or if the directions cannot be made orthogonal.

    Examples
    --------
    Each filter of a direction has the norm of the network's own filter:

    >>> import torch
    >>> import landscape as ls
    >>> network = torch.nn.Linear(5, 3)
    >>> plane = ls.random_plane(network, seed=1)
    >>> plane
    Plane(2 random directions of 15 parameters, filter-normalised)
    >>> d = plane.directions[0]["weight"]
    >>> torch.allclose(d.norm(dim=1), network.weight.norm(dim=1))
    True
    """
    model = unwrapped(model)
    generator = torch.Generator().manual_seed(seed)
    among = None if parameters is None else chosen(model, parameters).keys()
    filters = filters_of(model)
    refuse_lazy(model)
    theta = {
        name: p.detach().to("cpu", torch.float64)
        for name, p in model.named_parameters()
        if (biases or not filters[name].vector)
        and p.numel() > 1
        and (frozen or p.requires_grad)
        and (among is None or name in among)
        and not any(fnmatch(name, pattern) for pattern in exclude)
    }
    if not theta:
        raise UserError(
            "no parameter is left to move: a direction takes those of two or more dimensions that require a gradient "
            f"and whose name matches none of {', '.join(exclude) or 'the exclusions'}"
        )
    drawn: list[dict[str, Tensor]] = []
    for _ in range(dims):
        draws = {n: torch.randn(p.shape, generator=generator, dtype=torch.float64) for n, p in model.named_parameters()}
        d = {name: normalized(draws[name], t, normalize, filters[name]) for name, t in theta.items()}
        drawn.append(_orthogonal_to(drawn, d, theta, normalize, filters) if orthogonal else d)
    like = dict(model.named_parameters())
    directions = tuple({name: t.to(like[name]) for name, t in d.items()} for d in drawn)
    config = {
        "directions": "random",
        "normalize": normalize,
        "seed": seed,
        "exclude": list(exclude),
        "parameters": [parameters] if isinstance(parameters, str) else parameters,
        "biases": biases,
        "orthogonal": orthogonal,
        **({"frozen": True} if frozen else {}),
    }
    return Plane(directions, config_of(config, directions))


def _orthogonal_to(
    others: Sequence[Direction],
    d: dict[str, Tensor],
    theta: Mapping[str, Tensor],
    normalize: str,
    filters: Mapping[str, Filters],
) -> dict[str, Tensor]:
    # Projecting changes the norms a little, and normalising the angles: repeated in turn, both come to hold.
    for _ in range(200):
        norms = [np.sqrt(_inner(d, d) * _inner(e, e)) for e in others]
        if not all(norms):  # the direction lies in the span of the others
            break
        if all(abs(_inner(d, e)) < 1e-12 * norm for e, norm in zip(others, norms, strict=True)):
            return d
        for e in others:
            share = _inner(d, e) / _inner(e, e)
            d = {name: t - share * e[name] for name, t in d.items()}
        if normalize not in ("weight", "none"):
            d = {name: normalized(t, theta[name], normalize, filters[name]) for name, t in d.items()}
    raise UserError(
        f"{len(others) + 1} directions of this network cannot be both orthogonal and {normalize}-normalised; "
        "it has too few weights to a filter: leave out orthogonal, or normalise by layer"
    )
