"""Encoder – decoder – multi-scale fusion – refinement, and the light students without a decoder.

MffNet: Hu et al., "Revisiting Single Image Depth Estimation", WACV 2019, figure 2 (METHODS 1).
LightNet: Hu et al., "Boosting Light-Weight Depth Estimation", KSEM 2023 (METHODS 5).
FastNet: LightNet with its fusion made separable and moved to quarter resolution; our own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mde_ros.networks.backbones import make_backbone
from mde_ros.networks.blocks import Gate, LightUp, UpProjection, conv5, separable5

LOG_RANGE = (-4.0, 6.0)  # of log-depth: 2 cm to 400 m


class MffNet(nn.Module):
    """(N, 3, H, W) normalised image → (N, 1, H/2, W/2) depth, any size."""

    def __init__(self, backbone: str = "resnet50") -> None:
        super().__init__()
        self.encoder = make_backbone(backbone)
        c1, c2, c3, c4 = self.encoder.channels
        # D: a 1×1 that halves the channels, then four up-projections that each halve them.
        self.reduce = nn.Sequential(
            nn.Conv2d(c4, c4 // 2, 1, bias=False), nn.BatchNorm2d(c4 // 2), nn.ReLU(inplace=True)
        )
        self.up = nn.ModuleList(UpProjection(c4 // 2**k, c4 // 2 ** (k + 1)) for k in range(1, 5))
        # MFF: every encoder map to 16 channels at half resolution.
        self.fuse_up = nn.ModuleList(UpProjection(c, 16) for c in (c1, c2, c3, c4))
        self.fuse = conv5(64, 64)
        # R
        width = 64 + c4 // 32
        self.refine = nn.Sequential(
            conv5(width, width), conv5(width, width), nn.Conv2d(width, 1, 5, padding=2)
        )

    def forward(self, x: Tensor) -> Tensor:
        block1, block2, block3, block4 = maps = self.encoder(x)
        d = self.reduce(block4)
        d = self.up[0](d, block3)
        d = self.up[1](d, block2)
        d = self.up[2](d, block1)
        d = self.up[3](d, block1, 2)
        fused = [up(m, block1, 2) for up, m in zip(self.fuse_up, maps)]
        f = self.fuse(torch.cat(fused, 1))
        return self.refine(torch.cat([d, f], 1))


class LightTrunk(nn.Module):
    """Encoder, gates, light up blocks and fusion: all that LightNet and FastNet do before R.

    Args:
        fast: separable convolutions at quarter resolution instead of full ones at half.
    """

    def __init__(self, backbone: str, fast: bool = False) -> None:
        super().__init__()
        self.encoder = make_backbone(backbone)
        self.gates = nn.ModuleList(Gate(c) for c in self.encoder.channels)
        self.fuse_up = nn.ModuleList(LightUp(c, 16) for c in self.encoder.channels)
        self.fuse = separable5(64) if fast else conv5(64, 64)
        self.times_block1 = 1 if fast else 2  # size of the fused map

    def features(self, x: Tensor) -> Tensor:
        """The fused map x_mff: (N, 64, H/2, W/2), quarter size if fast."""
        maps = self.encoder(x)
        size = (maps[0], self.times_block1)
        fused = [up(gate(m), *size) for gate, up, m in zip(self.gates, self.fuse_up, maps)]
        return self.fuse(torch.cat(fused, 1))


class LightNet(LightTrunk):
    """Gates and light up blocks straight into the fusion: (N, 3, H, W) → (N, 1, H/2, W/2) depth."""

    def __init__(self, backbone: str = "mobilenet_v2") -> None:
        super().__init__(backbone)
        self.refine = nn.Sequential(conv5(64, 64), nn.Conv2d(64, 1, 5, padding=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.refine(self.features(x))


class FastNet(LightTrunk):
    """LightNet for robots without a GPU: (N, 3, H, W) → (N, 1, H/2, W/2) depth, always positive.

    The fusion runs at quarter resolution with separable convolutions; the last one puts out four
    values a pixel, which a pixel shuffle lays out at half resolution. The values are log-depth, so
    a relative error weighs the same near and far.
    """

    def __init__(self, backbone: str = "mobilenet_v2") -> None:
        super().__init__(backbone, fast=True)
        head = nn.Conv2d(64, 4, 3, padding=1)
        with torch.no_grad():  # the four values of a pixel start equal: no checkerboard
            head.weight.copy_(head.weight[:1].expand_as(head.weight))
            head.bias.fill_(0.9)  # type: ignore[union-attr]  # 2.5 m
        self.refine = nn.Sequential(separable5(64), head)

    def log_depth(self, features: Tensor) -> Tensor:
        """Logarithm of canonical depth from the fused map: (N, 1, H/2, W/2)."""
        return F.pixel_shuffle(self.refine(features), 2).float()

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(self.log_depth(self.features(x)).clamp(*LOG_RANGE))
