"""Networks that learn depth from plain video: disparity at four scales, and the camera's motion.

Monodepth2: Godard et al., "Digging Into Self-Supervised Monocular Depth Estimation", ICCV 2019.
CADepth: Yan et al., "Channel-Wise Attention-Based Network", 3DV 2021. Facts of both: METHODS 9.
The light one, MobileNet-V2 with separable convolutions, is ours.

    image ── encoder ──┬─ 1/2 ──┬─ 1/4 ──┬─ 1/8 ──┬─ 1/16 ─┬─ 1/32 ── (structure perception)
                       │        │        │        │        │
    disparity    full ─┴─ 1/2 ──┴─ 1/4 ──┴─ 1/8 ──┴────────┘ up, join, (detail emphasis), conv
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mde_ros.networks.backbones import Backbone, make_backbone
from mde_ros.networks.blocks import separable5

NEAREST, FARTHEST = 0.1, 100.0  # depth of disparity 1 and 0
WIDTHS = (16, 32, 64, 128, 256)  # of the decoder, fine to coarse
LIGHT_WIDTHS = (16, 32, 48, 96)


def depth_of(disparity: Tensor) -> Tensor:
    """Disparity in 0..1 → depth: 1/depth is linear in it, from 1/100 to 1/0.1 (METHODS 9)."""
    return 1 / (1 / FARTHEST + (1 / NEAREST - 1 / FARTHEST) * disparity)


class VideoNet(nn.Module):
    """(N, 3, H, W) normalised image → (N, 1, h, w) depth of one unknown scale for all images.

    In training the four disparities in 0..1, fine to coarse, each half as large as the one before.
    Depth is multiplied by `scale`, metres per unit, which is 1 until it has been fitted.

    Args:
        decoder: channels of the five maps, fine to coarse → module from these to the disparities.
    """

    metric = False
    multiple = 32
    scale: Tensor

    def __init__(self, backbone: str, decoder: Callable[[tuple[int, ...]], nn.Module]) -> None:
        super().__init__()
        self.encoder = make_backbone(backbone)
        self.decoder = decoder((self.encoder.stem_channels, *self.encoder.channels))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        half = self.encoder.stem(x)
        disparities = self.decoder([half, *self.encoder.stages(half)])
        return disparities if self.training else self.scale * depth_of(disparities[0])


def conv3(cin: int, cout: int) -> nn.Conv2d:
    """3×3 with reflected borders."""
    return nn.Conv2d(cin, cout, 3, padding=1, padding_mode="reflect")


class Decoder(nn.Module):
    """Monodepth2's: conv, nearest ×2, join the encoder's map, conv; disparity after the last four.

    Args:
        channels: of the encoder's five maps, fine to coarse.
        attention: CADepth's structure perception, and detail emphasis before each second conv.
    """

    def __init__(self, channels: tuple[int, ...], attention: bool = False) -> None:
        super().__init__()
        before = (*WIDTHS[1:], channels[-1])
        joined = [w + c for w, c in zip(WIDTHS, (0, *channels))]
        self.structure = StructurePerception() if attention else nn.Identity()
        self.first = nn.ModuleList(conv3(b, w) for b, w in zip(before, WIDTHS))
        self.detail = nn.ModuleList(
            DetailEmphasis(j) if attention else nn.Identity() for j in joined
        )
        self.second = nn.ModuleList(conv3(j, w) for j, w in zip(joined, WIDTHS))
        self.disparity = nn.ModuleList(conv3(w, 1) for w in WIDTHS[:4])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x, disparities = self.structure(maps[-1]), []
        for level in (4, 3, 2, 1, 0):
            x = F.interpolate(F.elu(self.first[level](x)), scale_factor=2.0, mode="nearest")
            if level:
                x = torch.cat([x, maps[level - 1]], 1)
            x = F.elu(self.second[level](self.detail[level](x)))
            if level < 4:
                disparities.append(torch.sigmoid(self.disparity[level](x).float()))
        return disparities[::-1]


class StructurePerception(nn.Module):
    """Each channel takes up what the channels least like it hold (CADepth; METHODS 9)."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        energy = flat @ flat.transpose(1, 2)  # (N, C, C)
        likeness = torch.softmax(energy.amax(2, keepdim=True) - energy, 2)
        return (likeness @ flat).view_as(x) + x


class DetailEmphasis(nn.Module):
    """3×3-BN-ReLU, then y + y · gate of its global mean (CADepth; METHODS 9)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3(channels, channels)
        self.bn = nn.BatchNorm2d(channels)
        self.gate1 = nn.Conv2d(channels, channels, 1)
        self.gate2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn(self.conv(x)))
        gate = self.gate2(F.relu(self.gate1(y.mean((2, 3), keepdim=True))))
        return y + y * torch.sigmoid(gate)


class LightDecoder(nn.Module):
    """The same with separable convolutions and bilinear ×2; the finest disparity is at 1/2."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        before = (*LIGHT_WIDTHS[1:], channels[-1])
        joined = [w + c for w, c in zip(LIGHT_WIDTHS, channels)]
        self.first = nn.ModuleList(separable5(b, w) for b, w in zip(before, LIGHT_WIDTHS))
        self.second = nn.ModuleList(separable5(j, w) for j, w in zip(joined, LIGHT_WIDTHS))
        self.disparity = nn.ModuleList(conv3(w, 1) for w in LIGHT_WIDTHS)
        for head in self.disparity:
            # Depth starts at half a unit. A sigmoid alone starts it at 0.2, so near NEAREST that
            # what is near stays there in a short training, at the end of the sigmoid.
            nn.init.constant_(head.bias, -1.4)  # type: ignore[arg-type]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x, disparities = maps[-1], []
        for level in (3, 2, 1, 0):
            x = F.interpolate(self.first[level](x), scale_factor=2.0, mode="bilinear")
            x = self.second[level](torch.cat([x, maps[level]], 1))
            disparities.append(torch.sigmoid(self.disparity[level](x).float()))
        return disparities[::-1]


class PoseNet(nn.Module):
    """Two normalised images (N, 3, H, W) → (N, 6), the motion that maps points of the first frame
    into the second: an axis times its angle in radians, and a translation (Monodepth2; METHODS 9).
    """

    def __init__(self, backbone: str = "resnet18") -> None:
        super().__init__()
        self.encoder = two_frames(make_backbone(backbone))
        self.head = nn.Sequential(
            nn.Conv2d(self.encoder.channels[-1], 256, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 6, 1),
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        motion = self.head(self.encoder(torch.cat([first, second], 1))[-1])
        return 0.01 * motion.float().mean((2, 3))


def two_frames(encoder: Backbone) -> Backbone:
    """Have the first convolution take two images, either by half its weights; the encoder."""
    name, conv = next((n, m) for n, m in encoder.named_modules() if isinstance(m, nn.Conv2d))
    parent, _, child = name.rpartition(".")
    wide = nn.Conv2d(6, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, bias=False)  # type: ignore[arg-type]
    with torch.no_grad():
        wide.weight.copy_(conv.weight.repeat(1, 2, 1, 1) / 2)
    setattr(encoder.get_submodule(parent), child, wide)
    return encoder
