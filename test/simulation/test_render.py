"""Depth, instances, rays and reflections against closed forms and against each other."""

import builtins

import numpy as np
import pytest

from mde_ros.simulation import render
from mde_ros.simulation.clip import SimulationSettings, camera_pose, random_rig
from mde_ros.simulation.render import SceneRenderer, SimulationUnavailable
from mde_ros.simulation.rooms import random_room
from mde_ros.simulation.shapes import Light, Material, Patrol, Scene, SceneObject

SIZE, FOCAL_PX = (160, 120), 110.0


def looking_along_x(height: float, pitch: float = 0.0) -> np.ndarray:
    """A camera above the origin that looks along +x, `pitch` radians down."""
    c, s = np.cos(pitch), np.sin(pitch)
    T = np.eye(4)
    T[:3, :3] = np.array([[0, -s, c], [-1, 0, 0], [0, -c, -s]])
    T[2, 3] = height
    return T


def ball_depth(T: np.ndarray, rays: np.ndarray, centre, radius: float) -> np.ndarray:
    """Depth at which rays (H, W, 3) of z = 1 first meet a ball, NaN where they miss."""
    towards = T[:3, :3].T @ (np.asarray(centre) - T[:3, 3])
    a, b = (rays**2).sum(-1), rays @ towards
    c = towards @ towards - radius**2
    with np.errstate(invalid="ignore"):
        return (b - np.sqrt(b * b - a * c)) / a


@pytest.fixture
def renderer(opengl, plain_scene):
    made = SceneRenderer(plain_scene, SIZE, FOCAL_PX)
    yield made
    made.close()


@pytest.mark.parametrize("height, pitch", [(0.3, 0.0), (1.5, 0.4)])
def test_depth_of_the_floor_is_the_ray_plane_distance(renderer, pixel_rays, height, pitch):
    T = looking_along_x(height, pitch)
    renderer.set(T, 0.0)
    _, depth_m, instance = renderer.render()
    floor = (instance == 1) & (depth_m < 15)
    expected = -height / (pixel_rays @ T[:3, :3].T)[..., 2]
    assert floor.mean() > 0.2
    np.testing.assert_allclose(depth_m[floor], expected[floor], rtol=2e-4)


def test_depth_and_outline_of_a_ball_are_the_ray_sphere_distance(renderer, pixel_rays):
    T = looking_along_x(0.9, 0.1)
    renderer.set(T, 0.0)
    _, depth_m, instance = renderer.render()
    expected = ball_depth(T, pixel_rays, (3, 0, 0.7), 0.5)
    truth, seen = np.isfinite(expected), instance == 2
    assert (truth & seen).sum() / (truth | seen).sum() > 0.95
    inner = ball_depth(T, pixel_rays, (3, 0, 0.7), 0.42)
    middle = np.isfinite(inner) & seen
    # The mesh's flat faces lie inside the ball by at most 1 - cos(pi / segments) of its radius.
    error = depth_m[middle] - expected[middle]
    assert middle.sum() > 200 and error.min() > -1e-3 and error.max() < 0.025


def test_nothing_has_depth_and_id_zero(renderer):
    renderer.set(looking_along_x(1.0, -0.5), 0.0)
    _, depth_m, instance = renderer.render()
    assert (instance[:10] == 0).all() and (depth_m[:10] == 0).all()


def test_rays_meet_floor_box_and_ball_where_geometry_says(renderer):
    origin = np.array([0.0, 0.0, 0.7])
    down = np.array([3.0, -4.0, -0.7])
    to_box = np.array([5.0, 1.5, 0.0])
    directions = np.array([down, to_box, [1.0, 0, 0], [-1.0, 0, 0]])
    lengths = np.linalg.norm(directions, axis=1)
    ranges, ids = renderer.cast(origin, directions / lengths[:, None], 30.0)
    assert ids.tolist() == [1, 3, 2, 0]
    np.testing.assert_allclose(ranges[:2], lengths[:2], rtol=1e-5)
    assert ranges[2] == pytest.approx(2.5, abs=0.01) and np.isinf(ranges[3])


def test_rays_beyond_the_range_answer_nothing(renderer):
    ranges, ids = renderer.cast(np.array([0, 0, 0.7]), np.array([[1.0, 0, 0]]), 2.0)
    assert np.isinf(ranges[0]) and ids[0] == 0


def test_rays_through_pixels_agree_with_depth_and_instances(opengl, pixel_rays):
    rng = np.random.default_rng(3)
    scene, plan = random_room(rng)
    place = plan.free_point(rng, plan.clearance(), 0.4)
    rig = random_rig(rng, "room", SimulationSettings(size=SIZE))
    T = camera_pose(rng, rig, *place, heading=1.0)
    room = SceneRenderer(scene, SIZE, FOCAL_PX)
    room.set(T, 0.7)
    _, depth_m, instance = room.render()
    rays = pixel_rays.reshape(-1, 3)
    lengths = np.linalg.norm(rays, axis=1)
    ranges, ids = room.cast(T[:3, 3], rays / lengths[:, None] @ T[:3, :3].T, 100.0)
    room.close()
    same = ids == instance.ravel()
    assert same.mean() > 0.99
    error = np.abs(ranges / lengths - depth_m.ravel())[same]
    assert np.median(error) < 1e-4 and np.percentile(error, 99) < 0.02


def test_a_mover_is_seen_where_its_pose_says(opengl, plain_scene):
    ball = SceneObject("ball").sphere((0, 0, 0.3), 0.3, Material())
    ball.motion = Patrol(np.array([4.0, -1, 0]), np.array([4.0, 1, 0]), speed=0.5)
    plain_scene.objects = [plain_scene.objects[0], ball]
    scene = SceneRenderer(plain_scene, SIZE, FOCAL_PX)
    for time_s, y in ((0.0, -1.0), (1.0, -0.5), (5.0, 0.5), (8.0, -1.0)):
        scene.set(looking_along_x(0.3), time_s)
        instance = scene.render()[2]
        column = np.nonzero(instance == 2)[1].mean()
        expected = (SIZE[0] - 1) / 2 - FOCAL_PX * y / 4.0
        assert column == pytest.approx(expected, abs=1.0)
    scene.close()


def test_the_mirror_shows_a_ball_as_far_below_the_floor_as_it_is_above(opengl):
    ball = SceneObject("ball").sphere((3, 0, 0.7), 0.2, Material((1, 0, 0), emission=1.0))
    floor = SceneObject("floor").box((0, 0, -0.05), (9, 9, 0.05), Material())
    light = Light((0.1, 0.1, 0.1), position=(0, 0, 3))
    scene = SceneRenderer(Scene("test", [floor, ball], [light], 0.2), SIZE, FOCAL_PX)
    T = looking_along_x(0.4, 0.1)
    mirrored = scene.render_mirrored(T, 0.0).astype(int)
    scene.close()
    rows, columns = np.nonzero((mirrored[..., 0] > 150) & (mirrored[..., 1] < 60))
    image = np.linalg.inv(T) @ [3, 0, -0.7, 1]
    assert rows.mean() == pytest.approx(FOCAL_PX * image[1] / image[2] + (SIZE[1] - 1) / 2, abs=1)
    assert columns.mean() == pytest.approx((SIZE[0] - 1) / 2, abs=1)


def test_light_colours_are_not_swapped(renderer):
    renderer.set(looking_along_x(0.7), 0.0)
    rgb, _, instance = renderer.render()
    ball = rgb[instance == 2].mean(0)
    assert ball[0] > 3 * ball[1] and ball[0] > 3 * ball[2]


def test_without_mujoco_the_error_names_the_extra_and_the_packages(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **named):
        if name == "mujoco":
            raise ImportError("libEGL.so.1: cannot open shared object file")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    render.load_mujoco.cache_clear()
    with pytest.raises(SimulationUnavailable) as caught:
        render.load_mujoco()
    render.load_mujoco.cache_clear()
    for name in ("sim", "libegl1", "libegl-mesa0", "libgl1-mesa-dri"):
        assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_sun_falls_through_panes_and_not_through_walls(opengl):
    """Sun at 45 degrees over a roof with a pane at x = 1..2: bright floor at x = 3..4 only."""
    grey = Material((0.5, 0.5, 0.5))
    roof = SceneObject("ceiling").box((-2, 0, 2.02), (3, 9, 0.02), grey)
    roof.box((9, 0, 2.02), (7, 9, 0.02), grey)
    pane = SceneObject("window").box((1.5, 0, 2.0), (0.5, 9, 0.01), Material(lets_sun_in=True))
    floor = SceneObject("floor").box((0, 0, -0.05), (20, 20, 0.05), grey)
    sun = Light((0.5, 0.5, 0.5), direction=(0.7071, 0, -0.7071), shadow=True)
    scene = SceneRenderer(Scene("test", [floor, roof, pane], [sun], 0.3), SIZE, FOCAL_PX)
    T = looking_along_x(1.2, 0.4)
    scene.set(T, 0.0)
    rgb, _, instance = scene.render()
    _, pane_hit = scene.cast(np.array([1.43, 0.21, 1.0]), np.array([[0, 0, 1.0]]), 5.0)
    scene.close()

    def floor_at(x):
        point = np.linalg.inv(T) @ [x, 0, 0, 1]
        row = round(FOCAL_PX * point[1] / point[2] + (SIZE[1] - 1) / 2)
        assert instance[row, SIZE[0] // 2] == 1
        return float(rgb[row, SIZE[0] // 2].mean())

    assert floor_at(3.5) > 1.5 * floor_at(2.5)
    assert floor_at(3.5) > 1.5 * floor_at(4.6)
    assert pane_hit.tolist() == [3]  # the pane itself is there
