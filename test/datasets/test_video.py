"""Triplets: neighbours of a moving camera, from whatever holds frames in the order of time."""

import dataclasses
import json

import cv2
import numpy as np
import pytest

from mde_ros.datasets import DatasetError, Sample
from mde_ros.datasets.bag_file import BagWriter
from mde_ros.datasets.bag_messages import SAMPLE_TOPICS, sample_messages
from mde_ros.datasets.rgbd_folder import RgbdFolder
from mde_ros.datasets.video import Video, motion, open_video
from mde_ros.frame import Camera, Frame

CAMERA = Camera(192, 64, np.array([[120, 0, 95.5], [0, 120, 31.5], [0, 0, 1.0]]))
SECOND = 10**9


@pytest.fixture(scope="module")
def wall():
    """A wide textured wall that a camera may move along."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 600, 3)).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


class Recording:
    """Frames that look at the wall from given columns at given times."""

    name = "wall"

    def __init__(self, wall, columns, seconds=None, cameras=None):
        seconds = seconds or [i / 10 for i in range(len(columns))]
        cameras = cameras or [CAMERA] * len(columns)
        self.samples = [
            Sample(
                Frame(wall[:, x : x + 192].copy(), camera, stamp_ns=round(t * SECOND)),
                None,
                f"{self.name}/{i}",
                moving=np.full((64, 192), i % 2 == 1),
            )
            for i, (x, t, camera) in enumerate(zip(columns, seconds, cameras))
        ]

    def __len__(self):
        return len(self.samples)

    def __iter__(self):
        return iter(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def test_motion_is_the_shift_as_a_share_of_the_width(wall):
    grey = cv2.cvtColor(wall, cv2.COLOR_RGB2GRAY)
    for pixels in (0, 2, 6):
        measured = motion(grey[:, :192].copy(), grey[:, pixels : pixels + 192].copy())
        assert measured * 192 == pytest.approx(pixels, abs=0.15)


def test_triplets_are_the_frames_before_at_and_after_with_their_camera(wall):
    data = Recording(wall, [0, 3, 6, 9, 12])
    video = Video(data)
    assert video.middles == [1, 2, 3] and len(video) == 3
    for i, triplet in enumerate(video):
        assert triplet.name == f"wall/{i + 1}" and triplet.camera.same_as(CAMERA)
        for k in range(3):
            assert np.array_equal(triplet.images[k], data[i + k].frame.image)
        assert np.array_equal(triplet.moving, data[i + 1].moving)
        assert np.array_equal(triplet.images, video[i].images)  # streamed as when asked for
    for bad in (3, -1):
        with pytest.raises(IndexError):
            video[bad]


def test_frames_of_a_standing_camera_are_left_out(wall):
    """Stands at frames 3 to 6, so only 1, 2, 7 and 8 have moved from and to their neighbours."""
    columns = [0, 3, 6, 9, 9, 9, 9, 12, 15, 18]
    assert Video(Recording(wall, columns)).middles == [1, 2, 7, 8]
    assert Video(Recording(wall, columns), still=0).middles == list(range(1, 9))


def test_what_drives_past_a_standing_camera_is_no_motion_of_it(wall):
    data = Recording(wall, [0] * 5)
    for i, sample in enumerate(data):
        sample.frame.image[20:60, 20 + 10 * i : 90 + 10 * i] = wall[20:60, 300:370]
    with pytest.raises(DatasetError, match=r"5 frames, of which 4 follow another .* 0 with motion"):
        Video(data)


def test_gaps_jumps_and_other_cameras_part_a_recording(wall):
    columns = [3 * i for i in range(9)]
    seconds = [0, 0.1, 0.2, 5.2, 5.3, 5.4, 1.0, 1.1, 1.2]
    assert Video(Recording(wall, columns, seconds)).middles == [1, 4, 7]
    zoomed = dataclasses.replace(CAMERA, K=CAMERA.K * [[2], [2], [1]])
    cameras = [CAMERA] * 4 + [zoomed] * 5
    assert Video(Recording(wall, columns, None, cameras)).middles == [1, 2, 5, 6, 7]


def test_slow_cameras_are_seen_several_frames_apart(wall):
    """One pixel every third frame: no frame has moved from and to its neighbours, 9 apart all."""
    data = Recording(wall, [i // 3 for i in range(24)], [i / 30 for i in range(24)])
    with pytest.raises(DatasetError, match="and 7 with motion"):
        Video(data)
    video = Video(data, step=9)
    assert video.middles == list(range(9, 15))
    triplets = list(video)
    assert np.array_equal(triplets[2].images[0], data[2].frame.image)
    assert np.array_equal(triplets[2].images[2], data[20].frame.image)
    assert [t.name for t in triplets] == [video[i].name for i in range(6)]


def test_a_bent_lens_is_straightened(wall):
    """A straight line in space, drawn as the lens bends it, comes out straight."""
    bent = dataclasses.replace(CAMERA, D=np.array([-0.3, 0.05, 0, 0]))
    data = Recording(wall, [0, 3, 6], None, [bent] * 3)
    x = np.linspace(-0.75, 0.75, 400)
    line = np.stack([x, 0.1 + 0.1 * x, np.ones_like(x)], 1)
    pixels, _ = cv2.projectPoints(line, np.zeros(3), np.zeros(3), bent.K, bent.D)
    for sample in data:
        sample.frame.image[:, :, 0] //= 2
        cv2.polylines(sample.frame.image, [np.rint(pixels).astype(int)], False, (255, 0, 0), 1)
    triplet = next(iter(Video(data, middles=[1])))
    assert not triplet.camera.is_distorted and np.array_equal(triplet.camera.K, CAMERA.K)
    for image in triplet.images:
        red = image[:, :, 0].astype(int) - image[:, :, 1]
        columns = np.arange(20, 172)
        rows = red[:, columns].argmax(0)
        expected = 120 * (0.1 + 0.1 * (columns - 95.5) / 120) + 31.5
        assert np.median(np.abs(rows - expected)) < 0.6


def test_what_was_found_can_be_given_again_and_progress_is_told(wall):
    data, told = Recording(wall, [0, 3, 6, 6, 9]), []
    found = Video(data, progress=lambda done, total: told.append((done, total))).middles
    assert found == [1] and told == [(i, 5) for i in range(5)]
    again = Video(data, middles=found, progress=lambda done, total: pytest.fail("read again"))
    assert len(again) == 1 and again[0].name == "wall/1"


@pytest.fixture
def folders(tmp_path, wall):
    """Two recordings below one folder, each of four frames and no depth."""
    for part in ("a", "b"):
        (tmp_path / part / "rgb").mkdir(parents=True)
        values = {"fx": 120, "fy": 120, "cx": 95.5, "cy": 31.5, "width": 192, "height": 64}
        (tmp_path / part / "intrinsics.json").write_text(json.dumps(values))
        for i in range(4):
            cv2.imwrite(str(tmp_path / part / f"rgb/{i}.png"), wall[:, 3 * i : 3 * i + 192])
    return tmp_path


def test_a_folder_of_frames_needs_no_depth_and_recordings_stay_apart(folders):
    assert [t.name for t in open_video(folders / "a")] == ["a/1", "a/2"]
    assert [t.name for t in open_video(folders)] == ["a/1", "a/2", "b/1", "b/2"]
    with pytest.raises(DatasetError, match=r"8 frames, of which 2 follow another within 3 s"):
        open_video(folders, step=3)


def test_images_of_an_unknown_lens_are_refused(folders):
    with pytest.raises(DatasetError, match=r"expected the intrinsics of its camera, .* rgb/"):
        open_video(folders / "a/rgb")


def test_a_bag_is_a_video(tmp_path, wall):
    with BagWriter(tmp_path / "drive.mcap") as bag:
        for i, sample in enumerate(Recording(wall, [0, 3, 6, 9, 9])):
            for topic, time_ns, cdr in sample_messages(sample.frame, None, (i + 10) * SECOND // 10):
                bag.write(topic, SAMPLE_TOPICS[topic], time_ns, cdr)
    video = open_video(tmp_path / "drive.mcap")
    assert video.middles == [1, 2]
    for triplets in (list(video), [video[1], video[0]][::-1]):
        for i, triplet in enumerate(triplets):
            for k in range(3):
                x = 3 * (i + k)
                assert np.array_equal(triplet.images[k], wall[:, x : x + 192])


def test_a_real_drive_is_found_to_stop_where_it_stops(shared_data):
    """KITTI odometry 00 waits at a crossing from its frame 534 to 558 or so."""
    folder = RgbdFolder(shared_data / "kitti_video")
    folder.files = folder.files[510:580]
    video = Video(folder)
    standing = {i + 510 for i in set(range(1, 69)) - set(video.middles)}
    assert set(range(540, 555)) <= standing <= set(range(530, 562))
    assert video[0].images.shape == (3, 128, 416, 3) and video[0].name == "kitti_video/000511"
