"""Images for a teacher without data: simulated ones, objects of two mixed, and plain noise.

As in batches.py, what a batch holds depends on seed, step and position alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from rich.progress import Progress
from torch.utils.data import Dataset

from mde_ros.config import ConfigError
from mde_ros.datasets.transforms import Rng, View, camera_look, crop_resize, flip
from mde_ros.frame import Camera
from mde_ros.training.batches import Source, shares, shrink

# Of the image's pixels: what is smaller is not worth pasting, what is larger replaces the image.
OBJECT_SIZES = (0.002, 0.5)


@dataclass(frozen=True, eq=False)
class Picture:
    """An image (H, W, 3) uint8, the object that each pixel shows (H, W) uint16, and its camera."""

    image: np.ndarray
    instance: np.ndarray
    camera: Camera


def load_pictures(
    sources: tuple[Source, ...], with_objects: bool, progress: bool = True
) -> list[list[Picture]]:
    """Read every source into memory.

    Raises:
        ConfigError: when a source has no frame left, or no objects although they are asked for.
        DatasetError: when it cannot be read.
    """
    loaded = []
    with Progress(disable=not progress) as bar:
        for source in sources:
            data = source.open()
            count = len(data) - source.skip_last
            instance_of = getattr(data, "instance", lambda index: None)
            if count < 1:
                raise ConfigError(
                    f"skip_last: {source.skip_last} leaves none of the {len(data)} frames of"
                    f" {source.path}"
                )
            pictures = []
            for i in bar.track(range(count), description=f"reading {data.name}"):
                frame, objects = data[i].frame, instance_of(i)
                if objects is None and with_objects:
                    raise ConfigError(
                        f"sources: expected the objects of each image (instance/NAME.png) in"
                        f" {source.path}, got none for {data[i].name}; make some with `mde"
                        " simulate`, or take method=simulated"
                    )
                frame, kept = shrink(frame, None if objects is None else objects.astype(np.float32))
                pictures.append(Picture(frame.image, kept.astype(np.uint16), frame.camera))
            loaded.append(pictures)
    return loaded


def random_objects(instance: np.ndarray, rng: Rng) -> np.ndarray:
    """The union of random objects of an image, each taken with probability one half: (H, W) bool.

    One at least, where there is any whose size is within OBJECT_SIZES.

    Args:
        instance: (H, W), the object of each pixel, 0 = none.
    """
    ids, pixels = np.unique(instance, return_counts=True)
    low, high = (share * instance.size for share in OBJECT_SIZES)
    able = ids[(ids > 0) & (pixels >= low) & (pixels <= high)]
    chosen = able[rng.random(len(able)) < 0.5]
    if not len(chosen) and len(able):
        chosen = rng.choice(able, 1)
    return np.isin(instance, chosen)


def mix(image: np.ndarray, other: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """x̃ = m ⊗ x'_j + (1 - m) ⊗ x'_i: the pixels of `other` in the mask, of `image` elsewhere."""
    return np.where(mask[..., None], other, image)


class Pictures(Dataset):
    """Batch number `step`: {"image": (n, h, w, 3) uint8}, and "mixed" alike if asked for.

    Args:
        pictures: of each source.       weights: how often a source is drawn from.
        size: width and height.         smallest: random window, share of the image.
        mixed: whether objects of a second picture are pasted into each.
        rank, world: this process's share of every batch.
    """

    def __init__(
        self,
        pictures: list[list[Picture]],
        weights: list[float],
        size: tuple[int, int],
        smallest: float,
        mixed: bool,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.pictures, self.share = pictures, shares(weights)
        self.size, self.smallest, self.mixed = size, smallest, mixed
        self.seed, self.mine = seed, range(rank, batch, world)

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        cv2.setNumThreads(0)
        images, mixtures = [], []
        for i in self.mine:
            rng = np.random.default_rng([self.seed, step, i])
            image, _ = self._draw(rng)
            images.append(image)
            if self.mixed:
                other, instance = self._draw(rng)
                mixtures.append(mix(image, other, random_objects(instance, rng)))
        batch = {"image": images} | ({"mixed": mixtures} if self.mixed else {})
        return {name: torch.from_numpy(np.stack(values)) for name, values in batch.items()}

    def _draw(self, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        """A random window of a random picture: image and objects of the batch's size."""
        source = self.pictures[rng.choice(len(self.pictures), p=self.share)]
        p = source[rng.integers(len(source))]
        # A view carries two maps of depth; one of them takes the objects along.
        view = View(p.image, p.instance.astype(np.float32), np.zeros((1, 1), np.float32), p.camera)
        view = flip(crop_resize(view, rng, *self.size, self.smallest), rng)
        return camera_look(view.image, rng), view.truth_m.astype(np.uint16)


class Noise(Dataset):
    """Batch number `step`: {"noise": (n, *shape) float32} of standard normal numbers."""

    def __init__(
        self, shape: tuple[int, ...], batch: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self.shape, self.seed, self.mine = shape, seed, range(rank, batch, world)

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        rngs = [np.random.default_rng([self.seed, step, i]) for i in self.mine]
        noise = [rng.standard_normal(self.shape, np.float32) for rng in rngs]
        return {"noise": torch.from_numpy(np.stack(noise))}
