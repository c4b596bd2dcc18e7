"""The frames of a video training on disk, and batches of them: what all stages of dynamic read.

    frames.npy    (frames, h, w, 3) uint8, every frame once, at the network's size
    frames.json   the triplets: name, the three frames' numbers, K at that size, where it came from

What stages find out lies beside it, one .npz for each triplet; `write_npz` and `read_npz`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import Dataset

from mde_ros.config import ConfigError
from mde_ros.datasets import open_dataset
from mde_ros.datasets.video import Video, open_video
from mde_ros.evaluation.results import write_atomically
from mde_ros.frame import Camera
from mde_ros.training.batches import reader_options
from mde_ros.training.dynamic_masks import instance_masks
from mde_ros.training.state import console
from mde_ros.training.triplets import VideoSource

Maps = Callable[[int, int], dict[str, np.ndarray]]  # a triplet, an object in it → maps (h, w)


class Frames:
    """Triplets of frames, memory-mapped.

    Attributes:
        images: (frames, h, w, 3) uint8.        triplets: (n, 3) numbers of frames, t-1, t, t+1.
        K: (n, 3, 3) float32.        names: of the triplets.
        origin: (n, 2), number of the source and of the frame at t in it.
    """

    def __init__(self, folder: Path) -> None:
        about = json.loads((folder / "frames.json").read_text(encoding="utf-8"))
        self.images = np.load(folder / "frames.npy", mmap_mode="r")
        self.triplets, self.origin = np.array(about["triplets"]), np.array(about["origin"])
        self.K = np.array(about["K"], np.float32)
        self.names: list[str] = about["names"]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.images.shape[2], self.images.shape[1]

    def images_of(self, index: int) -> np.ndarray:
        """(3, h, w, 3) uint8."""
        return self.images[self.triplets[index]]


def fitted(camera: Camera, size: tuple[int, int], keep: str) -> tuple[Camera, tuple[slice, slice]]:
    """The camera of the largest window of that shape, at that size, and its rows and columns.

    Args:
        keep: which rows, where there are too many: top, middle or bottom.
    """
    fits = min(camera.width / size[0], camera.height / size[1])
    width, height = round(size[0] * fits), round(size[1] * fits)
    left, over = (camera.width - width) // 2, camera.height - height
    top = {"top": 0, "middle": over // 2, "bottom": over}[keep]
    window = slice(top, top + height), slice(left, left + width)
    return camera.cropped(left, top, width, height).resized(*size), window


def write_frames(
    folder: Path, sources: tuple[VideoSource, ...], size: tuple[int, int], keep: str
) -> Frames:
    """Read all sources once; a second call finds the frames there.

    Args:
        size: width and height.        keep: see `fitted`.

    Raises:
        ConfigError: when the frames there are those of other settings. DatasetError: when a source
            cannot be read or has no motion.
    """
    read = [{k: v for k, v in asdict(s).items() if k != "weight"} for s in sources]
    asked = {"sources": read, "size": size, "keep": keep}
    asked = json.loads(json.dumps(asked))
    file = folder / "frames.json"
    if file.is_file():
        if (held := json.loads(file.read_text(encoding="utf-8"))["asked"]) != asked:
            raise ConfigError(f"{folder}: expected the frames of {asked}, got those of {held}")
        return Frames(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:

        def told(name: str) -> Callable[[int, int], None]:
            task = bar.add_task(f"motion in {name}", total=None)
            return lambda done, total: bar.update(task, completed=done + 1, total=total)

        videos = [opened(s, told(s.path)) for s in sources]
        wanted = [sorted({m + k * v.step for m in v.middles for k in (-1, 0, 1)}) for v in videos]
        shape = (sum(map(len, wanted)), size[1], size[0], 3)
        partial = folder / "frames.partial.npy"
        images = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
        about: dict[str, list[Any]] = {"names": [], "triplets": [], "origin": [], "K": []}
        first = 0
        for number, (video, frames) in enumerate(zip(videos, wanted)):
            at = {frame: first + i for i, frame in enumerate(frames)}
            first += len(frames)
            task = bar.add_task(f"reading {video.name}", total=len(video))
            for middle, triplet in zip(video.middles, video):
                three = [at[middle + k * video.step] for k in (-1, 0, 1)]
                camera, window = fitted(triplet.camera, size, keep)
                for place, image in zip(three, triplet.images):
                    images[place] = cv2.resize(image[window], size, interpolation=cv2.INTER_AREA)
                about["triplets"].append(three)
                about["origin"].append([number, middle])
                about["names"].append(triplet.name)
                about["K"].append(camera.K.tolist())
                bar.advance(task)
        images.flush()
    if len(set(about["names"])) < len(about["names"]):
        raise ConfigError("sources: expected folders or bags of different names, got some twice")
    partial.replace(folder / "frames.npy")
    write_atomically(file, json.dumps({"asked": asked, **about}).encode())
    return Frames(folder)


def opened(source: VideoSource, progress: Callable[[int, int], None]) -> Video:
    """The triplets of a source."""
    path = os.path.expandvars(source.path)
    return open_video(path, source.step, source.still, progress, **reader_options(source.options))


def marked_objects(
    frames: Frames,
    sources: tuple[VideoSource, ...],
    keep: str,
    folder: Path | None,
    things: tuple[str, ...],
) -> Callable[[int], np.ndarray]:
    """From a triplet's number to the masks (K, h, w) of what somebody marked in its frame at t.

    Args:
        keep: as write_frames got it.
        folder: of NAME.png, uint16, 0 = none; None: the data sets' own (simulated ones').
        things: names of the simulation's objects that count.

    Raises:
        ConfigError: when there is none.
    """
    datasets: list[Any] = [
        open_dataset(os.path.expandvars(s.path), **reader_options(s.options)) for s in sources
    ]
    for source, data in zip(sources, datasets):
        if folder is None and not hasattr(data, "instance"):
            raise ConfigError(
                f"objects: expected instances in {source.path}, as simulated clips have them, got"
                " none; name a folder of masks, or take found"
            )

    def masks(index: int) -> np.ndarray:
        number, middle = frames.origin[index]
        data, wanted = datasets[number], None
        if folder is None:
            instance, names = data.instance(middle), data.object_names(middle)
            wanted = np.flatnonzero(np.isin(names, things)) + 1
        else:
            file = folder / f"{frames.names[index]}.png"
            instance = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        if instance is None:
            raise ConfigError(f"objects: expected a mask of {frames.names[index]}, found none")
        camera = Camera(instance.shape[1], instance.shape[0], np.eye(3))
        _, window = fitted(camera, frames.size, keep)
        return instance_masks(
            cv2.resize(instance[window], frames.size, interpolation=cv2.INTER_NEAREST), wanted
        )

    return masks


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Arrays in one compressed file, complete or not at all; bool (…) as bits and a shape."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = {}
    for name, array in arrays.items():
        if array.dtype == bool:
            packed[f"{name}.bits"], packed[f"{name}.shape"] = np.packbits(array), array.shape
        else:
            packed[name] = array
    partial = path.with_name(f"{path.stem}.partial.npz")
    np.savez_compressed(partial, **packed)  # type: ignore[arg-type]
    partial.replace(path)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """What write_npz wrote."""
    with np.load(path) as file:
        arrays = {k: file[k] for k in file.files if not k.endswith((".bits", ".shape"))}
        for name in (k.removesuffix(".bits") for k in file.files if k.endswith(".bits")):
            shape = file[f"{name}.shape"]
            bits = np.unpackbits(file[f"{name}.bits"], count=int(np.prod(shape)))
            arrays[name] = bits.astype(bool).reshape(shape)
    return arrays


def each_frame(frames: Frames, text: str) -> Iterator[int]:
    """Numbers of all triplets, with progress."""
    with Progress(console=console, disable=not console.is_terminal) as bar:
        yield from bar.track(range(len(frames)), description=text)


class TripletBatches(Dataset):
    """Batch number `step`: images (n, 3, h, w, 3) uint8, K (n, 3, 3), step, and the maps.

    A half of them is mirrored. What a batch holds depends on seed and step alone.

    Args:
        entries: what to draw from: triplets, and the number of an object in each.
        weights: share of each source, however many entries it has.
        maps: what belongs to the frame at t of an entry.
    """

    def __init__(
        self,
        frames: Frames,
        entries: list[tuple[int, int]],
        weights: list[float],
        batch: int,
        seed: int,
        maps: Maps | None = None,
    ) -> None:
        self.frames, self.entries, self.maps = frames, entries, maps
        self.batch, self.seed = batch, seed
        source = frames.origin[[index for index, _ in entries], 0]
        share = np.array(weights)[source] / np.bincount(source)[source]
        if not share.sum() > 0:
            raise ConfigError(f"weight: expected one above 0 among the sources, got {weights}")
        self.share = share / share.sum()

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        cv2.setNumThreads(0)
        rng = np.random.default_rng([self.seed, step])
        rows = []
        for chosen in rng.choice(len(self.entries), self.batch, p=self.share):
            index, number = self.entries[chosen]
            images, K = self.frames.images_of(index), self.frames.K[index].copy()
            maps = self.maps(index, number) if self.maps else {}
            if rng.random() < 0.5:
                images, maps = images[:, :, ::-1], {k: v[:, ::-1] for k, v in maps.items()}
                K[0, 2] = self.frames.size[0] - 1 - K[0, 2]
            rows.append({"images": images, "K": K, **{k: v[None] for k, v in maps.items()}})
        stacked = {k: torch.from_numpy(np.stack([row[k] for row in rows])) for k in rows[0]}
        return {**stacked, "step": torch.tensor(step)}
