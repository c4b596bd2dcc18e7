"""Depth, the camera's motion and what moves by itself, learnt together (METHODS 8, stage 1).

    u' = (K (R X + t) + [m, 0])_xy / z

X is a point of the frame at t by its depth, R and t are those of the camera; m, in pixels at depth
1, is what MotionNet says of the frame as its neighbour would show it if nothing moved, and of that
neighbour. m is kept where it is larger than the image's mean and both neighbours have some.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mde_ros.config import check, setting
from mde_ros.losses import masked_mean
from mde_ros.model import normalised
from mde_ros.networks.motion import MotionNet
from mde_ros.networks.video import PoseNet, VideoNet, depth_of
from mde_ros.photometric import (
    focal_ratio,
    inverse,
    least_error,
    motion_matrix,
    photometric_error,
    project,
    sample,
    smoothness,
    transform,
    unproject,
    warp,
)

Loss = Callable[[nn.Module, dict[str, Tensor]], Tensor]
SMALLEST_MOTION = 1e-5
UPSCALE = 3  # of a frame before it is warped forward, so that it has no holes
SAME_Z = 1.02  # what is so little farther away than the nearest is not hidden by it


@dataclass(frozen=True)
class SceneLoss:
    """Weights of the terms."""

    scales: int = setting(4, "disparities that are learnt from, fine to coarse", low=1, high=4)
    smoothness: float = setting(0.002, "weight of smoothness, halved from scale to scale", low=0.0)
    sparsity: float = setting(0.02, "weight of the sparsity of what moves", low=0.0)
    settle: int = setting(2000, "steps of depth and pose alone at the beginning", low=0)
    motion_alone: int = setting(500, "steps of motion alone after these", low=0)
    jitter: float = setting(0.2, "change of brightness, contrast and saturation", low=0.0, high=1.0)

    def __post_init__(self) -> None:
        check(self)


def three_frames(batch: dict[str, Tensor]) -> list[Tensor]:
    """The frames at t-1, t and t+1, (N, 3, h, w) in 0..1."""
    return [(f.permute(0, 3, 1, 2).float() / 255) for f in batch["images"].unbind(1)]


def jittered(frames: list[Tensor], amount: float, seed: int) -> list[Tensor]:
    """The same random brightness, contrast and saturation for the three frames of a triplet."""
    rng = torch.Generator().manual_seed(seed)
    factors = 1 + amount * (2 * torch.rand(3, len(frames[0]), 1, 1, 1, generator=rng) - 1)
    light, contrast, colour = factors.to(frames[0].device)
    changed = []
    for frame in frames:
        frame = frame * light
        frame = frame.mean((1, 2, 3), keepdim=True).lerp(frame, contrast)
        changed.append(frame.mean(1, keepdim=True).lerp(frame, colour).clamp(0, 1))
    return changed


def camera_motions(pose: PoseNet, frames: list[Tensor]) -> list[Tensor]:
    """Transforms (N, 4, 4) of the frame at t into t-1 and into t+1. Pairs go in order of time."""
    before, here, after = (normalised(f) for f in frames)
    both = motion_matrix(pose(torch.cat([before, here]), torch.cat([here, after])))
    into_here, into_after = both.chunk(2)
    return [inverse(into_here), into_after]


def forward_warp(values: Tensor, depth: Tensor, T: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """Values (N, C, H, W) of a frame where its neighbour would show them, the nearest in front.

    Returns them, 0 where nothing came, and where something came (N, 1, H, W) bool.
    """
    n, channels, height, width = values.shape
    size = (UPSCALE * height, UPSCALE * width)
    fine, z = (F.interpolate(x, size, mode="nearest") for x in (values, depth))
    K_fine = K * K.new_tensor([[UPSCALE], [UPSCALE], [1]])
    K_fine[:, :2, 2] += (UPSCALE - 1) / 2  # pixel centres stay at integer coordinates
    pixels, z = project(transform(T, unproject(z, K_fine)), K)
    u, v = pixels.round().long().unbind(1)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (z[:, 0] > 0)
    nowhere = height * width
    place = torch.where(inside, v * width + u, nowhere).flatten(1)
    z = z.flatten(1)
    front = z.new_full((n, nowhere + 1), torch.inf).scatter_reduce_(1, place, z, "amin")
    place = torch.where(z <= SAME_Z * front.gather(1, place), place, nowhere)[:, None]
    # The mean of what lies in front, so that it does not matter what is written last.
    sums = values.new_zeros(n, channels + 1, nowhere + 1)
    fine = torch.cat([fine, torch.ones_like(fine[:, :1])], 1).flatten(2)
    sums.scatter_add_(2, place.expand(-1, channels + 1, -1), fine)
    sums = sums[..., :-1].view(n, channels + 1, height, width)
    came = sums[:, -1:] > 0
    return sums[:, :-1] / sums[:, -1:].clamp(min=1), came


def own_motions(
    motion: MotionNet, frames: list[Tensor], depth: Tensor, T: list[Tensor], K: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """m of the frame at t for both neighbours, as it is kept, and as the network says it."""
    _, here, _ = frames
    depth = depth.detach()
    kept, said = [], []
    for source, T_source in zip((frames[0], frames[2]), (T[0].detach(), T[1].detach())):
        with torch.no_grad():
            shown, came = forward_warp(here, depth, T_source, K)
            pixels, _ = project(transform(T_source, unproject(depth, K)), K)
        raw = motion(normalised(shown), normalised(source))
        size = raw.detach().norm(dim=1, keepdim=True)
        large = came & (size >= size.mean((2, 3), keepdim=True)) & (size >= SMALLEST_MOTION)
        kept.append(sample(torch.where(large, raw, 0), pixels))
        said.append(raw)
    moves = (kept[0].detach() != 0).any(1, True) & (kept[1].detach() != 0).any(1, True)
    return [torch.where(moves, m, 0) for m in kept], said


def sparsity(motion: Tensor) -> Tensor:
    """mean 2 m √(|x|/m + 1), m the mean of |x| over the image, held fast: few large motions cost
    less than many small ones."""
    size = motion.abs()
    mean = size.detach().mean((2, 3), keepdim=True).clamp(min=1e-6)
    return (2 * mean * torch.sqrt(size / mean + 1)).mean()


def scene_depth(disparity: Tensor, K: Tensor, focal_px: float, size: torch.Size) -> Tensor:
    """Depth (N, 1, H, W) of a disparity: the network's is that of a canonical focal length."""
    ratio = focal_ratio(K, focal_px)
    return ratio * depth_of(F.interpolate(disparity.float(), size, mode="bilinear"))


def seen_depth(network: VideoNet, x: Tensor, K: Tensor, focal_px: float) -> Tensor:
    """The same of a network in eval mode, which gives depth at its own size."""
    ratio = focal_ratio(K, focal_px)
    return ratio / F.interpolate(1 / network(x).float(), x.shape[2:], mode="bilinear")


def difference(a: Tensor, b: Tensor) -> Tensor:
    """3 SSIM + 2 L1, without SSIM's term of the means: (N, 1, H, W) (METHODS 8)."""
    return photometric_error(a, b, ssim=3.0, l1=2.0, c1=None, c2=9e-6)


def compare(
    disparities: list[Tensor],
    frames: list[Tensor],
    T: list[Tensor],
    K: Tensor,
    focal_px: float,
    motions: list[Tensor] | None,
    smooth: float,
    mask: Tensor | None = None,
) -> Tensor:
    """Photometric error where warping helps, and smoothness: the mean over the disparities.

    Args:
        focal_px: canonical focal length.
        mask: (N, 1, H, W) where the error counts; None: everywhere.
    """
    before, here, after = frames
    sources = [before, after]
    still = torch.cat([difference(s, here) for s in sources], 1)
    everywhere = torch.ones_like(here[:, :1], dtype=torch.bool) if mask is None else mask
    total = still.new_zeros(())
    for level, disparity in enumerate(disparities):
        depth = scene_depth(disparity, K, focal_px, here.shape[2:])
        errors = []
        for i, source in enumerate(sources):
            made = warp(source, depth, T[i], K, motions[i] if motions else None)
            errors.append(difference(made, here))
        best, helps = least_error(torch.cat(errors, 1), still)
        total = total + masked_mean(best, helps & everywhere)
        if smooth:
            total = total + smooth / 2**level * smoothness(1 / depth, here)
    return total / len(disparities)


def scene_loss(
    pose: PoseNet,
    motion: MotionNet,
    settings: SceneLoss,
    focal_px: float,
    more: Callable[[list[Tensor], dict[str, Tensor]], Tensor] | None = None,
) -> Loss:
    """Stage 1: depth and pose, then motion, then all three.

    Args:
        more: a further term of the disparities and the batch, once all three are learnt.
    """

    def of(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        step, frames, K = int(batch["step"]), three_frames(batch), batch["K"]
        looks = jittered(frames, settings.jitter, step)
        disparities = network(normalised(looks[1]))[: settings.scales]
        T = camera_motions(pose, looks)
        if step < settings.settle:
            return compare(disparities, frames, T, K, focal_px, None, settings.smoothness)
        if step < settings.settle + settings.motion_alone:
            disparities, T = [d.detach() for d in disparities], [t.detach() for t in T]
        depth = scene_depth(disparities[0], K, focal_px, frames[1].shape[2:])
        kept, said = own_motions(motion, frames, depth, T, K)
        loss = compare(disparities, frames, T, K, focal_px, kept, settings.smoothness)
        loss = loss + settings.sparsity * sum(map(sparsity, said)) / 2
        return loss + more(disparities, batch) if more else loss

    return of
