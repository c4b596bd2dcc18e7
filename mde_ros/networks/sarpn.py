"""Depth as a pyramid: the layout at 1/32 of the image, and at each finer scale what it left out.

    image ── encoder: maps at 1/2 … 1/32 ── dense fusion (ADFF), every map into every scale
    1/32: depth ── refine ─┬─ resize ─ + residual at 1/16 ── refine ─┬─ resize ─ … ── depth at 1/2

Chen, Chen & Zha, "Structure-Aware Residual Pyramid Network for Monocular Depth Estimation", IJCAI
2019. A teacher of data-free distillation, and its student on a smaller encoder (METHODS 6, pair 5).
Layers and widths are those of the authors' code; that this is the paper's pair is inferred from
its parameters, 258.40 and 38.65 million, which these networks have.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mde_ros.networks.backbones import make_backbone
from mde_ros.networks.blocks import UpProjection, resize


def conv3(cin: int, cout: int) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.ReLU]:
    """3×3 convolution without bias, batch norm, ReLU."""
    conv = nn.Conv2d(cin, cout, 3, padding=1, bias=False)
    return conv, nn.BatchNorm2d(cout), nn.ReLU(inplace=True)


class DenseFusion(nn.Module):
    """ADFF at one scale: all maps brought to its size, `part` channels of each, 3×3 to `width`."""

    def __init__(self, channels: tuple[int, ...], part: int, width: int) -> None:
        super().__init__()
        self.bring = nn.ModuleList(UpProjection(c, part) for c in channels)
        self.fuse = nn.Sequential(*conv3(len(channels) * part, width))

    def forward(self, maps: list[Tensor], like: Tensor) -> Tensor:
        brought = [bring(m, like) for bring, m in zip(self.bring, maps)]
        return self.fuse(torch.cat(brought, 1))


class Refinement(nn.Module):
    """The end of an RRM: depth plus what three 3×3 convolutions see in it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.detail = nn.Sequential(
            *conv3(1, width), *conv3(width, width), nn.Conv2d(width, 1, 3, padding=1)
        )

    def forward(self, depth: Tensor) -> Tensor:
        return depth + self.detail(depth)


class SarpnNet(nn.Module):
    """(N, 3, H, W) normalised image → (N, 1, H/2, W/2) depth, any size.

    Args:
        part: channels that each of the encoder's five maps has in the coarsest fused one; they are
            halved from scale to scale, as all widths are.
    """

    every_scale = True  # forward takes it: training supervises all scales

    def __init__(self, backbone: str = "senet154", part: int = 256) -> None:
        super().__init__()
        self.encoder = make_backbone(backbone)
        channels = (self.encoder.stem_channels, *self.encoder.channels)
        top = channels[-1]
        widths = [top // 2**k for k in range(1, 6)]  # of the fused maps, coarse to fine
        self.fuse = nn.ModuleList(
            DenseFusion(channels, part // 2**k, width) for k, width in enumerate(widths)
        )
        self.reduce = nn.Sequential(
            nn.Conv2d(top, top // 2, 1, bias=False), nn.BatchNorm2d(top // 2), nn.ReLU(inplace=True)
        )
        # The coarsest map predicts depth itself, beside the reduced top; the others a residual.
        self.predict = nn.ModuleList(
            nn.Sequential(*conv3(cin, width), nn.Conv2d(width, 1, 3, padding=1, bias=False))
            for cin, width in zip((top, *widths[1:]), widths)
        )
        self.refine = nn.ModuleList(Refinement(width // 2) for width in widths)

    def forward(self, x: Tensor, every_scale: bool = False) -> Tensor | list[Tensor]:
        """Depth; with `every_scale` those of 1/32 to 1/2 of the image, the last of which it is."""
        half = self.encoder.stem(x)
        maps = [half, *self.encoder.stages(half)]
        fused = [fuse(maps, like) for fuse, like in zip(self.fuse, reversed(maps))]
        fused[0] = torch.cat([self.reduce(maps[-1]), fused[0]], 1)
        depths: list[Tensor] = []
        for features, predict, refine in zip(fused, self.predict, self.refine):
            depth = predict(features)
            if depths:
                depth = depth + resize(depths[-1], depth)
            depths.append(refine(depth))
        return depths if every_scale else depths[-1]
