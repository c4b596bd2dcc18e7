"""The mask of the shipped defence: it shows of each pixel what lies along a smooth image [OURS].

It takes the place of G_adv (Hu & Okatani, arXiv 1911.08790; METHODS 3) for robots, and is trained
and used as that is. As a picture of what a depth network looks at it says nothing: for that take
one of saliency.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mde_ros.networks.blocks import separable5
from mde_ros.networks.mff import LightTrunk


class SmoothingMask(LightTrunk):
    """How far to smooth an image, and how much to show of it: (N, 3, H, W) normalised → mask
    (N, 1, H, W) in [0, 1].

    A mask cannot smooth; but it can show of every pixel as much as lies along the smooth image s:
    m = g · clamp(x·s / x·x, 0, 1) over the colours. So it takes back what an attack has added, for
    an attack is fine and depth is not. How much there is of what is fine about a pixel, and where
    the image is plainest, tells of an attack: that, and for each place the trunk of the fast
    student, say over how many pixels x is averaged to be s, and how much g of it is shown. A mask
    that only hides is s = x.
    """

    # Of g, x and its averages over about 3, 6, 12 and 20 pixels, before training: at no noise where
    # the image is plainest (a level of 0, a deviation of 0.04), and per unit of it. What looks
    # clean is shown as it is; from there on the more is smoothed the noisier it is.
    BEGINNING = ((4.0, -1.0), (-0.25, -15.0), (0.0, 0.0), (0.0, 0.0), (2.0, 0.0), (1.5, 0.5))

    def __init__(self) -> None:
        super().__init__("mobilenet_v2", fast=True)
        head = nn.Conv2d(
            64, 16 + 5, 3, padding=1
        )  # g of 4 x 4 pixels, and logits of x and averages
        self.refine = nn.Sequential(separable5(64), head)
        self.noise = nn.Conv2d(2, 1 + 5, 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            for i, (bias, slope) in enumerate(self.BEGINNING):
                self.noise.weight[i] = torch.tensor([0.0, slope]).view(2, 1, 1)
                self.noise.bias[i] = bias  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        fine = averaged(x, 3)
        wide = [quarter(x)]
        for box in (3, 5):
            wide.append(averaged(wide[-1], box))
        # The logarithm of what is fine over some 20 pixels, and its least, softly, over the image.
        level = torch.log(averaged(quarter((x - fine).abs().mean(1, keepdim=True)), 5) + 0.01) + 3
        least = torch.log(torch.exp(-4 * level.clamp(max=2)).mean((2, 3), keepdim=True)) / -4
        about = self.noise(torch.cat([level, least.expand_as(level)], 1))
        # The trunk is a depth network's, and what misleads that would mislead it: it sees no noise.
        said = self.refine(self.features(mixed(x, fine, wide, about[:, 1:])))
        s = mixed(x, fine, wide, about[:, 1:] + said[:, 16:])
        along = (x * s).sum(1, keepdim=True) / (x * x).sum(1, keepdim=True).clamp(min=1e-3)
        shown = F.pixel_shuffle(said[:, :16] + about[:, :1], 4)[..., : x.shape[2], : x.shape[3]]
        return torch.sigmoid(shown) * along.clamp(0, 1)


def mixed(x: Tensor, fine: Tensor, wide: Sequence[Tensor], logits: Tensor) -> Tensor:
    """The sum of x, its fine and its wide averages by the softmax of logits, (N, 3, H, W).

    Args:
        wide: (N, 3, h, w) each, at a quarter of the size. logits: (N, 2 + their number, h, w).
    """
    shares = torch.softmax(logits, 1)
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
