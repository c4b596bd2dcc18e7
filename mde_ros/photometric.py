"""Depth learnt from plain video, in torch: one frame is made out of another and compared with it.

Images are (N, 3, H, W) in 0..1, depth is (N, 1, H, W), cameras have no distortion and pixel centres
at integer coordinates. `T` (N, 4, 4) maps points of the frame that depth belongs to into the frame
that is sampled. Depth and translations share one unknown scale.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NEAREST_Z = 1e-3  # points nearer to the camera plane, or behind it, are taken to lie there


def focal_ratio(K: Tensor, focal_px: float) -> Tensor:
    """(N, 3, 3) → (N, 1, 1, 1): how often the canonical focal length, in pixels, a camera's is."""
    return (K[:, 0, 0] * K[:, 1, 1]).sqrt().view(-1, 1, 1, 1) / focal_px


def unproject(depth: Tensor, K: Tensor) -> Tensor:
    """Depth and K (N, 3, 3) → points (N, 3, H, W) in the optical frame."""
    height, width = depth.shape[2:]
    v, u = torch.meshgrid(
        torch.arange(height, device=depth.device, dtype=depth.dtype),
        torch.arange(width, device=depth.device, dtype=depth.dtype),
        indexing="ij",
    )
    fx, fy, cx, cy = (K[:, i, j].view(-1, 1, 1) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    x, y = (u - cx) / fx, (v - cy) / fy
    return torch.stack([x, y, torch.ones_like(x)], 1) * depth


def transform(T: Tensor, points: Tensor) -> Tensor:
    """Apply (N, 4, 4) to points (N, 3, H, W)."""
    return (T[:, :3, :3] @ points.flatten(2) + T[:, :3, 3:]).view_as(points)


def project(points: Tensor, K: Tensor, motion: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Points (N, 3, H, W) → pixels (N, 2, H, W) as (u, v), and their depth z (N, 1, H, W).

    Args:
        motion: (N, 2, H, W) of what moves by itself, added to K·X before the division by z, so
            that it is in pixels at z = 1 (Nguyen et al., CVPR 2024; METHODS 8).
    """
    z = points[:, 2:].clamp(min=NEAREST_Z)
    homogeneous = (K @ points.flatten(2)).view_as(points)[:, :2]
    if motion is not None:
        homogeneous = homogeneous + motion
    return homogeneous / z, points[:, 2:]


def sample(image: Tensor, pixels: Tensor) -> Tensor:
    """Bilinear values of (N, C, H, W) at pixels (N, 2, h, w); the border goes on outside."""
    height, width = image.shape[2:]
    size = pixels.new_tensor([width, height]).view(1, 2, 1, 1)
    grid = (2 * pixels / (size - 1) - 1).permute(0, 2, 3, 1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def warp(
    source: Tensor, depth: Tensor, T: Tensor, K: Tensor, motion: Tensor | None = None
) -> Tensor:
    """A frame as its neighbour `source` shows it, if depth and motion are right: (N, C, H, W).

    Args:
        depth: of the frame that is made, not of the source.        motion: see `project`.
    """
    return sample(source, project(transform(T, unproject(depth, K)), K, motion)[0])


def mean3(x: Tensor) -> Tensor:
    """Mean of every 3×3 window, borders reflected; on a CPU several times as fast as a pooling."""
    x = F.pad(x, (1, 1, 1, 1), mode="reflect")
    rows = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9


def ssim_distance(a: Tensor, b: Tensor, c1: float | None = 1e-4, c2: float = 9e-4) -> Tensor:
    """(1 - SSIM)/2 in 0..1 of 3×3 windows, borders reflected: (N, C, H, W) (Wang et al. 2004).

    Args:
        c1: None leaves out the term of the means, which then may differ for free.
    """
    mean_a, mean_b, aa, bb, ab = (mean3(x) for x in (a, b, a * a, b * b, a * b))
    of_a, of_b, of_both = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    ssim = (2 * of_both + c2) / (of_a + of_b + c2)
    if c1 is not None:
        ssim = ssim * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return ((1 - ssim) / 2).clamp(0, 1)


def photometric_error(
    a: Tensor,
    b: Tensor,
    ssim: float = 0.85,
    l1: float = 0.15,
    c1: float | None = 1e-4,
    c2: float = 9e-4,
) -> Tensor:
    """pe = ssim · SSIM-distance + l1 · |a - b|, mean over colours: (N, 1, H, W) (METHODS 9)."""
    a, b = a.float(), b.float()
    each = ssim * ssim_distance(a, b, c1, c2) + l1 * (a - b).abs()
    return each.mean(1, keepdim=True)


def least_error(warped: Tensor, still: Tensor) -> tuple[Tensor, Tensor]:
    """Minimum reprojection and automask of Monodepth2 (Godard et al., ICCV 2019).

    Args:
        warped: (N, S, H, W) errors of S warped sources.
        still: (N, S, H, W) errors of the same sources as they are.

    Returns the least error of all (N, 1, H, W), which has a gradient only where the mask is set;
    and the mask (N, 1, H, W) bool, where the best warped source is better than every unwarped one.
    Nothing is better than a frame that does not change: the noise that breaks ties in the paper is
    not needed.
    """
    best, unmoved = warped.amin(1, keepdim=True), still.detach().amin(1, keepdim=True)
    mask = best < unmoved
    return torch.where(mask, best, unmoved), mask


def smoothness(disparity: Tensor, image: Tensor) -> Tensor:
    """|∇d*| e^(-|∇I|), mean over the image, of d* = disparity by its mean (METHODS 9). Scalar.

    Args:
        image: of the disparity's size.
    """
    d = disparity.float()
    d = d / (d.mean((2, 3), keepdim=True) + 1e-7)
    loss = d.new_zeros(())
    for axis in (2, 3):
        edge = image.float().diff(dim=axis).abs().mean(1, keepdim=True)
        loss = loss + (d.diff(dim=axis).abs() * torch.exp(-edge)).mean()
    return loss


def motion_matrix(motion: Tensor) -> Tensor:
    """(N, 6): rotation as an axis times its angle in radians, then translation → (N, 4, 4)."""
    x, y, z, *_ = motion.float().unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
    upper = torch.cat([torch.linalg.matrix_exp(cross), motion[:, 3:, None].float()], 2)
    lower = upper.new_tensor([0, 0, 0, 1]).expand(len(motion), 1, 4)
    return torch.cat([upper, lower], 1)


def inverse(T: Tensor) -> Tensor:
    """The motion back: (N, 4, 4) → (N, 4, 4)."""
    back = T[:, :3, :3].transpose(1, 2)
    upper = torch.cat([back, -back @ T[:, :3, 3:]], 2)
    return torch.cat([upper, T[:, 3:]], 1)
