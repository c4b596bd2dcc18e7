"""The shape of each object under rigid motion, its scale, and pseudo labels (METHODS 8, 2 and 3).

Shape: the scene's networks, shown nothing but the object, so that what the pose network sees is the
object's motion and what the depth network learns is its depth up to a factor. Scale: ScaleNet
learns that factor from objects that stand still, whose depth the scene knows.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mde_ros.losses import masked_mean, median_depth
from mde_ros.model import normalised
from mde_ros.networks.video import PoseNet, depth_of
from mde_ros.training.dynamic_scene import Loss, camera_motions, compare, three_frames

HUBER = 0.005


def object_loss(pose: PoseNet, smooth: float, focal_px: float) -> Loss:
    """Photometric error and smoothness inside an object's mask, of the finest disparity.

    The batch has `mask_-1`, `mask_0` and `mask_1`, (N, 1, H, W), where the object is in each frame.
    """

    def of(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        masks = [batch[f"mask_{k}"].float() for k in (-1, 0, 1)]
        frames = [f * m for f, m in zip(three_frames(batch), masks)]
        disparity = network(normalised(frames[1]) * masks[1])[0].float()
        T, inside = camera_motions(pose, frames), masks[1] > 0
        error = compare([disparity], frames, T, batch["K"], focal_px, None, 0.0, inside)
        full = F.interpolate(disparity, frames[1].shape[2:], mode="bilinear")
        return error + smooth * smoothness_inside(full, frames[1], inside)

    return of


def smoothness_inside(disparity: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """As photometric.smoothness, between pixels that both lie in the mask."""
    count = mask.sum((2, 3), keepdim=True).clamp(min=1)
    mean = torch.where(mask, disparity, 0).sum((2, 3), keepdim=True) / count
    d = disparity / (mean + 1e-7)
    loss = d.new_zeros(())
    for axis in (2, 3):
        n = d.shape[axis] - 1
        both = mask.narrow(axis, 1, n) & mask.narrow(axis, 0, n)
        edge = image.diff(dim=axis).abs().mean(1, keepdim=True)
        loss = loss + masked_mean(d.diff(dim=axis).abs() * torch.exp(-edge), both)
    return loss


@torch.no_grad()
def object_depths(network: nn.Module, image: Tensor, masks: Tensor) -> Tensor:
    """Depth (K, 1, H, W) of the objects of one frame, of mean 1 inside each mask and 0 outside.

    Args:
        network: as `object_loss` trained it, in eval mode.        image: (3, H, W) in 0..1.
        masks: (K, 1, H, W) bool.
    """
    shown = normalised(image[None] * masks) * masks
    inverse = F.interpolate(1 / network(shown).float(), image.shape[1:], mode="bilinear")
    return of_mean_one(1 / inverse, masks)


def of_mean_one(depth: Tensor, masks: Tensor) -> Tensor:
    """Depth (K, 1, H, W) by its mean inside each mask, 0 outside."""
    inside = torch.where(masks, depth, 0)
    mean = inside.sum((2, 3), keepdim=True) / masks.sum((2, 3), keepdim=True).clamp(min=1)
    return inside / mean.clamp(min=1e-6)


def scale_input(image: Tensor, ground: Tensor, shape: Tensor) -> Tensor:
    """The five channels of ScaleNet (N, 5, H, W).

    Args:
        image: (N, 3, H, W) in 0..1.
        ground: (N, 1, H, W), the scene's depth where there is ground and no dynamic object, else 0.
        shape: (N, 1, H, W), the object's own depth, 0 outside of it.
    """
    return torch.cat([normalised(image), torch.where(shape > 0, shape, ground), shape], 1)


def scale_of(network: nn.Module, image: Tensor, ground: Tensor, shape: Tensor) -> Tensor:
    """β (N,) of objects, as scale_input takes them.

    Ours: depth goes into the network by the median of the ground's, and β comes out as the
    exponential of what it says times that median. So a scene that is twice as large has objects
    twice as large, which the published one, from depth to β, has to learn.
    """
    middle = median_depth(ground, per_image=True)
    return middle.flatten() * torch.exp(network(scale_input(image, ground / middle, shape)))


def scale_loss(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Huber's loss of β D^o against the scene's depth, mean over the masks of static objects.

    Ours: as a share of each object's own depth, or far objects would say what near ones are like.
    The batch has `shape`, `ground` and `scene`, (N, 1, H, W): D^o, the ground's depth, all depth.
    """
    shape = batch["shape"].float()
    here = three_frames(batch)[1]
    beta = scale_of(network, here, batch["ground"].float(), shape).view(-1, 1, 1, 1)
    scene, inside = batch["scene"].float(), shape > 0
    far = torch.where(inside, scene, 0).sum((2, 3), keepdim=True)
    far = (far / inside.sum((2, 3), keepdim=True).clamp(min=1)).clamp(min=1e-3)
    error = F.huber_loss(beta * shape / far, scene / far, reduction="none", delta=HUBER)
    return masked_mean(error, inside)


def pseudo_label(scene: np.ndarray, shapes: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """The scene's depth with each dynamic object in its place; where they overlap, the nearer.

    Args:
        scene: (h, w).        shapes: (K, h, w), D^o, 0 outside.        beta: (K,).
    """
    placed = np.where(shapes > 0, shapes * beta[:, None, None], np.inf)
    nearest = placed.min(0, initial=np.inf)
    return np.where(np.isfinite(nearest), nearest, scene).astype(np.float32)


@torch.no_grad()
def scales(network: nn.Module, image: Tensor, ground: Tensor, shapes: Tensor) -> Tensor:
    """β (K,) of the objects of one frame.

    Args:
        image: (3, H, W).        ground: (1, H, W), see scale_input.        shapes: (K, 1, H, W).
    """
    k = len(shapes)
    return scale_of(network, image.expand(k, -1, -1, -1), ground.expand(k, -1, -1, -1), shapes)


def dynamic_loss(disparities: list[Tensor], label: Tensor, moving: Tensor) -> Tensor:
    """L_dyn: L1 to the pseudo label inside dynamic objects, the label's scale taken away.

    Per image s = median(pred / label); pixels whose s · label lies between the prediction's least
    and its 90th percentile count, and s is taken anew over them. The mean over the disparities.

    Args:
        label: (N, 1, H, W).        moving: (N, 1, H, W) bool.
    """
    total = label.new_zeros(())
    for disparity in disparities:
        depth = depth_of(F.interpolate(disparity, label.shape[2:], mode="bilinear"))
        errors, counts = [], []
        for prediction, wanted, mask in zip(depth, label, moving):
            known = prediction.detach()
            s = (known / wanted).median()
            usable = (s * wanted >= known.min()) & (s * wanted <= known.flatten().quantile(0.9))
            if usable.any():
                s = (known / wanted)[usable].median()
            errors.append(((prediction - s * wanted).abs() * (mask & usable)).sum())
            counts.append((mask & usable).sum())
        total = total + torch.stack(errors).sum() / torch.stack(counts).sum().clamp(min=1)
    return total / len(disparities)
