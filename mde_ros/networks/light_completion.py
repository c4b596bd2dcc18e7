"""The light completion network: the student's own answer, corrected by what the points say of it.

    image ── student ── log-depth ─────────────────────── + ──── + ── depth
                │           │                             │      │
    points ─────┼── its error at the points ── median, attention │
                │                              "which points is  │
                └── features ──────────────────this place like?"─┴── refinement ── s

Every step falls back on the one before: a place unlike all points gets the median error of them
all, and without any point the answer is the student's. The network is ours; the loss that trains it
is that of the single-line completion (METHODS 7b, training/completion.py).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mde_ros.networks.blocks import separable5
from mde_ros.networks.mff import LOG_RANGE, FastNet

# Points are gathered in cells of 8 by 16 pixels, narrow because a laser line lies level; places
# that ask for a correction are cells of 8 by 8. Both in the student's maps, given below as (h, w).
CELL_OF_HALF, CELL_OF_QUARTER = (8, 4), (4, 2)
EMPTY = -1e4  # the likeness of a cell without points


class LightCompletion(FastNet):
    """Image (N, 3, H, W), sparse depth (N, 1, H, W) → depth and s, both (N, 1, H/2, W/2).

    Sparse depth is in canonical metres, 0 = none: one line, many, or nothing at all. s is
    ln(σ²/2), σ the standard deviation of depth. Other sizes than multiples of 16 are filled up at
    the right and bottom edge; an exported network takes multiples only (ModelSpec.multiple).
    """

    takes_points = True
    multiple = 16

    def __init__(self, backbone: str = "mobilenet_v2") -> None:
        super().__init__(backbone)
        self.query = nn.Conv2d(64, 32, 1)
        self.key = nn.Conv2d(64, 32, 1)
        self.unlike = nn.Conv2d(64, 1, 1)  # how much a place is like no point
        # Likeness falls with distance across, down (100 pixels) and in the student's log-depth.
        self.falls = nn.Parameter(torch.tensor([2.0, 0.5, 2.0]).log())
        self.mix = nn.Sequential(nn.Conv2d(64 + 6, 32, 1), nn.ReLU(inplace=True))
        self.local = nn.Sequential(separable5(32), separable5(32))
        self.head = nn.Conv2d(32, 8, 3, padding=1)
        with torch.no_grad():  # starts as the student, scaled, with an error of 20 %
            self.unlike.weight.zero_()
            self.head.weight.zero_()
            self.head.bias.copy_(torch.tensor([0.0] * 4 + [-3.9] * 4))  # type: ignore[union-attr]

    def forward(  # type: ignore[override]  # a student that takes points as well
        self, x: Tensor, sparse: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if sparse is None:
            sparse = x.new_zeros(x.shape[0], 1, *x.shape[2:])
        height, width = x.shape[2:]
        if height % self.multiple or width % self.multiple:
            more = (0, -width % self.multiple, 0, -height % self.multiple)
            depth, s = self(F.pad(x, more, mode="replicate"), F.pad(sparse, more))
            window = np.s_[:, :, : (height + 1) // 2, : (width + 1) // 2]
            return depth[window], s[window]
        features = self.features(x)
        log_mono = self.log_depth(features)

        # The student's error at the points, in log-depth at its own resolution.
        known = (sparse > 0).float()
        seen = (F.avg_pool2d(known, 2) > 0).float()
        log_sparse = _mean(torch.log(sparse.float().clamp(min=1e-3)), known, 2)
        error = (log_sparse - log_mono) * seen

        median, shift, agreement = self._carry(features, log_mono, error, seen)
        correction = F.interpolate(shift, scale_factor=4.0, mode="bilinear")

        left = _mean(error - correction, seen, 2)  # what is still wrong at the points
        found = F.avg_pool2d(seen, 2)
        level = F.avg_pool2d(log_mono, 2) - log_mono.mean((2, 3), keepdim=True)
        hints = torch.cat([shift - median, agreement], 1)
        hints = F.interpolate(hints, scale_factor=2.0, mode="bilinear")
        mixed = torch.cat([features, hints, left, found, level], 1).to(features.dtype)
        refined = self.head(self.local(self.mix(mixed))).float()
        beside = F.pixel_shuffle(refined[:, :4], 2) * seen.amax((2, 3), keepdim=True)

        log_depth = (log_mono + correction + beside).clamp(*LOG_RANGE)
        s = F.pixel_shuffle(refined[:, 4:], 2) + 2 * log_depth.detach()
        return torch.exp(log_depth), s

    def _carry(
        self, features: Tensor, log_mono: Tensor, error: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """From the points to every place: median error (N, 1, 1, 1), and at an eighth of the image
        the error a place should expect (N, 1, H/8, W/8) with its spread and certainty (N, 2, …)."""
        n, _, height, width = features.shape
        filled = F.avg_pool2d(seen, CELL_OF_HALF) > 0
        error = _mean(error, seen, CELL_OF_HALF)
        median = masked_median(error, filled)
        error = torch.where(filled, error - median, 0).flatten(2)  # (N, 1, K)

        at_points = F.avg_pool2d(seen, 2)
        key_maps = _mean(features.float(), at_points, CELL_OF_QUARTER).to(features.dtype)
        key = self.key(key_maps).flatten(2).float()
        key_place = self._place(seen, log_mono, CELL_OF_HALF)
        query_maps = F.avg_pool2d(features, 2)
        query = self.query(query_maps).flatten(2).float()
        query_place = self._place(torch.ones_like(seen), log_mono, 4)

        # q·k - |a (p_q - p_k)|², all of it as one product of matrices.
        a = torch.exp(self.falls).view(1, 3, 1)
        one = torch.ones_like(error)
        key = torch.cat([key, key_place, (a * key_place**2).sum(1, True), one], 1)
        near = (a * query_place**2).sum(1, True)
        ones = torch.ones_like(near)
        query = torch.cat([query / 32**0.5, 2 * a * query_place, -ones, -near], 1)
        likeness = query.transpose(1, 2) @ key  # (N, Q, K)
        likeness = likeness + torch.where(filled, 0.0, EMPTY).flatten(2)
        unlike = self.unlike(query_maps).flatten(2).float().transpose(1, 2)
        weights = torch.softmax(torch.cat([likeness, unlike], 2), 2)[:, :, :-1]

        carried = weights @ torch.cat([error, error**2, one], 1).transpose(1, 2)  # (N, Q, 3)
        carried = carried.transpose(1, 2).view(n, 3, height // 2, width // 2)
        mean, square, certain = carried.split(1, 1)
        spread = torch.sqrt((square - mean**2).clamp(min=0) + 1e-6)
        return median, median + mean, torch.cat([spread, certain], 1)

    def _place(self, mask: Tensor, log_mono: Tensor, cell: int | tuple[int, int]) -> Tensor:
        """Column and row in 100 pixels from the image's middle and log-depth: (N, 3, cells)."""
        n, _, height, width = log_mono.shape
        v = (torch.arange(height, device=mask.device) - (height - 1) / 2) / 50  # half resolution
        u = (torch.arange(width, device=mask.device) - (width - 1) / 2) / 50
        maps = [u.view(1, 1, 1, -1).expand(n, 1, height, width), log_mono]
        maps.insert(1, v.view(1, 1, -1, 1).expand(n, 1, height, width))
        return _mean(torch.cat(maps, 1), mask, cell).flatten(2)


def _mean(values: Tensor, mask: Tensor, cell: int | tuple[int, int]) -> Tensor:
    """Mean of every cell over its masked pixels, 0 where there is none."""
    total, count = F.avg_pool2d(values * mask, cell), F.avg_pool2d(mask, cell)
    return total / count.clamp(min=1e-6)


def masked_median(values: Tensor, mask: Tensor) -> Tensor:
    """Lower median of the masked values of each image, (N, 1, h, w) → (N, 1, 1, 1); 0 of none."""
    ordered = torch.where(mask, values, 1e6).flatten(1).sort(1).values
    count = mask.flatten(1).sum(1, keepdim=True)
    middle = ordered.gather(1, ((count - 1) // 2).clamp(min=0))
    return torch.where(count > 0, middle, 0.0).view(-1, 1, 1, 1)
