"""Networks against one another: every number that their results files have in common, and how far they differ in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from landscape.runtime.errors import UserError, a_few
from landscape.store.comparable import caution, differences
from landscape.study.comparison import Compared, Comparison
from landscape.study.effects import compared
from landscape.study.equal_losses import at_equal_losses, common_losses
from landscape.study.trainings import LOSS, Network, Pathlike, opened
from landscape.study.words import provenance


def compare(
    *files: Pathlike,
    groups: Mapping[str, Sequence[Pathlike]] | None = None,
    losses: Sequence[float] | None = None,
) -> Comparison:
    """Compare every number that results files have in common: the differences or ratios, with intervals.

    Parameters
    ----------
    files
        Results files, each of another network, as FILE or FILE=LABEL; the others are compared with the first. A folder
        is one training, with a results file for each of its checkpoints.
    groups
        Results files of several trainings of one network, by its name; they come after `files`. Their intervals are
        over trainings and then units, and their mean is over trainings (for a ratio, the geometric mean).
    losses
        Training NLLs at which series, and results in folders, are compared by interpolation; by default three within
        the range that all of them cover.

    Returns
    -------
    Comparison
        Networks on the same frozen mini-batches or examples are compared in pairs.

    Raises
    ------
    UserError
        For fewer than two networks, the same network twice, or files with nothing to compare.
    """
    return compare_networks(opened(files, groups or {}), losses)


def compare_networks(networks: Sequence[Network], losses: Sequence[float] | None = None) -> Comparison:
    """`compare` of networks whose results files are open."""
    at, differing = common_losses([t for network in networks for t in network.trainings.values()], losses)
    first, rows = networks[0], list[Compared]()
    for second in networks[1:]:
        shared, said = _comparable(first, second)
        differing += [line for line in said if line not in differing]
        rows += _as_they_are(first, second, shared)
        rows += [row for group in shared if group in at for row in at_equal_losses(first, second, group, at[group])]
    if not rows:
        raise UserError("; ".join(["the files have no number in common that can be compared", *differing]))
    return Comparison(networks={n.name: len(n.trainings) for n in networks}, rows=rows, differing=differing,
                      remarks=_of_trainings(networks, rows))  # fmt: skip


def _comparable(first: Network, second: Network) -> tuple[list[str], list[str]]:
    """The groups whose numbers can be compared and, in words, what differs."""
    files = {f"{n.name} {name}": t.end for n in (first, second) for name, t in n.trainings.items()}
    shared = [name for name in next(iter(files.values())) if all(name in file for file in files.values())]
    kept, remarks = [], []
    for name in shared:
        found = differences({label: file[name] for label, file in files.items()})
        if cause := caution(found):
            remarks.append(f"{name}: {cause}")
            continue
        kept.append(name)
        remarks += [f"{name}: {d.setting} {' / '.join(dict.fromkeys(v or 'not stated' for v in d.values.values()))}"
                    for d in found]  # fmt: skip
    for network in (first, second):
        models = dict.fromkeys(p.get("model") for t in network.trainings.values() for g in t.end.values()
                               if (p := provenance(g)))  # fmt: skip
        if len(models) > 1:
            remarks.append(f"the trainings of {network.name} are of different networks: {a_few(map(str, models))}")
    return kept, remarks


def _as_they_are(first: Network, second: Network, shared: Sequence[str]) -> list[Compared]:
    """The numbers at the end of the trainings."""
    tables = [[training.numbers(shared) for training in n.trainings.values()] for n in (first, second)]
    common = [key for key in tables[0][0] if all(key in table for of in tables for table in of)]
    return [
        compared((first.name, second.name), group, heading, [[table[group, heading] for table in of] for of in tables])
        for group, heading in common
    ]


def _of_trainings(networks: Sequence[Network], rows: Sequence[Compared]) -> list[str]:
    """What the intervals do not say."""
    single = [n.name for n in networks if len(n.trainings) == 1]
    said = []
    if len(single) == len(networks):
        said.append("one training each: the intervals say nothing of other trainings")
    elif single:
        said.append(f"one training of {a_few(single)}: the intervals say nothing of its others")
    tested = sum(np.isfinite(row.p) for row in rows)
    if tested > 1:
        said.append(f"{tested} intervals of 95 % each: of so many, {0.05 * tested:.2g} miss by chance")
    apart = [row for row in rows if row.heading == LOSS and row.p < 0.05]
    if apart and not any(np.isfinite(row.at) for row in rows):
        said.append("the losses differ, and curvature falls with the loss: compare series at equal losses")
    return said
