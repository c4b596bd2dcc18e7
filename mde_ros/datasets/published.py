"""How the published trainings prepare NYU-v2, KITTI and ScanNet: METHODS 0.5 and 4.

A training view is a float image of 0..255 that is not clamped, as colours are changed last. Where
we differ: depth is never mixed between neighbours (the authors rotate by a spline), the corners of
a rotated image count as unmeasured, and the roll is about the principal point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from mde_ros.datasets import Dataset, DatasetError, Sample
from mde_ros.datasets.transforms import (
    Rng,
    View,
    bottom_crop,
    centre_crop,
    flip,
    jitter,
    lighting,
    resize,
    rotate,
)
from mde_ros.frame import Frame

SHORT_SIDE = 240  # pixels of NYU-v2 and ScanNet before the crop
TEST_SIZES = {"nyu": (304, 228), "scannet": (304, 228), "kitti": (1216, 352)}


def nyu(view: View, rng: Rng, width: int = 304, height: int = 228) -> View:
    """Short side 240, mirror, ±5° roll, centre crop, colours."""
    view = rotate(flip(shrunk(view, width, height), rng), rng)
    return colours(centre_crop(view, width, height), rng)


def scannet(view: View, rng: Rng, width: int = 304, height: int = 228) -> View:
    """As NYU-v2, without the roll."""
    return colours(centre_crop(flip(shrunk(view, width, height), rng), width, height), rng)


def kitti(view: View, rng: Rng, width: int = 480, height: int = 320) -> View:
    """A crop anywhere along the bottom, mirror, colours; nothing is resized."""
    c = view.camera
    left = int(rng.integers(max(c.width - width, 0) + 1))
    return colours(flip(bottom_crop(view, left, width, height), rng), rng)


TRAINING: dict[str, Callable[[View, Rng, int, int], View]] = {
    "nyu": nyu,
    "scannet": scannet,
    "kitti": kitti,
}


def shrunk(view: View, width: int, height: int) -> View:
    """The view with a short side of SHORT_SIDE pixels, or larger if a crop needs it."""
    c = view.camera
    scale = max(SHORT_SIDE / min(c.width, c.height), height / c.height, width / c.width)
    return resize(view, round(c.width * scale), round(c.height * scale))


def colours(view: View, rng: Rng) -> View:
    """PCA lighting, then jitter; the image becomes float32 of about 0..255."""
    colour = jitter(lighting(view.image.astype(np.float32) / 255, rng), rng)
    return replace(view, image=(colour * 255).astype(np.float32))


class Prepared:
    """A data set as the published tests see it: resized and cropped, its truth of the same size.

    NYU-v2 and ScanNet: short side 240, centre 304x228; KITTI: the middle 1216x352 at the bottom.

    Args:
        dataset: the data set.
        kind: one of TEST_SIZES.

    Raises:
        DatasetError: when there is no such kind, or an image is smaller than its crop.
    """

    def __init__(self, dataset: Dataset, kind: str) -> None:
        if kind not in TEST_SIZES:
            raise DatasetError(f"expected one of {', '.join(TEST_SIZES)}, got {kind!r}")
        self.dataset, self.kind, self.name = dataset, kind, dataset.name

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Sample]:
        return map(self._prepared, self.dataset)

    def __getitem__(self, index: int) -> Sample:
        return self._prepared(self.dataset[index])

    def _prepared(self, sample: Sample) -> Sample:
        frame, (width, height) = sample.frame, TEST_SIZES[self.kind]
        nothing = np.zeros(frame.image.shape[:2], np.float32)
        truth_m = nothing if sample.truth_m is None else sample.truth_m
        # A view carries two maps of depth; the second one takes the mask along.
        moving = nothing if sample.moving is None else sample.moving.astype(np.float32)
        view = View(frame.image, truth_m, moving, frame.camera, frame.points)
        try:
            if self.kind == "kitti":
                view = bottom_crop(view, round((frame.camera.width - width) / 2), width, height)
            else:
                view = centre_crop(shrunk(view, width, height), width, height)
        except ValueError as error:
            raise DatasetError(f"{sample.name}: {error}") from None
        return Sample(
            Frame(np.ascontiguousarray(view.image), view.camera, view.points, frame.stamp_ns),
            None if sample.truth_m is None else view.truth_m,
            sample.name,
            None if sample.moving is None else view.teacher_m > 0,
        )
