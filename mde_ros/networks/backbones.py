"""Image encoders as feature pyramids: (N, 3, H, W) → maps at 1/4, 1/8, 1/16 and 1/32.

Parameter names follow the public ImageNet weights of each network (torchvision's for ResNet,
DenseNet and MobileNet-V2, Cadene's for SENet), so those files load by key.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Backbone(nn.Module):
    """An encoder: a stem, whose map is half the image's size, and four stages.

    `channels` are those of the four maps that forward returns, fine to coarse.
    """

    stem_channels: int
    channels: tuple[int, int, int, int]

    def stem(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) → the map at 1/2."""
        raise NotImplementedError

    def stages(self, half: Tensor) -> list[Tensor]:
        """The map at 1/2 → those at 1/4, 1/8, 1/16 and 1/32."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.stages(self.stem(x))


def conv_bn_relu(
    cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.ReLU6]:
    """Convolution without bias, batch norm, ReLU6: the brick of MobileNet-V2."""
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(cout), nn.ReLU6(inplace=True)


class InvertedResidual(nn.Module):
    """Expand 1×1, depthwise 3×3, project 1×1 (Sandler et al. 2018, figure 4)."""

    def __init__(self, cin: int, cout: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = cin * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers += conv_bn_relu(cin, hidden, 1)
        layers += conv_bn_relu(hidden, hidden, 3, stride, groups=hidden)
        layers += [nn.Conv2d(hidden, cout, 1, bias=False), nn.BatchNorm2d(cout)]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(Backbone):
    """MobileNet-V2 up to its 17th block: 24, 32, 96 and 160 channels (METHODS 5)."""

    stem_channels = 16
    channels = (24, 32, 96, 160)
    # expansion, channels, blocks, stride
    layers = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
    )

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Sequential(*conv_bn_relu(3, 32, 3, 2))]
        cin = 32
        for expand, cout, count, stride in self.layers:
            for i in range(count):
                blocks.append(InvertedResidual(cin, cout, stride if i == 0 else 1, expand))
                cin = cout
        self.features = nn.Sequential(*blocks)

    def stem(self, x: Tensor) -> Tensor:
        return self.features[1](self.features[0](x))

    def stages(self, half: Tensor) -> list[Tensor]:
        x, maps = half, []
        for i in range(2, len(self.features)):
            x = self.features[i](x)
            if i in (3, 6, 13, 16):
                maps.append(x)
        return maps


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2016)."""

    expansion = 1

    def __init__(self, cin: int, width: int, stride: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, width, 3, stride, dilation, dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = projection(cin, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions and a shortcut; the stride is on the 3×3."""

    expansion = 4

    def __init__(self, cin: int, width: int, stride: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * 4)
        self.downsample = projection(cin, width * 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def projection(cin: int, cout: int, stride: int, kernel: int = 1) -> nn.Sequential | None:
    """The shortcut's convolution where the shape changes, none where it does not."""
    if stride == 1 and cin == cout:
        return None
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(cout)
    )


class ResNet(Backbone):
    """ResNet-18, 34 or 50 without pooling and classifier."""

    stem_channels = 64
    layers: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
        18: (BasicBlock, (2, 2, 2, 2)),
        34: (BasicBlock, (3, 4, 6, 3)),
        50: (Bottleneck, (3, 4, 6, 3)),
    }

    def __init__(self, depth: int) -> None:
        super().__init__()
        block, counts = self.layers[depth]
        e = block.expansion
        self.channels = (64 * e, 128 * e, 256 * e, 512 * e)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        cin = 64
        for i, (cout, count) in enumerate(zip(self.channels, counts)):
            stage = [block(cin, cout // e, 2 if i else 1)]
            stage += [block(cout, cout // e, 1) for _ in range(count - 1)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
            cin = cout

    def stem(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(x)))

    def stages(self, half: Tensor) -> list[Tensor]:
        x, maps = F.max_pool2d(half, 3, 2, 1), []
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
            maps.append(x)
        return maps


class DenseLayer(nn.Module):
    """Norm-ReLU-1×1, norm-ReLU-3×3; its output is appended to its input (Huang et al. 2017)."""

    def __init__(self, cin: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(cin)
        self.conv1 = nn.Conv2d(cin, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], 1)


class DenseNet161(Backbone):
    """DenseNet-161; maps 1–3 are taken after a transition's 1×1, before its pooling (METHODS 1)."""

    stem_channels = 96
    channels = (192, 384, 1056, 2208)

    def __init__(self) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(3, 96, 7, 2, 3, bias=False), norm0=nn.BatchNorm2d(96)
        )
        cin, growth = 96, 48
        for i, count in enumerate((6, 12, 36, 24), start=1):
            block = [
                (f"denselayer{j + 1}", DenseLayer(cin + j * growth, growth)) for j in range(count)
            ]
            layers[f"denseblock{i}"] = nn.Sequential(OrderedDict(block))
            cin += count * growth
            if i < 4:
                layers[f"transition{i}"] = nn.Sequential(
                    OrderedDict(
                        norm=nn.BatchNorm2d(cin), conv=nn.Conv2d(cin, cin // 2, 1, bias=False)
                    )
                )
                cin //= 2
        layers["norm5"] = nn.BatchNorm2d(cin)
        self.features = nn.Sequential(layers)

    def stem(self, x: Tensor) -> Tensor:
        f = self.features.get_submodule
        return F.relu(f("norm0")(f("conv0")(x)))

    def stages(self, half: Tensor) -> list[Tensor]:
        f = self.features.get_submodule
        x, maps = F.max_pool2d(half, 3, 2, 1), []
        for i in (1, 2, 3):
            x = f(f"denseblock{i}")(x)
            x = f(f"transition{i}.conv")(F.relu(f(f"transition{i}.norm")(x)))
            maps.append(x)
            x = F.avg_pool2d(x, 2, 2)
        x = F.relu(f("norm5")(f("denseblock4")(x)))
        return [*maps, x]


class ChannelGate(nn.Module):
    """SENet's gate: global mean → 1×1, ReLU → 1×1, sigmoid (Hu et al. 2018)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.fc1(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.fc2(y))


class SEBottleneck(nn.Module):
    """The bottleneck of SENet-154: doubled 1×1, grouped 3×3 (64 groups), gate."""

    def __init__(self, cin: int, width: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, width * 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width * 2)
        self.conv2 = nn.Conv2d(width * 2, width * 4, 3, stride, 1, groups=64, bias=False)
        self.bn2 = nn.BatchNorm2d(width * 4)
        self.conv3 = nn.Conv2d(width * 4, width * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * 4)
        self.se_module = ChannelGate(width * 4)
        self.downsample = projection(cin, width * 4, stride, kernel)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.se_module(self.bn3(self.conv3(y)))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class SENet154(Backbone):
    """SENet-154: a stem of three 3×3 convolutions, layers 3-8-36-3."""

    stem_channels = 128
    channels = (256, 512, 1024, 2048)

    def __init__(self) -> None:
        super().__init__()
        stem: OrderedDict[str, nn.Module] = OrderedDict()
        for i, (cin, cout, stride) in enumerate(((3, 64, 2), (64, 64, 1), (64, 128, 1)), start=1):
            stem[f"conv{i}"] = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
            stem[f"bn{i}"] = nn.BatchNorm2d(cout)
            stem[f"relu{i}"] = nn.ReLU(inplace=True)
        stem["pool"] = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.layer0 = nn.Sequential(stem)
        cin = 128
        for i, (cout, count) in enumerate(zip(self.channels, (3, 8, 36, 3))):
            # The first stage's shortcut is 1×1, the strided ones are 3×3.
            stage = [SEBottleneck(cin, cout // 4, 2 if i else 1, 3 if i else 1)]
            stage += [SEBottleneck(cout, cout // 4, 1, 1) for _ in range(count - 1)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
            cin = cout

    def stem(self, x: Tensor) -> Tensor:
        for layer in list(self.layer0)[:-1]:
            x = layer(x)
        return x

    def stages(self, half: Tensor) -> list[Tensor]:
        x, maps = self.layer0[-1](half), []
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
            maps.append(x)
        return maps


BACKBONES = {
    "resnet18": lambda: ResNet(18),
    "resnet34": lambda: ResNet(34),
    "resnet50": lambda: ResNet(50),
    "densenet161": DenseNet161,
    "senet154": SENet154,
    "mobilenet_v2": MobileNetV2,
}


def make_backbone(name: str) -> Backbone:
    """An encoder with fresh weights.

    Raises:
        ValueError: on an unknown name; the message lists the valid ones.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone: expected one of {', '.join(BACKBONES)}, got {name!r}")
    return cast(Backbone, BACKBONES[name]())


def load_imagenet(backbone: Backbone, weights: dict[str, Tensor]) -> None:
    """Load public ImageNet weights by key; a classifier and unused tail in the file are ignored.

    Raises:
        ValueError: when a weight of the backbone is missing in the file or has another shape.
    """
    own = backbone.state_dict()
    # torchvision stores DenseNet's layers as norm.1 / conv.1 in old files.
    renamed = {
        k.replace("norm.1.", "norm1.")
        .replace("norm.2.", "norm2.")
        .replace("conv.1.", "conv1.")
        .replace("conv.2.", "conv2.")
        if "denselayer" in k
        else k: v
        for k, v in weights.items()
    }
    missing = [
        k
        for k, v in own.items()
        if not k.endswith("num_batches_tracked")
        and (k not in renamed or renamed[k].shape != v.shape)
    ]
    if missing:
        raise ValueError(
            f"initial weights: {len(missing)} of {len(own)} tensors are missing or of another"
            f" shape, the first is {missing[0]!r}; is this file of another backbone?"
        )
    backbone.load_state_dict({k: v for k, v in renamed.items() if k in own}, strict=False)
