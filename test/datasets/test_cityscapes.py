"""Cityscapes: snippets with the camera of their annotated frame, stereo depth, what can move."""

import json

import cv2
import numpy as np
import pytest

from mde_ros.datasets import DatasetError, open_dataset
from mde_ros.datasets.cityscapes import Cityscapes

HEIGHT, WIDTH = 8, 16


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), array)


def write_camera(root, part, city, name, fx, baseline=0.2):
    path = root / "camera" / part / city / f"{name}_camera.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    intrinsic = {"fx": fx, "fy": fx + 1, "u0": 7.5, "v0": 3.5}
    extrinsic = {"baseline": baseline, "pitch": 0.03, "roll": 0.0, "x": 1.7, "yaw": 0.0, "z": 1.2}
    path.write_text(json.dumps({"intrinsic": intrinsic, "extrinsic": extrinsic}))


def write_snippet(root, part, city, sequence, first, fx):
    """Frames first … first + 29, of which first + 19 has a camera; blue tells the frame."""
    for i in range(first, first + 30, 5):
        image = np.full((HEIGHT, WIDTH, 3), (i % 256, 0, 0), np.uint8)
        name = f"{city}_{sequence}_{i:06d}"
        write(root / f"leftImg8bit_sequence/{part}/{city}/{name}_leftImg8bit.png", image)
    annotated = f"{city}_{sequence}_{first + 19:06d}"
    write(root / f"leftImg8bit_sequence/{part}/{city}/{annotated}_leftImg8bit.png", image)
    write_camera(root, part, city, annotated, fx)


@pytest.fixture
def root(tmp_path):
    write_snippet(tmp_path, "train", "aachen", "000000", 0, 100)
    write_snippet(tmp_path, "train", "bochum", "000000", 40, 101)
    write_snippet(tmp_path, "train", "bochum", "000000", 300, 102)
    return tmp_path


def test_frames_come_in_order_with_the_camera_of_their_snippet(root):
    data = open_dataset(root)
    assert isinstance(data, Cityscapes) and len(data) == 21
    cameras = {s.name: s.frame.camera.K[0, 0] for s in data}
    assert list(cameras) == sorted(cameras)
    assert all(fx == 100 for name, fx in cameras.items() if "aachen" in name)
    assert cameras["bochum/bochum_000000_000065"] == 101  # the last before a gap
    assert cameras["bochum/bochum_000000_000300"] == 102
    assert data[0].frame.camera.K.tolist() == [[100, 0, 7.5], [0, 101, 3.5], [0, 0, 1]]
    assert data[1].frame.image[0, 0].tolist() == [0, 0, 5]


def test_stamps_are_those_of_17_hz_and_cities_are_no_neighbours(root):
    data = open_dataset(root)
    stamps = {s.name[-13:]: s.frame.stamp_ns for s in data if "bochum" in s.name}
    assert stamps["000000_000045"] - stamps["000000_000040"] == pytest.approx(5e9 / 17, abs=5)
    assert stamps["000000_000300"] - stamps["000000_000065"] > 10**9
    assert stamps["000000_000040"] - data[6].frame.stamp_ns > 10**9


def test_disparity_becomes_metres(root):
    """p = 256 d + 1; z = fx · baseline / d: 20 px at fx 100 and 0.2 m are 1 m, 8 px 2.5 m."""
    disparity = np.zeros((HEIGHT, WIDTH), np.uint16)
    disparity[0, 0], disparity[1, 2], disparity[3, 3] = 20 * 256 + 1, 8 * 256 + 1, 1
    write(root / "disparity/train/aachen/aachen_000000_000019_disparity.png", disparity)
    truth = {s.name: s.truth_m for s in open_dataset(root) if s.truth_m is not None}
    assert list(truth) == ["aachen/aachen_000000_000019"]
    expected = np.zeros((HEIGHT, WIDTH))
    expected[0, 0], expected[1, 2] = 1, 2.5
    assert truth["aachen/aachen_000000_000019"] == pytest.approx(expected)


def test_instances_of_what_can_move_are_marked(root):
    ids = np.zeros((HEIGHT, WIDTH), np.uint16)
    for column, (label, _) in enumerate(LABELS):
        ids[:, column] = label
    write(root / "gtFine/train/bochum/bochum_000000_000059_gtFine_instanceIds.png", ids)
    masks = {s.name: s.moving for s in open_dataset(root) if s.moving is not None}
    assert list(masks) == ["bochum/bochum_000000_000059"]
    moving = masks["bochum/bochum_000000_000059"]
    assert moving.dtype == bool and moving.shape == (HEIGHT, WIDTH)
    assert moving[0, : len(LABELS)].tolist() == [moves for _, moves in LABELS]


LABELS = ((7, False), (26000, True), (26013, True), (24001, True), (33002, True), (26, True)) + (
    (23, False),
    (34000, False),
    (11, False),
)


def test_annotated_frames_alone(root):
    names = [s.name[-6:] for s in open_dataset(root, annotated=True)]
    assert names == ["000019", "000059", "000319"]


def test_single_frames_need_no_sequences(root):
    write(
        root / "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png",
        np.zeros((HEIGHT, WIDTH, 3), np.uint8),
    )
    (root / "leftImg8bit_sequence").rename(root / "elsewhere")
    assert [s.name for s in open_dataset(root)] == ["aachen/aachen_000000_000019"]


def test_what_is_missing_or_does_not_fit_is_named(root):
    camera = root / "camera/train/aachen/aachen_000000_000019_camera.json"
    camera.write_text('{"intrinsic": {"fx": 1}}')
    with pytest.raises(DatasetError, match=r"000019_camera\.json: expected intrinsic \(fx fy u0"):
        open_dataset(root)[0]
    camera.unlink()
    with pytest.raises(DatasetError, match=r"aachen_000000_\*_camera\.json: no such file, needed"):
        open_dataset(root)[0]
    write(root / "disparity/train/bochum/bochum_000000_000040_disparity.png", np.zeros((2, 2)))
    with pytest.raises(DatasetError, match=r"disparity\.png: expected a uint16 PNG of \(8, 16\)"):
        open_dataset(root)[7]
    write_snippet(root, "val", "ulm", "000000", 0, 100)
    with pytest.raises(DatasetError, match="part: expected one of train, val, got None"):
        open_dataset(root)
    assert len(open_dataset(root, part="val")) == 7
    (root / "camera").rename(root / "cameras")
    with pytest.raises(DatasetError, match=r"camera/val: expected CITY/\*_camera\.json, found"):
        open_dataset(root, part="val")
    stray = root / "leftImg8bit_sequence/val/ulm/ulm_leftImg8bit.png"
    (root / "cameras").rename(root / "camera")
    write(stray, np.zeros((HEIGHT, WIDTH, 3)))
    with pytest.raises(DatasetError, match=r"ulm_leftImg8bit\.png: expected a name CITY_SEQUENCE_"):
        open_dataset(root, part="val")
