"""How much of Park & Kim's relative log amplitudes does a network show that was never trained?

python results/features/untrained.py hfds/path/to/cifar10
prints a table, and draws untrained.png beside this script.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn

import landscape as ls
from landscape.pictures.canvas import COLORS, LINES, MARKERS, new_row

IMAGES = 40
# Figures 2a and 8 of Park & Kim (2022), read off the vector graphics of the authors' own slides; trained on ImageNet.
STUDY = {
    "resnet50": [
        -6.62, -5.65, -5.44, -5.25, -3.52, -3.73, -3.65, -3.68, -2.62, None, None, None, None, -2.58,
        -1.03, -1.09, -1.04,
    ],
    "vit_tiny_patch16_224": [
        -1.78, -1.89, -2.65, -2.17, -2.54, -2.17, -2.37, -2.50, -2.49, -2.67, -2.45, -2.66, -2.53, -2.64, -2.46, -2.60,
        -2.47, -2.50, -2.42, -2.41, -2.36, -2.46, -2.55, -2.57, -2.27,
    ],
}  # fmt: skip


def batches(x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(part, torch.zeros(len(part), dtype=torch.long)) for part in x.split(8)]


def gathered(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """With BatchNorm's statistics of these very images, as the study has them from its one."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for m in norms:
        m.momentum = None
        m.reset_running_stats()
    with torch.no_grad():
        for part in x.split(8):
            model.train()(part)
    return model.eval()


def networks(name: str, x: torch.Tensor) -> Iterator[tuple[str, nn.Module]]:
    """Those that timm makes; of a ResNet also with what a training would change first: branches that do something
    (timm's begin as zeros) and statistics of BatchNorm.
    """
    torch.manual_seed(0)
    yield "as timm makes it", timm.create_model(name)
    if name.startswith("resnet"):
        torch.manual_seed(0)
        yield (
            "branches not zero, BatchNorm's statistics gathered",
            gathered(timm.create_model(name, zero_init_last=False), x),
        )


def measured(data: str) -> dict[str, dict[str, np.ndarray]]:
    """By network, then by what was done, (block, bound); and the names of the blocks."""
    images = ls.load_data(
        data, split="test", transform="eval", samples=IMAGES, image_size=224, batch_size=IMAGES,
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
    ).x  # fmt: skip
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    found: dict[str, dict[str, np.ndarray]] = {}
    for name in STUDY:
        found[name] = {}
        for seen, x in (("images", images), ("noise", noise)):
            for how, model in networks(name, x):
                objective = ls.Objective(model, batches(x))
                result = ls.Fourier(definition="park-kim", chunk_size=8).run(objective)
                found[name][f"{how}; {seen}"] = result["relative_log_amplitude"].sel(direction="diagonal").values
                found[name]["blocks"] = result["block"].values
    return found


def table(found: dict[str, dict[str, np.ndarray]]) -> str:
    lines = []
    for name, each in found.items():
        columns = [key for key in each if key != "blocks"]
        lines += [
            name,
            "",
            "| block | trained (the study) | " + " | ".join(columns) + " |",
            "|---" * (2 + len(columns)) + "|",
        ]
        for i, block in enumerate(each["blocks"]):
            study = STUDY[name][i]
            cells = [f"{each[c][i, 0]:.2f} +- {(each[c][i, 2] - each[c][i, 1]) / 2:.2f}" for c in columns]
            lines.append(f"| {block} | {'' if study is None else f'{study:.2f}'} | " + " | ".join(cells) + " |")
        rise = [STUDY[name][-1] - STUDY[name][0], *(each[c][-1, 0] - each[c][0, 0] for c in columns)]
        lines += ["| first to last | " + " | ".join(f"{r:+.2f}" for r in rise) + " |", ""]
    return "\n".join(lines)


def draw(found: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    figure, axes = new_row(10.0, 4.6, columns=2)
    for ax, (name, each) in zip(axes, found.items(), strict=True):
        study = np.array(STUDY[name], float)
        there = np.flatnonzero(np.isfinite(study))
        ax.plot(there, study[there], color="black", marker="*", markersize=7, label="trained (the study)")
        for i, key in enumerate(key for key in each if key != "blocks"):
            value = each[key][:, 0]
            ax.plot(np.arange(len(value)), value, color=COLORS[i], linestyle=LINES[i], marker=MARKERS[i], markersize=4,
                    label=f"untrained, {key}".replace("; ", ",\n"))  # fmt: skip
        ax.set(xlabel="block, from the input on", title=name)
        ax.legend(frameon=False, fontsize="x-small", loc="best")
    axes[0].set_ylabel("relative ln amplitude, as Park & Kim define it")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    torch.set_num_threads(2)
    numbers = measured(sys.argv[1])
    print(table(numbers))
    draw(numbers, Path(__file__).with_suffix(".png"))
