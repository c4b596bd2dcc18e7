"""Folders of photographs: every image, no truth, and a camera of the assumed field of view."""

import cv2
import numpy as np
import pytest

from mde_ros.datasets import DatasetError, open_dataset
from mde_ros.datasets.images import ImageFolder
from mde_ros.geometry import rays


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos/b").mkdir(parents=True)
    for name, value in (("b/2.png", 50), ("a.PNG", 20), ("b/10.png", 90)):
        picture = np.full((30, 40, 3), (value, 0, 255), np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / name), picture[..., ::-1])
    (tmp_path / "photos/notes.txt").write_text("no image")
    return tmp_path / "photos"


def test_every_image_below_the_folder_in_order_of_its_path(folder):
    data = open_dataset(folder)
    assert isinstance(data, ImageFolder) and len(data) == 3
    assert [s.name for s in data] == ["a.PNG", "b/10.png", "b/2.png"]
    assert [int(s.frame.image[0, 0, 0]) for s in data] == [20, 90, 50]
    assert all(s.truth_m is None for s in data)


@pytest.mark.parametrize("degrees", [60.0, 75.0])
def test_opposite_corners_of_the_image_are_the_field_of_view_apart(folder, degrees):
    camera = ImageFolder(folder, field_of_view_deg=degrees)[0].frame.camera
    corner = (rays(camera)[0, 0] - rays(camera)[-1, -1])[:2]
    assert np.hypot(*corner) / 2 * (50 / np.hypot(39, 29)) == pytest.approx(
        np.tan(np.radians(degrees / 2)), rel=1e-5
    )


def test_folder_without_images_and_broken_images_are_named(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"expected images \(.jpg, .jpeg, .png\), found none"):
        open_dataset(tmp_path / "empty")
    (folder / "a.PNG").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"a\.PNG: not a readable image"):
        open_dataset(folder)[0]


def test_index_outside_is_an_index_error(folder):
    for index in (3, -1):
        with pytest.raises(IndexError):
            open_dataset(folder)[index]
