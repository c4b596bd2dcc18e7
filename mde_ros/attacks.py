"""White-box attacks on a depth network: the smallest noise that spoils its depth the most.

Hu & Okatani, "Analysis of Deep Networks for Monocular Depth Estimation Through Adversarial Attacks
with Proposal of a Defense Method", arXiv 1911.08790, eq. 1 (METHODS 3). Pure functions; no weight
and no buffer of the network changes, if it is in eval mode.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mde_ros.losses import extended_log, three_term, valid_mask
from mde_ros.model import imagenet_statistics

SPACES = ("normalised", "unit")
# Of a network's own answer, where there is no truth: at the answer itself there is no gradient.
BESIDE = 0.99
Predict = Callable[[Tensor], Tensor]  # normalised image (N, 3, H, W) → depth (N, 1, h, w)
LossOf = Callable[[Tensor], Tensor]  # normalised image → () or (N,), to be made large


def ifgsm(
    loss_of: LossOf,
    x: Tensor,
    epsilon: float | Tensor,
    iterations: int,
    alpha: float = 1.0,
    space: str = "normalised",
) -> Tensor:
    """x* of x*_{t+1} = Clip_{ε,x}(x*_t + α sign ∇ℓ(x*_t)), x*_0 = x.

    Clip keeps each value within ε of x and within the image's own least and largest value. The
    published step of α = 1 is larger than any ε, so every iterate lies in a corner of that box.

    Args:
        loss_of: what is maximised; of an attack on N∘G that does not know G it is N's alone.
        x: (N, 3, H, W) normalised image.
        epsilon: the largest change of a value; a tensor of shape (N, 1, 1, 1) or (N, 1, H, W): of
            each image, or of each pixel, 0 where it must stay.
        space: in what ε, α and the image's range are given: the normalised tensor, as published
            (0.1 is about 5.8 of 255 grey levels), or the unit interval of pixel values.

    Raises:
        ValueError: on an unknown space.
    """
    if space not in SPACES:
        raise ValueError(f"space: expected one of {', '.join(SPACES)}, got {space!r}")
    mean, std = imagenet_statistics(x)
    if space == "normalised":
        mean, std = torch.zeros_like(mean), torch.ones_like(std)
    clean = (x.detach() * std + mean).detach()
    least, largest = clean.amin((1, 2, 3), keepdim=True), clean.amax((1, 2, 3), keepdim=True)
    low, high = torch.maximum(clean - epsilon, least), torch.minimum(clean + epsilon, largest)
    attacked = clean
    for _ in range(iterations):
        with torch.enable_grad():
            attacked = attacked.detach().requires_grad_()
            loss = loss_of((attacked - mean) / std).sum()
            (gradient,) = torch.autograd.grad(loss, attacked)
        stepped = attacked.detach() + alpha * gradient.sign()
        attacked = stepped.clamp(low, high)
    return (attacked - mean) / std


def fgsm(loss_of: LossOf, x: Tensor, epsilon: float | Tensor, space: str = "normalised") -> Tensor:
    """One step of ifgsm (Goodfellow et al., ICLR 2015)."""
    return ifgsm(loss_of, x, epsilon, 1, space=space)


def patch(share: float, like: Tensor) -> Tensor:
    """Where a patch in the middle of images (N, C, H, W) is: 1 there, 0 elsewhere, (1, 1, H, W).

    Args:
        share: its side, of the shorter side of the image.
    """
    height, width = like.shape[2:]
    side = max(1, round(share * min(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    where = like.new_zeros(1, 1, height, width)
    where[..., top : top + side, left : left + side] = 1
    return where


def spoiling(predict: Predict, target: Tensor, objective: str = "l1") -> LossOf:
    """The loss of an attack: how far the depth of an image is from a target.

    Args:
        predict: what is attacked; N(x) as published, N(x ⊗ G(x)) by one who knows the defence.
        target: (N, 1, H, W) truth, 0 = unknown, in what `predict` gives. At what it says itself
            the gradient is 0 and nothing moves; a depth beside that will do.
        objective: one of OBJECTIVES.

    Raises:
        ValueError: on an unknown objective.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective: expected one of {', '.join(OBJECTIVES)}, got {objective!r}")

    def loss_of(x: Tensor) -> Tensor:
        # As the pipeline resizes depth: half-pixel centres.
        depth = F.interpolate(
            predict(x).float(), target.shape[2:], mode="bilinear", align_corners=False
        )
        return OBJECTIVES[objective](depth, target)

    return loss_of


def image_mean(values: Tensor, target: Tensor) -> Tensor:
    """Mean of each image over the valid pixels of its target: (N, 1, H, W) → (N,)."""
    mask = valid_mask(target)
    total = torch.where(mask, values, 0).sum((1, 2, 3))
    return total / mask.sum((1, 2, 3)).clamp(min=1)


def l1(depth: Tensor, target: Tensor) -> Tensor:
    """Mean |d̂ - d| of each image, the published objective."""
    return image_mean((depth - target).abs(), target)


def l2(depth: Tensor, target: Tensor) -> Tensor:
    """Mean (d̂ - d)² of each image."""
    return image_mean((depth - target).square(), target)


def rel(depth: Tensor, target: Tensor) -> Tensor:
    """Mean |d̂ - d| / d of each image."""
    return image_mean((depth - target).abs() / known(target), target)


def log10(depth: Tensor, target: Tensor) -> Tensor:
    """Mean |log10 d̂ - log10 d| of each image."""
    difference = extended_log(depth) - known(target).log()
    return image_mean(difference.abs(), target) / torch.log(depth.new_tensor(10.0))


def l_dif(depth: Tensor, target: Tensor) -> Tensor:
    """Depth, gradient and normal loss of each image (METHODS 0.4)."""
    return torch.stack([three_term(d[None], t[None]) for d, t in zip(depth, target)])


def known(target: Tensor) -> Tensor:
    """The target, 1 where it is unknown."""
    return torch.where(valid_mask(target), target, 1.0)


OBJECTIVES = {"l1": l1, "l2": l2, "rel": rel, "log10": log10, "l_dif": l_dif}
