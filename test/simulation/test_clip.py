"""A recorded clip: its layout, its units, and that its parts agree with each other."""

import json

import cv2
import numpy as np
import pytest

from mde_ros.frame import Camera
from mde_ros.geometry import project, unproject
from mde_ros.simulation.clip import Laser, SimulationSettings, random_rig, record_clip, scan
from mde_ros.simulation.look import contact_shadow
from mde_ros.simulation.shapes import Scene, SceneObject

SIZE = (160, 120)


class Clip:
    """A clip folder read back with nothing but numpy and OpenCV."""

    def __init__(self, folder):
        self.folder = folder
        self.facts = json.loads((folder / "intrinsics.json").read_text())
        self.scan = np.load(folder / "scan.npz")
        self.count = len(list((folder / "rgb").glob("*.jpg")))
        K = np.eye(3)
        K[[0, 1, 0, 1], [0, 1, 2, 2]] = [self.facts[key] for key in ("fx", "fy", "cx", "cy")]
        self.camera = Camera(self.facts["width"], self.facts["height"], K)

    def image(self, kind, number):
        suffix = "jpg" if kind == "rgb" else "png"
        return cv2.imread(str(self.folder / kind / f"{number:03d}.{suffix}"), cv2.IMREAD_UNCHANGED)

    def depth_m(self, number):
        return self.image("depth", number) / 1000.0

    def pose(self, number):
        return np.loadtxt(self.folder / "pose" / f"{number:03d}.txt")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(params=["room", "street", "drive", "closeup"])
def clip(request, opengl, out):
    folder = out / f"{request.param}_000002"
    if not folder.exists():
        settings = SimulationSettings(frames=5, size=SIZE, seed=4)
        record_clip(out, settings, request.param, 2)
    return Clip(folder)


def test_a_clip_has_every_file_of_the_layout(clip):
    assert clip.count == 5
    for number in range(clip.count):
        assert clip.image("rgb", number).shape == (SIZE[1], SIZE[0], 3)
        for kind in ("depth", "instance"):
            image = clip.image(kind, number)
            assert image.shape == (SIZE[1], SIZE[0]) and image.dtype == np.uint16
        assert clip.pose(number).shape == (4, 4)
    count, beams = clip.scan["ranges"].shape
    assert count == clip.count and clip.scan["hit_ids"].shape == (count, beams)
    for name in ("T_world_laser", "T_camera_laser"):
        assert clip.scan[name].shape == (count, 4, 4)
    assert (np.diff(clip.scan["stamp_ns"]) > 0).all()
    objects = len(clip.scan["object_names"])
    assert clip.scan["T_world_object"].shape == (count, objects, 4, 4)
    assert clip.image("instance", 0).max() <= objects


def test_the_principal_point_is_the_middle_of_pixels_that_count_from_zero(clip):
    assert clip.facts["cx"] == (SIZE[0] - 1) / 2 and clip.facts["cy"] == (SIZE[1] - 1) / 2
    angle = 2 * np.degrees(np.arctan(SIZE[0] / 2 / clip.facts["fx"]))
    assert 45 <= angle <= 90


def test_a_close_up_looks_down_and_may_be_nearer_than_a_room(opengl, out):
    rigs = [
        random_rig(np.random.default_rng(s), "closeup", SimulationSettings()) for s in range(99)
    ]
    assert all(np.radians(20) < rig.pitch < np.radians(80) and rig.close for rig in rigs)
    record_clip(out, SimulationSettings(frames=3, size=SIZE, seed=6), "closeup", 0)
    clip = Clip(out / "closeup_000000")
    for number in range(clip.count):
        assert clip.pose(number)[2, 2] < -np.sin(np.radians(15))  # the optical axis, shaken
        assert 0.25 < np.median(clip.depth_m(number)) < 3


def test_frames_see_more_than_a_wall(clip):
    for number in range(clip.count):
        depth_m, instance = clip.depth_m(number), clip.image("instance", number)
        assert len(np.unique(instance)) >= 4
        least_m = 0.4 if "closeup" in clip.folder.name else 1.4
        assert np.percentile(depth_m[depth_m > 0], 90) > least_m
        grey = clip.image("rgb", number).mean(2)
        assert 15 < grey.mean() < 235 and grey.std() > 5


def test_points_of_one_frame_lie_on_the_surfaces_of_the_next(clip):
    """Depth, intrinsics and poses agree: static points, moved by the poses, meet the other depth.

    Some points are hidden in the other frame, so that the median of all is what counts.
    """
    moving = np.flatnonzero(clip.scan["object_moving"]) + 1
    errors = []
    for number in range(clip.count - 1):
        depth_m = clip.depth_m(number)
        static = (depth_m > 0) & (depth_m < 20)
        static &= ~np.isin(clip.image("instance", number), moving)
        points = unproject(depth_m, clip.camera)[static]
        T = np.linalg.inv(clip.pose(number + 1)) @ clip.pose(number)
        pixels, z = project(points @ T[:3, :3].T + T[:3, 3], clip.camera)
        inside = (z > 0.1) & (np.abs(pixels - [SIZE[0] / 2, SIZE[1] / 2]) < [78, 58]).all(1)
        if not inside.any():
            continue
        places = pixels[inside].astype(np.float32)[None]
        with np.errstate(divide="ignore"):  # inverse depth is linear between pixels of a plane
            inverse = 1 / clip.depth_m(number + 1).astype(np.float32)
        seen = 1 / cv2.remap(inverse, places, None, cv2.INTER_LINEAR)[0]
        errors.append((np.abs(seen - z[inside]) / z[inside])[np.isfinite(seen)])
    errors = np.concatenate(errors)
    assert len(errors) > 5000 and np.median(errors) < 0.005


def test_laser_hits_lie_on_the_depth_of_the_image(clip):
    """Hits moved into the camera frame and projected meet depth and instance there."""
    angles = clip.scan["angle_min"] + clip.scan["angle_increment"] * np.arange(360)
    errors, same = [], []
    for number in range(clip.count):
        ranges = clip.scan["ranges"][number]
        hit = np.isfinite(ranges)
        beams = np.stack([np.cos(angles), np.sin(angles), 0 * angles, 1 / ranges], 1)[hit]
        points = (beams * ranges[hit, None]) @ clip.scan["T_camera_laser"][number].T
        pixels, z = project(points[:, :3], clip.camera)
        inside = (z > 0.2) & (np.abs(pixels - [SIZE[0] / 2, SIZE[1] / 2]) < [78, 58]).all(1)
        columns, rows = np.rint(pixels[inside]).astype(int).T
        instance = clip.image("instance", number)[rows, columns]
        agrees = instance == clip.scan["hit_ids"][number][hit][inside]
        same.append(agrees)
        errors.append(
            np.abs(clip.depth_m(number)[rows, columns] - z[inside])[agrees] / z[inside][agrees]
        )
    errors, same = np.concatenate(errors), np.concatenate(same)
    assert len(same) > 30, "the laser line is not in view"
    assert same.mean() > 0.6  # the rest is hidden from the camera
    assert np.median(errors) < 0.02


class Answers:
    """In place of a renderer: odd beams meet a wall at 1 m, even beams a pane or wall at 20 m."""

    def __init__(self, far_name):
        self.scene = Scene("test", [SceneObject("wall"), SceneObject(far_name)], [], 0.0)

    def cast(self, origin, directions, far_m):
        odd = np.arange(len(directions)) % 2 == 1
        return np.where(odd, 1.0, 20.0), np.where(odd, 1, 2).astype(np.uint16)


def test_the_noise_of_the_laser_grows_with_distance():
    laser = Laser(beams=20000, lost=0.1)
    ranges, ids = scan(Answers("wall"), laser, np.eye(4), np.random.default_rng(0))
    near, far = (part[np.isfinite(part)] for part in (ranges[1::2], ranges[::2]))
    assert np.std(near) == pytest.approx(laser.noise_m + laser.noise_per_m, rel=0.05)
    assert np.std(far) == pytest.approx(laser.noise_m + 20 * laser.noise_per_m, rel=0.05)
    assert np.isinf(ranges).mean() == pytest.approx(0.1, abs=0.01)
    assert np.array_equal(ids == 0, np.isinf(ranges))


def test_most_beams_get_lost_in_glass():
    laser = Laser(beams=20000, lost=0.1, lost_in_glass=0.7)
    ranges, _ = scan(Answers("window"), laser, np.eye(4), np.random.default_rng(0))
    assert np.isinf(ranges[::2]).mean() == pytest.approx(0.7, abs=0.02)
    assert np.isinf(ranges[1::2]).mean() == pytest.approx(0.1, abs=0.02)


def test_contact_shadows_leave_planes_alone_and_darken_corners():
    """Inverse depth of a plane is linear in the image; of a far corner it has a valley."""
    v, u = np.mgrid[:120, :160].astype(np.float32)
    plane = 1 / (0.3 + 0.002 * u + 0.001 * v)
    inside = (slice(20, 100), slice(20, 140))
    np.testing.assert_allclose(contact_shadow(plane)[inside], 1, atol=1e-4)
    corner = 1 / (0.3 + 0.004 * np.abs(u - 80))
    factor = contact_shadow(corner)
    assert factor[60, 80] < 0.97 and factor[60, 80] < factor[60, 60]
    assert factor.max() < 1 + 1e-4
