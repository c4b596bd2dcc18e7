"""Batches of three neighbouring frames of plain video, in memory and the same for the same step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from rich.progress import Progress
from torch.utils.data import Dataset

from mde_ros.config import check, setting
from mde_ros.datasets.transforms import Rng, jitter
from mde_ros.datasets.video import STILL, Triplet, open_video
from mde_ros.frame import Camera
from mde_ros.training.batches import reader_options, shares

JITTER = 0.2  # of brightness, contrast and saturation, in half of the triplets (METHODS 8)


@dataclass(frozen=True)
class VideoSource:
    """A recording and which of its frames are learnt from."""

    path: str = setting(
        "", "bag, RGB-D folder (depth is not needed), KITTI, Cityscapes; $VARIABLES are expanded"
    )
    weight: float = setting(1.0, "share of the batches, relative to the other sources", low=0.0)
    step: int = setting(1, "how many frames neighbours are apart; more for slow cameras", low=1)
    still: float = setting(
        STILL, "least median motion, of the image's width, 0: frames without motion too", low=0.0
    )
    options: tuple[str, ...] = setting(
        (), "KEY=VALUE for the reader of this data set, e.g. image_topic=/left/image for a bag"
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, eq=False)
class Clip:
    """A recording in memory.

    Attributes:
        images: by the frame's number, (H, W, 3) uint8 RGB without distortion.
        middles: (number, camera) of every frame that has both neighbours.
        step: how far off these are.
    """

    images: dict[int, np.ndarray]
    middles: list[tuple[int, Camera]]
    step: int

    def triplet(self, index: int) -> Triplet:
        """The frame of this index among `middles`, and its neighbours."""
        middle, camera = self.middles[index]
        images = [self.images[middle + k * self.step] for k in (-1, 0, 1)]
        return Triplet(np.stack(images), camera, str(middle))


def load_clips(
    sources: Iterable[VideoSource],
    cover: Callable[[Camera], tuple[float, float]] | None = None,
    progress: bool = True,
) -> list[Clip]:
    """Read every source twice: for the frames between which the camera moves, then for these.

    Args:
        cover: width and height that a camera's images are shrunk to cover; None keeps their size.

    Raises:
        ConfigError: on options that are none. DatasetError: when a source cannot be read, or has
            no three frames in a row of a moving camera.
    """
    clips = []
    with Progress(disable=not progress) as bar:
        for source in sources:
            task = bar.add_task(f"looking for motion in {source.path}")
            video = open_video(
                os.path.expandvars(source.path),
                source.step,
                source.still,
                lambda done, total, task=task: bar.update(task, completed=done, total=total),  # type: ignore[misc]
                **reader_options(source.options),
            )
            bar.update(task, description=f"reading {video.name}", completed=0, total=len(video))
            clip = Clip({}, [], source.step)
            for middle, triplet in zip(video.middles, video):
                c = triplet.camera
                size = covering(c, *cover(c)) if cover else (c.width, c.height)
                clip.middles.append((middle, c.resized(*size)))
                for k, image in zip((-1, 0, 1), triplet.images):
                    number = middle + k * source.step
                    if number not in clip.images:
                        clip.images[number] = shrunk(image, *size)
                bar.advance(task)
            clips.append(clip)
    return clips


def covering(camera: Camera, width: float, height: float) -> tuple[int, int]:
    """Width and height of the smallest image of a camera's shape that covers an area, no larger
    than it is."""
    factor = min(1.0, max(width / camera.width, height / camera.height))
    return round(camera.width * factor), round(camera.height * factor)


def shrunk(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """(H, W, 3) at another size, averaged where that is smaller."""
    if image.shape[:2] == (height, width):
        return image.copy()  # not a view that keeps the whole triplet
    smooth = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=smooth)


class Triplets(Dataset):
    """Batch number `step` as a dictionary of tensors; see __getitem__.

    Args:
        size: width and height of all images.
        smallest: share of the image that the smallest random window spans.
        rank, world: this process's share of every batch.
    """

    def __init__(
        self,
        clips: list[Clip],
        weights: list[float],
        size: tuple[int, int],
        smallest: float,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.clips, self.share = clips, shares(weights)
        self.size, self.smallest, self.seed = size, smallest, seed
        self.mine = range(rank, batch, world)

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        """images and jittered (n, 3, h, w, 3) uint8 at t-1, t, t+1, and K (n, 3, 3)."""
        cv2.setNumThreads(0)
        images, jittered, K = [], [], []
        for i in self.mine:
            rng = np.random.default_rng([self.seed, step, i])
            clip = self.clips[int(rng.choice(len(self.clips), p=self.share))]
            triplet = clip.triplet(int(rng.integers(len(clip.middles))))
            triplet = window(triplet, rng, *self.size, self.smallest)
            images.append(triplet.images)
            jittered.append(coloured(triplet.images, rng))
            K.append(triplet.camera.K.astype(np.float32))
        stack = {"images": np.stack(images), "jittered": np.stack(jittered), "K": np.stack(K)}
        return {name: torch.from_numpy(value) for name, value in stack.items()}


def window(triplet: Triplet, rng: Rng, width: int, height: int, smallest: float = 1.0) -> Triplet:
    """The same random window of all three frames, width x height, mirrored in half the cases.

    It spans `smallest` to all of what fits, so the focal length in pixels varies.
    """
    c = triplet.camera
    fits = min(c.width / width, c.height / height) * rng.uniform(smallest, 1.0)
    w, h = round(width * fits), round(height * fits)
    left, top = (int(rng.integers(room + 1)) for room in (c.width - w, c.height - h))
    camera = c.cropped(left, top, w, h).resized(width, height)
    images = triplet.images[:, top : top + h, left : left + w]
    images = np.stack([shrunk(image, width, height) for image in images])
    if rng.random() < 0.5:
        K = camera.K.copy()
        K[0, 2] = width - 1 - K[0, 2]
        images, camera = images[:, :, ::-1], replace(camera, K=K)
    return replace(triplet, images=np.ascontiguousarray(images), camera=camera)


def coloured(images: np.ndarray, rng: Rng) -> np.ndarray:
    """In half the cases the three frames in other colours, in the same way all of them."""
    if rng.random() < 0.5:
        return images
    # Stacked on top of each other they are one image to the jitter.
    joined = images.reshape(-1, images.shape[2], 3).astype(np.float32) / 255
    changed = np.clip(jitter(joined, rng, JITTER), 0, 1) * 255
    return np.rint(changed).astype(np.uint8).reshape(images.shape)
