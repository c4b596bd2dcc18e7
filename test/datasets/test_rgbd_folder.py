"""RGB-D folders give back what was written, and damaged ones are named."""

import json

import cv2
import numpy as np
import pytest

from mde_ros.datasets import DatasetError, open_dataset
from mde_ros.datasets.rgbd_folder import RgbdFolder

INTRINSICS = {"fx": 50.0, "fy": 55.0, "cx": 9.5, "cy": 7.0, "width": 20, "height": 15}
NAMES = ("0001", "0002", "0010")


def write_folder(folder, names=NAMES, **intrinsics):
    """Lossless colours and depth, both different in every frame."""
    for part in ("rgb", "depth", "pose"):
        (folder / part).mkdir(parents=True)
    (folder / "intrinsics.json").write_text(json.dumps({**INTRINSICS, **intrinsics}))
    for i, name in enumerate(names):
        rgb = np.full((15, 20, 3), (10 + i, 100, 200), np.uint8)
        cv2.imwrite(str(folder / f"rgb/{name}.png"), rgb[..., ::-1])
        depth = np.full((15, 20), 1500 + i, np.uint16)
        depth[0, 0] = 0
        cv2.imwrite(str(folder / f"depth/{name}.png"), depth)
        T = np.eye(4)
        T[0, 3] = i
        np.savetxt(folder / f"pose/{name}.txt", T)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "room")


def test_frames_come_in_the_order_of_their_names_with_what_was_written(folder):
    data = open_dataset(folder)
    assert isinstance(data, RgbdFolder) and (data.name, len(data)) == ("room", 3)
    for i, sample in enumerate(data):
        assert sample.name == f"room/{NAMES[i]}"
        assert (sample.frame.image == (10 + i, 100, 200)).all()
        assert sample.truth_m.dtype == np.float32
        expected = np.full((15, 20), 1.5 + i / 1000, np.float32)
        expected[0, 0] = 0
        assert np.array_equal(sample.truth_m, expected)
        assert sample.frame.stamp_ns == i * 100_000_000
        assert data.pose(i)[0, 3] == i
    camera = data[0].frame.camera
    assert (camera.width, camera.height) == (20, 15)
    assert camera.K.tolist() == [[50, 0, 9.5], [0, 55, 7], [0, 0, 1]]


def test_lens_is_read_where_there_is_one(tmp_path):
    folder = write_folder(tmp_path / "bent", D=[0.1, 0.01, 0, 0, 0])
    assert open_dataset(folder)[0].frame.camera.D.tolist() == [0.1, 0.01, 0, 0, 0]


# A TIFF header with the one entry Orientation = 6: to be shown turned by a quarter.
TURNED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


def test_camera_images_are_not_turned_by_exif_and_photographs_are(tmp_path, folder):
    """Intrinsics and depth belong to the pixels as they were read out."""
    rgb = np.zeros((15, 20, 3), np.uint8)
    rgb[:, :10] = 255
    jpeg = cv2.imencode(".jpg", rgb)[1].tobytes()
    turned = jpeg[:2] + b"\xff\xe1" + (len(TURNED) + 2).to_bytes(2, "big") + TURNED + jpeg[2:]
    (folder / "rgb/0001.png").unlink()
    (folder / "rgb/0001.jpg").write_bytes(turned)
    image = open_dataset(folder)[0].frame.image
    assert image.shape == (15, 20, 3) and image[:, :8].min() > 200 > 50 > image[:, 12:].max()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(turned)
    assert open_dataset(tmp_path / "photos")[0].frame.image.shape == (20, 15, 3)


def test_option_that_the_reader_does_not_take_is_refused_by_name(folder):
    with pytest.raises(DatasetError, match=r"room: expected options of RgbdFolder .*image_topic"):
        open_dataset(folder, image_topic="/camera")
    assert open_dataset(folder, period_ns=5)[1].frame.stamp_ns == 5


def test_frame_without_depth_has_no_truth(folder):
    (folder / "depth/0002.png").unlink()
    data = open_dataset(folder)
    assert data[1].truth_m is None and data[2].truth_m is not None


def test_what_moves_is_what_the_simulation_says_moves(folder):
    assert open_dataset(folder)[0].moving is None
    (folder / "instance").mkdir()
    instance = np.zeros((15, 20), np.uint16)
    instance[2:5, 3:9], instance[10:, :4] = 2, 3
    cv2.imwrite(str(folder / f"instance/{NAMES[1]}.png"), instance)
    np.savez(folder / "scan.npz", object_moving=np.array([False, True, False]))
    data = open_dataset(folder)
    assert np.array_equal(data[1].moving, instance == 2)
    assert data[0].moving is None


def test_folder_of_folders_is_their_frames_one_after_the_other(tmp_path):
    write_folder(tmp_path / "house/b", ("1",))
    write_folder(tmp_path / "house/a")
    data = open_dataset(tmp_path / "house")
    names = ["a/0001", "a/0002", "a/0010", "b/1"]
    assert [s.name for s in data] == names and len(data) == 4
    assert [data[i].name for i in range(4)] == names
    for bad in (4, -1):
        with pytest.raises(IndexError):
            data[bad]


@pytest.mark.parametrize("index", [3, -1])
def test_index_outside_is_an_index_error(folder, index):
    with pytest.raises(IndexError):
        open_dataset(folder)[index]


def write_depth(folder, depth):
    cv2.imwrite(str(folder / "depth/0001.png"), depth)


DAMAGE = {
    "a key missing": (
        lambda f: (f / "intrinsics.json").write_text('{"fx": 1, "fy": 1}'),
        r"intrinsics\.json: expected the keys fx fy cx cy width height, 'cx' is missing",
    ),
    "no JSON": (lambda f: (f / "intrinsics.json").write_text("{"), r"intrinsics\.json: "),
    "JSON of another kind": (
        lambda f: (f / "intrinsics.json").write_text("[1, 2]"),
        r"intrinsics\.json: ",
    ),
    "focal length zero": (
        lambda f: (f / "intrinsics.json").write_text(json.dumps({**INTRINSICS, "fx": 0})),
        r"intrinsics\.json: camera: expected K with positive focal lengths",
    ),
    "no images": (lambda f: [p.unlink() for p in (f / "rgb").iterdir()], "found none"),
    "a broken image": (
        lambda f: (f / "rgb/0001.png").write_bytes(b"no image"),
        r"0001\.png: not a readable image",
    ),
    "another image size": (
        lambda f: cv2.imwrite(str(f / "rgb/0001.png"), np.zeros((4, 5, 3), np.uint8)),
        r"0001\.png: 5x4, but intrinsics\.json says 20x15",
    ),
    "8-bit depth": (
        lambda f: write_depth(f, np.zeros((15, 20), np.uint8)),
        r"depth/0001\.png: expected a uint16 PNG .* got \(15, 20\) uint8",
    ),
    "another depth size": (lambda f: write_depth(f, np.zeros((5, 5), np.uint16)), r"got \(5, 5\)"),
    "broken depth": (
        lambda f: (f / "depth/0001.png").write_bytes(b"x"),
        r"depth/0001\.png: expected a uint16 PNG .* got no image",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_sentence_that_names_the_file(folder, damage):
    harm, message = DAMAGE[damage]
    harm(folder)
    with pytest.raises(DatasetError, match=message):
        open_dataset(folder)[0]


def test_path_without_data_says_what_is_expected(tmp_path):
    with pytest.raises(DatasetError, match="nowhere: no such file or folder"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DatasetError, match=r"expected a bag \(.mcap, .db3, .bag\), a folder with"):
        open_dataset(tmp_path / "a.txt")
