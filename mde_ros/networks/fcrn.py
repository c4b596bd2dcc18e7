"""FCRN: a residual encoder and up-projections, without skips.

Laina et al., "Deeper Depth Prediction with Fully Convolutional Residual Networks", 3DV 2016.
A teacher of data-free distillation, and its student on a smaller encoder (METHODS 6, pair 3).
"""

from __future__ import annotations

from torch import Tensor, nn

from mde_ros.networks.backbones import make_backbone
from mde_ros.networks.blocks import UnpoolProjection, resize


class FcrnNet(nn.Module):
    """(N, 3, H, W) normalised image → (N, 1, H/2, W/2) depth, any size.

    Four up-projections make sixteen times the coarsest map, which is half the image rounded up to
    whole cells; what is put out is resized to half the image, as of the other networks.
    """

    def __init__(self, backbone: str = "resnet50") -> None:
        super().__init__()
        self.encoder = make_backbone(backbone)
        c4 = self.encoder.channels[3]
        self.reduce = nn.Sequential(nn.Conv2d(c4, c4 // 2, 1, bias=False), nn.BatchNorm2d(c4 // 2))
        self.up = nn.Sequential(
            *(UnpoolProjection(c4 // 2**k, c4 // 2 ** (k + 1)) for k in range(1, 5))
        )
        self.head = nn.Conv2d(c4 // 32, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        block1, _, _, block4 = self.encoder(x)
        return resize(self.head(self.up(self.reduce(block4))), block1, 2)
