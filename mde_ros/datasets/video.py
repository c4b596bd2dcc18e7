"""Neighbouring frames of any recording, for depth learnt from plain video."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mde_ros.datasets import Dataset, DatasetError, Sample, open_dataset
from mde_ros.datasets.images import ImageFolder
from mde_ros.frame import Camera, Frame
from mde_ros.geometry import undistort_maps

LONGEST_GAP_NS = 1_000_000_000  # frames farther apart are no neighbours
FLOW_WIDTH = 192  # pixels at which motion is measured

# Median flow, as a share of the image's width, below which the camera stands still; the median,
# for what drives past a standing camera does not move it. Of real cameras, a standing robot's
# measures up to 0.0009, a car's that slowly comes to a halt 0.0015, one in town 0.008 and more.
STILL = 0.0015


@dataclass(frozen=True, eq=False)
class Triplet:
    """A frame and its two neighbours in time, through one lens without distortion.

    Attributes:
        images: (3, H, W, 3) uint8 RGB at t-1, t, t+1.
        camera: of all three.
        name: of the frame at t.
        moving: (H, W) bool at t, what moves by itself; None where nobody knows.
    """

    images: np.ndarray
    camera: Camera
    name: str
    moving: np.ndarray | None = None


class Video:
    """Triplets of a data set in which the camera moves from each frame to the next.

    Neighbours come from one camera, the later one within LONGEST_GAP_NS per step. To find them,
    the data set is read once; `middles` holds what was found, to be kept and given again.
    Iterating streams the data set, indexing reads three frames of it.

    Args:
        dataset: frames in the order of time.
        step: how many frames neighbours are apart; more than 1 for slow cameras at high rates.
        still: see STILL; 0 keeps frames without motion.
        middles: indices of the frames at t, if they are known.
        progress: called with (frames read, frames in all).

    Raises:
        DatasetError: when there is no triplet, with the reason.
    """

    def __init__(
        self,
        dataset: Dataset,
        step: int = 1,
        still: float = STILL,
        middles: Sequence[int] | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.dataset, self.step, self.name = dataset, step, dataset.name
        self._lens: tuple[Camera, tuple[np.ndarray, np.ndarray]] | None = None
        self.middles = list(middles) if middles is not None else self._find(still, progress)

    def __len__(self) -> int:
        return len(self.middles)

    def __getitem__(self, index: int) -> Triplet:
        if not 0 <= index < len(self.middles):
            raise IndexError(index)
        middle = self.middles[index]
        return self._triplet([self.dataset[middle + k * self.step] for k in (-1, 0, 1)])

    def __iter__(self) -> Iterator[Triplet]:
        wanted = set(self.middles)
        window: deque[Sample] = deque(maxlen=2 * self.step + 1)
        for i, sample in enumerate(self.dataset):
            window.append(sample)
            if i - self.step in wanted:
                yield self._triplet([window[0], window[self.step], window[-1]])

    def _find(self, still: float, progress: Callable[[int, int], None]) -> list[int]:
        """Indices whose frame follows the one before, and is followed, by a moving camera."""
        window: deque[tuple[Frame, np.ndarray]] = deque(maxlen=self.step + 1)
        follows, moves = [], []
        for i, sample in enumerate(self.dataset):
            progress(i, len(self.dataset))
            window.append((sample.frame, small_grey(sample.frame.image)))
            (before, grey_before), (after, grey_after) = window[0], window[-1]
            full = len(window) > self.step
            follows.append(full and _is_next(before, after, self.step))
            moves.append(follows[-1] and motion(grey_before, grey_after) >= still)
        pairs = list(zip(moves, moves[self.step :]))
        middles = [i for i, (here, next_one) in enumerate(pairs) if here and next_one]
        if not middles:
            raise DatasetError(
                f"{self.name}: expected three frames in a row of one moving camera, got"
                f" {len(moves)} frames, of which {sum(follows)} follow another within"
                f" {LONGEST_GAP_NS * self.step / 1e9:g} s and {sum(moves)} with motion"
            )
        return middles

    def _triplet(self, samples: Sequence[Sample]) -> Triplet:
        camera, sample = samples[1].frame.camera, samples[1]
        images = [s.frame.image for s in samples]
        moving = sample.moving
        if camera.is_distorted:
            if self._lens is None or not self._lens[0].same_as(camera):
                self._lens = camera, undistort_maps(camera)
            maps = self._lens[1]
            images = [cv2.remap(image, *maps, cv2.INTER_LINEAR) for image in images]
            if moving is not None:
                moving = cv2.remap(moving.astype(np.uint8), *maps, cv2.INTER_NEAREST) > 0
        return Triplet(np.stack(images), camera.undistorted(), sample.name, moving)


def open_video(
    path: str | Path,
    step: int = 1,
    still: float = STILL,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> Video:
    """The triplets of a bag, of an RGB-D folder (depth is not needed), of KITTI, Cityscapes, ….

    Args:
        options: of open_dataset.

    Raises:
        DatasetError: when it cannot be read, or its lens is unknown.
    """
    dataset = open_dataset(path, **options)
    if isinstance(dataset, ImageFolder):
        raise DatasetError(
            f"{path}: expected the intrinsics of its camera, got images alone; put them into rgb/"
            " and write intrinsics.json (fx fy cx cy width height) beside it"
        )
    return Video(dataset, step, still, progress=progress)


def motion(grey_before: np.ndarray, grey_after: np.ndarray) -> float:
    """Median length of the optical flow between two grey images, as a share of their width."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = search.calc(grey_before, grey_after, np.zeros((*grey_after.shape, 2), np.float32))
    return float(np.median(np.linalg.norm(flow, axis=2))) / grey_after.shape[1]


def small_grey(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB → grey, FLOW_WIDTH pixels wide."""
    height, width = image.shape[:2]
    size = (FLOW_WIDTH, max(1, round(height * FLOW_WIDTH / width)))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA)


def _is_next(before: Frame, after: Frame, step: int) -> bool:
    """Whether a frame follows another of the same camera."""
    gap_ns = after.stamp_ns - before.stamp_ns
    return 0 < gap_ns <= step * LONGEST_GAP_NS and before.camera.same_as(after.camera)
