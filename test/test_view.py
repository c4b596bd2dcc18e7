"""What the viewer is given is what the recordings hold, read back from the file it opens."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

rr = pytest.importorskip("rerun", reason="rerun-sdk is not installed")
from rerun.chunk import RrdReader  # noqa: E402 - after the check that it is there

from mde_ros.config import PipelineSettings  # noqa: E402
from mde_ros.datasets import Sample  # noqa: E402
from mde_ros.datasets.bag_file import BagWriter, FolderBag  # noqa: E402
from mde_ros.datasets.bag_messages import (  # noqa: E402
    IMAGE,
    INFO_TOPIC,
    JAZZY,
    SAMPLE_TOPICS,
    sample_messages,
)
from mde_ros.datasets.rgbd_folder import RgbdFolder  # noqa: E402
from mde_ros.frame import Frame  # noqa: E402
from mde_ros.geometry import project  # noqa: E402
from mde_ros.pipeline import DepthPipeline  # noqa: E402
from mde_ros.view import run_view  # noqa: E402
from mde_ros.view.scene import ViewError  # noqa: E402

sys.path.append(str(Path(__file__).parent / "datasets"))  # test folders are no packages

import recording  # noqa: E402

LENS, CLOUD = "/world/camera/lens", "/world/camera/cloud"
COLOUR = (205, 35, 160)


@pytest.fixture
def folder(tmp_path):
    """Five frames of 64x48 with poses: noise as image, depth in whole millimetres, some missing."""
    random, path = np.random.default_rng(0), tmp_path / "walk"
    for name in ("rgb", "depth", "pose"):
        (path / name).mkdir(parents=True)
    intrinsics = {"fx": 50.0, "fy": 55.0, "cx": 30.25, "cy": 25.5, "width": 64, "height": 48}
    (path / "intrinsics.json").write_text(json.dumps(intrinsics))
    for i in range(5):
        image = random.integers(0, 256, (48, 64, 3), np.uint8)
        depth_mm = random.integers(300, 9000, (48, 64)).astype(np.uint16)
        depth_mm[random.random((48, 64)) < 0.2] = 0
        T = np.eye(4)
        T[:3, :3] = cv2.Rodrigues(random.normal(size=3))[0]
        T[:3, 3] = random.normal(size=3)
        cv2.imwrite(str(path / f"rgb/{i}.png"), image)
        cv2.imwrite(str(path / f"depth/{i}.png"), depth_mm)
        np.savetxt(path / f"pose/{i}.txt", T)
    return path


def read(path: Path) -> dict[str, dict[int, dict]]:
    """Entity → stamp in nanoseconds → component → its values."""
    found: dict[str, dict[int, dict]] = defaultdict(dict)
    for chunk in RrdReader(path).stream():
        if not chunk.is_static:
            batch = chunk.to_record_batch()
            for row in range(batch.num_rows):
                values = {n: batch[n][row].as_py() for n in batch.schema.names if ":" in n}
                found[chunk.entity_path][batch["time"][row].value] = values
    return found


def depth_of(values: dict) -> np.ndarray:
    size = values["DepthImage:format"][0]
    assert values["DepthImage:meter"] == [1.0]
    raw = np.array(values["DepthImage:buffer"][0], np.uint8)
    return raw.view(np.float32).reshape(size["height"], size["width"])


def colours_of(values: dict) -> np.ndarray:
    packed = np.array(values["Points3D:colors"], np.uint32)
    return np.stack([packed >> shift & 255 for shift in (24, 16, 8)], 1)


def stamp(index: int) -> int:
    return FolderBag.START_NS + index * 100_000_000


def test_image_depth_lens_and_pose_read_back_are_those_of_the_folder(folder, tmp_path):
    assert run_view([str(folder)], save=str(tmp_path / "a.rrd")) == 0
    found, dataset = read(tmp_path / "a.rrd"), RgbdFolder(folder)
    for i in range(5):
        sample, now = dataset[i], stamp(i)
        image = np.array(found[f"{LENS}/image"][now]["Image:buffer"][0], np.uint8)
        assert np.array_equal(image.reshape(48, 64, 3), sample.frame.image)
        assert np.array_equal(depth_of(found[f"{LENS}/truth"][now]), sample.truth_m)
        K = np.reshape(found[LENS][now]["Pinhole:image_from_camera"], (3, 3)).T
        assert np.allclose(K, dataset.camera.K)
        pose = found["/world/camera"][now]
        R = np.reshape(pose["Transform3D:mat3x3"], (3, 3)).T
        assert np.allclose(R, dataset.pose(i)[:3, :3], atol=1e-6)
        assert np.allclose(pose["Transform3D:translation"], dataset.pose(i)[:3, 3], atol=1e-6)
        way = found["/world/trajectory"][now]["LineStrips3D:strips"][0][-1]
        assert np.allclose(way, dataset.pose(i)[:3, 3], atol=1e-6)
    assert set(found[f"{LENS}/image"]) == {stamp(i) for i in range(5)}


@pytest.mark.parametrize("late_ns", [0, 10**18])
def test_bag_with_transforms_has_the_way_of_its_camera(late_ns, tmp_path):
    """The robot drives a circle; its camera is where its odometry and mounting say.

    The clock that the bag is logged by may be another one than that of the stamps.
    """
    stamps = [recording.SECOND * (10 + i) // 10 for i in range(8)]
    parts = (
        recording.mounting(),
        recording.odometry(range(stamps[0], stamps[-1] + 1, recording.SECOND // 20)),
        recording.images(stamps),
    )
    logged = ((topic, late_ns + t, *rest) for part in parts for topic, t, *rest in part)
    path = recording.write(tmp_path / "drive.mcap", logged)
    run_view([str(path)], save=str(tmp_path / "a.rrd"))
    camera = read(tmp_path / "a.rrd")["/world/camera"]
    for now in stamps:
        T = recording.base_pose(now / recording.SECOND) @ recording.T_BASE_CAMERA
        assert np.allclose(camera[now]["Transform3D:translation"], T[:3, 3], atol=1e-5)
        R = np.reshape(camera[now]["Transform3D:mat3x3"], (3, 3)).T
        assert np.allclose(R, T[:3, :3], atol=1e-5)


def test_bag_that_does_not_know_its_way_is_shown_all_the_same(tmp_path):
    path = recording.write(tmp_path / "a.mcap", recording.images([recording.SECOND]))
    run_view([str(path)], save=str(tmp_path / "a.rrd"))
    found = read(tmp_path / "a.rrd")
    assert f"{LENS}/image" in found and "/world/camera" not in found


def test_every_point_of_the_cloud_lies_on_its_pixel_in_its_colour(folder, tmp_path):
    run_view([str(folder)], save=str(tmp_path / "a.rrd"))
    values, sample = read(tmp_path / "a.rrd")[f"{CLOUD}/truth"][stamp(3)], RgbdFolder(folder)[3]
    points = np.array(values["Points3D:positions"])
    pixels, depth_m = project(points, sample.frame.camera)
    columns, rows = np.rint(pixels).astype(int).T
    assert np.abs(pixels - np.rint(pixels)).max() < 1e-3
    assert np.allclose(depth_m, sample.truth_m[rows, columns])
    assert np.array_equal(colours_of(values), sample.frame.image[rows, columns])
    assert len(points) == np.count_nonzero(sample.truth_m)


def test_prediction_is_what_the_pipeline_says(folder, tmp_path, foreign_onnx):
    description = "size: [32, 24]\nmean: [0, 0, 0]\nstd: [1, 1, 1]\noutput: depth\nfocal_px: 25.0\n"
    mean = ("ReduceMean", ["x"], ["y"], {"axes": [1], "keepdims": 1})
    model = str(foreign_onnx([mean], description))
    run_view([str(folder)], model=model, save=str(tmp_path / "a.rrd"), max_frames=2)
    found, predict = read(tmp_path / "a.rrd"), DepthPipeline(PipelineSettings(model=model))
    assert set(found[f"{LENS}/prediction"]) == {stamp(0), stamp(3)}  # evenly spread
    expected = predict(RgbdFolder(folder)[3].frame).depth
    assert np.ptp(expected) > 0
    assert np.array_equal(depth_of(found[f"{LENS}/prediction"][stamp(3)]), expected)


def test_points_of_a_laser_scan_are_shown_in_the_frame_of_the_camera(folder, tmp_path, monkeypatch):
    points = np.array([[0.5, 0.25, 2.0], [-1.0, 0.25, 4.0]], np.float32)

    def with_points(self, index, plain=RgbdFolder.__getitem__):
        f = plain(self, index).frame
        return Sample(Frame(f.image, f.camera, points, f.stamp_ns), None, str(index))

    monkeypatch.setattr(RgbdFolder, "__getitem__", with_points)
    run_view([str(folder)], save=str(tmp_path / "a.rrd"))
    scan = read(tmp_path / "a.rrd")["/world/camera/scan"][stamp(1)]
    assert np.array_equal(scan["Points3D:positions"], points)


def published(path: Path, sample: Sample, now: int, with_camera: bool = False) -> Path:
    """A bag with what our node publishes: the sample's truth as depth, two points of its cloud."""
    header = JAZZY.types["std_msgs/msg/Header"](
        JAZZY.types["builtin_interfaces/msg/Time"](now // 10**9, now % 10**9), "camera"
    )
    depth = np.where(sample.truth_m > 0, sample.truth_m, np.nan).astype("<f4")
    image = JAZZY.types[IMAGE](header, 48, 64, "32FC1", 0, 256, depth.view(np.uint8).ravel())
    layout = np.dtype(
        {
            "names": ["x", "y", "z", "rgb"],
            "formats": ["<f4", "<f4", "<f4", "<u4"],
            "offsets": [0, 4, 8, 16],
            "itemsize": 32,
        }
    )
    cloud = np.zeros(3, layout)
    cloud[0] = 1, 2, 3, 0x0A141E
    cloud[1] = np.nan, np.nan, np.nan, 0
    cloud[2] = 4, 5, 6, 0xFF00C8
    field = JAZZY.types["sensor_msgs/msg/PointField"]
    fields = [field(n, layout.fields[n][1], 7, 1) for n in layout.names]
    kind = "sensor_msgs/msg/PointCloud2"
    points = JAZZY.types[kind](
        header, 1, 3, fields, False, 32, 96, cloud.view(np.uint8).ravel(), False
    )
    with BagWriter(path) as bag:
        for name in ("depth/image_rect", "uncertainty", "saliency"):  # the first is shown
            bag.write(f"/mde/{name}", IMAGE, now, bytes(JAZZY.serialize_cdr(image, IMAGE)))
        bag.write("/mde/points", kind, now, bytes(JAZZY.serialize_cdr(points, kind)))
        for topic, _, cdr in sample_messages(sample.frame, None, now):
            if with_camera:
                bag.write(topic, SAMPLE_TOPICS[topic], now, cdr)
            if topic == INFO_TOPIC:
                bag.write("/mde/depth/camera_info", SAMPLE_TOPICS[topic], now, cdr)
    return path


def test_what_the_node_published_goes_beside_what_it_was_played(folder, tmp_path):
    sample = RgbdFolder(folder)[2]
    output = published(tmp_path / "output.mcap", sample, stamp(2))
    run_view([str(folder), str(output)], save=str(tmp_path / "a.rrd"))
    found = read(tmp_path / "a.rrd")
    assert set(found[f"{LENS}/recorded"]) == {stamp(2)} < set(found[f"{LENS}/truth"])
    assert np.array_equal(depth_of(found[f"{LENS}/recorded"][stamp(2)]), sample.truth_m)
    cloud = found[f"{CLOUD}/recorded"][stamp(2)]
    assert np.array_equal(cloud["Points3D:positions"], [[1, 2, 3], [4, 5, 6]])
    assert np.array_equal(colours_of(cloud), [[10, 20, 30], [255, 0, 200]])


def test_what_the_node_published_can_be_looked_at_alone(folder, tmp_path):
    output = published(tmp_path / "output.mcap", RgbdFolder(folder)[2], stamp(2))
    assert run_view([str(output)], save=str(tmp_path / "a.rrd")) == 0
    found = read(tmp_path / "a.rrd")
    assert {LENS, f"{LENS}/recorded", f"{CLOUD}/recorded"} <= set(found)
    assert not {f"{LENS}/image", f"{LENS}/truth"} & set(found)


def test_what_the_node_published_is_no_truth_though_the_bag_has_no_other_depth(folder, tmp_path):
    both = published(tmp_path / "both.mcap", RgbdFolder(folder)[2], stamp(2), with_camera=True)
    run_view([str(both)], save=str(tmp_path / "a.rrd"))
    found = read(tmp_path / "a.rrd")
    assert {f"{LENS}/image", f"{LENS}/recorded"} <= set(found)
    assert f"{LENS}/truth" not in found


def failing_from(monkeypatch, first, error):
    def failing(self, index, plain=RgbdFolder.__getitem__):
        if index >= first:
            raise error
        return plain(self, index)

    monkeypatch.setattr(RgbdFolder, "__getitem__", failing)


def test_ctrl_c_keeps_what_was_done(folder, tmp_path, monkeypatch):
    failing_from(monkeypatch, 2, KeyboardInterrupt())
    assert run_view([str(folder)], save=str(tmp_path / "a.rrd")) == 130
    assert set(read(tmp_path / "a.rrd")[f"{LENS}/truth"]) == {stamp(0), stamp(1)}
    assert not list(tmp_path.glob(".*"))


def test_frames_that_cannot_be_read_are_left_out_and_told(folder, tmp_path, capsys):
    (folder / "rgb" / "1.png").write_bytes(b"no picture")
    assert run_view([str(folder)], save=str(tmp_path / "a.rrd")) == 0
    assert set(read(tmp_path / "a.rrd")[f"{LENS}/image"]) == {stamp(i) for i in (0, 2, 3, 4)}
    assert "1 frames left out: " in capsys.readouterr().err


def test_recording_without_any_frame_is_an_error_that_leaves_no_file(folder, tmp_path):
    for image in folder.glob("rgb/*"):
        image.write_bytes(b"no picture")
    with pytest.raises(ViewError, match="no frame can be shown"):
        run_view([str(folder)], save=str(tmp_path / "a.rrd"))
    assert not list(tmp_path.glob("*.rrd*")) and not list(tmp_path.glob(".*"))


def test_without_a_display_the_remedy_is_named(folder, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ViewError, match=r"expected a display .* --save FILE.rrd"):
        run_view([str(folder)])


def test_without_a_driver_the_remedy_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("VK_DRIVER_FILES", "/nonexistent")
    monkeypatch.setenv("VK_ICD_FILENAMES", "/nonexistent")
    monkeypatch.setenv("WGPU_BACKEND", "vulkan")
    with pytest.raises(ViewError, match=r"cannot draw here, .* mesa-vulkan-drivers"):
        run_view([str(folder)], screenshot=str(tmp_path / "a.png"), max_frames=1)
    assert not (tmp_path / "a.png").exists()


def test_screenshot_shows_the_image(folder, tmp_path, monkeypatch):
    if not any(Path("/usr/share/vulkan/icd.d").glob("*.json")):
        pytest.skip("no Vulkan driver (apt install mesa-vulkan-drivers)")
    monkeypatch.setattr("mde_ros.view.viewer.SIZE", "640x400")
    monkeypatch.setattr("mde_ros.view.viewer.STEADY_S", 1.0)
    for image in folder.glob("rgb/*"):
        cv2.imwrite(str(image), np.full((48, 64, 3), COLOUR[::-1], np.uint8))
    run_view([str(folder)], screenshot=str(tmp_path / "a.png"))
    picture = cv2.imread(str(tmp_path / "a.png"))[..., ::-1]
    shown = (np.abs(picture.astype(int) - COLOUR) < 4).all(2)
    assert shown[:, : picture.shape[1] // 3].sum() > 3000  # as the image
    assert shown[:, picture.shape[1] // 3 :].sum() > 300  # as the cloud's colour
