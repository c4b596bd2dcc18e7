"""One trunk for all places, and a head for each: Lifelong-MonoDepth (Hu et al., TNNLS; METHODS 4).

    image ── encoder, gates, light up, fusion ── x_mff ─┬─ head 0: depth, s
                                                        ├─ head 1: depth, s
                                                        └─ distance to the mean x_mff of each domain

The head to believe is that of the domain whose mean the image's x_mff comes nearest to. Means are
kept with the weights; as published they are spatial, and so are the distances. The fast network
compares mean and deviation of each channel over the image instead, in units of what varies within
the domains (Mahalanobis): on simulated rooms and streets that is right for more frames, and costs
less [OURS].
A student that becomes a lifelong network brings no frames to take a mean of: its domain is
elsewhere, where every mean is farther than a distance that is kept in its place [OURS].
"""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mde_ros.networks.blocks import conv5, separable5
from mde_ros.networks.mff import LOG_RANGE, FastNet, LightNet, LightTrunk

# A student and the lifelong network that begins as it: same trunk, same first head.
HEIRS = {"light_resnet34": "lifelong_resnet34", "fast_mobilenet_v2": "lifelong_mobilenet_v2"}


class Head(nn.Module):
    """Two refinement modules R: x_mff (N, 64, h, w) → depth and s, (N, 1, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = nn.Sequential(conv5(64, 64), nn.Conv2d(64, 1, 5, padding=2))
        self.s = nn.Sequential(conv5(64, 64), nn.Conv2d(64, 1, 5, padding=2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.depth(x), self.s(x)


class FastHead(nn.Module):
    """FastNet's refinement with s beside depth: x_mff (N, 64, h, w) → both (N, 1, 2h, 2w).

    What is computed is the relative uncertainty, which depth turns into metres.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shape = separable5(64)
        self.depth = nn.Conv2d(64, 4, 3, padding=1)
        self.s = nn.Conv2d(64, 4, 3, padding=1)
        with torch.no_grad():  # starts at 2.5 m with an error of 20 %, no checkerboard
            self.depth.weight.copy_(self.depth.weight[:1].expand_as(self.depth.weight))
            self.depth.bias.fill_(0.9)  # type: ignore[union-attr]
            self.s.weight.zero_()
            self.s.bias.fill_(-3.9)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.shape(x)
        log_depth = F.pixel_shuffle(self.depth(x), 2).float().clamp(*LOG_RANGE)
        relative = F.pixel_shuffle(self.s(x), 2).float()
        return torch.exp(log_depth), relative + 2 * log_depth.detach()


class LifelongNet(LightTrunk):
    """(N, 3, H, W) → depth and s of every domain, (N, D, H/2, W/2), and distances (N, D).

    Depth is canonical metres, s the logarithm of half its expected squared error in metres²; the
    distance of a domain is the mean squared difference of x_mff to the domain's mean, of the fast
    network that of its `description`, multiplied by `whitening` (128, 128). All heads are
    computed, so that a graph without branches can choose (DepthModel): 5 % of the fast network
    each, 20 % of the published one.

    Args:
        fast: heads and trunk of FastNet instead of the published ones.
        mean_sizes: height and width of every domain's mean, 1 x 1 of a fast network's; their number
            is that of the domains.
    """

    elsewhere: Tensor
    whitening: Tensor | None

    def __init__(
        self,
        backbone: str = "resnet34",
        fast: bool = False,
        mean_sizes: tuple[tuple[int, int], ...] = ((114, 152),),
    ) -> None:
        super().__init__(backbone, fast)
        self.heads = nn.ModuleList(FastHead() if fast else Head() for _ in mean_sizes)
        for i, (height, width) in enumerate(mean_sizes):
            self.register_buffer(f"mean_{i}", torch.zeros(128 if fast else 64, height, width))
        self.register_buffer("elsewhere", torch.zeros(len(mean_sizes)))  # 0: there is a mean
        self.register_buffer("whitening", torch.eye(128) if fast else None)

    @property
    def options(self) -> dict[str, list]:
        """What makes this network again, beside its name."""
        return {"mean_sizes": [list(self.mean(i).shape[1:]) for i in range(len(self.heads))]}

    def mean(self, domain: int) -> Tensor:
        """Mean description of a domain: (64, h, w), of the fast network (128, 1, 1)."""
        return self.get_buffer(f"mean_{domain}")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.features(x)
        depth, s = zip(*(head(x) for head in self.heads))
        return torch.cat(depth, 1), torch.cat(s, 1), self.distances(self.description(x))

    def description(self, x: Tensor) -> Tensor:
        """What places are told apart by: x_mff (N, 64, h, w) itself, of the fast network mean and
        deviation of its channels, (N, 128, 1, 1)."""
        if self.whitening is None:
            return x
        mean = x.float().mean((2, 3), keepdim=True)
        variance = (x.float() - mean).square().mean((2, 3), keepdim=True)
        return torch.cat([mean, (variance + 1e-6).sqrt()], 1)

    def distances(self, seen: Tensor) -> Tensor:
        """Of descriptions to the mean of every domain, resized to their size: (N, D)."""
        means = [self.mean(i)[None] for i in range(len(self.heads))]
        if self.whitening is not None:
            away = torch.stack([(seen - m.float()).flatten(1) for m in means], 1)
            measured = (away @ self.whitening.float()).square().mean(2)
        else:
            resized = (
                F.interpolate(m, seen.shape[2:], mode="bilinear", align_corners=True) for m in means
            )
            measured = torch.stack(
                [(seen - m).float().square().mean((1, 2, 3)) for m in resized], 1
            )
        return torch.where(self.elsewhere > 0, self.elsewhere.float(), measured)

    def set_mean(self, domain: int, mean: Tensor) -> None:
        """Replace the mean of a domain, of any height and width."""
        self.register_buffer(f"mean_{domain}", mean)
        self.elsewhere[domain] = 0

    def grow(self, like: int, mean: Tensor) -> None:
        """Add a domain whose head begins as that of the domain `like`."""
        self.heads.append(deepcopy(self.heads[like]))
        self.elsewhere = torch.cat([self.elsewhere, self.elsewhere.new_zeros(1)])
        self.set_mean(len(self.heads) - 1, mean)

    def inherit(self, student: LightNet | FastNet) -> None:
        """Take the trunk of a student, and its refinement as the first head; s begins untrained."""
        weights = student.state_dict()
        self.load_state_dict({k: weights[k] for k in weights if k[:7] != "refine."}, strict=False)
        head = self.heads[0]
        if isinstance(head, FastHead):
            head.shape.load_state_dict(student.refine[0].state_dict())
            head.depth.load_state_dict(student.refine[1].state_dict())
        elif isinstance(head, Head):
            head.depth.load_state_dict(student.refine.state_dict())
        self.set_mean(0, torch.zeros_like(self.mean(0)[:, :1, :1]))
        self.elsewhere[0] = 1.0
