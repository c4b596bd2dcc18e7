"""DepthModel: from a uint8 image to metres in one torch module, run as it is or exported whole."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def imagenet_statistics(like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (1, 3, 1, 1), of this tensor's type and on its device."""
    mean, std = (like.new_tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return mean, std


def normalised(image: Tensor) -> Tensor:
    """(N, 3, h, w) RGB in 0..1 with ImageNet's mean and deviation taken out, on its own device."""
    mean, std = imagenet_statistics(image)
    return (image - mean) / std


def normalised_pixels(image: Tensor) -> Tensor:
    """(N, h, w, 3) RGB in 0..255, as DepthModel takes it, to (N, 3, h, w) as networks take it.

    The same as DepthModel.normalise, for those who train a network by itself.
    """
    return normalised(image.permute(0, 3, 1, 2).float() / 255)


class DepthModel(nn.Module):
    """Normalise → mask → network → metres.

    Args:
        network: (N, 3, h, w) normalised image (and sparse depth) → (N, 1, h', w') canonical depth
            in metres, or a pair of it and s, the logarithm of half the expected squared error in
            metres² (METHODS 4: ℓ_ud is least at s = ln(r²/2)); or, of a lifelong network, three:
            both for every domain (N, D, h', w') and the distances of the domains (N, D).
        focal_px: canonical focal length f_c, pixels at the network's input; None: no correction.
        mask: (N, 3, h, w) normalised image → (N, 1, h, w) in 0..1, which multiplies that image
            before the network sees it (METHODS 2, 3); None: it sees all.

    forward takes
        image: (N, h, w, 3) uint8 RGB;
        focal_px: (N,) float32, focal length in pixels of this image;
        sparse_m: (N, 1, h, w) float32 metres, 0 = none, for completion networks;
    and returns {"depth": (N, 1, h', w') metres} and, from a pair, "uncertainty": the standard
    deviation √2 e^(s/2) of the same size, metres; with a mask also "saliency", the mask
    (N, 1, h, w). Of a lifelong network depth and uncertainty are those of the nearest domain, and
    there are "domain" (N,) int64, which one that is, "distances" (N, D), and "depth_each" and
    "uncertainty_each" (N, D, h', w'), for those who choose by themselves.

    Depth = network output · f / f_c: the same object, seen with half the focal length, is half as
    large in pixels, looks twice as far to the network, and is put right by the factor.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        focal_px: float | None = None,
        mask: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network, self.mask = network, mask
        self.focal_px = focal_px
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), False)

    def normalise(self, image: Tensor) -> Tensor:
        """(N, h, w, 3) uint8 → (N, 3, h, w) of ImageNet statistics, in the network's precision."""
        x = image.permute(0, 3, 1, 2).to(self.mean.dtype) / 255
        return (x - self.mean) / self.std

    def forward(
        self, image: Tensor, focal_px: Tensor, sparse_m: Tensor | None = None
    ) -> dict[str, Tensor]:
        return self.metres(self.normalise(image), focal_px, sparse_m)

    def metres(
        self, x: Tensor, focal_px: Tensor, sparse_m: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What forward returns, of an image (N, 3, h, w) that is normalised already."""
        seen = {}
        if self.mask is not None:
            saliency = self.mask(x)
            x, seen = x * saliency, {"saliency": saliency.float()}
        # Without f_c the factor is 1, computed so that an exported graph keeps this input.
        canonical_px = focal_px if self.focal_px is None else self.focal_px
        ratio = (focal_px / canonical_px).view(-1, 1, 1, 1)
        inputs = () if sparse_m is None else ((sparse_m / ratio).to(x.dtype),)
        canonical = self.network(x, *inputs)
        if isinstance(canonical, Tensor):
            return {"depth": canonical.float() * ratio} | seen
        depth, log_error, *distances = (c.float() for c in canonical)
        deviation = math.sqrt(2) * torch.exp(log_error / 2)
        maps = {"depth": depth * ratio, "uncertainty": deviation * ratio}
        return (choose(maps, distances[0]) if distances else maps) | seen


def choose(maps: dict[str, Tensor], distances: Tensor) -> dict[str, Tensor]:
    """The maps of the nearest domain, and what they were chosen from; see DepthModel.

    Args:
        maps: (N, D, h, w) each.        distances: (N, D).
    """
    domain = distances.argmin(1)
    chosen = {}
    for name, each in maps.items():
        index = domain.view(-1, 1, 1, 1).expand(-1, 1, *each.shape[2:])
        chosen[name] = each.gather(1, index)
    each_of = {f"{name}_each": each for name, each in maps.items()}
    return chosen | {"domain": domain, "distances": distances} | each_of
