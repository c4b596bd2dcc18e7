"""Geometry against closed forms and OpenCV's own projection."""

import cv2
import numpy as np
import pytest

from mde_ros import geometry
from mde_ros.frame import Camera


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize("size", [None, (128, 96), (31, 77)])
def test_project_undoes_unproject_also_with_a_resized_camera(camera, rng, size):
    camera = camera if size is None else camera.resized(*size)
    depth = rng.uniform(0.2, 30, (camera.height, camera.width)).astype(np.float32)
    uv, z = geometry.project(geometry.unproject(depth, camera).reshape(-1, 3), camera)
    grid = np.stack(np.meshgrid(np.arange(camera.width), np.arange(camera.height)), -1)
    assert np.abs(uv - grid.reshape(-1, 2)).max() < 1e-3
    assert np.array_equal(z.astype(np.float32), depth.ravel())


def test_projection_agrees_with_opencv(camera, rng):
    points = rng.uniform((-2, -2, 0.5), (2, 2, 9), (50, 3))
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), camera.K, np.zeros(4))[0]
    assert geometry.project(points, camera)[0] == pytest.approx(expected[:, 0])


def test_points_behind_the_camera_have_no_pixel(camera):
    uv, _ = geometry.project(np.array([[1, 1, -2], [0, 0, 0], [1, 0, np.nan]]), camera)
    assert np.isnan(uv).all()


def test_sparse_depth_holds_the_nearest_point_of_a_pixel_whatever_the_order(camera, rng):
    """Oracle: a loop over the points that keeps the minimum."""
    points = rng.uniform((-1, -1, 0.5), (1, 1, 3), (4000, 3))
    expected = np.full((48, 64), np.inf)
    for x, y, z in points:
        col, row = round(x / z * 50 + 30.2), round(y / z * 55 + 25.7)
        if 0 <= col < 64 and 0 <= row < 48:
            expected[row, col] = min(expected[row, col], z)
    expected[np.isinf(expected)] = 0
    for order in (slice(None), slice(None, None, -1)):
        depth = geometry.points_to_depth(points[order], camera)
        assert depth.dtype == np.float32
        assert np.array_equal(depth, expected.astype(np.float32))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "point", [(0, 0, np.inf), (0, 0, np.nan), (np.inf, 0, 1), (0, 0, -1), (1, 1, 1e-30), (9, 0, 1)]
)
def test_points_without_a_place_in_the_image_leave_no_depth(camera, point):
    assert not geometry.points_to_depth(np.array([point], np.float32), camera).any()


def test_no_points_give_no_depth(camera):
    assert not geometry.points_to_depth(np.zeros((0, 3), np.float32), camera).any()


def test_points_in_view_are_those_of_pixels_and_given_where_they_are(camera):
    """Unprojected pixels land on themselves; what is beyond the border or behind is left out."""
    depth = np.full((camera.height, camera.width), 2.0, np.float32)
    inner = geometry.unproject(depth, camera)[[0, 47, 20], [0, 63, 7]]
    beyond = inner * (1.02, 1.02, 1)  # half a pixel and more, but for the one in the middle
    points = np.concatenate([inner, -inner, beyond[:2]])
    seen, rows, columns = geometry.in_view(points, camera)
    assert seen.tolist() == [0, 1, 2]
    assert (rows.tolist(), columns.tolist()) == ([0, 47, 20], [0, 63, 7])


@pytest.mark.parametrize("seconds", [-0.3, 0.0, 0.2])
def test_a_body_that_drives_and_turns_goes_on_a_circle(seconds):
    """Forward at 2 m/s and to the left at 0.5 rad/s: a circle of 4 m around (0, 4)."""
    T = geometry.twist_motion(np.array([2, 0, 0]), np.array([0, 0, 0.5]), seconds)
    a = 0.5 * seconds
    expected = [[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]
    assert T[:3, :3] == pytest.approx(np.array(expected))
    assert T[:3, 3] == pytest.approx([4 * np.sin(a), 4 - 4 * np.cos(a), 0])


def test_a_body_moves_as_many_small_steps_do(rng):
    """Of any velocity: forwards, sideways and about a skew axis, or straight on."""
    for angular in (rng.normal(size=3), np.zeros(3), np.full(3, 1e-12)):
        linear, steps = rng.normal(size=3), 20000
        x, y, z = angular / steps
        step = np.eye(4)
        step[:3] += np.array([[0, -z, y, 0], [z, 0, -x, 0], [-y, x, 0, 0]])
        step[:3, 3] = linear / steps
        expected = np.linalg.matrix_power(step, steps)
        assert geometry.twist_motion(linear, angular, 1.0) == pytest.approx(expected, abs=5e-4)


def test_pose_equals_rodrigues_and_inverts(rng):
    """A quaternion is axis times sin(angle/2) and cos(angle/2), of any length."""
    axis, angle = np.array([1, 2, -2]) / 3, 0.7
    q = np.append(axis * np.sin(angle / 2), np.cos(angle / 2)) * 3.0
    T = geometry.pose(np.array([1, 2, 3]), q)
    assert T[:3, :3] == pytest.approx(cv2.Rodrigues(axis * angle)[0])
    points = rng.normal(size=(4, 5, 3))
    back = geometry.transform(np.linalg.inv(T), geometry.transform(T, points))
    assert back == pytest.approx(points)
    assert geometry.transform(T, np.zeros(3)) == pytest.approx([1, 2, 3])


@pytest.mark.parametrize("q", [np.zeros(4), np.array([np.nan, 0, 0, 1])])
def test_zero_quaternion_is_refused_and_never_the_identity(q):
    with pytest.raises(ValueError, match="non-zero length"):
        geometry.pose(np.zeros(3), q)


@pytest.mark.filterwarnings("error")
def test_scan_points_lie_at_their_angles_and_out_of_range_returns_are_dropped():
    ranges = np.array([1.0, 2.0, np.nan, np.inf, 0.05, 9.0, 3.0, -1.0], np.float32)
    points, rays = geometry.scan_to_points(ranges, -np.pi / 2, np.pi / 6, 0.1, 8.0)
    expected = [
        [r * np.cos(np.radians(a)), r * np.sin(np.radians(a)), 0]
        for r, a in ((1, -90), (2, -60), (3, 90))
    ]
    assert points == pytest.approx(np.array(expected), abs=1e-6)
    assert points.dtype == np.float32 and rays.tolist() == [0, 1, 6]


@pytest.mark.parametrize("bounds", [(0, np.inf), (-np.inf, np.inf), (-9, 9)])
def test_no_bounds_make_a_point_of_infinity_zero_or_a_negative_range(bounds):
    ranges = np.array([np.inf, -np.inf, np.nan, 0, -1, 2])
    assert geometry.scan_to_points(ranges, 0, 0.1, *bounds)[1].tolist() == [5]


@pytest.mark.parametrize("angle", [0, 1e-9, 0.4, 3.0, np.pi])
def test_poses_between_two_turn_evenly_about_one_axis_and_move_straight(angle):
    """Closed form: Rodrigues of a share of the angle, before and after the two as well."""
    axis, start = np.array([2, -1, 2]) / 3, geometry.pose([1, 2, 3], [0.1, 0.2, -0.3, 0.9])
    share = np.array([-0.5, 0, 0.25, 1, 1.5])
    motion = np.eye(4)
    motion[:3, :3] = cv2.Rodrigues(axis * angle)[0]
    end = start @ motion
    end[:3, 3] += (0, 0.4, -0.8)
    poses = geometry.interpolate_pose(start, end, share)
    for s, T in zip(share, poses, strict=True):
        turn = start[:3, :3].T @ T[:3, :3]
        either = [cv2.Rodrigues(sign * axis * angle * s)[0] for sign in (1, -1)]
        # Half a turn has two short ways.
        assert min(np.abs(turn - R).max() for R in either[: 2 if angle == np.pi else 1]) < 1e-7
        assert T[:3, 3] == pytest.approx([1, 2 + 0.4 * s, 3 - 0.8 * s])
        assert T[3].tolist() == [0, 0, 0, 1]
    assert geometry.interpolate_pose(start, end, 0.25) == pytest.approx(poses[2])


def test_a_wall_scanned_while_driving_is_straight_again():
    """A robot drives at 1 m/s towards a wall at x = 5 and turns at 1 rad/s during a sweep of 0.2 s.

    Every ray is computed from the pose of its own moment, and the wall must be flat in the frame
    of the last one.
    """
    share, ranges = np.linspace(0, 1, 50), []
    angles = np.linspace(-0.6, 0.6, 50)
    for s, a in zip(share, angles, strict=True):
        x, heading = 0.2 * s, 0.2 * s
        ranges.append((5 - x) / np.cos(heading + a))
    points, rays = geometry.scan_to_points(ranges, angles[0], angles[1] - angles[0], 0.1, 30)
    last = np.eye(4)
    last[:3, :3] = cv2.Rodrigues(np.array([0, 0, 0.2]))[0]
    last[0, 3] = 0.2
    straight = geometry.transform_sweep(points, share[rays], np.linalg.inv(last), np.eye(4))
    # The inverse of a motion that turns while it moves is no straight line: 1 cm of 20.
    assert geometry.transform(last, straight)[:, 0] == pytest.approx(5, abs=0.011)
    first_frame = geometry.transform_sweep(points, share[rays], np.eye(4), last)
    assert first_frame[:, 0] == pytest.approx(5, abs=1e-6)
    assert np.abs(geometry.transform(last, points)[:, 0] - 5).max() > 0.2


def test_quaternions_are_those_of_their_rotation(rng):
    turned = cv2.Rodrigues(np.array([0, 0, np.pi / 2]))[0]
    assert geometry.quaternion(turned) == pytest.approx([0, 0, 0.5**0.5, 0.5**0.5])
    assert np.abs(geometry.quaternion(np.diag([1.0, -1, -1]))) == pytest.approx([1, 0, 0, 0])
    for q in rng.normal(size=(20, 4)):
        T = geometry.pose(np.zeros(3), q)
        assert geometry.pose(np.zeros(3), geometry.quaternion(T[:3, :3])) == pytest.approx(T)


LENSES = [
    ("plumb_bob", (-0.28, 0.07, 0.0008, -0.0005, 0.01)),
    ("plumb_bob", (-0.28, 0.07, 0.0008, -0.0005)),
    ("rational_polynomial", (0.4, -0.3, 0.001, -0.001, 0.05, 0.6, -0.3, 0.02)),
    ("equidistant", (-0.02, 0.005, -0.003, 0.001)),
]


@pytest.mark.parametrize(("model", "D"), LENSES)
def test_undistortion_puts_bent_dots_where_a_pinhole_sees_them(model, D):
    """OpenCV bends the rays of a grid of dots; after remapping they lie where K alone puts them."""
    K = np.array([[170, 0, 158], [0, 175, 122], [0, 0, 1.0]])
    camera = Camera(320, 240, K, np.array(D), model)
    x, y = np.meshgrid(np.linspace(-0.7, 0.7, 6), np.linspace(-0.5, 0.5, 5))
    points = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], 1) * 3.0
    if model == "equidistant":
        bent = cv2.fisheye.projectPoints(points[:, None], np.zeros(3), np.zeros(3), K, camera.D)[0]
    else:
        bent = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, camera.D)[0]
    bent = bent.reshape(-1, 2)
    ideal, _ = geometry.project(points, camera.undistorted())
    assert np.abs(bent - ideal).max() > 4, "the lens must bend visibly, or nothing is tested"

    v, u = np.mgrid[:240, :320]
    image = np.zeros((240, 320), np.float32)
    for cu, cv in bent:
        image += np.exp(-((u - cu) ** 2 + (v - cv) ** 2) / 8)
    straight = cv2.remap(image, *geometry.undistort_maps(camera), cv2.INTER_LINEAR)
    for cu, cv in ideal:
        near = straight * ((abs(u - cu) < 8) & (abs(v - cv) < 8))
        centre = np.array([(near * u).sum(), (near * v).sum()]) / near.sum()
        assert centre == pytest.approx((cu, cv), abs=0.25)


LENSES_THAT_SHOW_LESS = [
    ("plumb_bob", (0.25, 0.02, 0.001, -0.002)),
    ("rational_polynomial", (0.4, -0.1, 0.001, -0.001, 0.05, 0.1, -0.1, 0.02)),
    ("equidistant", (0.5, 0.1, 0.0, 0.0)),
]


@pytest.mark.parametrize(("model", "D"), LENSES_THAT_SHOW_LESS)
def test_undistorted_area_is_where_the_lens_puts_a_ray_into_the_image(model, D):
    """OpenCV projects the ray of every pixel; only what lies on the very edge may go either way."""
    K = np.array([[170, 0, 158], [0, 175, 122], [0, 0, 1.0]])
    camera = Camera(320, 240, K, np.array(D), model)
    points = geometry.rays(camera).reshape(-1, 1, 3).astype(np.float64)
    lens = cv2.fisheye if model == "equidistant" else cv2
    uv = lens.projectPoints(points, np.zeros(3), np.zeros(3), K, camera.D)[0].reshape(240, 320, 2)
    beyond = np.maximum(-uv, uv - (319, 239)).max(-1)  # pixels outside the outermost centres
    area = geometry.undistorted_area(camera, geometry.undistort_maps(camera))
    step = 1 / 32  # of OpenCV's fixed-point maps
    assert area[beyond < -step].all() and not area[beyond > step].any()
    assert 0.02 < (beyond > step).mean() < 0.9 and (abs(beyond) <= step).mean() < 0.01


def test_median_scale_recovers_a_planted_factor_and_ignores_what_is_no_measurement(rng):
    truth = rng.uniform(1, 5, (20, 20))
    prediction = truth / 1.7
    prediction[0, :5] = [0, np.nan, np.inf, -1, 0]
    truth[1, :4] = [0, np.nan, np.inf, -1]
    assert geometry.median_scale(prediction, truth) == pytest.approx(1.7, rel=1e-9)
    assert geometry.median_scale(np.zeros((2, 2)), np.ones((2, 2))) == 1.0


@pytest.mark.parametrize("size", [(640, 480), (1242, 375), (480, 640), (97, 53), (4000, 20)])
def test_network_size_keeps_area_and_aspect_in_multiples_of_four(size):
    width, height = geometry.network_size(*size, 304 * 228)
    assert width % 4 == height % 4 == 0 and height >= 4
    assert abs(width - size[0] * (304 * 228 / (size[0] * size[1])) ** 0.5) <= 2
    assert abs(height - size[1] * (304 * 228 / (size[0] * size[1])) ** 0.5) <= 2


def test_millimetres_keep_what_a_sensor_may_measure_and_nothing_else():
    depth = np.array([1.2344, 1.2346, 0, -2, np.nan, np.inf, -np.inf, 65.535, 65.54, 1e-4])
    assert geometry.to_millimetres(depth).tolist() == [1234, 1235, 0, 0, 0, 0, 0, 65535, 0, 0]
    assert geometry.to_millimetres(depth).dtype == np.uint16
