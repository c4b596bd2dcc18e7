"""ScanNet's export: depth of the other lens at the pixels of the image, poses, many scenes."""

import cv2
import numpy as np
import pytest

from mde_ros.datasets import DatasetError, open_dataset
from mde_ros.datasets.scannet import ScanNet

COLOUR = np.array([[100, 0, 65, 0], [0, 102, 47, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
DEPTH = np.array([[49, 0, 31, 0], [0, 51, 24, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
# A plane in space, n·X = 1, tells every ray's depth: z = 1 / (n · (x, y, 1)).
NORMAL = np.array([0.12, -0.2, 0.45])


def plane(K, width, height):
    """Depth of the plane as a camera sees it: (height, width) metres."""
    v, u = np.mgrid[:height, :width]
    ray = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(u.shape)], 2)
    return 1 / (ray @ NORMAL)


def write_scene(folder, numbers=(0, 1, 2, 10)):
    for part in ("color", "depth", "pose", "intrinsic"):
        (folder / part).mkdir(parents=True)
    np.savetxt(folder / "intrinsic/intrinsic_color.txt", COLOUR)
    np.savetxt(folder / "intrinsic/intrinsic_depth.txt", DEPTH)
    millimetres = np.rint(plane(DEPTH, 64, 48) * 1000).astype(np.uint16)
    for i in numbers:
        cv2.imwrite(str(folder / f"color/{i}.jpg"), np.full((96, 130, 3), 20 * i, np.uint8))
        cv2.imwrite(str(folder / f"depth/{i}.png"), millimetres)
        T = np.eye(4)
        T[0, 3] = i if i != 1 else -np.inf
        np.savetxt(folder / f"pose/{i}.txt", T)
    return folder


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "scene0000_00")


def test_each_pixel_has_the_depth_of_what_it_looks_at(scene):
    sample = open_dataset(scene)[0]
    assert sample.truth_m.shape == (96, 130) and sample.truth_m.dtype == np.float32
    seen = sample.truth_m > 0
    difference = np.abs(sample.truth_m - plane(COLOUR, 130, 96))[seen]
    # Half a pixel of the depth map, and half a millimetre, is all that may be lost.
    steps = np.gradient(plane(DEPTH, 64, 48))
    assert difference.max() < (np.abs(steps[0]).max() + np.abs(steps[1]).max()) / 2 + 0.0006
    assert np.array_equal(sample.frame.camera.K, COLOUR[:3, :3])


def test_pixels_that_the_depth_camera_does_not_see_have_no_depth(scene):
    """Which they are, worked out one by one."""
    seen = open_dataset(scene)[0].truth_m > 0
    for u, v in [(0, 50), (1, 50), (2, 50), (3, 50), (4, 50), (129, 50), (60, 0), (60, 95)]:
        column = round((u - 65) / 100 * 49 + 31)
        row = round((v - 47) / 102 * 51 + 24)
        assert seen[v, u] == (0 <= column < 64 and 0 <= row < 48)
    assert not seen.all() and seen.mean() > 0.9


def test_frames_come_in_the_order_of_their_numbers_with_their_poses(scene):
    data = open_dataset(scene)
    assert isinstance(data, ScanNet)
    assert [s.name for s in data] == [f"scene0000_00/{i}" for i in (0, 1, 2, 10)]
    assert [int(s.frame.image[0, 0, 0]) for s in data] == [0, 20, 40, 200]
    assert data.pose(3)[0, 3] == 10 and data.pose(1) is None  # tracking was lost
    stamps = np.diff([s.frame.stamp_ns for s in data])
    assert (stamps > 30_000_000).all() and (stamps < 40_000_000).all()


def test_scenes_of_a_list_are_taken_and_are_no_neighbours_in_time(tmp_path):
    for i in range(3):
        write_scene(tmp_path / f"scans/scene000{i}_00", (0, 1))
    (tmp_path / "val.txt").write_text("scene0002_00\nscene0000_00\n")
    data = open_dataset(tmp_path / "scans", split=tmp_path / "val.txt")
    assert [s.name[:12] for s in data] == ["scene0002_00"] * 2 + ["scene0000_00"] * 2
    assert len(open_dataset(tmp_path / "scans")) == 6
    assert data[2].frame.stamp_ns - data[1].frame.stamp_ns > 10**9


def test_image_without_depth_has_no_truth(scene):
    (scene / "depth/1.png").unlink()
    assert [s.truth_m is None for s in open_dataset(scene)] == [False, True, False, False]


def test_what_is_missing_or_does_not_fit_is_named(scene):
    with pytest.raises(DatasetError, match=r"nowhere\.txt: no such file"):
        open_dataset(scene, split="nowhere.txt")
    cv2.imwrite(str(scene / "color/1.jpg"), np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"1\.jpg: 10x10, but the scene's first image says 130x"):
        open_dataset(scene)[1]
    np.savetxt(scene / "intrinsic/intrinsic_color.txt", COLOUR * [-1, 1, 1, 1])
    with pytest.raises(
        DatasetError, match=r"intrinsic_color\.txt: camera: expected K with positive"
    ):
        open_dataset(scene)[0]
    np.savetxt(scene / "intrinsic/intrinsic_color.txt", COLOUR)
    for i in (0, 1, 2, 10):  # a resized export with the intrinsics of the original
        cv2.imwrite(str(scene / f"color/{i}.jpg"), np.zeros((48, 65, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"intrinsic_color\.txt: its principal point \(65, 47\)"):
        open_dataset(scene)[0]
    (scene / "intrinsic/intrinsic_color.txt").unlink()
    with pytest.raises(DatasetError, match=r"intrinsic_color\.txt: expected .* got no such file"):
        open_dataset(scene)[0]
    for file in (scene / "color").iterdir():
        file.unlink()
    with pytest.raises(DatasetError, match=r"color: expected NUMBER\.jpg or NUMBER\.png, found"):
        open_dataset(scene)
