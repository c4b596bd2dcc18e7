"""Training losses in torch: pure functions over (N, 1, H, W) maps with a validity mask.

A pixel counts where its target is positive and finite; gradients and normals count where the whole
3×3 neighbourhood does.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ALPHA = 0.5  # F(e) = ln(e + α), METHODS 0.4


def valid_mask(target: Tensor) -> Tensor:
    """Where a target is a measurement: positive and finite."""
    return (target > 0) & torch.isfinite(target)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the mask; 0 with a gradient of 0 where it is empty."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def sobel(x: Tensor) -> tuple[Tensor, Tensor]:
    """Unnormalised Sobel cross-correlation, zero padding: ∇x, ∇y of (N, 1, H, W) (METHODS 0.4)."""
    kx = x.new_tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]]).view(1, 1, 3, 3)
    ky = x.new_tensor([[1, 2, 1], [0, 0, 0], [-1, -2, -1]]).view(1, 1, 3, 3)
    return F.conv2d(x, kx, padding=1), F.conv2d(x, ky, padding=1)


def whole_neighbourhood(mask: Tensor) -> Tensor:
    """Pixels whose 3×3 neighbourhood lies in the mask; the image border counts as inside."""
    return F.max_pool2d((~mask).float(), 3, 1, 1) == 0


def three_term_terms(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(l_depth, l_grad, l_normal) of Hu et al., WACV 2019 (METHODS 0.4).

    Each is -0.6931 (l_depth), -1.3863 (l_grad) and 0 (l_normal) at a perfect prediction.
    """
    mask = valid_mask(target)
    target = torch.where(mask, target, 0)
    l_depth = masked_mean(torch.log((prediction - target).abs() + ALPHA), mask)
    inner = whole_neighbourhood(mask)
    px, py = sobel(prediction)
    tx, ty = sobel(target)
    l_grad = masked_mean(torch.log((px - tx).abs() + ALPHA), inner) + masked_mean(
        torch.log((py - ty).abs() + ALPHA), inner
    )
    ones = torch.ones_like(px)
    cosine = F.cosine_similarity(torch.cat([-px, -py, ones], 1), torch.cat([-tx, -ty, ones], 1))
    l_normal = masked_mean((1 - cosine).abs()[:, None], inner)
    return l_depth, l_grad, l_normal


def three_term(prediction: Tensor, target: Tensor) -> Tensor:
    """L = l_depth + l_grad + l_normal; its floor is 3 ln 0.5 = -2.0794."""
    return sum(three_term_terms(prediction, target), torch.zeros_like(prediction[0, 0, 0, 0]))


def extended_log(x: Tensor, floor: float = 0.05) -> Tensor:
    """ln x, continued below `floor` by its tangent: networks without an output activation start
    with negative depths, and must get a gradient out of there."""
    below = math.log(floor) + (x - floor) / floor
    return torch.where(x > floor, torch.log(x.clamp(min=floor)), below)


def log_depth(
    prediction: Tensor, target: Tensor, steps: tuple[int, ...] = (2, 8, 32), weight: float = 1.0
) -> Tensor:
    """L1 of log-depth plus L1 of its differences over several distances (after Li & Snavely 2018).

    A relative error weighs the same near and far. Differences over `steps` pixels, which no error
    of scale moves, shape objects; over one pixel alone they would favour a flat answer.
    """
    mask = valid_mask(target)
    error = extended_log(prediction) - torch.log(torch.where(mask, target, 1.0))
    error = torch.where(mask, error, 0)
    return masked_mean(error.abs(), mask) + weight * differences(error, mask, steps)


def differences(error: Tensor, mask: Tensor, steps: tuple[int, ...]) -> Tensor:
    """Mean over `steps` of how much an error changes between pixels so far apart, both axes."""
    loss = error.new_zeros(())
    for step in steps:
        for axis in (2, 3):
            n = error.shape[axis] - step
            if n < 1:
                continue
            both = mask.narrow(axis, step, n) & mask.narrow(axis, 0, n)
            change = error.narrow(axis, step, n) - error.narrow(axis, 0, n)
            loss = loss + masked_mean(change.abs(), both) / len(steps)
    return loss


def scale_shift_loss(
    prediction: Tensor,
    target: Tensor,
    inverse: bool,
    steps: tuple[int, ...] = (2, 8, 32),
    weight: float = 1.0,
) -> Tensor:
    """As log_depth, of maps whose scale and shift do not count (after Ranftl et al., TPAMI 2022).

    Each image loses its median and is divided by its mean absolute deviation from it.

    Args:
        prediction, target: depth, (N, 1, H, W).
        inverse: whether scale and shift are those of inverse depth.
    """
    mask = valid_mask(target)
    if inverse:
        prediction = extended_inverse(prediction)
        target = 1 / torch.where(mask, target, 1.0)
    error = torch.where(mask, unscaled(prediction, mask) - unscaled(target, mask), 0)
    return masked_mean(error.abs(), mask) + weight * differences(error, mask, steps)


def extended_inverse(x: Tensor, floor: float = 0.1) -> Tensor:
    """1/x, continued below `floor` by its tangent; see extended_log."""
    return torch.where(x > floor, 1 / x.clamp(min=floor), (2 - x / floor) / floor)


def unscaled(values: Tensor, mask: Tensor) -> Tensor:
    """Each image's values less their median, over their mean absolute deviation from it."""
    middle = torch.where(mask, values, math.nan).flatten(1).nanmedian(1).values
    apart = values - middle.nan_to_num().view(-1, 1, 1, 1)
    count = mask.sum((1, 2, 3), keepdim=True).clamp(min=1)
    deviation = torch.where(mask, apart.abs(), 0).sum((1, 2, 3), keepdim=True) / count
    return apart / deviation.clamp(min=1e-3)


def median_depth(values: Tensor, per_image: bool = False) -> Tensor:
    """Median of what is measured, of the batch () or of each image (N, 1, 1, 1); 1 if nothing is.

    The lower of the two middle values where their number is even.
    """
    known = torch.where(valid_mask(values), values, math.nan)
    middle = known.flatten(1).nanmedian(1).values if per_image else known.nanmedian()
    middle = torch.where(middle.isnan(), 1.0, middle)
    return middle.view(-1, 1, 1, 1) if per_image else middle


def uncertainty_loss(
    prediction: Tensor, s: Tensor, target: Tensor, scale: Tensor | None = None
) -> Tensor:
    """ℓ_ud = mean[e^-s (ŷ/m - y/m)² + 2s] of Hu et al., TNNLS (METHODS 4, eq. 1 and 4).

    For an error r = ŷ/m - y/m it is least at s = ln(r²/2). A network whose s is to mean metres²
    (DepthModel) passes s - 2 ln m.

    Args:
        prediction, s, target: (N, 1, H, W); s is the log-uncertainty.
        scale: m; None: the median of all valid pixels of the batch, as published. Images of
            different scales pass median_depth(target, per_image=True).
    """
    mask = valid_mask(target)
    m = median_depth(target) if scale is None else scale
    error = torch.where(mask, prediction - torch.where(mask, target, 0), 0) / m
    return masked_mean(torch.exp(-s) * error.square() + 2 * s, mask)


def relative_loss(prediction: Tensor, s: Tensor, teacher: Tensor) -> Tensor:
    """ℓ_ud of the single-line completion: uncertainty_loss of depths divided by their own medians.

    So the teacher gives the shape and not the scale: a factor on `teacher` changes nothing
    (METHODS 7b, reconstructed). s is that of the prediction, in metres².
    """
    mask = valid_mask(teacher)
    own = median_depth(torch.where(mask, prediction, 0), per_image=True)
    target = torch.where(mask, teacher, 0) / median_depth(teacher, per_image=True)
    return uncertainty_loss(prediction / own, s - 2 * own.log(), target, own.new_ones(()))


def point_loss(prediction: Tensor, points: Tensor) -> Tensor:
    """ℓ_sl = mean |D̂ - D_sl| over the measured pixels; it fixes the scale (METHODS 7b)."""
    return masked_mean((prediction - points).abs(), valid_mask(points))


def line_ranking_loss(
    prediction: Tensor, teacher: Tensor, lines: Tensor, samples: int = 8, flat: float = 0.03
) -> Tensor:
    """ℓ_LDP: along a straight line of the scene depth only rises, or only falls (METHODS 7b).

    Inverse depth is affine along the image of a straight line, so depth is monotone. For neighbours
    i, j of `samples` places on a segment: mean log(1 + exp(-r (D̂_j - D̂_i))), r = ±1 as the
    teacher says of its ends. Ours: a segment whose ends differ by less than `flat` says nothing,
    one along which the teacher jumps by over a quarter crosses an edge of depth; neither counts.

    Args:
        prediction, teacher: (N, 1, H, W); 0 = unknown.
        lines: (N, S, 4) x, y of both ends in pixels; rows of zeros fill up.
    """
    height, width = prediction.shape[2:]
    t = torch.linspace(0.08, 0.92, samples, device=lines.device)
    ends = lines.view(*lines.shape[:2], 2, 2)  # (N, S, end, xy)
    at = ends[:, :, None, 0] + t[:, None] * (ends[:, :, None, 1] - ends[:, :, None, 0])
    grid = (2 * at + 1) / at.new_tensor([width, height]) - 1
    ours, theirs = (
        F.grid_sample(m, grid, mode="bilinear", align_corners=False)[:, 0]
        for m in (prediction, torch.where(valid_mask(teacher), teacher, math.nan))
    )
    steps = torch.log(theirs).diff(dim=2)
    trend = steps.sum(2, keepdim=True)
    usable = (trend.abs() > flat) & (steps.abs().amax(2, keepdim=True) < 0.25)  # NaN: neither
    loss = F.softplus(-torch.sign(trend.nan_to_num()) * ours.diff(dim=2))
    return masked_mean(loss, usable.expand_as(loss))


def consistency_loss(
    prediction: Tensor, s: Tensor, old_prediction: Tensor, old_s: Tensor
) -> Tensor:
    """ℓ_cons = mean(|ŷ - ŷ'|/med(ŷ') + |s - s'|/med(s')) of Hu et al., TNNLS (METHODS 4, eq. 3).

    0 when the new model says what the old one does. Nothing is masked, for the old model has an
    answer everywhere. The medians are those of the batch; that of s', which may be 0 or below, is
    taken by magnitude and as 1 at least [OURS].
    """
    depth_scale = old_prediction.median().clamp(min=1e-3)
    s_scale = old_s.median().abs().clamp(min=1.0)
    depth_change = (prediction - old_prediction).abs().mean() / depth_scale
    return depth_change + (s - old_s).abs().mean() / s_scale


LOSSES = {"three_term": three_term, "log_depth": log_depth}
