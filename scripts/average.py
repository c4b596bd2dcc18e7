"""Average the weights of trainings that began with the same ones.

    python scripts/average.py CONFIG TARGET CHECKPOINT CHECKPOINT [CHECKPOINT …]

The mean of the weights generalises better than each alone (Izmailov et al. 2018, Wortsman et al.
2022). The statistics of the batch norms do not average: they are measured again, over batches of
CONFIG, a configuration of `mde train distill`. Submodules that it freezes keep theirs.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from rich.progress import track
from torch import nn

from mde_ros import checkpoint
from mde_ros.config import load
from mde_ros.model import normalised_pixels
from mde_ros.training.batches import Batches, load_sources, loader
from mde_ros.training.distill import DistillSettings, augment, sizes_of

STEPS = 150


def average(checkpoints: list[checkpoint.Checkpoint]) -> nn.Module:
    """The network of the first with the mean of all weights."""
    states = [c.network.state_dict() for c in checkpoints]
    mean = {
        name: torch.stack([s[name] for s in states]).mean(0) if value.is_floating_point() else value
        for name, value in states[0].items()
    }
    checkpoints[0].network.load_state_dict(mean)
    return checkpoints[0].network


@torch.no_grad()
def measure_norms(network: nn.Module, settings: DistillSettings, focal_px: float) -> None:
    """Set the statistics of all batch norms that are not frozen to their means over STEPS."""
    frozen = tuple(f"{name}." for name in settings.loop.frozen)
    for name, module in network.eval().named_modules():
        if isinstance(module, nn.BatchNorm2d) and not name.startswith(frozen):
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches
            module.train()
    loop = settings.loop
    batches = Batches(
        load_sources(settings.sources, None, progress=True),
        [s.weight for s in settings.sources],
        augment(settings),
        sizes_of(settings.pixels),
        focal_px,
        loop.batch,
        loop.seed,
    )
    for batch in track(loader(batches, 0, STEPS, loop.workers), "batch norms", total=STEPS):
        network(normalised_pixels(batch["image"]))
    network.eval()


def main(config: str, target: str, *paths: str) -> None:
    """Average, measure, store."""
    settings = load(DistillSettings, config)
    checkpoints = [checkpoint.load(Path(path)) for path in paths]
    network = average(checkpoints)
    measure_norms(network, settings, checkpoints[0].spec["focal_px"])
    checkpoint.save(Path(target), replace(checkpoints[0], network=network))


if __name__ == "__main__":
    if len(sys.argv) < 5:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
