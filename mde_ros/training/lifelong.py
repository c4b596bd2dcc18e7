"""One domain after another: Lifelong-MonoDepth (Hu et al., TNNLS; METHODS 4).

A model that knows some domains gets another head, and learns the new domain n by

    L = ℓ_ud,n + Σ_i λ_i (ℓ_cons,i + ℓ_replay,i)

ℓ_ud: squared error weighted by the network's own uncertainty; ℓ_cons,i: on images of the new
domain, head i says what it said before; ℓ_replay,i: ℓ_ud on a few hundred frames of domain i.

Ours [OURS]: batch norms stay as they are, so that the old domains begin with a loss of nothing; a
batch holds as many frames of each old domain as of the new one; a new head begins as that of the
domain nearest to the new frames; λ is 1; frames to replay are kept beside the model, and a domain
that has none is held by ℓ_cons alone.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from string import ascii_letters, digits
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mde_ros.checkpoint import Checkpoint
from mde_ros.config import ConfigError, as_dict, check, setting
from mde_ros.datasets.transforms import Rng, View, camera_look, crop_resize, flip
from mde_ros.losses import consistency_loss, median_depth, uncertainty_loss
from mde_ros.model import normalised_pixels
from mde_ros.networks.lifelong import LifelongNet
from mde_ros.training.batches import Batches, Source, load_sources, loader
from mde_ros.training.ewc import fisher_diagonal, with_penalty
from mde_ros.training.loop import LoopSettings, console, fit, make_fabric
from mde_ros.training.memory import (
    Known,
    choose,
    fresh_model,
    known_model,
    mean_description,
    pixels_of,
    recall,
    remember,
    replay_folder,
    sizes_of,
)
from mde_ros.training.validation import HeldOut, validation

TRUNK = ("encoder", "gates", "fuse_up", "fuse")
FISHER_FRAMES = 100  # per old domain

# What is done for the old domains: replay and consistency; replay alone, of all there is; nothing;
# nothing, and only the new head learns (FAL); the weights that mattered to them are held (EWC).
METHODS = ("lifelong", "joint", "finetune", "frozen", "ewc")
NORMS = ("kept", "trained")


@dataclass(frozen=True)
class LifelongSettings:
    """A model, the domain it is taught, and what keeps it from forgetting the others."""

    to: str = setting(
        "default", "model to teach, shipped or a student's or lifelong .safetensors; empty: none"
    )
    network: str = setting("lifelong_mobilenet_v2", "without a model: the network to begin with")
    initial: str = setting("", "without a model: a student, ImageNet weights, or imagenet (timm)")
    pixels: int = setting(304 * 228, "without a model: area of its input", low=1024)
    focal_px: float = setting(270.0, "without a model: canonical focal length there", low=1.0)
    student_domain: str = setting("general", "what a student's own domain is called from now on")
    domain: str = setting("", "name of the new domain")
    sources: tuple[Source, ...] = setting((), "labelled recordings of the new domain")
    known: tuple[Known, ...] = setting((), "frames of old domains, instead of those beside `to`")
    held_out: tuple[HeldOut, ...] = setting((), "data sets to validate on")
    method: str = setting("lifelong", "against forgetting", choices=METHODS)
    keep: tuple[float, ...] = setting(
        (1.0,), "λ of the old domains in their order, the last for all that follow; published: 10"
    )
    norms: str = setting(
        "kept", "batch norms while a domain is added; published: trained", choices=NORMS
    )
    ewc_weight: float = setting(1e4, "weight of EWC's penalty", low=0.0)
    replay: int = setting(500, "frames kept of a domain", low=1)
    smallest_crop: float = setting(0.5, "smallest random window, of the image", low=0.05, high=1.0)
    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(
            steps=1500, batch=8, lr=5e-4, encoder_lr=1e-4, warmup=100
        )
    )

    def __post_init__(self) -> None:
        check(self)
        if not self.sources:
            raise ConfigError(
                "sources: expected a recording of the new domain (--add NAME=PATH), got none"
            )
        if not self.domain or set(self.domain) - {*ascii_letters, *digits, *"-_"}:
            raise ConfigError(
                f"domain: expected a name of letters, digits, - and _, got {self.domain!r}"
            )


def augment(settings: LifelongSettings) -> Callable[[View, Rng, int, int], View]:
    """Random window, mirror, then what cameras do to colours."""

    def apply(view: View, rng: Rng, width: int, height: int) -> View:
        view = flip(crop_resize(view, rng, width, height, settings.smallest_crop), rng)
        return replace(view, image=camera_look(view.image, rng))

    return apply


def head_loss(depth: Tensor, s: Tensor, truth: Tensor) -> Tensor:
    """ℓ_ud of one head's maps, (N, 1, h, w), against truth of any size; s is that of metres²."""
    size, m = truth.shape[2:], median_depth(truth)
    depth, s = (F.interpolate(x, size, mode="bilinear", align_corners=False) for x in (depth, s))
    return uncertainty_loss(depth, s - 2 * m.log(), truth, m)


def lifelong_loss(
    settings: LifelongSettings,
    domain_of: list[int],
    before: Callable[[Tensor], tuple[Tensor, ...]],
) -> Callable[[nn.Module, dict[str, Tensor]], Tensor]:
    """The line in the head of this file, as far as the method has its terms.

    Args:
        domain_of: the domain of each source, the new one is the last.
        before: the model as it was.
    """
    new = max(domain_of)
    keep = [settings.keep[min(i, len(settings.keep) - 1)] for i in range(new)]
    share = [1.0] * new if settings.method == "joint" else keep

    def of(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        x = normalised_pixels(batch["image"]).contiguous(memory_format=torch.channels_last)
        depth, s, _ = (y.float() for y in network(x))
        domain = torch.tensor(domain_of, device=x.device)[batch["source"]]
        total = depth.new_zeros(())
        for i, weight in enumerate((*share, 1.0)):
            mine, head = domain == i, slice(i, i + 1)
            if mine.any():
                loss = head_loss(depth[mine, head], s[mine, head], batch["truth"][mine])
                total = total + weight * loss
        fresh = domain == new
        if settings.method == "lifelong" and new and fresh.any():
            with torch.no_grad():
                old_depth, old_s, _ = (y.float() for y in before(x[fresh]))
            for i, weight in enumerate(keep):
                maps = (y[:, i : i + 1] for y in (depth[fresh], s[fresh], old_depth, old_s))
                total = total + weight * consistency_loss(*maps)
        return total

    return of


def unchanged(network: LifelongNet, method: str, norms: bool) -> tuple[str, ...]:
    """The submodules that keep weights and statistics while the last head is new."""
    heads = tuple(f"heads.{i}" for i in range(len(network.heads) - 1))
    kept = {"finetune": heads, "ewc": heads, "frozen": (*TRUNK, *heads)}.get(method, ())
    if not norms:
        return kept
    named = network.named_modules()
    return (*kept, *(name for name, module in named if isinstance(module, nn.BatchNorm2d)))


def train(settings: LifelongSettings, out: Path) -> Path:
    """Teach the model the new domain; returns the path of the new one, with replay/ beside it.

    Raises:
        ConfigError, DatasetError, ModelError: on settings or files that cannot be used.
    """
    loop, method = settings.loop, settings.method
    fabric = make_fabric(loop)
    chief = fabric.global_rank == 0
    if settings.to:
        model, path = known_model(settings.to, settings.student_domain)
    else:
        spec = {"focal_px": settings.focal_px, "pixels": settings.pixels, "domains": []}
        model, path = fresh_model(settings.network, settings.initial, spec), None
    network = cast(LifelongNet, model.network).to(fabric.device)
    domains, new = list(model.spec["domains"]), len(model.spec["domains"])
    if settings.domain in domains:
        raise ConfigError(f"domain: the model knows {settings.domain!r} already; name another")

    memory = recall(domains, settings.known, path, chief)
    unseen = ", ".join(domain for domain, frames in memory.items() if not frames)
    if unseen and method in ("joint", "ewc"):
        raise ConfigError(f"known: expected frames of {unseen} for {method}, got none")
    sources = load_sources(settings.sources, None, chief)
    if unseen and chief:
        console.print(f"no frames of {unseen} beside {path}: there is nothing to replay of it")
    memory[settings.domain] = [frame for frame in chain(*sources) if frame.truth_mm.any()]
    few = {name: choose(frames, settings.replay, loop.seed) for name, frames in memory.items()}

    old = deepcopy(network).eval().requires_grad_(False)
    mean = mean_description(network, few[settings.domain], pixels_of(model))
    if new:
        network.grow(int(network.distances(mean[None]).argmin()), mean)

    # As many frames of each old domain as of the new one.
    draw = partial(
        Batches,
        augment=augment(settings),
        sizes=sizes_of(few, pixels_of(model)),
        focal_px=model.spec["focal_px"],
        seed=loop.seed,
    )
    again = {"lifelong": few, "joint": memory}.get(method, {})
    repeated = {i: again[d] for i, d in enumerate(domains) if again.get(d)}
    weights = [source.weight for source in settings.sources]
    batches = draw(
        [*sources, *repeated.values()],
        [*weights, *(sum(weights) for _ in repeated)],
        batch=loop.batch,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )

    def before(x: Tensor) -> tuple[Tensor, ...]:
        with fabric.autocast():
            return old(x)

    loss = lifelong_loss(settings, [*(new for _ in sources), *repeated], before)
    if method == "ewc":
        of_old = lifelong_loss(replace(settings, method="joint"), list(range(new)), before)
        single = draw([few[domain] for domain in domains], [1.0] * new, batch=1)
        number = sum(min(FISHER_FRAMES, len(few[domain])) for domain in domains)
        fisher = fisher_diagonal(network, of_old, single, number)
        loss = with_penalty(loss, network, fisher, settings.ewc_weight)

    untouched = unchanged(network, method, settings.norms == "kept") if new else ()
    names = {"name": model.network_name, "domains": [*domains, settings.domain]}
    kept = fit(
        fabric,
        Checkpoint(model.network_name, network, model.spec | names, as_dict(settings)),
        lambda first, last: loader(batches, first, last, loop.workers),
        loss,
        replace(loop, frozen=loop.frozen + untouched),
        out,
        validation(settings.held_out),
    )
    if chief:
        given = {known.domain for known in settings.known}
        beside = {d: replay_folder(path, d) for d in domains if path and d not in given}
        remember(kept, few, {d: folder for d, folder in beside.items() if folder.is_dir()})
    return kept


SETTINGS = LifelongSettings
