"""Depth from plain video: what is fed, what is asked, and what comes of it (METHODS 9, 11)."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from mde_ros.checkpoint import load, read_tensors
from mde_ros.config import ConfigError
from mde_ros.datasets import DatasetError
from mde_ros.export import export
from mde_ros.frame import Camera
from mde_ros.networks.video import FARTHEST, NEAREST
from mde_ros.training import completion, video
from mde_ros.training.batches import Source
from mde_ros.training.completion import CompletionSettings
from mde_ros.training.loop import LoopSettings, make_fabric
from mde_ros.training.state import STATE
from mde_ros.training.triplets import Clip, Triplets, VideoSource, load_clips, window
from mde_ros.training.video import VideoSettings, train, video_loss

WIDTH, HEIGHT, FOCAL = 96, 64, 80.0
WALL_M, STEP_M = 2.0, 0.1  # of the drive below
K = {"fx": FOCAL, "fy": FOCAL, "cx": 47.5, "cy": 31.5, "width": WIDTH, "height": HEIGHT}


def wall(x_m):
    """A textured wall at WALL_M as a camera x_m to the right sees it: (H, W, 3) uint8."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    x, y = (u - K["cx"]) / FOCAL * WALL_M + x_m, (v - K["cy"]) / FOCAL * WALL_M
    waves = [np.sin(9 * x) * np.cos(7 * y), np.cos(6 * x + 8 * y), np.sin(7 * y - 5 * x)]
    return np.rint(127 + 120 * np.stack(waves, 2)).astype(np.uint8)


@pytest.fixture
def drive(tmp_path):
    """RGB-D folder of a camera that goes right past a wall, stands for three frames and goes on;
    with depth."""
    folder = tmp_path / "drive"
    for part in ("rgb", "depth"):
        (folder / part).mkdir(parents=True)
    (folder / "intrinsics.json").write_text(json.dumps(K))
    at = [0, 1, 2, 3, 4, 4, 4, 5, 6, 7]
    for i, place in enumerate(at):
        cv2.imwrite(str(folder / f"rgb/{i:03}.png"), wall(place * STEP_M)[..., ::-1])
        depth = np.full((HEIGHT, WIDTH), 1000 * WALL_M, np.uint16)
        cv2.imwrite(str(folder / f"depth/{i:03}.png"), depth)
    return folder


def settings_of(drive, **changes):
    loop = LoopSettings(
        steps=3, batch=2, lr=1e-3, warmup=0, precision="32-true", workers=0, device="cpu"
    )
    loop = replace(loop, **changes.pop("loop", {}))
    options = {"initial": "", "size": (WIDTH, HEIGHT), **changes}
    return VideoSettings(sources=(VideoSource(str(drive)),), loop=loop, **options)


def test_frames_of_a_standing_camera_are_no_triplets_and_each_image_is_kept_once(drive):
    (clip,) = load_clips((VideoSource(str(drive)),), progress=False)
    assert [middle for middle, _ in clip.middles] == [1, 2, 3, 7, 8]
    assert sorted(clip.images) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    triplet = clip.triplet(3)
    assert np.array_equal(triplet.images[1], wall(5 * STEP_M))
    assert np.array_equal(triplet.images[2], wall(6 * STEP_M))


def test_neighbours_may_be_farther_apart(drive):
    (clip,) = load_clips((VideoSource(str(drive), step=2),), progress=False)
    assert np.array_equal(clip.triplet(0).images[0], wall(0))
    assert np.array_equal(clip.triplet(0).images[2], wall(4 * STEP_M))


def test_images_are_kept_no_larger_than_what_they_must_cover(drive):
    (clip,) = load_clips((VideoSource(str(drive)),), lambda camera: (30, 40), progress=False)
    assert clip.images[0].shape == (40, 60, 3)
    assert np.allclose(clip.middles[0][1].K, Camera(**camera()).resized(60, 40).K)


def camera():
    matrix = np.array([[FOCAL, 0, K["cx"]], [0, FOCAL, K["cy"]], [0, 0, 1]])
    return {"width": WIDTH, "height": HEIGHT, "K": matrix}


def test_windows_keep_every_pixel_on_its_ray():
    """Colours say where a pixel was: after cut, resize and mirror K still finds it there."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    places = np.stack([u * 2, v * 3, 0 * u], 2).astype(np.uint8)
    clip = Clip(dict.fromkeys(range(3), places), [(1, Camera(**camera()))], 1)
    sides = set()
    for seed in range(8):
        cut = window(clip.triplet(0), np.random.default_rng(seed), 64, 32, smallest=0.6)
        assert cut.images.shape == (3, 32, 64, 3)
        assert all(np.array_equal(cut.images[0], other) for other in cut.images[1:])
        seen, m, (y, x) = cut.images[0], cut.camera.K, np.mgrid[:32, :64]
        side = 1 if seen[0, 0, 0] < seen[0, -1, 0] else -1
        u = K["cx"] + side * FOCAL * (x - m[0, 2]) / m[0, 0]
        v = K["cy"] + FOCAL * (y - m[1, 2]) / m[1, 1]
        inner = np.s_[2:-2, 2:-2]
        assert np.abs(seen[..., 0] - 2 * u)[inner].max() < 2
        assert np.abs(seen[..., 1] - 3 * v)[inner].max() < 3
        sides.add(side)
    assert sides == {1, -1}


def test_a_step_has_the_same_batch_again_and_processes_share_it(drive):
    clips = load_clips((VideoSource(str(drive)),), progress=False)
    whole = Triplets(clips, [1.0], (64, 32), 0.7, batch=4, seed=1)
    halves = [Triplets(clips, [1.0], (64, 32), 0.7, 4, 1, rank, 2) for rank in (0, 1)]
    for name, value in whole[5].items():
        assert torch.equal(value, whole[5][name])
        assert torch.equal(value[0::2], halves[0][5][name])
        assert torch.equal(value[1::2], halves[1][5][name])
    assert not torch.equal(whole[5]["images"], whole[6]["images"])


def test_three_frames_change_their_colours_together(drive):
    """The wall does not move where the camera stands, so its colours must stay those of each
    other."""
    clip = Clip({i: wall(0) for i in range(3)}, [(1, Camera(**camera()))], 1)
    changed = 0
    for step in range(8):
        batch = Triplets([clip], [1.0], (64, 32), 1.0, batch=1, seed=0)[step]
        assert torch.equal(batch["jittered"][:, 0], batch["jittered"][:, 2])
        changed += not torch.equal(batch["jittered"], batch["images"])
    assert 0 < changed < 8


class Says(torch.nn.Module):
    """A network whose answer is known."""

    def __init__(self, answer):
        super().__init__()
        self.answer = torch.nn.Parameter(answer)

    def forward(self, *inputs):
        return self.answer.expand(len(inputs[0]), *self.answer.shape[1:])


class Disparities(Says):
    def forward(self, x):
        return [super(Disparities, self).forward(x)[..., :: 2**s, :: 2**s] for s in range(4)]


def asked(drive, depth=WALL_M, motion=-STEP_M, still=False, focal_px=FOCAL, **changes):
    """The loss of a batch at this depth and motion of the points to the next frame."""
    disparity = (1 / depth - 1 / FARTHEST) / (1 / NEAREST - 1 / FARTHEST)
    network = Disparities(torch.full((1, 1, HEIGHT, WIDTH), disparity))
    pose = Says(torch.tensor([[0, 0, 0, motion, 0, 0.0]]))
    settings = settings_of(drive, **changes)
    fabric = make_fabric(settings.loop)
    images = [wall(0 if still else k * STEP_M) for k in (-1, 0, 1)]
    images = torch.from_numpy(np.stack(images))[None]
    matrix = torch.from_numpy(camera()["K"]).float()[None]
    batch = {"images": images, "jittered": images, "K": matrix}
    loss = video_loss(settings, pose, focal_px, fabric)(network, batch)
    return loss, network, pose


def test_loss_is_least_at_the_true_depth_and_motion(drive):
    assert asked(drive)[0].item() < 1e-5
    assert asked(drive, depth=3 * WALL_M, motion=-3 * STEP_M)[0].item() < 1e-5  # one scale of both
    assert asked(drive, depth=1.5 * WALL_M)[0].item() > 0.01
    assert asked(drive, motion=STEP_M)[0].item() > 0.01


def test_depth_is_that_of_the_canonical_focal_length(drive):
    """Half the canonical focal length: a network that says 1 m means 2."""
    assert asked(drive, depth=WALL_M / 2, focal_px=FOCAL / 2)[0].item() < 1e-5


def test_frames_that_do_not_change_teach_nothing_unless_asked_to(drive):
    loss, network, pose = asked(drive, still=True, smoothness=0.0)
    loss.backward()
    assert not network.answer.grad.any() and not pose.answer.grad.any()
    loss, network, pose = asked(drive, still=True, smoothness=0.0, automask=False)
    loss.backward()
    assert network.answer.grad.any() and pose.answer.grad.any()


def test_training_goes_on_as_if_it_had_not_ended_pose_included(drive, tmp_path):
    three = settings_of(drive, loop={"schedule": "constant"})
    two = replace(three, loop=replace(three.loop, steps=2))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    clips = video.load(three, progress=False)
    made, half = (train(s, out, clips) for s, out in ((three, whole), (two, parts)))
    before = load(half).network.state_dict()
    train(three, parts, clips)
    ended, goes_on = (read_tensors(folder / STATE)[0] for folder in (whole, parts))
    assert any(name.startswith("companion.encoder") for name in ended)
    assert all(torch.equal(ended[name], goes_on[name]) for name in ended)
    loaded = load(made)
    assert any(not torch.equal(before[k], v) for k, v in loaded.network.state_dict().items())
    assert loaded.network_name == "video_mobilenet_v2"
    assert loaded.spec == {
        "name": "video_mobilenet_v2",
        "metric": False,
        "multiple": 32,
        "focal_px": FOCAL,
        "pixels": WIDTH * HEIGHT,
    }


def test_without_a_size_images_keep_their_shape(drive):
    """About 304x224 pixels in the shape of 96x64, both multiples of 32."""
    assert video.size_for(settings_of(drive, size=(0, 0)), Camera(**camera())) == (320, 224)


def test_what_cannot_be_trained_is_refused_in_a_sentence(drive, tmp_path):
    with pytest.raises(ConfigError, match="expected a recording to learn from"):
        VideoSettings()
    with pytest.raises(ConfigError, match=r"multiples of 32, got \(100, 64\)"):
        settings_of(drive, size=(100, 64))
    with pytest.raises(ConfigError, match=r"monodepth2_resnet18, .*got fast_mobilenet_v2"):
        train(settings_of(drive, network="fast_mobilenet_v2"), tmp_path / "out")
    for file in sorted((drive / "rgb").iterdir()):
        cv2.imwrite(str(file), wall(0))
    with pytest.raises(DatasetError, match="three frames in a row of one moving camera"):
        train(settings_of(drive), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_trained_on_video_teaches_completion(drive, tmp_path):
    """The whole way: video → relative teacher → a network that takes a scan and gives metres."""
    teacher = train(settings_of(drive, loop={"steps": 1}), tmp_path / "teacher")
    export(teacher, teacher.with_suffix(".onnx"))
    settings = CompletionSettings(
        initial="",
        teacher=str(teacher.with_suffix(".onnx")),
        sources=(Source(str(drive), scan="height=0.2"),),
        focal_px=FOCAL,
        loop=LoopSettings(steps=1, batch=2, workers=0, precision="32-true", device="cpu"),
    )
    (stored,) = completion.labelled(settings, progress=False)
    assert len(stored) == 10 and all(s.teacher_mm.all() and not s.truth_mm.any() for s in stored)
    made = load(completion.train(settings, tmp_path / "completion", [stored]))
    assert made.spec["takes_points"] and made.spec.get("metric", True)
