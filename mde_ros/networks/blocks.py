"""Up-projections, light up block, squeeze-excite gate and bilinear resize (METHODS 0.2, 0.3, 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def resize(x: Tensor, like: Tensor, factor: int = 1) -> Tensor:
    """Bilinear resize (align_corners=True, as the published networks) to `factor` × like's size."""
    size = (like.shape[2] * factor, like.shape[3] * factor)
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


class UpProjection(nn.Module):
    """Resize, then 5×5-BN-ReLU-3×3-BN beside 5×5-BN, summed, ReLU (METHODS 0.2)."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 5, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.shortcut = nn.Conv2d(cin, cout, 5, padding=2, bias=False)
        self.bn_shortcut = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor, like: Tensor, factor: int = 1) -> Tensor:
        x = resize(x, like, factor)
        main = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(main + self.bn_shortcut(self.shortcut(x)))


class UnpoolProjection(nn.Module):
    """Laina's up-projection: 2×2 zero-unpooling, then as UpProjection (METHODS 0.2).

    A 5×5 convolution of a map with zeros between its pixels is a transposed one of stride 2, so the
    zeros are neither stored nor multiplied.
    """

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(cin, cout, 5, 2, 2, output_padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.shortcut = nn.ConvTranspose2d(cin, cout, 5, 2, 2, output_padding=1, bias=False)
        self.bn_shortcut = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        main = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(main + self.bn_shortcut(self.shortcut(x)))


class LightUp(nn.Module):
    """5×5-BN-ReLU, then resize: the convolution runs at the coarse size (METHODS 0.3)."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 5, padding=2, bias=False)
        self.bn = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor, like: Tensor, factor: int = 1) -> Tensor:
        return resize(F.relu(self.bn(self.conv(x))), like, factor)


class Gate(nn.Module):
    """Squeeze-and-excite without bias, C → C/16 → C (METHODS 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.excite = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.excite(y))


def conv5(cin: int, cout: int) -> nn.Sequential:
    """5×5 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(cin, cout, 5, padding=2, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)
    )


def separable5(cin: int, cout: int | None = None) -> nn.Sequential:
    """5×5 depthwise and 1×1, each with batch norm and ReLU: conv5 at an eighteenth of its cost."""
    cout = cout or cin
    return nn.Sequential(
        nn.Conv2d(cin, cin, 5, padding=2, groups=cin, bias=False),
        nn.BatchNorm2d(cin),
        nn.ReLU(inplace=True),
        nn.Conv2d(cin, cout, 1, bias=False),
        nn.BatchNorm2d(cout),
        nn.ReLU(inplace=True),
    )
