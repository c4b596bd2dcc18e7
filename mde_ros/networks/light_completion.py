"""The light completion network: the student's own answer, corrected by what the points say of it.

    image ── student ── log-depth ─────────────────────────────── + ── depth
                │           │                                     │
    points ─────┼── its error at the points ── median ── attention: "which points
                └── features ────────────────────────────is this place like?" ── doubt ── s

Every step falls back on the one before: a place unlike all points gets the median error of them
all or keeps the student's answer, and without any point the answer is the student's. The network is
ours; the loss that trains it is that of the single-line completion (METHODS 7b).
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
EMPTY = 1e4  # what a cell without points is too far away


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
        # How much a place is like no point: it takes the median of all, or the student's answer.
        self.unlike = nn.Conv2d(64, 2, 1)
        # Likeness falls with distance across, down (100 pixels) and in the student's log-depth.
        self.falls = nn.Parameter(torch.tensor([2.0, 0.5, 2.0]).log())
        last = nn.Conv2d(32, 4, 3, padding=1)
        self.doubt = nn.Sequential(
            nn.Conv2d(64 + 6, 32, 1), nn.ReLU(inplace=True), separable5(32), last
        )
        with torch.no_grad():  # starts as the student, scaled, with an error of 20 %
            self.unlike.weight.zero_()
            self.unlike.bias.copy_(torch.tensor([0.0, -2.0]))  # type: ignore[union-attr]
            last.weight.zero_()
            last.bias.fill_(-3.9)  # type: ignore[union-attr]

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
        log_depth = (log_mono + correction).clamp(*LOG_RANGE)

        left = _mean(error - correction, seen, 2)  # what is still wrong at the points
        found = F.avg_pool2d(seen, 2)
        level = F.avg_pool2d(log_mono, 2) - log_mono.mean((2, 3), keepdim=True)
        hints = torch.cat([shift - median, agreement], 1)
        hints = F.interpolate(hints, scale_factor=2.0, mode="bilinear")
        mixed = torch.cat([features, hints, left, found, level], 1).to(features.dtype)
        relative = F.pixel_shuffle(self.doubt(mixed).float(), 2)
        return torch.exp(log_depth), relative + 2 * log_depth.detach()

    def _carry(
        self, features: Tensor, log_mono: Tensor, error: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """From the points to every place: median error (N, 1, 1, 1), and at an eighth of the image
        the error a place should expect (N, 1, H/8, W/8) with its spread and certainty (N, 2, …)."""
        n, _, height, width = features.shape
        places = self._places(log_mono)
        filled = F.avg_pool2d(seen, CELL_OF_HALF) > 0
        cells = _mean(torch.cat([error, places], 1), seen, CELL_OF_HALF)
        error, key_place = cells[:, :1], cells[:, 1:].flatten(2)
        median = masked_median(error, filled)
        error = torch.where(filled, error - median, 0).flatten(2)  # (N, 1, K)

        at_points = F.avg_pool2d(seen, 2)
        key_maps = _mean(features.float(), at_points, CELL_OF_QUARTER).to(features.dtype)
        key = self.key(key_maps).flatten(2).float()
        query_maps = F.avg_pool2d(features, 2)
        query = self.query(query_maps).flatten(2).float() / 32**0.5
        query_place = F.avg_pool2d(places, 4).flatten(2)
        unlike = self.unlike(query_maps).flatten(2).float()

        # q·k - |a (p_q - p_k)|² for every key, and `unlike` for two more that stand for none of
        # them: one product of matrices. |a p_q|², the same for all keys, is moved over to `unlike`.
        a = torch.exp(self.falls).view(1, 3, 1)
        far = (a * key_place**2).sum(1, True) + torch.where(filled, 0.0, EMPTY).flatten(2)
        unlike = unlike + (a * query_place**2).sum(1, True)
        own = torch.eye(2, device=far.device).expand(n, 2, 2)
        none = torch.cat([torch.zeros_like(far).expand(n, 2, -1), own], 2)
        key = torch.cat([F.pad(torch.cat([key, key_place, far], 1), (0, 2)), none], 1)
        query = torch.cat([query, 2 * a * query_place, -torch.ones_like(unlike[:, :1]), unlike], 1)
        weights = torch.softmax(query.transpose(1, 2) @ key, 2)  # (N, Q, K + 2)

        # Of the two, one says the median of all points, the other the student's own answer.
        values = torch.cat([error, error**2, torch.ones_like(error)], 1)
        fallback = F.pad(-median.flatten(2), (1, 0, 0, 2))
        carried = weights @ torch.cat([values, fallback], 2).transpose(1, 2)  # (N, Q, 3)
        carried = carried.transpose(1, 2).view(n, 3, height // 2, width // 2)
        mean, square, certain = carried.split(1, 1)
        spread = torch.sqrt((square - mean**2).clamp(min=0) + 1e-6)
        return median, median + mean, torch.cat([spread, certain], 1)

    def _places(self, log_mono: Tensor) -> Tensor:
        """Column and row in 100 pixels from the image's middle, and log-depth: (N, 3, H/2, W/2)."""
        n, _, height, width = log_mono.shape
        u, v = (
            (torch.arange(size, device=log_mono.device) - (size - 1) / 2) / 50
            for size in (width, height)
        )
        u, v = u.view(1, 1, 1, -1), v.view(1, 1, -1, 1)
        return torch.cat(
            [u.expand(n, 1, height, width), v.expand(n, 1, height, width), log_mono], 1
        )


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
