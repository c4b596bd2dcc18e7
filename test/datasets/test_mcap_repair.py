"""An mcap file that breaks off is read up to its last whole chunk, each message as it was."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from mde_ros.datasets import open_dataset
from mde_ros.datasets.bag_file import Bag, BagError
from mde_ros.datasets.bag_messages import JAZZY
from mde_ros.datasets.mcap_repair import repaired
from mde_ros.frame import Camera

sys.path.append(str(Path(__file__).parent))  # for recording.py: test folders are no packages

from recording import CAMERA, SECOND, images, laser_scan, mounting

CAMERA_640 = Camera(640, 480, CAMERA.K)
STAMPS = [SECOND + i * SECOND // 10 for i in range(6)]  # pictures of 0.9 MB: two fill a chunk


def recorded(folder: Path, packed: bool) -> Path:
    """Six images with their camera, six scans of another rate, static transforms first."""
    parts = [*mounting(SECOND), *images(STAMPS, CAMERA_640)]
    scans = [SECOND + i * SECOND // 4 for i in range(3)]
    parts += [("/scan", s, "sensor_msgs/msg/LaserScan", laser_scan(s)) for s in scans]
    writer = Writer(folder / "bag", version=9, storage_plugin=StoragePlugin.MCAP)
    if packed:
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        to = {}
        for topic, time_ns, kind, message in sorted(parts, key=lambda m: m[1]):
            if topic not in to:
                to[topic] = writer.add_connection(topic, kind, typestore=JAZZY)
            raw = message if isinstance(message, bytes) else JAZZY.serialize_cdr(message, kind)
            writer.write(to[topic], time_ns, raw)
    return next((folder / "bag").glob("*.mcap"))


def messages(path: Path):
    with Bag(path) as bag:
        return [(topic, time_ns, bytes(raw)) for topic, time_ns, raw in bag.messages()]


@pytest.mark.parametrize("packed", [False, True])
def test_what_was_whole_comes_back_wherever_the_file_ends(tmp_path, packed):
    whole = recorded(tmp_path, packed)
    data, all_of_it, counts = whole.read_bytes(), messages(whole), []
    for share in (0.4, 0.6, 0.8, 0.97, 1 - 30 / len(data), 1 - 1 / len(data)):
        cut = tmp_path / "cut.mcap"
        cut.write_bytes(data[: int(share * len(data))])
        got = messages(cut)
        assert got == all_of_it[: len(got)]
        counts.append(len(got))
    assert counts[0] >= 3 and counts == sorted(counts) and counts[-1] == len(all_of_it)


@pytest.mark.parametrize("tail", [bytes(5000), b"\x06" + bytes(8)], ids=["zeros", "record begun"])
def test_what_was_never_written_is_not_read(tmp_path, tail):
    """After a power loss a file system may leave zeros where the data was to be."""
    whole = recorded(tmp_path, True)
    data = whole.read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(data[: len(data) // 2] + tail)
    got = messages(cut)
    assert 3 <= len(got) < len(messages(whole)) and got == messages(whole)[: len(got)]


def test_a_data_set_of_a_file_that_breaks_off_says_so(tmp_path):
    whole = recorded(tmp_path, True)
    there = list(open_dataset(whole))
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole.read_bytes()[: int(0.7 * whole.stat().st_size)])
    dataset = open_dataset(cut)
    assert 2 <= len(dataset) < len(there) == 6 and len(list(dataset)) == len(dataset)
    for a, b in zip(there, dataset):
        assert np.array_equal(a.frame.image, b.frame.image)
    assert any("cut.mcap: breaks off; the 0." in note for note in dataset.notes())
    assert not any("breaks off" in note for note in open_dataset(whole).notes())


@pytest.mark.parametrize("size", [0, 5, 20, 1000])
def test_without_a_whole_chunk_there_is_nothing_to_repair(tmp_path, size):
    data = recorded(tmp_path, True).read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(data[:size])
    assert repaired(cut) is None
    with pytest.raises(BagError, match=r"if it was cut off, `mcap recover` restores what is left"):
        Bag(cut)


def test_a_file_of_a_robot_that_breaks_off_is_read(tmp_path, shared_data):
    whole = shared_data / "bags" / "soccer_goal_12.mcap"
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole.read_bytes()[:-40])  # without its footer
    assert messages(cut) == messages(whole)
