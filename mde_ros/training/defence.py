"""A mask under which an attacked image gives the depth of the clean one: Hu & Okatani, algorithm 1
(arXiv 1911.08790; METHODS 3); and N_adv, the network trained under attack, to compare it with.

    x' = IFGSM(x; N, ε, T) for half of the images, x for the others; ε ~ U(0.01, 0.3), T = ⌊U(1,10)⌋
    G_adv:  l_dif(truth, N(x' ⊗ G(x'))) + λ · mean G(x')    N stays as it is, bit for bit
    N_adv:  l_dif(truth, N_adv(x'))                         x' made against N_adv as it is then

The attacker maximises ℓ1 and does not know G. Of an image without truth, what N says of the clean
one stands for it [OURS]; if asked for, of all images: a mask that sees small windows, in which N is
worse, would learn to correct N there instead of the attack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mde_ros.attacks import BESIDE, ifgsm, spoiling
from mde_ros.checkpoint import Checkpoint
from mde_ros.config import ConfigError, as_dict, setting
from mde_ros.datasets.transforms import Rng, View
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
class DefenceSettings(MaskSettings):
    """G_adv or N_adv, and the attacks it is trained under."""

    network: str = setting("defence_smoothing", "G_adv, one that gives a mask (`mde networks`)")
    learns: str = setting(
        "mask", "mask: G_adv, N stays; model: N_adv, N's weights to begin with",
        choices=("mask", "model"),
    )  # fmt: skip
    target: str = setting(
        "truth", "what is right under attack: measured depth where there is some, as published; or"
        " all N's own answer to the clean image, which small windows teach nothing else",
        choices=("truth", "own"),
    )  # fmt: skip
    attacked: float = setting(0.5, "share of the images that are attacked", low=0.0, high=1.0)
    epsilon: tuple[float, float] = setting((0.01, 0.3), "least and largest ε, normalised")
    iterations: tuple[int, int] = setting((1, 9), "fewest and most steps of an attack")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("epsilon", 0), ("iterations", 1)):
            low, high = getattr(self, name)
            if not least <= low <= high:
                raise ConfigError(
                    f"{name}: expected two numbers from {least} up, the lower first, got"
                    f" {low} {high}"
                )


def drawn(settings: DefenceSettings) -> Callable[[View, Rng], dict[str, np.ndarray]]:
    """Each image's ε, 0 where it is left clean, and the steps of its attack."""

    def of(view: View, rng: Rng) -> dict[str, np.ndarray]:
        epsilon = rng.uniform(*settings.epsilon) * (rng.random() < settings.attacked)
        low, high = settings.iterations
        return {
            "epsilon": np.full((1, 1, 1), epsilon, np.float32),
            "iterations": np.array(rng.integers(low, high + 1)),
        }

    return of


def under_attack(
    predict: Callable[[Tensor], Tensor], x: Tensor, away_from: Tensor, batch: dict[str, Tensor]
) -> Tensor:
    """x' of a batch: those with an ε, attacked by as many steps as the first of them drew.

    Args:
        away_from: (N, 1, H, W), the depth that the attack leads away from.
    """
    epsilon = batch["epsilon"]
    chosen = epsilon.flatten() > 0
    if not chosen.any():
        return x
    steps = int(batch["iterations"][chosen][0])
    attacked = x.clone()
    loss_of = spoiling(predict, away_from[chosen])
    attacked[chosen] = ifgsm(loss_of, x[chosen], epsilon[chosen], steps)
    return attacked


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Let a network that is being trained answer by its statistics, and keep them as they are."""
    training = [m for m in network.modules() if m.training]
    network.eval()
    yield
    for module in training:
        module.training = True


def full(depth: Tensor, like: Tensor) -> Tensor:
    """Depth at the size of `like`, as the pipeline resizes it: half-pixel centres."""
    return F.interpolate(depth.float(), like.shape[2:], mode="bilinear", align_corners=False)


def defence_loss(
    frozen: Frozen, settings: DefenceSettings
) -> Callable[[nn.Module, dict[str, Tensor]], Tensor]:
    """The lines in the head of this file."""

    def depths(x: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """What is learnt, and what the attack leads away from."""
        measured = (truth > 0).flatten(1).any(1).view(-1, 1, 1, 1)
        if settings.target == "truth" and measured.all():
            return truth, truth
        with torch.no_grad():
            own = full(frozen(x), truth)
        learnt = own if settings.target == "own" else torch.where(measured, truth, own)
        return learnt, torch.where(measured, truth, BESIDE * own)

    def of_mask(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        x = normalised_pixels(batch["image"])
        target, away_from = depths(x, batch["truth"])
        attacked = under_attack(frozen, x, away_from, batch)
        mask = network(attacked).float()
        depth = full(frozen(attacked * mask), target)
        return three_term(depth, target) + settings.sparseness * mask.mean()

    def of_model(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        x = normalised_pixels(batch["image"])
        target, away_from = depths(x, batch["truth"])
        bare = getattr(network, "module", network)  # DDP knows no gradient of its input
        with evaluating(bare):
            attacked = under_attack(bare, x, away_from, batch)
        return three_term(full(network(attacked), target), target)

    return of_mask if settings.learns == "mask" else of_model


def train(settings: DefenceSettings, out: Path) -> Path:
    """Train G_adv or N_adv; returns the checkpoint's path.

    Raises:
        ConfigError, DatasetError, ModelError, CheckpointError: on settings or files that cannot be
            used.
    """
    loop = settings.loop
    fabric = make_fabric(loop)
    frozen = open_frozen(settings.model, fabric)
    batches = make_batches(settings, frozen, fabric, drawn(settings))
    mask = settings.learns == "mask"
    name = settings.network if mask else frozen.checkpoint.network_name
    initial = settings.initial or ("" if mask else settings.model)
    network = make_network(name)
    if initial:
        load_encoder(network, name, initial)
    spec = mask_spec(frozen)
    if not mask:
        spec = {k: v for k, v in frozen.checkpoint.spec.items() if k != "name"}
    kept = fit(
        fabric,
        Checkpoint(name, network, spec, as_dict(settings)),
        lambda first, last: loader(batches, first, last, loop.workers),
        defence_loss(frozen, settings),
        loop,
        out,
    )
    if mask and fabric.global_rank == 0:
        fit_alarm(kept, settings)
    return kept


SETTINGS = DefenceSettings
