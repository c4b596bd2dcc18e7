"""Dilated residual networks, variant D: Yu et al., "Dilated Residual Networks", CVPR 2017.

The encoder of the mask networks (METHODS 2). Parameter names follow the authors' public ImageNet
weights, so those files load by key.
"""

from __future__ import annotations

from torch import Tensor, nn

from mde_ros.networks.backbones import BasicBlock, Bottleneck


class Drn(nn.Module):
    """(N, 3, H, W) → maps of 32 channels at 1/2, 64 (256 of D-54) at 1/4 and 512 at 1/8.

    Args:
        depth: 22, 38 or 54 layers.
    """

    # Blocks of layers 3 to 6, which are residual.
    layers: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
        22: (BasicBlock, (2, 2, 2, 2)),
        38: (BasicBlock, (3, 4, 6, 3)),
        54: (Bottleneck, (3, 4, 6, 3)),
    }

    def __init__(self, depth: int) -> None:
        super().__init__()
        block, counts = self.layers[depth]
        self.layer0 = conv_bn_relu(3, 16, 7)
        self.layer1 = conv_bn_relu(16, 16, 3)
        self.layer2 = conv_bn_relu(16, 32, 3, stride=2)
        # Layers 5 and 6 dilate where a ResNet would stride, from their first block on.
        cin = 32
        for number, width, count, stride, dilation in zip(
            (3, 4, 5, 6), (64, 128, 256, 512), counts, (2, 2, 1, 1), (1, 1, 2, 4)
        ):
            stage = [block(cin, width, stride, dilation)]
            cin = width * block.expansion
            stage += [block(cin, width, 1, dilation) for _ in range(count - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*stage))
        # Without shortcuts, against the grid that dilation leaves.
        self.layer7 = conv_bn_relu(cin, 512, 3, dilation=2)
        self.layer8 = conv_bn_relu(512, 512, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        half = self.layer2(self.layer1(self.layer0(x)))
        x = quarter = self.get_submodule("layer3")(half)
        for number in range(4, 9):
            x = self.get_submodule(f"layer{number}")(x)
        return half, quarter, x


def conv_bn_relu(
    cin: int, cout: int, kernel: int, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU."""
    padding = kernel // 2 * dilation
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(cout),
        nn.ReLU(inplace=True),
    )
