"""Networks that make what a data-free teacher is asked about; neither is kept (METHODS 6).

The publications' layers are not known; these are ours [OURS].
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

NOISE = (64, 32)  # channels of the generator's input, and its pixels a side of one of them


class Transformation(nn.Module):
    """G of image-to-feature adaptation: (N, 3, H, W) normalised image → the same, changed.

    Three 3×3 convolutions 3→32→32→3 around which the image goes too; the last one begins at zero,
    and G as the identity.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv3 = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.conv3.weight)
        nn.init.zeros_(self.conv3.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))


class Generator(nn.Module):
    """Noise (N, 64, H/32, W/32) → normalised image (N, 3, H, W), H and W multiples of 32.

    After the generator of Fang et al., "Data-Free Adversarial Distillation", 2019: convolution,
    batch norm and leaky ReLU between doublings, then tanh and a batch norm without weights, so that
    images come out with the mean and deviation of normalised ones.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        cin, doublings = NOISE[0], NOISE[1].bit_length() - 1
        for i in range(doublings):
            cout = 64 if i < doublings - 2 else 32
            layers += [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(cin, cout, 3, padding=1),
                nn.BatchNorm2d(cout),
                nn.LeakyReLU(0.2),
            ]
            cin = cout
        self.layers = nn.Sequential(
            *layers, nn.Conv2d(cin, 3, 3, padding=1), nn.Tanh(), nn.BatchNorm2d(3, affine=False)
        )

    def forward(self, noise: Tensor) -> Tensor:
        return self.layers(noise)
