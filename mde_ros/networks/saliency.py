"""Mask networks G: which pixels a depth network N needs to see, N(x ⊗ G(x)).

SaliencyNet: Hu et al., "Visualization of Convolutional Neural Networks for Monocular Depth
Estimation", ICCV 2019, and Hu & Okatani, arXiv 1911.08790 (METHODS 2, 3).
LightSaliencyNet: the trunk of the fast student with a mask for a head; our own, for robots.

The mask multiplies the normalised image: what it hides becomes the mean colour of ImageNet.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mde_ros.networks.blocks import UpProjection, separable5
from mde_ros.networks.drn import Drn
from mde_ros.networks.mff import LightTrunk


class SaliencyNet(nn.Module):
    """DRN-D and three up-projections: (N, 3, H, W) normalised → mask (N, 1, H, W) in [0, 1].

    Args:
        depth: of the DRN-D, 22, 38 or 54.
    """

    def __init__(self, depth: int = 22) -> None:
        super().__init__()
        self.encoder = Drn(depth)
        self.up = nn.ModuleList(UpProjection(cin, cin // 2) for cin in (512, 256, 128))
        self.head = nn.Conv2d(64, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        half, quarter, mask = self.encoder(x)
        for up, like in zip(self.up, (quarter, half, x)):
            mask = up(mask, like)
        return torch.sigmoid(self.head(mask))


class LightSaliencyNet(LightTrunk):
    """The fast student's trunk, and a mask laid out by a pixel shuffle from quarter resolution.

    (N, 3, H, W) normalised → mask (N, 1, H, W) in [0, 1]. It begins with half of every pixel:
    from there it goes to none and all; one that shows nearly all of them stays so.
    """

    def __init__(self) -> None:
        super().__init__("mobilenet_v2", fast=True)
        head = nn.Conv2d(64, 16, 3, padding=1)
        self.refine = nn.Sequential(separable5(64), head)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        mask = F.pixel_shuffle(self.refine(self.features(x)), 4)
        # Odd sizes: the quarters reach beyond.
        return torch.sigmoid(mask[..., : x.shape[2], : x.shape[3]])
