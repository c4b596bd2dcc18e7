"""KITTI in every layout: the numbers written come back as metres, points and cameras."""

import json

import cv2
import numpy as np
import pytest

from mde_ros.cli import main, make_parser, topics_of
from mde_ros.datasets import DatasetError, open_dataset
from mde_ros.datasets.kitti import Kitti
from mde_ros.datasets.kitti_files import NOMINAL_T_CAMERA_VELO, Rig, one_ring, returns
from mde_ros.geometry import points_to_depth

WIDTH, HEIGHT = 40, 30
P2 = np.array([[50.0, 0, 19, 4], [0, 50, 14, 0.5], [0, 0, 1, 0.01]])
P3 = np.array([[50.0, 0, 19, -23], [0, 50, 14, 0.5], [0, 0, 1, 0.01]])
DRIVE = "2011_09_26_drive_0001_sync"
OTHER = "2011_09_28_drive_0002_sync"


def turned(*degrees):
    """A rotation matrix."""
    return cv2.Rodrigues(np.radians(np.array(degrees, float)))[0]


R_RECT = turned(0.5, -0.8, 0.3)
# LiDAR axes (x forward, z up) to those of a camera, nearly.
R_VELO = turned(0.7, 0.4, -0.6) @ np.array([[0, -1.0, 0], [0, 0, -1], [1, 0, 0]])
T_VELO = np.array([-0.01, -0.08, -0.27])
# (column, row, depth in metres) of what the LiDAR hits, as camera 2 sees it; on the second
# pixel, 7.25 m hides 9 m.
HITS = ((5, 3, 12.5), (20, 15, 7.25), (20, 15, 9.0), (33, 28, 31.0), (21, 15, 7.5))


def text(values):
    return " ".join(f"{v:.12e}" for v in np.ravel(values))


def write_day(root, day):
    """Calibration of a day, in the format of the raw recordings."""
    (root / day).mkdir(parents=True, exist_ok=True)
    lines = ["calib_time: 09-Jan-2012 13:57:47", "corner_dist: 9.950000e-02"]
    for i, P in enumerate((P2, P2, P2, P3)):
        lines += [f"S_{i:02d}: 1.392e+03 5.12e+02", f"R_rect_{i:02d}: {text(R_RECT)}"]
        lines += [f"S_rect_{i:02d}: {text((WIDTH, HEIGHT))}", f"P_rect_{i:02d}: {text(P)}"]
    (root / day / "calib_cam_to_cam.txt").write_text("\n".join(lines))
    lidar = f"calib_time: 15-Mar-2012 11:37:16\nR: {text(R_VELO)}\nT: {text(T_VELO)}\n"
    (root / day / "calib_velo_to_cam.txt").write_text(lidar)


def sweep(hits=HITS, R=R_RECT @ R_VELO, t=R_RECT @ T_VELO):
    """(N, 4) returns X that solve P2 [R | t] X = z (u, v, 1), as float32 with a reflectance."""
    points = [
        np.linalg.solve(P2[:, :3] @ R, np.array([u, v, 1]) * z - P2[:, 3] - P2[:, :3] @ t)
        for u, v, z in hits
    ]
    behind = [[-5.0, 1, 0]]
    return np.column_stack([points + behind, np.full(len(points) + 1, 0.3)]).astype(np.float32)


def planted_depth(hits=HITS):
    depth = np.zeros((HEIGHT, WIDTH), np.float32)
    for u, v, z in sorted(hits, key=lambda h: -h[2]):
        depth[v, u] = z
    return depth


def write_depth(path, depth_m):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), (depth_m * 256).astype(np.uint16))


def write_image(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), (value, 100, 200), np.uint8)[..., ::-1])


def write_drive(root, drive, indices=(0, 1, 2), cameras=("image_02",), stamps=True):
    """A raw recording: images, time stamps and sweeps."""
    write_day(root, drive[:10])
    folder = root / drive[:10] / drive
    for camera in cameras:
        for i in indices:
            write_image(folder / camera / "data" / f"{i:010d}.png", 10 * int(camera[-1]) + i)
        if stamps:
            lines = [f"2011-09-26 13:02:{25 + i}.594360375" for i in range(max(indices) + 1)]
            (folder / camera / "timestamps.txt").write_text("\n".join(lines) + "\n")
    scans = folder / "velodyne_points" / "data"
    scans.mkdir(parents=True)
    for i in indices:
        sweep().tofile(scans / f"{i:010d}.bin")


def write_annotated(root, part, drive, indices, camera="image_02"):
    """Annotated depth of 20 + index metres at one pixel of its own, 9 m where the sweep is."""
    for i in indices:
        depth = planted_depth(((20, 15, 9.0), (7, 8, 20 + i)))
        name = f"{i:010d}.png"
        write_depth(root / part / drive / "proj_depth/groundtruth" / camera / name, depth)


# ---- raw recordings ------------------------------------------------------------------------------


@pytest.fixture
def raw(tmp_path):
    write_drive(tmp_path / "raw", DRIVE)
    write_drive(tmp_path / "raw", OTHER, (4, 5), stamps=False)
    return tmp_path / "raw"


def test_sweeps_are_seen_from_the_camera_where_they_were_planted(raw):
    data = open_dataset(raw, points="none")
    assert isinstance(data, Kitti) and len(data) == 5
    sample = data[0]
    assert sample.name == f"{DRIVE}/image_02/0000000000" and sample.frame.points is None
    assert (sample.frame.image == (20, 100, 200)).all()
    assert sample.truth_m.dtype == np.float32
    assert sample.truth_m == pytest.approx(planted_depth(), abs=1e-4)
    assert np.array_equal(sample.frame.camera.K, P2[:, :3])
    points = open_dataset(raw, points="all")[0].frame.points
    assert points.shape == (len(HITS), 3) and points.dtype == np.float32  # none behind the camera
    u, v, z = np.array(HITS).T
    expected = np.stack([(u - 19) / 50 * z, (v - 14) / 50 * z, z], 1)
    assert points == pytest.approx(expected, abs=1e-4)


def test_stamps_are_those_of_the_recording_and_drives_without_any_are_no_neighbours(raw):
    stamps = [s.frame.stamp_ns for s in open_dataset(raw)]
    first = int(np.datetime64("2011-09-26T13:02:25.594360375", "ns").astype(np.int64))
    assert stamps[:3] == [first + i * 10**9 for i in range(3)]
    assert stamps[4] - stamps[3] == 10**8 and abs(stamps[3] - stamps[2]) > 10**9


@pytest.mark.parametrize("inner", ["2011_09_26", f"2011_09_26/{DRIVE}"])
def test_a_day_and_a_drive_are_data_sets_too(raw, inner):
    names = [s.name for s in open_dataset(raw / inner)]
    assert names == [f"{DRIVE}/image_02/{i:010d}" for i in range(3)]


def test_pixels_that_are_given_are_no_truth_unless_asked_for(raw):
    assert not open_dataset(raw, points="all")[0].has_truth()
    kept = open_dataset(raw, points="all", keep_given=True)[0].truth_m
    assert kept == pytest.approx(planted_depth(), abs=1e-4)


def test_the_ring_is_the_row_asked_for_in_the_frame_of_the_lidar(raw):
    """Returns at elevations of 0.4° x row below +2°, planted in the LiDAR's own frame."""
    azimuth, rows = np.radians(np.arange(-20, 21, 4)), np.arange(2, 16)
    elevation = np.radians(2 - 0.4 * (rows + 0.5))
    e, a = (g.ravel() for g in np.meshgrid(elevation, azimuth))
    directions = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], 1)
    cloud = np.column_stack([10 * directions, np.ones(len(directions))])
    file = raw / "2011_09_26" / DRIVE / "velodyne_points/data/0000000001.bin"
    cloud.astype(np.float32).tofile(file)
    for row in (9, 12):
        points = open_dataset(raw, row=row)[1].frame.points.astype(float)
        lidar = (points - from_rect2() - R_RECT @ T_VELO) @ (R_RECT @ R_VELO)
        assert np.degrees(np.arcsin(lidar[:, 2] / 10)) == pytest.approx(1.8 - 0.4 * row, abs=1e-3)
        seen = np.sort(np.degrees(np.arctan2(lidar[:, 1], lidar[:, 0])))
        assert seen == pytest.approx(np.arange(-20, 21, 4), abs=1e-3)


def from_rect2():
    """Where camera 2 sees the origin of camera 0, from P2 by hand."""
    z = P2[2, 3]
    return np.array([(P2[0, 3] - 19 * z) / 50, (P2[1, 3] - 14 * z) / 50, z])


def test_the_right_camera_has_its_own_projection(tmp_path):
    write_drive(tmp_path, DRIVE, (0,), ("image_02", "image_03"))
    left, right = open_dataset(tmp_path, cameras=("image_02", "image_03"), points="all")
    assert (left.frame.image[0, 0, 0], right.frame.image[0, 0, 0]) == (20, 30)
    baseline = left.frame.points - right.frame.points
    assert baseline == pytest.approx(np.tile([27 / 50, 0, 0], (5, 1)), abs=1e-5)


# ---- annotated depth -----------------------------------------------------------------------------

ARRANGEMENTS = {  # where the annotated depth lies beside the raw recordings, what is opened
    "all in one": ("data", "data", "data"),
    "packages side by side": ("kitti/data_depth_annotated", "kitti", "kitti"),
    "the package itself": ("kitti/data_depth_annotated", "kitti", "kitti/data_depth_annotated"),
    "raw elsewhere": ("depth", "recordings", "depth"),
}


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_annotated_depth_finds_its_images_wherever_users_unpack_them(tmp_path, arrangement):
    depth, raw, opened = (tmp_path / p for p in ARRANGEMENTS[arrangement])
    write_drive(raw, DRIVE, range(4))
    write_drive(raw, OTHER, range(4))
    write_annotated(depth, "train", DRIVE, (1, 2))
    write_annotated(depth, "val", OTHER, (3,))
    options = {"raw": raw} if arrangement.startswith(("the package", "raw")) else {}
    with pytest.raises(DatasetError, match=r"there are train and val; choose with part"):
        open_dataset(opened, **options)
    data = open_dataset(opened, **options, points="none", part="all")
    assert [s.name[-10:] for s in data] == ["0000000001", "0000000002", "0000000003"]
    for sample, i in zip(data, (1, 2, 3)):
        assert sample.frame.image[0, 0, 0] == 20 + i
        assert np.array_equal(
            sample.truth_m, planted_depth(((20, 15, 9.0), (7, 8, 20 + i))).astype(np.float32)
        )
    assert [s.name[:26] for s in open_dataset(opened, **options, part="val")] == [OTHER]
    assert [s.name for s in open_dataset(depth / "val", raw=raw)] == [data[2].name]
    with_points = open_dataset(opened, **options, points="all", part="train")[0]
    assert len(with_points.frame.points) == len(HITS)
    assert np.argwhere(with_points.truth_m).tolist() == [[8, 7]]  # the sweep hit the other pixel


def test_images_of_raw_recordings_may_be_jpeg_and_lie_in_the_parts(tmp_path):
    write_drive(tmp_path / "data", DRIVE, (1,))
    folder = tmp_path / "data/2011_09_26" / DRIVE / "image_02"
    image = cv2.imread(str(folder / "data/0000000001.png"))
    inside = tmp_path / "data/train" / DRIVE / "image_02/data"
    inside.mkdir(parents=True)
    cv2.imwrite(str(inside / "0000000001.jpg"), image)
    (folder / "data/0000000001.png").unlink()
    (folder / "data").rmdir()
    write_annotated(tmp_path / "data", "train", DRIVE, (1,))
    assert open_dataset(tmp_path / "data")[0].truth_m[8, 7] == 21


def test_projected_sweeps_are_the_points_where_the_sweeps_are_not(tmp_path):
    write_drive(tmp_path, DRIVE, (1,))
    (tmp_path / "2011_09_26" / DRIVE / "velodyne_points/data/0000000001.bin").unlink()
    write_annotated(tmp_path, "val", DRIVE, (1,))
    projected = tmp_path / "val" / DRIVE / "proj_depth/velodyne_raw/image_02/0000000001.png"
    write_depth(projected, planted_depth())
    points = open_dataset(tmp_path, points="all")[0].frame.points
    assert sorted(points[:, 2].tolist()) == [7.25, 7.5, 12.5, 31.0]
    u = points[:, 0] / points[:, 2] * 50 + 19
    assert sorted(u.round(3).tolist()) == [5, 20, 21, 33]


def test_truth_may_be_the_sweep_although_there_is_annotated_depth(tmp_path):
    write_drive(tmp_path, DRIVE, (0, 1))
    write_annotated(tmp_path, "train", DRIVE, (1,))
    assert len(open_dataset(tmp_path)) == len(open_dataset(tmp_path, truth="groundtruth")) == 1
    data = open_dataset(tmp_path, truth="velodyne", points="none")
    assert len(data) == 2
    assert data[1].truth_m == pytest.approx(planted_depth(), abs=1e-4)


# ---- lists of frames -----------------------------------------------------------------------------

LISTS = {
    "Monodepth2": (
        "2011_09_28/{o} 0000000005 l\n2011_09_26/{d} 2 r\n\n2011_09_26/{d} 0000000000 l\n"
    ),
    "paths, with depth and focal length": (
        "2011_09_28/{o}/image_02/data/0000000005.png {o}/proj_depth/groundtruth/x.png 721\n"
        "2011_09_26/{d}/image_03/data/0000000002.png None 721.5377\n"
        "2011_09_26/{d}/image_02/data/0000000000.png None 721.5377\n"
    ),
    "pairs of left and right": (
        "2011_09_28/{o}/image_02/data/0000000005.jpg 2011_09_28/{o}/image_03/data/0000000005.jpg\n"
        "2011_09_26/{d}/image_03/data/0000000002.jpg x\n2011_09_26/{d}/image_02/0000000000.jpg x\n"
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_frames_of_a_list_come_in_its_order_from_the_camera_it_names(raw, tmp_path, name):
    for i in range(3):
        file = raw / "2011_09_26" / DRIVE / "image_03/data" / f"{i:010d}.png"
        write_image(file, 30 + i)
    split = tmp_path / "eigen.txt"
    split.write_text(LISTS[name].format(d=DRIVE, o=OTHER))
    data = open_dataset(raw, split=split, points="none")
    assert [s.name for s in data] == [
        f"{OTHER}/image_02/0000000005",
        f"{DRIVE}/image_03/0000000002",
        f"{DRIVE}/image_02/0000000000",
    ]
    assert [int(s.frame.image[0, 0, 0]) for s in data] == [25, 32, 20]


def test_listed_frames_without_annotated_depth_have_no_truth(raw, tmp_path):
    """652 of Eigen's 697 test frames have annotated depth; the others are never mixed in."""
    write_annotated(raw, "val", DRIVE, (1,))
    split = tmp_path / "list.txt"
    split.write_text(f"2011_09_26/{DRIVE} 0 l\n2011_09_26/{DRIVE} 1 l\n2011_09_28/{OTHER} 4 l")
    assert [s.truth_m is not None for s in open_dataset(raw, split=split)] == [False, True, False]


# ---- selections, odometry, extracts --------------------------------------------------------------


@pytest.fixture
def selection(tmp_path):
    folder = tmp_path / "val_selection_cropped"
    for i, z in ((5, 11.5), (8, 12.5)):
        name = f"{DRIVE}_{{}}_{i:010d}_image_02"
        write_image(folder / "image" / f"{name.format('image')}.png", i)
        write_depth(
            folder / "groundtruth_depth" / f"{name.format('groundtruth_depth')}.png",
            planted_depth(((3, 4, z), (20, 15, 9.0))),
        )
        write_depth(folder / "velodyne_raw" / f"{name.format('velodyne_raw')}.png", planted_depth())
        (folder / "intrinsics").mkdir(exist_ok=True)
        K = [[50 + i, 0, 18], [0, 50, 13], [0, 0, 1]]
        (folder / "intrinsics" / f"{name.format('image')}.txt").write_text(text(K))
    return folder


def test_selected_frames_have_their_own_intrinsics_truth_and_points(selection):
    data = open_dataset(selection, points="all")
    assert [s.frame.camera.K[0, 0] for s in data] == [55, 58]
    for sample, z in zip(data, (11.5, 12.5)):
        assert np.argwhere(sample.truth_m).tolist() == [[4, 3]] and sample.truth_m[4, 3] == z
        assert points_to_depth(sample.frame.points, sample.frame.camera) == pytest.approx(
            planted_depth(), abs=1e-5
        )
    assert data[1].frame.stamp_ns - data[0].frame.stamp_ns > 10**9  # no neighbours in time


def test_test_sets_have_no_truth(selection):
    for folder in ("image", "intrinsics"):
        for i, file in enumerate(sorted((selection / folder).iterdir())):
            file.rename(file.with_name(f"{i:010d}{file.suffix}"))
    sample = open_dataset(selection, points="all")[1]
    assert sample.truth_m is None and sample.frame.points is None
    write_depth(selection / "velodyne_raw" / "0000000001.png", planted_depth())
    assert len(open_dataset(selection, points="all")[1].frame.points) == 4


@pytest.fixture
def odometry(tmp_path):
    for sequence in ("00", "03"):
        folder = tmp_path / "dataset/sequences" / sequence
        for i in range(2):
            write_image(folder / "image_2" / f"{i:06d}.png", i)
        Tr = np.column_stack([R_RECT @ R_VELO, R_RECT @ T_VELO])
        lines = [f"P{i}: {text(P2)}" for i in range(4)] + [f"Tr: {text(Tr)}"]
        (folder / "calib.txt").write_text("\n".join(lines))
        (folder / "times.txt").write_text("0.000000e+00\n1.036224e-01\n")
        (folder / "velodyne").mkdir()
        sweep().tofile(folder / "velodyne/000001.bin")
    poses = tmp_path / "dataset/poses"
    poses.mkdir()
    T = np.column_stack([turned(0, 5, 0), [1, 2, 3]])
    (poses / "00.txt").write_text(f"{text(np.eye(4)[:3])}\n{text(T)}\n")
    return tmp_path / "dataset"


def test_odometry_has_times_points_and_poses_of_the_colour_camera(odometry):
    data = open_dataset(odometry, points="all", keep_given=True)
    assert [s.name for s in data] == ["00/000000", "00/000001", "03/000000", "03/000001"]
    stamps = [s.frame.stamp_ns for s in data]
    assert stamps[:2] == [0, 103622400] and stamps[2] - stamps[1] > 10**9
    assert data[0].truth_m is None and data[0].frame.points is None
    assert data[1].truth_m == pytest.approx(planted_depth(), abs=1e-4)
    for third in (["03"], "03", 3, [3]):  # YAML makes a number of 03
        names = [s.name for s in open_dataset(odometry, sequences=third)]
        assert names == ["03/000000", "03/000001"]
    assert len(open_dataset(odometry / "sequences/03")) == 2
    # A point that camera 0 sees at X, camera 2 sees at X + its offset; both are one in the world.
    X = np.array([0.3, -0.2, 5.0])
    world = turned(0, 5, 0) @ X + [1, 2, 3]
    T = data.pose(1)
    assert T[:3, :3] @ (X + from_rect2()) + T[:3, 3] == pytest.approx(world)
    assert data.pose(2) is None


@pytest.fixture
def extract(tmp_path):
    folder = tmp_path / "extract"
    write_image(folder / "image/000007.png", 50)
    write_depth(folder / "depth64/000007.png", planted_depth())
    write_depth(folder / "depth1/000007.png", planted_depth(HITS[:1]))
    T = np.eye(4).tolist()
    calibration = {"K": P2[:, :3].tolist(), "T_cam_velo": T, "width": WIDTH, "height": HEIGHT}
    (folder / "calib.json").write_text(json.dumps(calibration))
    return folder


def test_extract_gives_one_ring_as_points_and_the_others_as_truth(extract):
    sample = open_dataset(extract)[0]
    u, v, z = HITS[0]
    expected = [[(u - 19) / 50 * z, (v - 14) / 50 * z, z]]
    assert sample.frame.points == pytest.approx(np.array(expected), abs=1e-5)
    assert np.array_equal(sample.truth_m, planted_depth(HITS[1:]))
    every = open_dataset(extract, points="all", keep_given=True)[0]
    assert len(every.frame.points) == 4 and np.array_equal(every.truth_m, planted_depth())


# ---- what is wrong is named ----------------------------------------------------------------------


def remove(root, pattern):
    for file in root.glob(pattern):
        file.unlink()


RAW_DAMAGE = {
    "no calibration": (
        lambda r: remove(r, "*/calib_cam_to_cam.txt"),
        {},
        r"2011_09_26/calib_cam_to_cam\.txt: No such file",
    ),
    "calibration of another kind": (
        lambda r: (r / "2011_09_26/calib_cam_to_cam.txt").write_text("P_rect_02: 1 2 3"),
        {},
        r"calib_cam_to_cam\.txt: expected 12 values of P_rect_02, got 3",
    ),
    "calibration of no camera": (
        lambda r: (r / "2011_09_26/calib_cam_to_cam.txt").write_text(
            f"S_rect_02: 40 30\nP_rect_02: {'0 ' * 12}"
        ),
        {},
        r"calib_cam_to_cam\.txt: camera: expected K with positive focal lengths",
    ),
    "no place of the LiDAR": (
        lambda r: remove(r, "*/calib_velo_to_cam.txt"),
        {},
        r"\.bin: expected calib_velo_to_cam\.txt in the folder of the day",
    ),
    "a broken sweep": (
        lambda r: (r / f"2011_09_26/{DRIVE}/velodyne_points/data/0000000000.bin").write_bytes(
            b"1234" * 3
        ),
        {},
        r"0000000000\.bin: expected 4 float32 values per return, got 3",
    ),
    "images gone": (
        lambda r: remove(r, "*/*/image_02/data/*"),
        {},
        r"image_02/data: expected \.png or \.jpg images, found none",
    ),
    "an image of another size": (
        lambda r: cv2.imwrite(
            str(r / f"2011_09_26/{DRIVE}/image_02/data/0000000000.png"), np.zeros((4, 5, 3))
        ),
        {},
        r"0000000000\.png: 5x4, but calib_cam_to_cam\.txt says 40x30",
    ),
    "no such camera": (
        lambda r: None,
        {"cameras": "image_03"},
        rf"2011_09_26/{DRIVE}/image_03/data: expected the images of this drive there",
    ),
    "no annotated depth": (lambda r: None, {"truth": "groundtruth"}, "proj_depth/groundtruth"),
    "annotated depth without images": (
        lambda r: write_annotated(r, "train", "2011_10_03_drive_0027_sync", (1,)),
        {},
        "2011_10_03_drive_0027_sync/image_02/data: expected .* name the folder .* with raw",
    ),
    "a time that is none": (
        lambda r: (r / f"2011_09_26/{DRIVE}/image_02/timestamps.txt").write_text("noon\n"),
        {},
        r"timestamps\.txt, line 1: expected a time, got 'noon'",
    ),
    "a list that is missing": (lambda r: None, {"split": "nowhere.txt"}, "nowhere.txt: No such"),
    "another option": (lambda r: None, {"points": "some"}, "points: expected one of ring, all,"),
    "sequences of a drive": (lambda r: None, {"sequences": ("00",)}, "belong to KITTI odometry"),
}


@pytest.mark.parametrize("damage", RAW_DAMAGE)
def test_damage_to_raw_recordings_is_named(raw, damage):
    harm, options, message = RAW_DAMAGE[damage]
    harm(raw)
    with pytest.raises(DatasetError, match=message):
        open_dataset(raw, **options)[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "some words\n",
            r"list\.txt, line 1: expected DATE/DRIVE INDEX l, or the path of an",
        ),
        ("\n", r"list\.txt: expected a list of frames, got none"),
        (f"2011_09_26/{DRIVE} 99 l\n", r"image_02/data/0000000099\.png: no such file"),
    ],
)
def test_a_list_that_does_not_fit_is_named(raw, tmp_path, content, message):
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(DatasetError, match=message):
        open_dataset(raw, split=tmp_path / "list.txt")


def test_damage_to_the_other_layouts_is_named(selection, odometry, extract):
    with pytest.raises(DatasetError, match="split, part, raw and truth belong to KITTI's drives"):
        open_dataset(extract, part="val")
    (extract / "calib.json").write_text('{"width": 3}')
    with pytest.raises(DatasetError, match=r"calib\.json: expected K, T_cam_velo, width and"):
        open_dataset(extract)
    remove(selection, "intrinsics/*05_*")
    with pytest.raises(DatasetError, match=r"_image_0000000005_image_02\.txt: expected 9 numbers"):
        open_dataset(selection)
    (odometry / "sequences/00/times.txt").write_text("0.0\n")
    with pytest.raises(DatasetError, match=r"00/times\.txt: expected 2 times .* got 1"):
        open_dataset(odometry)
    with pytest.raises(DatasetError, match=r"sequences/21/image_2: expected \.png or \.jpg"):
        open_dataset(odometry, sequences=("21",))


# ---- the command line ----------------------------------------------------------------------------


def test_options_of_the_reader_come_from_the_command_line(extract, capsys):
    a = make_parser().parse_args(
        ["evaluate", "x", "--options", "points=all", "keep_given=true", "sequences=['00', '01']"]
    )
    assert topics_of(a) == {"points": "all", "keep_given": True, "sequences": ["00", "01"]}
    assert main(["evaluate", str(extract), "--options", "rings=9"]) == 2
    assert "expected options of Kitti (points, row, keep_given, " in capsys.readouterr().err


# ---- real frames ---------------------------------------------------------------------------------


def test_real_sweeps_projected_are_the_real_depth_maps(shared_data):
    """`depth64` was made from the sweeps by others, rounded to 1/256 m."""
    folder = shared_data / "kitti_drive"
    data = open_dataset(folder, points="none")
    rig = data.shots[0].rig
    for index in (0, 40):
        points = returns(folder / "velodyne" / f"{index:06d}.bin", rig)
        depth_m = points_to_depth(points, rig.camera)
        truth_m = data[index].truth_m
        both = (depth_m > 0) & (truth_m > 0)
        # A return between two pixels may fall to either.
        assert (depth_m > 0).sum() - both.sum() <= 2 and (truth_m > 0).sum() - both.sum() <= 2
        assert np.abs(depth_m - truth_m)[both].max() < 1.01 / 512 and both.sum() > 15000
        # Without its calibration, the same row is found by the nominal one.
        line, nominal = (one_ring(points, r, 9) for r in (rig, Rig(rig.camera, None)))
        assert len(line) == pytest.approx(len(nominal), abs=10) and len(line) > 300
    assert rig.T_camera_velo == pytest.approx(NOMINAL_T_CAMERA_VELO, abs=1e-4)


def test_real_ring_is_one_line_across_the_image(shared_data):
    """Over the width of the image, and no row far from those beside it."""
    sample = open_dataset(shared_data / "kitti_drive")[0]
    rows, columns = np.nonzero(points_to_depth(sample.frame.points, sample.frame.camera))
    assert columns.min() < 20 and columns.max() > 1220
    fitted = np.polyval(np.polyfit(columns, rows, 2), columns)
    assert np.abs(rows - fitted).max() < 8
    assert not sample.truth_m[rows, columns].any() and (sample.truth_m > 0).sum() > 15000
