"""Sparse-to-dense: the published completion networks that single-line completion trains.

SparseToDenseNet: Ma & Karaman, "Sparse-to-Dense: Depth Prediction from Sparse Depth Samples and a
Single Image", ICRA 2018, figure 3. DepthCompletionNet: Ma et al., "Self-Supervised
Sparse-to-Dense", ICRA 2019, figure 3. Both as METHODS 7b lists them.

Sparse depth is (N, 1, H, W) in metres, 0 = none: one line, many, or nothing. With `uncertainty`, a
second output channel is s, the logarithm of half the expected squared error (METHODS 4), which only
the loss ℓ_ud needs; that channel is ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mde_ros.networks.backbones import make_backbone
from mde_ros.networks.blocks import UnpoolProjection, resize

Output = Tensor | tuple[Tensor, Tensor]  # depth, or depth and s


class SparseToDenseNet(nn.Module):
    """ICRA 2018: (N, 3, H, W) normalised image, sparse depth → (N, 1, H, W) depth, any size.

    Image and depth are concatenated at the very start; the output has no activation.
    """

    takes_points = True

    def __init__(self, backbone: str = "resnet18", uncertainty: bool = False) -> None:
        super().__init__()
        self.encoder = make_backbone(backbone)
        # A convolution of four channels is the sum of one of three, for which there are ImageNet
        # weights, and one of the depth.
        self.stem_depth = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        c4 = self.encoder.channels[3]
        self.reduce = nn.Sequential(nn.Conv2d(c4, c4 // 2, 1, bias=False), nn.BatchNorm2d(c4 // 2))
        self.up = nn.Sequential(
            *(UnpoolProjection(c4 // 2**k, c4 // 2 ** (k + 1)) for k in range(1, 5))
        )
        self.head = nn.Conv2d(c4 // 32, 1 + uncertainty, 3, padding=1, bias=False)

    def forward(self, image: Tensor, sparse_m: Tensor) -> Output:
        layer = self.encoder.get_submodule
        x = layer("conv1")(image) + self.stem_depth(sparse_m)
        x = F.max_pool2d(F.relu(layer("bn1")(x)), 3, 2, 1)
        for i in range(1, 5):
            x = layer(f"layer{i}")(x)
        x = resize(self.head(self.up(self.reduce(x))), image)
        return x if x.shape[1] == 1 else (x[:, :1], x[:, 1:])


def conv_bn_leaky(cin: int, cout: int, stride: int = 1) -> nn.Sequential:
    """3×3 convolution, batch norm, leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout), nn.LeakyReLU(0.2)
    )


def up_bn_leaky(cin: int, cout: int, stride: int = 2) -> nn.Sequential:
    """3×3 transposed convolution to `stride` times the size, batch norm, leaky ReLU."""
    conv = nn.ConvTranspose2d(cin, cout, 3, stride, 1, output_padding=stride - 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), nn.LeakyReLU(0.2))


class DepthCompletionNet(nn.Module):
    """ICRA 2019: (N, 3, H, W) normalised image, sparse depth → (N, 1, H, W) depth, any size.

    Image and depth have first convolutions of their own, 64 channels in all; the encoder's layers
    follow at full resolution, and the decoder gets the map of its size from each.

    Args:
        floor_m: what is nearer is put out as this in evaluation; the paper's 0.9 m is the least
            range of KITTI's Velodyne.
    """

    takes_points = True

    def __init__(
        self, backbone: str = "resnet34", uncertainty: bool = False, floor_m: float = 0.9
    ) -> None:
        super().__init__()
        self.floor_m = floor_m
        self.stem_depth = conv_bn_leaky(1, 16)
        self.stem_image = conv_bn_leaky(3, 48)
        resnet = make_backbone(backbone)
        # Named as in the whole encoder, whose ImageNet weights then load; its stem is not used.
        self.encoder = nn.ModuleDict(
            {f"layer{i}": resnet.get_submodule(f"layer{i}") for i in range(1, 5)}
        )
        c1, c2, c3, c4 = resnet.channels
        self.bottom = conv_bn_leaky(c4, 512, 2)
        self.up = nn.ModuleList(
            [
                up_bn_leaky(512, 256),
                up_bn_leaky(256 + c4, 128),
                up_bn_leaky(128 + c3, 64),
                up_bn_leaky(64 + c2, 64),
                up_bn_leaky(64 + c1, 64, 1),
            ]
        )
        self.head = nn.Conv2d(64 + 64, 1 + uncertainty, 1)
        nn.init.normal_(self.head.weight, 0, 0.02)  # as published: a hundredfold follows

    def forward(self, image: Tensor, sparse_m: Tensor) -> Output:
        x = torch.cat([self.stem_depth(sparse_m), self.stem_image(image)], 1)
        skips = [x]
        for layer in self.encoder.values():
            skips.append(layer(skips[-1]))
        x = self.bottom(skips[-1])
        for up, skip in zip(self.up, reversed(skips)):
            # Of an odd size the doubled map has a row or column too many. [OURS; the paper crops
            # its images to multiples of 16.]
            x = torch.cat([up(x)[..., : skip.shape[2], : skip.shape[3]], skip], 1)
        x = self.head(x)
        depth = 100 * x[:, :1]
        if not self.training:
            depth = depth.clamp(min=self.floor_m)
        return depth if x.shape[1] == 1 else (depth, x[:, 1:])
