"""What moves by itself, and how large it is: Nguyen et al., CVPR 2024 (METHODS 8).

MotionNet is RAFT (Teed & Deng, ECCV 2020) with one iteration, between a frame as its neighbour
should show it if nothing moved and that neighbour itself:

    warped ──┬─ features ─┐
             └─ context ──┼─ correlation, looked up ── GRU ── motion at 1/8 ── convex upsampling
    source ──── features ─┘

ScaleNet is the depth scale alignment: how large an object is, told by the scene around it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mde_ros.networks.backbones import make_backbone

Norm = Callable[[int], nn.Module]


class MotionNet(nn.Module):
    """Two normalised images (N, 3, H, W) → motion (N, 2, H, W) in pixels, from the first image's
    pixels to those of the second.

    H and W are multiples of 8.

    Args:
        light: ours, a quarter of the width, for CPUs.
        iterations: of the GRU; 1 as in CVPR 2024.
    """

    multiple = 8

    def __init__(self, light: bool = False, iterations: int = 1) -> None:
        super().__init__()
        self.iterations = iterations
        self.hidden, features = (32, 64) if light else (128, 256)
        self.levels, self.radius = (2, 3) if light else (4, 4)
        widths = (16, 24, 32) if light else (64, 96, 128)
        self.features = Encoder(widths, features, nn.InstanceNorm2d)
        self.context = Encoder(widths, 2 * self.hidden, nn.BatchNorm2d)
        looked_up = self.levels * (2 * self.radius + 1) ** 2
        self.encode = MotionEncoder(looked_up, self.hidden)
        self.gru = SeparableGru(self.hidden, 2 * self.hidden)
        self.head = two_convs(self.hidden, 2 * self.hidden, 2, 3)
        self.weights = two_convs(self.hidden, 2 * self.hidden, 64 * 9, 1)

    def forward(self, warped: Tensor, source: Tensor) -> Tensor:
        first, second = self.features(torch.cat([warped, source])).float().chunk(2)
        pyramid = correlation(first, second, self.levels)
        state, context = self.context(warped).chunk(2, 1)
        state, context = torch.tanh(state), torch.relu(context)
        motion = first.new_zeros(len(first), 2, *first.shape[2:])
        for _ in range(self.iterations):
            motion = motion.detach()
            seen = self.encode(look_up(pyramid, motion, self.radius), motion)
            state = self.gru(state, torch.cat([context, seen], 1))
            motion = motion + self.head(state).float()
        return convex_upsampling(motion, 0.25 * self.weights(state).float())


def two_convs(cin: int, width: int, cout: int, last: int) -> nn.Sequential:
    """3×3, ReLU and a last convolution of that kernel."""
    return nn.Sequential(
        nn.Conv2d(cin, width, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, cout, last, padding=last // 2),
    )


class Encoder(nn.Module):
    """7×7 at stride 2, three stages of two residual blocks, 1×1: (N, 3, H, W) → 1/8 of the size."""

    def __init__(self, widths: tuple[int, int, int], cout: int, norm: Norm) -> None:
        super().__init__()
        a, b, c = widths
        self.stem = nn.Sequential(nn.Conv2d(3, a, 7, 2, 3), norm(a), nn.ReLU(inplace=True))
        blocks = [(a, a, 1), (a, a, 1), (a, b, 2), (b, b, 1), (b, c, 2), (c, c, 1)]
        self.blocks = nn.Sequential(*(Residual(*each, norm) for each in blocks))
        self.last = nn.Conv2d(c, cout, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.blocks(self.stem(x)))


class Residual(nn.Module):
    """Two 3×3 convolutions, each with norm and ReLU, and a shortcut; ReLU of their sum."""

    def __init__(self, cin: int, cout: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(cin, cout, 3, stride, 1), norm(cout), nn.ReLU(inplace=True),
            nn.Conv2d(cout, cout, 3, 1, 1), norm(cout), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1, stride), norm(cout))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.main(x))


def correlation(first: Tensor, second: Tensor, levels: int) -> list[Tensor]:
    """Every pixel's likeness to all of the other map, which is halved level by level.

    (N, C, h, w) twice → (N·h·w, 1, h/2^l, w/2^l) each.
    """
    n, channels, height, width = first.shape
    all_pairs = first.flatten(2).transpose(1, 2) @ second.flatten(2) / channels**0.5
    pyramid = [all_pairs.reshape(n * height * width, 1, height, width)]
    for _ in range(levels - 1):
        pyramid.append(F.avg_pool2d(pyramid[-1], 2, ceil_mode=True))
    return pyramid


def look_up(pyramid: list[Tensor], motion: Tensor, radius: int) -> Tensor:
    """Likeness around where each pixel moved to, by bilinear sampling, 0 outside.

    Args:
        motion: (N, 2, h, w) as (u, v).

    Returns (N, levels · (2 radius + 1)², h, w).
    """
    n, _, height, width = motion.shape
    v, u = torch.meshgrid(
        torch.arange(height, device=motion.device, dtype=motion.dtype),
        torch.arange(width, device=motion.device, dtype=motion.dtype),
        indexing="ij",
    )
    centre = (torch.stack([u, v]) + motion).permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
    side = torch.arange(-radius, radius + 1, device=motion.device, dtype=motion.dtype)
    window = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1)
    found = []
    for level, likeness in enumerate(pyramid):
        size = motion.new_tensor([likeness.shape[3], likeness.shape[2]])
        # Pixel i of a level covers pixels 2^l i to 2^l (i + 1) - 1 of the finest.
        places = (centre + 0.5) / 2**level + window
        grid = 2 * places / size - 1
        found.append(F.grid_sample(likeness, grid, align_corners=False).flatten(1))
    return torch.cat(found, 1).view(n, height, width, -1).permute(0, 3, 1, 2).contiguous()


class MotionEncoder(nn.Module):
    """What was looked up and the motion so far → a map of `width` channels."""

    def __init__(self, looked_up: int, width: int) -> None:
        super().__init__()
        likeness, half = width + width // 2, width // 2
        self.likeness = nn.Sequential(
            nn.Conv2d(looked_up, 2 * width, 1), nn.ReLU(inplace=True),
            nn.Conv2d(2 * width, likeness, 3, padding=1), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.motion = nn.Sequential(
            nn.Conv2d(2, width, 7, padding=3), nn.ReLU(inplace=True),
            nn.Conv2d(width, half, 3, padding=1), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.join = nn.Conv2d(likeness + half, width - 2, 3, padding=1)

    def forward(self, likeness: Tensor, motion: Tensor) -> Tensor:
        both = torch.cat([self.likeness(likeness), self.motion(motion)], 1)
        return torch.cat([torch.relu(self.join(both)), motion], 1)


class SeparableGru(nn.Module):
    """A convolutional GRU along rows, then one along columns."""

    def __init__(self, hidden: int, given: int) -> None:
        super().__init__()
        self.rows = nn.ModuleList(
            nn.Conv2d(hidden + given, hidden, (1, 5), padding=(0, 2)) for _ in range(3)
        )
        self.columns = nn.ModuleList(
            nn.Conv2d(hidden + given, hidden, (5, 1), padding=(2, 0)) for _ in range(3)
        )

    def forward(self, state: Tensor, given: Tensor) -> Tensor:
        for gates in (self.rows, self.columns):
            both = torch.cat([state, given], 1)
            update, reset = (torch.sigmoid(gate(both)) for gate in gates[:2])
            new = torch.tanh(gates[2](torch.cat([reset * state, given], 1)))
            state = (1 - update) * state + update * new
        return state


def convex_upsampling(motion: Tensor, weights: Tensor) -> Tensor:
    """Motion at 1/8 → at full size in full pixels, each a convex mix of 3×3 coarse neighbours.

    Args:
        motion: (N, 2, h, w).        weights: (N, 64 · 9, h, w) before the softmax.
    """
    n, _, height, width = motion.shape
    share = weights.view(n, 1, 9, 8, 8, height, width).softmax(2)
    near = F.unfold(F.pad(8 * motion, (1, 1, 1, 1), mode="replicate"), 3)
    fine = (share * near.view(n, 2, 9, 1, 1, height, width)).sum(2)
    return fine.permute(0, 1, 4, 2, 5, 3).reshape(n, 2, 8 * height, 8 * width)


class ScaleNet(nn.Module):
    """The depth scale alignment: an object in its scene (N, 5, H, W) → logarithm of its scale (N,).

    The five channels: a normalised image, the scene's depth outside of the object with the object's
    own depth inside, and the object's own depth, 0 outside. ResNet-18 with group norms, for objects
    of one batch must not see each other; the mean of its last map; 512 → 256 → 128 → 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = make_backbone("resnet18")
        self.encoder.conv1 = nn.Conv2d(5, 64, 7, 2, 3, bias=False)
        for name, module in list(self.encoder.named_modules()):
            if isinstance(module, nn.BatchNorm2d):
                parent, _, child = name.rpartition(".")
                owner = self.encoder.get_submodule(parent)
                setattr(owner, child, one_group(module.num_features))
        self.head = nn.Sequential(
            nn.Linear(512, 256), nn.ReLU(inplace=True),
            nn.Linear(256, 128), nn.ReLU(inplace=True),
            nn.Linear(128, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x)[-1].float().mean((2, 3)))[:, 0]


class LightScaleNet(nn.Module):
    """The same of one tenth of a percent of the size, ours: the scale is read off the ground.

    Attention says which ground is as far away as the object, most of all what it stands on; the
    logarithm of that ground's depth is the answer, and what the ground does not tell is added.
    Without any ground in sight it is that alone.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(5, width, 5, 2, 2), nn.ReLU(inplace=True),
            Residual(width, width, 1, one_group), Residual(width, width, 1, one_group),
        )  # fmt: skip
        self.where = nn.Conv2d(width, 1, 3, padding=1)
        self.more = nn.Linear(width, 1)
        for parameter in (*self.where.parameters(), *self.more.parameters()):
            nn.init.zeros_(parameter)  # starts as the mean of all ground

    def forward(self, x: Tensor) -> Tensor:
        maps = self.encoder(x).float()
        depth, seen = x[:, 3:4].float(), ((x[:, 3:4] > 0) & (x[:, 4:] == 0)).float()
        share = F.avg_pool2d(seen, 2)
        log_depth = F.avg_pool2d(torch.log(depth.clamp(min=1e-3)) * seen, 2) / share.clamp(min=0.25)
        ground = (share > 0).flatten(1)
        weights = torch.where(ground, self.where(maps).flatten(1), -1e4).softmax(1) * ground
        return (weights * log_depth.flatten(1)).sum(1) + self.more(maps.mean((2, 3)))[:, 0]


def one_group(channels: int) -> nn.Module:
    """The norm over all channels of one image."""
    return nn.GroupNorm(1, channels)
