"""The mask of the shipped defence: it shows of each pixel what lies along a smooth image [OURS].

It takes the place of G_adv (Hu & Okatani, arXiv 1911.08790; METHODS 3) for robots, and is trained
and used as that is, but it has no trunk: what tells of an attack is fine, not deep. As a picture of
what a depth network looks at it says nothing: for that take one of saliency.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SmoothingMask(nn.Module):
    """How far to smooth an image, and how much to show of it: (N, 3, H, W) normalised → mask
    (N, 1, H, W) in [0, 1].

    A mask cannot smooth; but it can show of every pixel as much as lies along a smooth image s,
    m = clamp(x·s / x·x, 0, 1) over the colours; and then, TIMES times, so much less or more of it
    that what is shown of 3 x 3 pixels comes nearer to s, m = clamp(m - k x·mean(m x - s) / x·x, 0,
    1). So it takes back what an attack has added, for an attack is fine and depth is not. How much
    there is of what is fine about a pixel, and where the image is plainest, tells of an attack:
    that says over how many pixels x is averaged, and by how much g it is made fainter, to be s. A
    mask that only hides is s = g x.
    """

    TIMES, NEARER = 2, 3.0  # k
    # Of g, x and its averages over about 3, 6, 12 and 20 pixels, before training: at no noise where
    # the image is plainest (a level of 0, a deviation of 0.04), and per unit of it. What looks
    # clean is shown as it is; from there on the more is smoothed the noisier it is.
    BEGINNING = ((4.0, -2.0), (-1.2, -30.0), (0.0, 0.0), (0.0, 0.0), (2.0, 0.0), (1.5, 0.5))

    def __init__(self) -> None:
        super().__init__()
        self.noise = nn.Conv2d(2, 6, 1)
        with torch.no_grad():
            for i, (bias, slope) in enumerate(self.BEGINNING):
                self.noise.weight[i] = torch.tensor([0.0, slope]).view(2, 1, 1)
                self.noise.bias[i] = bias  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        fine = averaged(x, 3)
        wide = [quarter(x)]
        for box in (3, 5):
            wide.append(averaged(wide[-1], box))
        # The logarithm of what is fine over some 20 pixels; and its least over the image, but not
        # of one place alone: a soft minimum, in a way that half precision can take.
        level = torch.log(averaged(quarter(summed((x - fine).abs())), 5) / 3 + 0.01) + 3
        least = level.amin((2, 3), keepdim=True)
        least = least - torch.log(torch.exp(12 * (least - level)).mean((2, 3), keepdim=True)) / 12
        about = self.noise(torch.cat([level, least.expand_as(level)], 1))
        s = mixed(x, fine, wide, torch.sigmoid(about[:, :1]) * torch.softmax(about[:, 1:], 1))
        of_x = summed(x * x).clamp(min=1e-3)
        m = (summed(x * s) / of_x).clamp(0, 1)
        for _ in range(self.TIMES):
            m = (m - self.NEARER * summed(x * averaged(m * x - s, 3)) / of_x).clamp(0, 1)
        return m


def summed(x: Tensor) -> Tensor:
    """Over the colours: (N, 3, H, W) → (N, 1, H, W). Runtimes are slow to reduce an axis of 3."""
    return x[:, :1] + x[:, 1:2] + x[:, 2:]


def mixed(x: Tensor, fine: Tensor, wide: Sequence[Tensor], shares: Tensor) -> Tensor:
    """The sum of x, its fine and its wide averages by their shares, (N, 3, H, W).

    Args:
        wide: (N, 3, h, w) each, at a quarter of the size. shares: (N, 2 + their number, h, w).
    """
    far = [shares[:, i : i + 1] * image for i, image in enumerate(wide, 2)]
    spread = torch.cat([shares[:, :2], torch.stack(far).sum(0)], 1)
    size = (4 * spread.shape[2], 4 * spread.shape[3])
    spread = F.interpolate(spread, size, mode="bilinear", align_corners=False)
    spread = spread[..., : x.shape[2], : x.shape[3]]  # odd sizes: the quarters reach beyond
    return spread[:, :1] * x + spread[:, 1:2] * fine + spread[:, 2:]


def quarter(x: Tensor) -> Tensor:
    """Means over 4 x 4 pixels; those at the right and lower edge may be of fewer."""
    return F.avg_pool2d(x, 4, ceil_mode=True, count_include_pad=False)


def averaged(x: Tensor, box: int) -> Tensor:
    """Means over box x box pixels, of those within the image."""
    return F.avg_pool2d(x, box, 1, box // 2, count_include_pad=False)
