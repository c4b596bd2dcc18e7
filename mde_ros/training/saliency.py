"""A mask that shows as few pixels as a depth network needs: Hu et al., ICCV 2019 (METHODS 2).

    min over G of  l_dif(N(x), N(x ⊗ G(x))) + λ · mean G(x)

N stays as it is, bit for bit; l_dif is the loss of depth, gradients and normals it was published
with, at the network's own output size. Images need no measured depth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mde_ros.checkpoint import Checkpoint
from mde_ros.config import as_dict, setting
from mde_ros.losses import three_term
from mde_ros.model import normalised_pixels
from mde_ros.networks import make_network
from mde_ros.training.batches import loader
from mde_ros.training.initial import load_encoder
from mde_ros.training.loop import fit, make_fabric
from mde_ros.training.masks import (
    Frozen,
    MaskSettings,
    fit_alarm,
    make_batches,
    mask_spec,
    open_frozen,
)


@dataclass(frozen=True)
class SaliencySettings(MaskSettings):
    """G, N, and how sparse the mask is to be."""

    sparseness: float = setting(5.0, "λ, weight of the mask's mean", low=0.0)


def saliency_loss(
    frozen: Frozen, sparseness: float
) -> Callable[[nn.Module, dict[str, Tensor]], Tensor]:
    """The line in the head of this file."""

    def of(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        x = normalised_pixels(batch["image"])
        mask = network(x).float()
        with torch.no_grad():
            target = frozen(x)
        return three_term(frozen(x * mask), target) + sparseness * mask.mean()

    return of


def train(settings: SaliencySettings, out: Path) -> Path:
    """Train G; returns the checkpoint's path.

    Raises:
        ConfigError, DatasetError, ModelError, CheckpointError: on settings or files that cannot be
            used.
    """
    fabric = make_fabric(settings.loop)
    frozen = open_frozen(settings.model, fabric)
    batches = make_batches(settings, frozen, fabric)
    network = make_network(settings.network)
    if settings.initial:
        load_encoder(network, settings.network, settings.initial)
    kept = fit(
        fabric,
        Checkpoint(settings.network, network, mask_spec(frozen), as_dict(settings)),
        lambda first, last: loader(batches, first, last, settings.loop.workers),
        saliency_loss(frozen, settings.sparseness),
        settings.loop,
        out,
    )
    if fabric.global_rank == 0:
        fit_alarm(kept, settings)
    return kept


SETTINGS = SaliencySettings
