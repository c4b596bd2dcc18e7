"""Bags as data sets: what goes in comes out, pairs are right, and broken bags say so."""

from __future__ import annotations

import json
import pickle
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from rosbags.image.image import ImageError
from rosbags.rosbag2 import StoragePlugin, Writer

from mde_ros.datasets import DatasetError, is_bag, open_dataset
from mde_ros.datasets.bag import BagDataset
from mde_ros.datasets.bag_file import Bag, BagError, BagWriter, FolderBag
from mde_ros.datasets.bag_messages import (
    DEPTH_TOPIC,
    IMAGE,
    IMAGE_TOPIC,
    INFO_TOPIC,
    JAZZY,
    SAMPLE_TOPICS,
    depth_metres,
    image_rgb,
    sample_messages,
)
from mde_ros.datasets.bag_registration import project_depth
from mde_ros.frame import Camera, Frame
from mde_ros.geometry import in_view

sys.path.append(str(Path(__file__).parent))  # for recording.py: test folders are no packages

import recording

ROOT = Path(__file__).parents[2]
SECOND = 1_000_000_000
K = np.array([[50.0, 0, 15.5], [0, 51.0, 11.5], [0, 0, 1]])
random = np.random.default_rng(0)


def frame(width: int = 32, height: int = 24, focal: float = 50.0, D=()) -> Frame:
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    K = np.array([[focal, 0, width / 2], [0, focal + 1, height / 2], [0, 0, 1]])
    return Frame(image, Camera(width, height, K, np.array(D, np.float64)))


def depth(width: int = 32, height: int = 24) -> np.ndarray:
    """Whole millimetres, so that they pass through 16UC1 unchanged; a tenth is unmeasured."""
    depth_mm = random.integers(300, 9000, (height, width))
    depth_mm[random.random((height, width)) < 0.1] = 0
    return depth_mm.astype(np.float32) / 1000


def write(path: Path, messages) -> Path:
    with BagWriter(path) as bag:
        for topic, time_ns, cdr in messages:
            bag.write(topic, SAMPLE_TOPICS[topic], time_ns, cdr)
    return path


def samples(n: int, period_ns: int = SECOND // 10, **size):
    return [(frame(**size), depth(**size), SECOND + i * period_ns) for i in range(n)]


def messages_of(parts):
    return [m for f, d, stamp in parts for m in sample_messages(f, d, stamp)]


def write_ros2_sqlite(path: Path, messages) -> Path:
    with Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        to = {t: writer.add_connection(t, k, typestore=JAZZY) for t, k in SAMPLE_TOPICS.items()}
        for topic, time_ns, cdr in messages:
            writer.write(to[topic], time_ns, cdr)
    return path


def write_ros1(path: Path, messages) -> Path:
    return recording.write_ros1(path, [(t, at, SAMPLE_TOPICS[t], cdr) for t, at, cdr in messages])


@pytest.mark.parametrize(
    ("name", "writer"),
    [("a.mcap", write), ("folder", write_ros2_sqlite), ("a.bag", write_ros1)],
    ids=["mcap", "sqlite3", "ros1"],
)
def test_image_camera_and_depth_come_back_bit_for_bit(tmp_path, name, writer):
    parts = samples(5)
    dataset = open_dataset(writer(tmp_path / name, messages_of(parts)))
    assert len(dataset) == 5
    for sample, (f, d, stamp) in zip(dataset, parts, strict=True):
        np.testing.assert_array_equal(sample.frame.image, f.image)
        np.testing.assert_array_equal(sample.truth_m, d)
        assert sample.frame.camera.same_as(f.camera)
        assert sample.frame.stamp_ns == stamp


@pytest.mark.parametrize("skip", [1, 3, 32])
def test_indexing_in_any_order_equals_iterating(tmp_path, monkeypatch, skip):
    parts = samples(6) + samples(2, width=48, height=20)
    parts = [(f, d, SECOND + i * SECOND // 10) for i, (f, d, _) in enumerate(parts)]
    dataset = open_dataset(write(tmp_path / "a.mcap", messages_of(parts)))
    dataset = pickle.loads(pickle.dumps(dataset))  # as a worker process gets it
    monkeypatch.setattr("mde_ros.datasets.bag.SKIP", skip)
    for i in (3, 0, 1, 7, 2, 6, 7, 4, 5, 0, 7):
        sample, (f, d, stamp) = dataset[i], parts[i]
        np.testing.assert_array_equal(sample.frame.image, f.image)
        np.testing.assert_array_equal(sample.truth_m, d)
        assert sample.frame.stamp_ns == stamp and sample.frame.camera.same_as(f.camera)
    with pytest.raises(IndexError):
        dataset[8]


def test_depth_is_paired_with_the_nearest_stamp_and_never_beyond_the_tolerance(tmp_path):
    ms = 1_000_000
    f, stamps = frame(), [1000, 1100, 1200, 1300]
    # Depth comes 8 ms early, 30 ms late (and 90 early), on time but logged late, never.
    depths = {992: 1.0, 1130: 2.0, 1200: 3.0}
    out = [m for s in stamps for m in sample_messages(f, None, s * ms)]
    for stamp, metres in depths.items():
        d = np.full((24, 32), metres, np.float32)
        topic, _, cdr = list(sample_messages(f, d, stamp * ms))[-1]
        out.append((topic, (stamp + 60) * ms, cdr))
    out.sort(key=lambda m: m[1])
    path = write(tmp_path / "a.mcap", out)

    def found(tolerance_s):
        truths = [s.truth_m for s in BagDataset(path, tolerance_s=tolerance_s)]
        return [None if t is None else float(t.max()) for t in truths]

    assert found(0.02) == [1.0, None, 3.0, None]
    assert found(0.04) == [1.0, 2.0, 3.0, None]


def test_a_camera_info_that_comes_once_holds_for_all_images(tmp_path):
    parts = samples(4)
    out = messages_of(parts)
    first_info = next(m for m in out if m[0] == INFO_TOPIC)
    out = [m for m in out if m[0] != INFO_TOPIC]
    out.insert(5, (INFO_TOPIC, out[5][1], first_info[2]))  # in the middle of the bag
    dataset = open_dataset(write(tmp_path / "a.mcap", out))
    assert all(s.frame.camera.same_as(parts[0][0].camera) for s in dataset)
    assert len(list(dataset)) == 4


def test_memory_does_not_grow_with_the_length_of_the_bag(tmp_path):
    def peak(n):
        parts = samples(1, width=160, height=120)
        out = [
            m for i in range(n) for m in sample_messages(*parts[0][:2], SECOND + i * SECOND // 30)
        ]
        path = write(tmp_path / f"{n}.mcap", out)
        tracemalloc.start()
        for i in range(len(dataset := open_dataset(path))):
            dataset[i]
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return high

    short, long = peak(60), peak(600)
    assert long < short + 5_000_000  # 540 more frames are 52 MB


def test_colour_and_raw_are_preferred_and_depth_is_told_by_its_encoding(tmp_path):
    f, stamp = frame(), SECOND
    messages = {t: m for t, _, m in sample_messages(f, depth(), stamp)}
    rgb, info, dep = (messages[t] for t in (IMAGE_TOPIC, INFO_TOPIC, DEPTH_TOPIC))
    grey = JAZZY.deserialize_cdr(rgb, IMAGE)
    grey.encoding, grey.step, grey.data = "mono8", 32, grey.data[: 32 * 24]
    with BagWriter(tmp_path / "a.mcap") as bag:
        kind = "sensor_msgs/msg/CameraInfo"
        bag.write("/cam/infra/image", IMAGE, stamp, bytes(JAZZY.serialize_cdr(grey, IMAGE)))
        bag.write("/cam/infra/camera_info", kind, stamp, info)
        bag.write("/cam/colour/image", IMAGE, stamp, rgb)
        bag.write("/cam/colour/camera_info", kind, stamp, info)
        bag.write("/cam/aligned/image", IMAGE, stamp, dep)
        bag.write("/cam/aligned/camera_info", kind, stamp, info)
    topics = BagDataset(tmp_path / "a.mcap").topics
    assert topics.image == "/cam/colour/image"
    assert topics.camera_info == "/cam/colour/camera_info"
    assert topics.truth == "/cam/aligned/image"
    assert topics.truth_info == "/cam/aligned/camera_info"
    assert BagDataset(tmp_path / "a.mcap", "/cam/infra/image").topics.image == "/cam/infra/image"


def test_what_our_node_says_of_a_grey_camera_is_not_taken_for_another(tmp_path):
    messages = {t: m for t, _, m in sample_messages(frame(), depth(), SECOND)}
    grey = JAZZY.deserialize_cdr(messages[IMAGE_TOPIC], IMAGE)
    grey.encoding, grey.step, grey.data = "mono8", 32, grey.data[: 32 * 24]
    with BagWriter(tmp_path / "a.mcap") as bag:
        for name in ("/saliency", "/uncertainty", "/cam/image"):
            bag.write(name, IMAGE, SECOND, bytes(JAZZY.serialize_cdr(grey, IMAGE)))
        bag.write(INFO_TOPIC, "sensor_msgs/msg/CameraInfo", SECOND, messages[INFO_TOPIC])
    assert BagDataset(tmp_path / "a.mcap").topics.image == "/cam/image"


def shifted_clock(out):
    """Depth stamped by another clock, an hour away."""
    parts = samples(1)
    late = list(sample_messages(*parts[0][:2], SECOND * 3600))[-1]
    return [m for m in out if m[0] != DEPTH_TOPIC] + [(DEPTH_TOPIC, SECOND, late[2])]


def smaller_depth(out):
    d = list(sample_messages(frame(), depth(16, 12), SECOND))[-1]
    return [m for m in out if m[0] != DEPTH_TOPIC] + [(DEPTH_TOPIC, SECOND, d[2])]


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda out: [m for m in out if m[0] != INFO_TOPIC], "no sensor_msgs/msg/CameraInfo for"),
        (lambda out: [m for m in out if m[0] == INFO_TOPIC], "no image in it; it has /camera/cam"),
        (lambda out: [], "the bag is empty"),
        (shifted_clock, "different clocks"),
        (smaller_depth, "16x12 in frame 'camera_optical_frame', the image 32x24"),
    ],
    ids=["no camera_info", "no image", "empty", "another clock", "another size"],
)
def test_a_bag_without_what_is_needed_gets_one_sentence(tmp_path, spoil, expected):
    path = write(tmp_path / "a.mcap", spoil(messages_of(samples(3))))
    with pytest.raises(BagError) as error:
        list(open_dataset(path))
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("keep", [0, 1, 9, 60, 0.3, 0.7])
@pytest.mark.parametrize("suffix", ["mcap", "bag", "db3"])
def test_a_bag_cut_anywhere_gets_one_sentence(tmp_path, suffix, keep):
    out = messages_of(samples(8))
    whole = {
        "mcap": lambda: write(tmp_path / "whole.mcap", out),
        "bag": lambda: write_ros1(tmp_path / "whole.bag", out),
        "db3": lambda: next(write_ros2_sqlite(tmp_path / "w", out).glob("*.db3")),
    }[suffix]().read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(BagError) as error:
        list(open_dataset(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_what_lies_before_a_damaged_place_is_still_given(tmp_path):
    parts = samples(10, width=640, height=480)  # more than one chunk
    path = write(tmp_path / "a.mcap", messages_of(parts))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300_000] = bytes(300_000)
    path.write_bytes(data)
    got = []
    with pytest.raises(BagError):
        for sample in open_dataset(path):
            got.append(sample)
    assert 1 <= len(got) < 10
    np.testing.assert_array_equal(got[0].frame.image, parts[0][0].image)
    dataset, reasons = open_dataset(path), set()
    for i in range(10):
        try:
            assert np.array_equal(dataset[i].frame.image, got[i].frame.image)
        except BagError as error:
            reasons.add((i >= len(got), str(error)))
    ((after, reason),) = reasons  # one for all of the rest
    assert after and "cannot be read as a bag" in reason


def test_a_wrong_topic_lists_the_topics_there_are(tmp_path):
    path = write(tmp_path / "a.mcap", messages_of(samples(1)))
    with pytest.raises(BagError) as error:
        open_dataset(path, truth_topic="/lidar/depth")
    for topic in ("/lidar/depth", IMAGE_TOPIC, INFO_TOPIC, DEPTH_TOPIC):
        assert topic in str(error.value)


def test_a_folder_with_one_bag_file_is_that_bag_unless_it_holds_clips(tmp_path):
    write(tmp_path / "lone/a.mcap", messages_of(samples(3)))
    assert is_bag(tmp_path / "lone") and len(open_dataset(tmp_path / "lone")) == 3
    clip = tmp_path / "clips/room"
    (clip / "rgb").mkdir(parents=True)
    numbers = {"fx": 50, "fy": 50, "cx": 16, "cy": 12, "width": 32, "height": 24}
    (clip / "intrinsics.json").write_text(json.dumps(numbers))
    cv2.imwrite(str(clip / "rgb/0.png"), frame().image)
    write(tmp_path / "clips/room.mcap", messages_of(samples(3)))
    assert not is_bag(tmp_path / "clips") and len(open_dataset(tmp_path / "clips")) == 1


def test_a_writer_that_fails_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError), BagWriter(tmp_path / "a.mcap") as bag:
        bag.write("/text", "std_msgs/msg/String", 0, b"\x00\x01\x00\x00\x02\x00\x00\x00a\x00")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


# ---- registration --------------------------------------------------------------------------------


def test_projected_depth_moves_by_focal_length_times_baseline_over_depth():
    """A step at column 20 of a camera 0.1 m to the left; two walls at 2 m and 4 m."""
    source = Camera(64, 48, np.array([[80.0, 0, 32], [0, 80, 24], [0, 0, 1]]))
    depth_m = np.full((48, 64), 2.0, np.float32)
    depth_m[:, 20:] = 4.0
    T = np.eye(4)
    T[0, 3] = 0.1
    truth = project_depth(depth_m, source, source, T)
    # 80 px * 0.1 m / 2 m = 4 px and / 4 m = 2 px: the near wall moves farther and wins.
    assert (truth[:, 4:24] == 2.0).all()
    assert (truth[:, 24:] == 4.0).all()
    assert (truth[:, :4] == 0).all()


def test_a_finer_camera_gets_no_holes():
    source = Camera(64, 48, np.array([[40.0, 0, 31.5], [0, 40, 23.5], [0, 0, 1]]))
    target = source.resized(160, 120)
    truth = project_depth(np.full((48, 64), 3.0, np.float32), source, target, np.eye(4))
    assert (truth[2:-2, 2:-2] == 3.0).all()


@pytest.mark.parametrize("model", ["plumb_bob", "equidistant"])
def test_projected_depth_lands_where_opencv_projects_the_point(model):
    source = Camera(160, 120, np.array([[120.0, 0, 80], [0, 120, 60], [0, 0, 1]]))
    D = (
        np.array([-0.2, 0.05, 0.001, -0.002])
        if model == "plumb_bob"
        else np.array([0.1, 0.01, 0, 0])
    )
    target = Camera(160, 120, source.K, D, model)
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(np.array([0.02, -0.05, 0.03]))[0]
    T[:3, 3] = 0.05, -0.02, 0.1
    y, x = np.mgrid[:120, :160]
    depth_m = (2 + 0.3 * np.sin(x / 30) + 0.2 * np.cos(y / 25)).astype(np.float32)
    truth = project_depth(depth_m, source, target, T)
    hits = 0
    for u, v in random.integers((30, 25), (130, 95), (200, 2)):
        point = np.array([(u - 80) / 120, (v - 60) / 120, 1.0]) * depth_m[v, u]
        args = (point.reshape(1, 1, 3), cv2.Rodrigues(T[:3, :3])[0], T[:3, 3], target.K, D)
        project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
        column, row = np.rint(project(*args)[0].ravel()).astype(int)
        if 2 <= column < 158 and 2 <= row < 118 and truth[row, column] > 0:
            hits += 1
            assert truth[row, column] == pytest.approx((T[:3, :3] @ point + T[:3, 3])[2], abs=0.03)
    assert hits > 150


def test_depth_of_another_frame_is_projected_with_tf_static(tmp_path):
    """base → depth camera, base → colour camera: the wall's step moves by the chained transform."""
    types = JAZZY.types
    camera = Camera(64, 48, np.array([[80.0, 0, 32], [0, 80, 24], [0, 0, 1]]))
    image = Frame(random.integers(0, 256, (48, 64, 3), dtype=np.uint8), camera)
    depth_m = np.full((48, 64), 2.0, np.float32)
    depth_m[:, 20:] = 4.0
    messages = {t: m for t, _, m in sample_messages(image, depth_m, SECOND)}
    d = JAZZY.deserialize_cdr(messages[DEPTH_TOPIC], IMAGE)
    d.header.frame_id = "depth_frame"

    def edge(parent, child, x):
        header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](0, 0), parent)
        t = types["geometry_msgs/msg/Vector3"](x, 0.0, 0.0)
        q = types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
        T = types["geometry_msgs/msg/Transform"](t, q)
        return types["geometry_msgs/msg/TransformStamped"](header, child, T)

    # The depth camera sits 0.03 m left, the colour camera 0.07 m right of... T_base_camera along x.
    edges = [edge("base", "depth_frame", 0.03), edge("base", "camera_optical_frame", -0.07)]
    tf = types["tf2_msgs/msg/TFMessage"](edges)
    kind = "tf2_msgs/msg/TFMessage"
    with BagWriter(tmp_path / "a.mcap") as bag:
        bag.write("/tf_static", kind, SECOND, bytes(JAZZY.serialize_cdr(tf, kind)))
        for topic in (INFO_TOPIC, IMAGE_TOPIC):
            bag.write(topic, SAMPLE_TOPICS[topic], SECOND, messages[topic])
        info = "/camera/depth/camera_info"
        bag.write(info, SAMPLE_TOPICS[INFO_TOPIC], SECOND, messages[INFO_TOPIC])
        bag.write(DEPTH_TOPIC, IMAGE, SECOND, bytes(JAZZY.serialize_cdr(d, IMAGE)))
    truth = open_dataset(tmp_path / "a.mcap")[0].truth_m
    # T_colour_depth moves points by 0.03 + 0.07 = 0.1 m along x: 4 px at 2 m, 2 px at 4 m.
    assert (truth[:, 4:24] == 2.0).all() and (truth[:, 24:] == 4.0).all()


def test_a_realsense_recording_is_registered_by_its_own_extrinsics(shared_data):
    """Depth edges fall on colour edges with the recorded transform better than with any other."""
    dataset = open_dataset(shared_data / "bags" / "single_depth_color_640x480.bag")
    sample = dataset[0]
    assert (sample.truth_m > 0).mean() > 0.9
    assert 0.5 < np.median(sample.truth_m[sample.truth_m > 0]) < 3
    grey = cv2.cvtColor(sample.frame.image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    slope = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    slope = cv2.GaussianBlur(slope, (0, 0), 1.5)

    def agreement(T):
        extrinsics[dataset.topics.truth] = T
        d = dataset[0].truth_m
        inside = cv2.erode((d > 0).astype(np.uint8), np.ones((7, 7))) > 0
        d = cv2.medianBlur(d, 5)
        edges = np.hypot(cv2.Sobel(d, cv2.CV_32F, 1, 0), cv2.Sobel(d, cv2.CV_32F, 0, 1)) > 0.15
        return slope[edges & inside].mean() / slope[inside].mean()

    extrinsics = dataset._rules.T_image_sensor
    T = extrinsics[dataset.topics.truth]
    others = [np.linalg.inv(T), np.eye(4), T.copy(), T.copy()]
    others[2][:3, :3] = T[:3, :3].T
    others[3][:3, 3] *= -1
    assert agreement(T) > 1.5 * max(map(agreement, others))


def test_bags_of_others_open_or_say_what_they_lack(shared_data):
    with Bag(
        shared_data / "bags" / "soccer_goal_12.mcap"
    ) as bag:  # every message compressed by itself
        pictures = [bag.decode(t, raw) for t, _, raw in bag.messages()]
    assert [(p.encoding, p.width, p.height) for p in pictures] == [("rgb8", 640, 480)] * 2
    with Bag(shared_data / "bags" / "laserscan") as bag:  # no types inside
        scans = [bag.decode(t, raw) for t, _, raw in bag.messages(["/scan"])]
    assert len(scans) == 922 and all(len(s.ranges) == len(scans[0].ranges) for s in scans)
    for name in ("soccer_goal_12.mcap", "laserscan", "trimmed_locoffice.bag"):
        with pytest.raises(BagError, match=r"/camera|/scan"):
            open_dataset(shared_data / "bags" / name)


# ---- decoding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "channels"),
    [("rgb8", 3), ("bgr8", 3), ("rgba8", 4), ("bgra8", 4), ("mono8", 1), ("8UC3", 3), ("yuyv", 2),
     ("uyvy", 2), ("bayer_rggb8", 1), ("bayer_gbrg8", 1)],
)  # fmt: skip
def test_a_bag_is_decoded_exactly_as_the_node_decodes(encoding, channels, pad):
    convert = pytest.importorskip("mde_ros.nodes.convert")
    from sensor_msgs.msg import Image

    data = random.integers(0, 256, (24, 32 * channels + pad), dtype=np.uint8)
    fields = {"height": 24, "width": 32, "encoding": encoding, "step": data.shape[1]}
    live = Image(**fields)
    live.data.frombytes(data.tobytes())
    stored = SimpleNamespace(**fields, is_bigendian=0, data=data.ravel())
    np.testing.assert_array_equal(image_rgb(stored), convert.rgb_from_image(live))


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("rgb8; jpeg compressed bgr8", ".jpg"), ("bayer_rggb8; jpeg compressed", ".jpg"),
     ("bayer_gbrg8; png compressed", ".png"), ("bayer_rggb8; jpeg compressed bgr8", ".jpg"),
     ("mono8; png compressed", ".png")],
)  # fmt: skip
def test_a_compressed_bag_is_decoded_exactly_as_the_node_decodes(name, suffix):
    convert = pytest.importorskip("mde_ros.nodes.convert")
    from sensor_msgs.msg import CompressedImage

    grey = "bgr8" not in name
    pixels = random.integers(0, 256, (24, 32) if grey else (24, 32, 3), dtype=np.uint8)
    data = cv2.imencode(suffix, pixels)[1].ravel()
    live = CompressedImage(format=name, data=data.tobytes())
    stored = SimpleNamespace(format=name, data=data)
    np.testing.assert_array_equal(image_rgb(stored), convert.rgb_from_compressed(live))


def test_a_bag_refuses_what_the_node_rejects():
    convert = pytest.importorskip("mde_ros.nodes.convert")
    from sensor_msgs.msg import CompressedImage, Image

    fields = {"height": 4, "width": 4, "encoding": "rgb8", "step": 12}
    for size in (47, 49):
        live = Image(**fields)
        live.data.frombytes(bytes(size))
        with pytest.raises(convert.Rejected):
            convert.rgb_from_image(live)
        with pytest.raises(ImageError):
            image_rgb(SimpleNamespace(**fields, is_bigendian=0, data=np.zeros(size, np.uint8)))
    fields = {"format": "16UC1; compressedDepth png", "data": cv2.imencode(".png", K)[1].tobytes()}
    with pytest.raises(convert.Rejected):
        convert.rgb_from_compressed(CompressedImage(**fields))
    with pytest.raises(ImageError):
        image_rgb(SimpleNamespace(**fields))


@pytest.mark.parametrize("bigendian", [0, 1])
def test_depth_encodings_agree_on_the_metres(bigendian):
    depth_mm = np.array([[0, 1, 499], [1000, 8123, 65535]])
    expected = depth_mm / 1000
    order = ">" if bigendian else "<"
    common = {"height": 2, "width": 3, "is_bigendian": bigendian}
    for encoding in ("16UC1", "mono16"):
        data = np.frombuffer(depth_mm.astype(f"{order}u2").tobytes(), np.uint8)
        got = depth_metres(SimpleNamespace(encoding=encoding, step=6, data=data, **common))
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    with_nan = np.where(depth_mm == 0, np.nan, expected)
    with_nan[0, 1] = np.inf
    data = np.frombuffer(with_nan.astype(f"{order}f4").tobytes(), np.uint8)
    got = depth_metres(SimpleNamespace(encoding="32FC1", step=12, data=data, **common))
    np.testing.assert_allclose(got, np.where(np.isfinite(with_nan), with_nan, 0), rtol=1e-6)


def test_compressed_depth_of_image_transport_comes_back():
    depth_mm = random.integers(1, 9000, (24, 32)).astype(np.uint16)
    png = cv2.imencode(".png", depth_mm)[1]
    data = np.concatenate([np.zeros(12, np.uint8), png])
    message = SimpleNamespace(format="16UC1; compressedDepth png", data=data)
    np.testing.assert_allclose(depth_metres(message), depth_mm / 1000, rtol=1e-6)
    # 32FC1: value = a / depth + b, as compressed_depth_image_transport writes it.
    a, b = 100.0 * 101.0, 1 - 101.0
    depth_m = random.uniform(0.5, 9, (24, 32)).astype(np.float32)
    png = cv2.imencode(".png", np.rint(a / depth_m + b).astype(np.uint16))[1]
    header = np.frombuffer(np.array([a, b], "<f4").tobytes(), np.uint8)
    data = np.concatenate([np.zeros(4, np.uint8), header, png])
    message = SimpleNamespace(format="32FC1; compressedDepth png", data=data)
    np.testing.assert_allclose(depth_metres(message), depth_m, rtol=5e-3)


# ---- folders as bags, the sample -----------------------------------------------------------------


def test_a_folder_plays_the_same_messages_as_the_bag_made_of_it(tmp_path):
    folder = tmp_path / "rgbd"
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    (folder / "intrinsics.json").write_text(
        '{"fx": 50, "fy": 51, "cx": 15.5, "cy": 11.5, "width": 32, "height": 24}'
    )
    parts = []
    for i in range(4):
        f, d = frame(), depth()
        cv2.imwrite(str(folder / "rgb" / f"{i}.png"), f.image[..., ::-1])
        cv2.imwrite(str(folder / "depth" / f"{i}.png"), np.rint(d * 1000).astype(np.uint16))
        parts.append((Frame(f.image, Camera(32, 24, K)), d, SECOND + i * SECOND // 5))
    bag = FolderBag(folder, rate_hz=5)
    assert list(bag.messages()) == messages_of(parts)
    assert list(bag.messages([DEPTH_TOPIC], start_ns=parts[2][2])) == [
        m for m in messages_of(parts[2:]) if m[0] == DEPTH_TOPIC
    ]
    with pytest.raises(DatasetError):
        FolderBag(folder / "rgb")


def test_the_sample_bag_holds_three_stills_with_their_own_cameras():
    dataset = open_dataset(ROOT / "mde_ros" / "samples" / "stills.mcap")
    assert len(dataset) == 45
    seen = [dataset[i] for i in (0, 15, 30)]
    assert [s.frame.image.shape for s in seen] == [(480, 640, 3), (480, 640, 3), (500, 741, 3)]
    focal = [s.frame.camera.K[0, 0] for s in seen]
    assert focal == pytest.approx([517.6198, 525.0, 994.97775])
    limits = [(s.truth_m[s.truth_m > 0].min(), s.truth_m.max()) for s in seen]
    expected = [(0.42, 1.2), (1.6, 2.6), (2.1, 5.1)]  # metres, as their sources describe them
    assert all(a[0] >= e[0] and a[1] <= e[1] for a, e in zip(limits, expected))
    assert (ROOT / "mde_ros" / "samples" / "stills.mcap").stat().st_size < 6_000_000


def test_the_sample_bag_holds_what_others_decoded_from_the_same_packages(shared_data):
    dataset = open_dataset(ROOT / "mde_ros" / "samples" / "stills.mcap")
    for index, name in ((0, "arc2017"), (15, "mrpt_shelf"), (30, "motorcycle")):
        sample, folder = dataset[index], shared_data / "stills"
        depth_mm = cv2.imread(str(folder / f"{name}_depth_mm.png"), cv2.IMREAD_UNCHANGED)
        depth_mm = depth_mm.astype(int)
        if name == "arc2017":
            depth_mm[depth_mm > 1200] = 0  # the specks that the README speaks of
        np.testing.assert_allclose(np.rint(sample.truth_m * 1000), depth_mm, atol=1)
        image = cv2.imread(str(folder / f"{name}_rgb.jpg"))[..., ::-1]
        assert abs(image.astype(int) - sample.frame.image).mean() < 4  # they saved as JPEG


def test_the_shipped_drive_measures_the_same_with_its_laser_as_with_its_truth():
    path = ROOT / "mde_ros" / "samples" / "drive.mcap"
    assert path.stat().st_size <= 5_000_000
    dataset = open_dataset(path)
    assert len(dataset) == 80 and not dataset.notes()
    people = 0
    for sample in dataset:
        camera, points = sample.frame.camera, sample.frame.points
        seen, rows, columns = in_view(points, camera)
        apart_m = np.abs(sample.truth_m[rows, columns] - points[seen, 2])
        assert len(seen) > 80 and np.median(apart_m) < 0.03  # the scanner's noise, at most 8 m away
        people += sample.moving.mean() > 0.01
    assert people > 30
