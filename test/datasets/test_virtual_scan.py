"""The virtual scan against scenes whose ranges are known in closed form."""

import cv2
import numpy as np
import pytest

from mde_ros.datasets import DatasetError, Sample
from mde_ros.datasets.virtual_scan import VirtualScan, WithScan, cut
from mde_ros.frame import Camera, Frame
from mde_ros.geometry import rays

CAMERA = Camera(160, 120, np.array([[120, 0, 79.5], [0, 120, 59.5], [0, 0, 1.0]]))
WALL = ((0, 0, 1), 3.0)  # planes as normal and distance in right-down-ahead coordinates
SIDE = ((-1, 0, 0), 1.2)
FLOOR = ((0, 1, 0), 1.0)


def level(pitch_deg: float) -> np.ndarray:
    """(3, 3) from the optical frame of a camera that looks down to right, down, ahead."""
    p = np.radians(pitch_deg)
    return np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])


def render(*planes, pitch_deg: float = 0.0, camera: Camera = CAMERA) -> np.ndarray:
    """Depth of planes; the nearest wins a pixel."""
    directions = rays(camera).astype(np.float64) @ level(pitch_deg).T
    depth = np.full(directions.shape[:2], np.inf)
    for normal, distance in planes:
        with np.errstate(divide="ignore"):
            z = distance / (directions @ np.asarray(normal, float))
        depth = np.where((z > 0) & (z < depth), z, depth)
    return np.where(np.isfinite(depth), depth, 0).astype(np.float32)


def polar(points: np.ndarray, pitch_deg: float = 0.0) -> tuple[np.ndarray, ...]:
    """Azimuth in degrees, range and height below the camera, in the order of the azimuths."""
    right, down, ahead = level(pitch_deg) @ points.astype(np.float64).T
    azimuth = np.degrees(np.arctan2(right, ahead))
    order = np.argsort(azimuth)
    return azimuth[order], np.hypot(right, ahead)[order], down[order]


@pytest.mark.parametrize("pitch", [0.0, 12.0, -8.0])
@pytest.mark.parametrize("beams", [180, 720])
def test_every_beam_meets_the_nearest_of_the_walls_whatever_the_pitch(pitch, beams):
    depth = render(WALL, SIDE, FLOOR, pitch_deg=pitch)
    points, used = cut(depth, CAMERA, VirtualScan(0.4, pitch, beams))
    azimuth, distance, down = polar(points, pitch)
    a = np.radians(azimuth)
    with np.errstate(divide="ignore"):
        side = np.where(a < 0, -1.2 / np.sin(a), np.inf)
    np.testing.assert_allclose(down, 0.4, atol=1e-5)
    np.testing.assert_allclose(distance, np.minimum(3 / np.cos(a), side), rtol=2e-3)
    np.testing.assert_allclose(np.diff(azimuth), 360 / beams, atol=1e-3)  # none is missing
    assert abs(azimuth).min() < 1e-3  # one looks straight ahead
    assert azimuth.max() == pytest.approx(np.degrees(np.arctan(79.5 / 120)), abs=3)
    assert 0 < used.sum() <= 4 * len(points)


def test_no_return_where_nothing_rises_to_the_plane_of_the_lidar():
    for depth in (render(FLOOR), np.zeros((120, 160), np.float32), render(FLOOR, WALL) * np.nan):
        points, used = cut(depth, CAMERA, VirtualScan(0.4))
        assert points.shape == (0, 3) and points.dtype == np.float32 and not used.any()


def test_a_box_in_front_of_a_wall_is_met_first():
    depth = render(WALL)
    v, u = np.mgrid[:120, :160]
    x, y = (u - 79.5) / 120, (v - 59.5) / 120  # of a box whose front is at 1 m
    depth[(abs(x) < 0.2) & (y > 0.3)] = 1.0
    azimuth, distance, _ = polar(cut(depth, CAMERA, VirtualScan(0.4))[0])
    a = np.radians(azimuth)
    box = abs(np.tan(a)) < 0.19
    np.testing.assert_allclose(distance[box], 1 / np.cos(a[box]), rtol=1e-4)
    beside = abs(np.tan(a)) > 0.21
    np.testing.assert_allclose(distance[beside], 3 / np.cos(a[beside]), rtol=1e-4)


def test_an_outline_is_no_surface():
    """A board at 1 m hides where the plane meets the wall; below the board the wall is too low."""
    depth = render(WALL)
    v, u = np.mgrid[:120, :160]
    depth[(abs(u - 79.5) / 120 < 0.2) & ((v - 59.5) / 120 < 0.2)] = 1.0
    azimuth, distance, _ = polar(cut(depth, CAMERA, VirtualScan(0.4))[0])
    tangent = np.tan(np.radians(azimuth))
    assert not (abs(tangent) < 0.19).any()
    np.testing.assert_allclose(distance, 3 * np.hypot(1, tangent), rtol=1e-4)
    assert len(azimuth) > 50


def test_noise_has_its_deviation_lies_along_the_beam_and_differs_by_frame():
    depth, spec = render(WALL), VirtualScan(0.4, noise=0.02, seed=3)
    exact, _ = cut(depth, CAMERA, VirtualScan(0.4))
    frames = [cut(depth, CAMERA, spec, i)[0] for i in range(30)]
    errors = np.concatenate([polar(f)[1] - polar(exact)[1] for f in frames])
    assert np.std(errors) == pytest.approx(0.02, rel=0.05) and abs(np.mean(errors)) < 0.002
    np.testing.assert_allclose(polar(frames[0])[0], polar(exact)[0], atol=1e-3)
    np.testing.assert_array_equal(cut(depth, CAMERA, spec, 5)[0], frames[5])
    assert not np.array_equal(frames[0], frames[1])


class One(list):
    name = "one"


def test_data_set_gets_points_and_loses_exactly_the_truth_they_were_read_from():
    depth = render(WALL, FLOOR)
    image = np.zeros((120, 160, 3), np.uint8)
    data = WithScan(One([Sample(Frame(image, CAMERA), depth, "a")] * 2), VirtualScan(0.4))
    points, used = cut(depth, CAMERA, VirtualScan(0.4))
    assert len(data) == 2 and data.name == "one"
    for sample in [data[1], *data]:
        np.testing.assert_array_equal(sample.frame.points, points)
        np.testing.assert_array_equal(sample.truth_m, np.where(used, 0, depth))
    nothing = WithScan(One([Sample(Frame(image, CAMERA), None, "a")]), VirtualScan(0.4))
    assert nothing[0].truth_m is None


def test_a_distorted_lens_is_straightened_before_the_scan_is_cut():
    """A slanted wall, z = 3 - x / 2, as a lens sees it that bends straight lines."""
    lens = Camera(160, 120, CAMERA.K, np.array([-0.3, 0.08, 0, 0]))
    pixels = np.stack(np.meshgrid(np.arange(160.0), np.arange(120.0)), -1).reshape(-1, 1, 2)
    x = cv2.undistortPoints(pixels, lens.K, lens.D)[:, 0, 0].reshape(120, 160)
    depth = (3 / (1 + x / 2)).astype(np.float32)
    image = np.zeros((120, 160, 3), np.uint8)
    sample = WithScan(One([Sample(Frame(image, lens), depth, "a")]), VirtualScan(0.2))[0]
    azimuth, distance, _ = polar(sample.frame.points)
    a = np.radians(azimuth)
    np.testing.assert_allclose(distance, 3 / (np.cos(a) + np.sin(a) / 2), rtol=4e-3)
    assert not sample.frame.camera.is_distorted and len(a) > 100


def test_text_becomes_a_scan_and_a_wrong_one_is_told_the_keys():
    spec = VirtualScan.parse("height=0.35,pitch=-5,beams=360,noise=0.01,seed=2")
    assert spec == VirtualScan(0.35, -5, 360, 0.01, 2)
    for text in ("pitch=3", "height=low", "height=0.3,tilt=2", "height=0.3,beams=1.5", ""):
        with pytest.raises(DatasetError, match="virtual scan: expected height=METRES"):
            VirtualScan.parse(text)
    for text in ("height=nan", "height=1,beams=0", "height=1,noise=-1", "height=1,pitch=90"):
        with pytest.raises(DatasetError, match="virtual scan: expected"):
            VirtualScan.parse(text)
