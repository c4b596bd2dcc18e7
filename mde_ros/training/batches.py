"""From data sets to batches: images in memory, one random view each, the same for the same step.

What a batch holds depends on the seed, the step and the position in the batch alone, so a resumed
run sees what an uninterrupted one would have, and several processes share one global batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from rich.progress import Progress
from torch.utils.data import DataLoader, Dataset, Sampler

from mde_ros.config import ConfigError, check, setting
from mde_ros.datasets import Dataset as Frames
from mde_ros.datasets import Sample, open_dataset
from mde_ros.datasets.transforms import Rng, View
from mde_ros.frame import Camera, Frame
from mde_ros.geometry import to_millimetres

SHORT_SIDE = 320  # pixels; larger images are kept at this size
Teacher = Callable[[Frame], np.ndarray]
Prepare = Callable[["Source", int, Sample], Sample]


@dataclass(frozen=True)
class Source:
    """A data set and how often it is drawn from."""

    path: str = setting(
        "", "bag, RGB-D folder, folder of such, or folder of images; $VARIABLES are expanded"
    )
    weight: float = setting(1.0, "share of the batches, relative to the other sources", low=0.0)
    skip_last: int = setting(0, "frames at the end that are left out (held out)", low=0)
    teacher: bool = setting(True, "whether the teacher labels these images too")
    truth: bool = setting(True, "whether their measured depth is learnt from")
    scan: str = setting(
        "",
        "virtual scan for completion, where the set has none: height=H[,pitch=P,beams=N,noise=S],"
        " or random for another one in every frame",
    )

    options: tuple[str, ...] = setting(
        (), "KEY=VALUE for the reader of this data set, e.g. scan_topic=/scan for a bag"
    )

    def __post_init__(self) -> None:
        check(self)

    def open(self) -> Frames:
        """The data set.

        Raises:
            ConfigError: on options that are none. DatasetError: when it cannot be opened.
        """
        return open_dataset(os.path.expandvars(self.path), **reader_options(self.options))


def reader_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """("scan_topic=/scan", …) → what open_dataset takes; values are read as YAML.

    Raises:
        ConfigError: naming one that is no KEY=VALUE.
    """
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"options: expected KEY=VALUE, got {pair!r}")
        options[key] = yaml.safe_load(value)
    return options


@dataclass(frozen=True, eq=False)
class Stored:
    """One image as it is kept in memory: depths in uint16 millimetres, 0 = unknown."""

    image: np.ndarray
    truth_mm: np.ndarray
    teacher_mm: np.ndarray
    camera: Camera
    points: np.ndarray | None = None

    def view(self) -> View:
        """As metres, ready for the transforms."""
        truth, teacher = (d.astype(np.float32) / 1000 for d in (self.truth_mm, self.teacher_mm))
        return View(self.image, truth, teacher, self.camera, self.points)


def load_sources(
    sources: tuple[Source, ...],
    teacher: Teacher | None,
    progress: bool = True,
    prepare: Prepare = lambda source, index, sample: sample,
) -> list[list[Stored]]:
    """Read every source into memory, at most SHORT_SIDE high, with the teacher's depth.

    The teacher sees each image once, whole; what it says of a crop follows from geometry.

    Args:
        prepare: what is done to every sample before it is kept.

    Raises:
        ConfigError: when a source has no frame left, or nothing to learn from it. DatasetError:
            when it cannot be read.
    """
    # A teacher takes hours: what is wrong with any source is told before it begins.
    opened = [_open(source, teacher is not None) for source in sources]
    loaded: list[list[Stored]] = []
    with Progress(disable=not progress) as bar:
        for source, (data, count) in zip(sources, opened):
            task = bar.add_task(f"reading {data.name}", total=count)
            stored = []
            for i in range(count):
                sample = data[i] if source.truth else replace(data[i], truth_m=None)
                sample = prepare(source, i, sample)
                frame, truth = shrink(sample.frame, sample.truth_m)
                said = teacher(frame) if teacher and source.teacher else np.zeros_like(truth)
                depths = (to_millimetres(truth), to_millimetres(said))
                stored.append(Stored(frame.image, *depths, frame.camera, frame.points))
                bar.advance(task)
            loaded.append(stored)
    return loaded


def _open(source: Source, has_teacher: bool) -> tuple[Frames, int]:
    """A source and how many of its frames are trained on."""
    data = source.open()
    count = len(data) - source.skip_last
    if count < 1:
        raise ConfigError(
            f"skip_last: {source.skip_last} leaves none of the {len(data)} frames of {source.path}"
        )
    taught = has_teacher and source.teacher
    if not taught and not (source.truth and any(data[i].has_truth() for i in range(count))):
        raise ConfigError(
            f"sources: expected measured depth in {source.path}, for no teacher labels it, got"
            " none in any frame; name a teacher (distill) or leave it out"
        )
    return data, count


def shrink(frame: Frame, truth_m: np.ndarray | None) -> tuple[Frame, np.ndarray]:
    """The frame and its depth at no more than SHORT_SIDE pixels on the short side."""
    c = frame.camera
    if truth_m is None:
        truth_m = np.zeros((c.height, c.width), np.float32)
    factor = SHORT_SIDE / min(c.width, c.height)
    if factor >= 1:
        return frame, truth_m
    size = (round(c.width * factor), round(c.height * factor))
    image = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
    truth = cv2.resize(truth_m, size, interpolation=cv2.INTER_NEAREST)
    return replace(frame, image=image, camera=c.resized(*size)), truth


def shares(weights: Sequence[float]) -> np.ndarray:
    """How often each source is drawn from, of 1.

    Raises:
        ConfigError: when no weight is above 0.
    """
    if not np.sum(weights) > 0:
        raise ConfigError(f"weight: expected one above 0 among the sources, got {list(weights)}")
    return np.array(weights) / np.sum(weights)


class Batches(Dataset):
    """Batch number `step` as a dictionary of tensors; see __getitem__.

    Args:
        stored: images per source.        weights: of the sources.
        augment: (view, rng, width, height) → view of that size.
        sizes: (width, height) choices, one is drawn per batch.
        focal_px: canonical focal length, pixels, at a size of the area of sizes[0].
        rank, world: this process's share of every batch.
        more: (augmented view in canonical metres, rng) → further arrays of fixed shape.
    """

    def __init__(
        self,
        stored: list[list[Stored]],
        weights: list[float],
        augment: Callable[[View, Rng, int, int], View],
        sizes: tuple[tuple[int, int], ...],
        focal_px: float,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        more: Callable[[View, Rng], dict[str, np.ndarray]] | None = None,
    ) -> None:
        self.more = more
        self.stored, self.augment, self.sizes = stored, augment, sizes
        self.share = shares(weights)
        self.focal_px, self.batch, self.seed = focal_px, batch, seed
        self.mine = range(rank, batch, world)

    def __getitem__(self, step: int) -> dict[str, Any]:
        """image (n, h, w, 3) uint8; truth, teacher (n, 1, h, w) canonical metres, 0 = unknown; and
        what `more` gives, stacked; and source (n,), the number of each image's source."""
        cv2.setNumThreads(0)
        width, height = self.sizes[
            np.random.default_rng([self.seed, step]).integers(len(self.sizes))
        ]
        views, further, numbers = [], [], []
        for i in self.mine:
            rng = np.random.default_rng([self.seed, step, i])
            number = int(rng.choice(len(self.stored), p=self.share))
            source = self.stored[number]
            view = source[rng.integers(len(source))].view()
            view = self._canonical(self.augment(view, rng, width, height))
            views.append(view)
            numbers.append(number)
            further.append(self.more(view, rng) if self.more else {})
        stack = {
            "image": np.stack([v.image for v in views]),
            "truth": np.stack([v.truth_m for v in views])[:, None],
            "teacher": np.stack([v.teacher_m for v in views])[:, None],
            "source": np.array(numbers),
        }
        stack |= {name: np.stack([f[name] for f in further]) for name in further[0]}
        return {name: torch.from_numpy(value) for name, value in stack.items()}

    def _canonical(self, view: View) -> View:
        """The view as a camera of the canonical focal length sees it: all that is metres scaled."""
        k = np.float32(self.focal_px / view.camera.focal_px)
        points = None if view.points is None else view.points * k
        return replace(view, truth_m=view.truth_m * k, teacher_m=view.teacher_m * k, points=points)


class Steps(Sampler[int]):
    """The steps from `first` to `last`, in order."""

    def __init__(self, first: int, last: int) -> None:
        self.steps = range(first, last)

    def __iter__(self) -> Iterator[int]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def loader(batches: Dataset, first: int, last: int, workers: int) -> DataLoader:
    """Batches of these steps, made ahead by worker processes."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=Steps(first, last),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="fork" if workers else None,
    )
