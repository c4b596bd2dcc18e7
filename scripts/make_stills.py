"""Make mde_ros/samples/stills.mcap out of three decoded RGB-D stills; the README there says which.

    python scripts/make_stills.py STILLS_FOLDER [OUTPUT.mcap]

Every still is sent REPEATS times at RATE_HZ; the messages differ in their stamps only. The same
folder gives the same messages, whenever and wherever it is run.
"""
# ruff: noqa: TID251  (the one place that needs a bag with chunks of its own size)

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from rosbags.rosbag2.storage_mcap import McapWriter, zstd

from mde_ros.datasets.bag_messages import JAZZY, SAMPLE_TOPICS, sample_messages
from mde_ros.frame import Camera, Frame

RATE_HZ, REPEATS = 10, 15
START_NS = 1_700_000_000 * 10**9
# Nothing in arc2017 is farther than 1.1 m; 0.8 % of its pixels, specks of failed stereo matches,
# say more, up to 59 m: they become "not measured".
LARGEST_DEPTH_MM = {"arc2017": 1200, "mrpt_shelf": 65535, "motorcycle": 65535}


class StillChunks(McapWriter):
    """One chunk per still, so that zstd stores what is repeated only once."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.compressor = partial(zstd.compress, level=19)
        self.whole = False

    def close_chunk(self) -> None:
        """Close the chunk when a still is complete; the writer asks after every message."""
        if self.whole:
            super().close_chunk()
            self.whole = False

    def close(self, version: int, metadata: str) -> None:
        """Close the file, with what is left in the last chunk."""
        self.whole = True
        super().close(version, metadata)


class StillWriter(Writer):
    """A bag writer that uses StillChunks."""

    STORAGE_PLUGINS = {StoragePlugin.MCAP: StillChunks}


def camera(folder: Path, name: str) -> Camera:
    """The camera of a still; mrpt_shelf has the nominal one of its Kinect."""
    if name == "arc2017":
        v = json.loads((folder / "arc2017_camera_info.json").read_text())
        K, D = np.array(v["K"]), np.array(v["D"])
        return Camera(v["width"], v["height"], K, D, v["distortion_model"])
    if name == "motorcycle":
        v = json.loads((folder / "motorcycle_intrinsics.json").read_text())
        K = np.array([[v["fx"], 0, v["cx"]], [0, v["fy"], v["cy"]], [0, 0, 1]])
        return Camera(v["width"], v["height"], K)
    return Camera(640, 480, np.array([[525.0, 0, 319.5], [0, 525.0, 239.5], [0, 0, 1]]))


def still(folder: Path, name: str) -> tuple[Frame, np.ndarray]:
    """Image with camera, and depth (H, W) in metres."""
    image = cv2.imread(str(folder / f"{name}_rgb.jpg"), cv2.IMREAD_COLOR)
    depth_mm = cv2.imread(str(folder / f"{name}_depth_mm.png"), cv2.IMREAD_UNCHANGED)
    if image is None or depth_mm is None:
        sys.exit(f"{folder}: expected {name}_rgb.jpg and {name}_depth_mm.png")
    depth_mm[depth_mm > LARGEST_DEPTH_MM[name]] = 0
    frame = Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), camera(folder, name))
    return frame, depth_mm.astype(np.float32) / 1000


def stills_messages(folder: Path) -> Iterator[tuple[bool, str, int, bytes]]:
    """(whether the still is complete with it, topic, time, CDR) of every message of the bag."""
    stamp = START_NS
    for name in LARGEST_DEPTH_MM:
        frame, depth_m = still(folder, name)
        for i in range(REPEATS):
            for topic, time_ns, cdr in sample_messages(frame, depth_m, stamp):
                last = i == REPEATS - 1 and topic == list(SAMPLE_TOPICS)[-1]
                yield last, topic, time_ns, cdr
            stamp += 10**9 // RATE_HZ


def main(folder: Path, output: Path) -> None:
    """Write the bag."""
    with tempfile.TemporaryDirectory() as temporary:
        writer = StillWriter(Path(temporary) / "bag", version=9, storage_plugin=StoragePlugin.MCAP)
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with writer:
            connections = {
                topic: writer.add_connection(topic, kind, typestore=JAZZY)
                for topic, kind in SAMPLE_TOPICS.items()
            }
            for complete, topic, time_ns, cdr in stills_messages(folder):
                writer.storage.whole = complete  # type: ignore[union-attr]
                writer.write(connections[topic], time_ns, cdr)
        output.write_bytes((Path(temporary) / "bag" / "bag.mcap").read_bytes())
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    default = Path(__file__).parents[1] / "mde_ros" / "samples" / "stills.mcap"
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else default)
