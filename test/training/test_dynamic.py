"""Mining supervision for dynamic regions: every stage by planted answers (METHODS 8 and 11)."""

import json
import math
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from mde_ros.checkpoint import load
from mde_ros.config import ConfigError
from mde_ros.networks.motion import LightScaleNet
from mde_ros.photometric import project, transform, unproject
from mde_ros.training import dynamic_mining
from mde_ros.training.dynamic import DynamicSettings, train
from mde_ros.training.dynamic_frames import Frames, TripletBatches, read_npz
from mde_ros.training.dynamic_masks import (
    carried,
    decide,
    found_masks,
    ground_plane,
    heights,
    instance_masks,
    optical_flow,
    residual_size,
)
from mde_ros.training.dynamic_objects import (
    dynamic_loss,
    of_mean_one,
    pseudo_label,
    scale_loss,
    scales,
)
from mde_ros.training.dynamic_scene import (
    SceneLoss,
    compare,
    forward_warp,
    own_motions,
    sparsity,
)
from mde_ros.training.loop import LoopSettings
from mde_ros.training.triplets import VideoSource

H, W = 32, 64
K = torch.tensor([[[50.0, 0, 31.5], [0, 50.0, 15.5], [0, 0, 1]]])


def texture(seed=0, height=H, width=W):
    """Smooth random colours (1, 3, h, w) in 0..1."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 4, width // 4, generator=rng)
    return nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def moved(x=0.0, y=0.0, z=0.0):
    T = torch.eye(4)[None]
    T[0, :3, 3] = torch.tensor([x, y, z])
    return T


# ------------------------------------------------------------------------------------ the scene


def test_a_frame_warped_forward_lies_where_its_points_are_seen():
    """A wall at 10 m, the camera 1 m to the left: all of it moves 5 pixels to the right."""
    image, depth = texture(), torch.full((1, 1, H, W), 10.0)
    shown, came = forward_warp(image, depth, moved(x=1.0), K)
    assert torch.allclose(shown[..., 5:], image[..., :-5], atol=1e-5)
    assert came[..., 5:].all() and not came[..., :5].any()


def test_of_two_points_on_one_pixel_the_nearer_is_seen():
    depth = torch.full((1, 1, H, W), 10.0)
    near = torch.zeros(1, 1, H, W, dtype=torch.bool)
    near[..., 10:20, 10:16] = True
    depth[near] = 5.0
    values = torch.where(near, 1.0, 0.0)
    shown, _ = forward_warp(values, depth, moved(x=1.0), K)  # 10 pixels against 5
    expected = torch.zeros(1, 1, H, W)
    expected[..., 10:20, 20:26] = 1
    assert torch.equal(shown, expected)


class Planted(nn.Module):
    """A motion network that always says the same."""

    def __init__(self, motion):
        super().__init__()
        self.motion = motion

    def forward(self, warped, source):
        return self.motion


def test_motion_is_kept_where_it_is_above_the_mean_and_both_neighbours_have_some():
    depth, images = torch.full((1, 1, H, W), 10.0), [texture()] * 3
    said = torch.full((1, 2, H, W), 0.01)
    said[..., 8:16, 20:30] = 3.0
    kept, raw = own_motions(Planted(said), images, depth, [moved(), moved()], K)
    for motion in kept:
        assert torch.allclose(motion[..., 9:15, 21:29], torch.tensor(3.0))
        assert (motion[..., 17:, :] == 0).all() and (motion[..., :19] == 0).all()
    assert raw[0] is said

    class OneSided(nn.Module):
        calls = 0

        def forward(self, warped, source):
            self.calls += 1
            return said if self.calls == 1 else torch.zeros_like(said)

    kept, _ = own_motions(OneSided(), images, depth, [moved(), moved()], K)
    assert all((motion == 0).all() for motion in kept)


class Wall(nn.Module):
    """A depth network that sees one depth."""

    def forward(self, x):
        return torch.full((len(x), 1, H // 2, W // 2), 4.0)


class Forward(nn.Module):
    """A pose network: the camera goes 1 ahead from each frame to the next."""

    def forward(self, first, second):
        return torch.tensor([[0, 0, 0, 0, 0, -1.0]]).expand(len(first), 6)


def test_residual_flow_is_the_motion_over_depth_and_nothing_without_motion():
    images = (255 * torch.rand(3, H, W, 3)).to(torch.uint8).numpy()

    def look(motion):
        said = torch.zeros(1, 2, H, W)
        said[..., 8:24, 16:48] = motion
        scene = dynamic_mining.Scene(Wall(), Forward(), Planted(said), float(K[0, 0, 0]))
        scene.depth.register_parameter("p", nn.Parameter(torch.zeros(1)))
        return scene.look(images, K[0].numpy(), "network")

    depth, flow, residual = look(6.0)
    assert depth == pytest.approx(4.0)
    # At t + 1 the wall is at 3 m, at t - 1 it was at 5 m.
    inner = residual[:, :, 12:20, 24:40]
    assert inner[0] == pytest.approx(6 / 5, abs=1e-4) and inner[1] == pytest.approx(2, abs=1e-4)
    assert (look(0.0)[2] == 0).all()
    u = np.arange(W) - 31.5
    rigid = flow - residual
    assert rigid[1, 0] == pytest.approx(np.tile(u / 3, (H, 1)), abs=1e-3)


def test_one_large_motion_costs_less_than_the_same_sum_spread_out():
    spread, one = torch.full((1, 2, H, W), 1.0), torch.zeros(1, 2, H, W)
    one[0, 0, 0, 0] = spread.sum()
    assert sparsity(one) < sparsity(spread)
    assert sparsity(torch.zeros(1, 2, H, W)) < 1e-4


def test_true_depth_and_motion_have_less_error_than_wrong_ones_and_identical_frames_none():
    """A wall at 10 m seen from three places: disparity 0.0090 is 10 m of the canonical camera."""
    right = (1 / 10 - 1 / 100) / (1 / 0.1 - 1 / 100)
    image = texture(3, H, W + 40)
    frames = [image[..., 20 + s : 20 + s + W] for s in (-5, 0, 5)]
    T = [moved(x=-1.0), moved(x=1.0)]  # the frame at t + 1 shows things 5 pixels farther left
    T = [T[1], T[0]]
    focal = float(K[0, 0, 0])

    def error(disparity, of=frames, poses=T):
        maps = [torch.full((1, 1, H // 2, W // 2), disparity)]
        return float(compare(maps, of, poses, K, focal, None, 0.0))

    assert error(right) < 0.2 * min(error(2 * right), error(0.4 * right))
    # Where nothing changes the automask leaves nothing over, whatever depth and motion say.
    assert error(right, [frames[1]] * 3) == 0
    assert error(right, [frames[1]] * 3, [moved(), moved()]) == 0


# ------------------------------------------------------------------------------------- objects


def test_an_object_is_dynamic_if_half_of_it_moved_a_pixel_or_it_stands_in_the_middle():
    masks = np.zeros((4, H, 80), bool)
    masks[0, 5:15, 5:15] = True  # half of it moves
    masks[1, 5:15, 20:30] = True  # a little less than half
    masks[2, 5:15, 60:70] = True  # all of it, but by less than a pixel
    masks[3, 5:15, 32:39] = True  # nothing, in the middle band of 4 pixels
    residual = np.zeros((H, 80), np.float32)
    residual[5:10, 5:15] = 1.0
    residual[5:10, 20:30] = 1.0
    residual[5, 20] = 0.99
    residual[5:15, 60:70] = 0.99
    level = np.zeros_like(residual)
    assert decide(masks, residual, level).tolist() == [True, False, False, True]
    masks[3, :, 38] = False  # columns 38 to 41 are the band
    assert not decide(masks, residual, level)[3]
    assert decide(masks[:0], residual, level).shape == (0,)


def test_residual_is_the_mean_of_both_neighbours_and_none_where_it_is_a_small_share_of_the_flow():
    residual, flow = np.zeros((2, 2, 2, 1, 3))
    residual[0, :, 0], residual[1, :, 0] = [[2], [-1]], [[0], [5]]  # |.|₁ of 3 and 5: 4
    flow[:, 0, 0] = [9, 11, 0]
    assert residual_size(residual, flow, 0.0).tolist() == [[4, 4, 4]]
    assert residual_size(residual, flow, 0.4).tolist() == [[4, 0, 4]]


def test_what_lies_below_the_ground_is_dynamic_even_if_it_does_not_move_in_the_image():
    masks, height = np.zeros((2, H, 80), bool), np.full((H, 80), 0.2)
    masks[0, 5:15, 5:15], masks[1, 5:15, 60:70] = True, True
    height[5:10, 5:15], height[5:9, 60:70] = -0.2, -0.2
    assert decide(masks, np.zeros((H, 80)), height).tolist() == [True, False]


def test_instances_become_masks_unless_they_are_small_or_of_another_kind():
    instance = np.zeros((40, 50), np.uint16)
    instance[:10, :10], instance[20:30, :10], instance[35, :9] = 3, 7, 9  # 9 px < 0.5 % = 10 px
    masks = instance_masks(instance)
    assert [m.sum() for m in masks] == [100, 100]
    assert np.array_equal(instance_masks(instance, np.array([7, 9])), (instance == 7)[None])


def test_optical_flow_carries_a_mask_to_where_its_object_went():
    background = (255 * texture(5, 64, 128)[0].permute(1, 2, 0).numpy()).astype(np.uint8)
    thing = (255 * texture(6, 64, 128)[0].permute(1, 2, 0).numpy()).astype(np.uint8)
    before, after = background.copy(), background.copy()
    before[20:44, 30:60], after[22:46, 36:66] = thing[20:44, 30:60], thing[20:44, 30:60]
    mask, there = np.zeros((2, 64, 128), bool)
    mask[20:44, 30:60], there[22:46, 36:66] = True, True
    arrived = carried(mask, optical_flow(before, after))
    assert (arrived & there).sum() / (arrived | there).sum() > 0.85


def street(camera_height=1.5, wall=30.0):
    """Depth (h, w) of a level street to a wall, a car ahead whose depth is right, and its mask."""
    v = np.arange(H)[:, None] - 15.5 + 0 * np.arange(W)
    with np.errstate(divide="ignore"):
        depth = np.where(v > 0, np.minimum(50.0 * camera_height / np.maximum(v, 1e-6), wall), wall)
    car = np.zeros((H, W), bool)
    car[14:24, 40:52] = True  # its lower edge meets the street at 9 m
    depth[car] = 9.0
    return depth.astype(np.float32), car


def test_the_ground_is_found_by_its_plane_and_a_car_stands_on_it():
    depth, car = street(1.5)
    assert ground_plane(depth, K[0].numpy()) == pytest.approx([0, 1 / 1.5, 0], abs=0.01)
    height = heights(depth, K[0].numpy())
    assert height[20:, :38] == pytest.approx(0, abs=0.02)
    rows = np.arange(14, 24)  # at 9 m, of a camera 1.5 m high
    assert height[14:24, 45] == pytest.approx(1 - (rows - 15.5) / 50 * 9 / 1.5, abs=0.02)
    depth[car] = 80.0  # too far away: below the ground
    assert (heights(depth, K[0].numpy())[car][-12:] < -3).all()


def test_objects_that_nobody_marked_are_found_by_motion_by_impossible_depth_and_by_standing():
    depth, car = street()
    still, moves = np.zeros((2, H, W), np.float32)
    moves[car] = 4.0
    far = np.zeros((H, W), bool)
    far[18:26, 10:22] = True
    depth[far] = 60.0  # it keeps our speed and is taken to be far away: below the ground
    height = heights(depth, K[0].numpy())

    def dynamic(residual, wanted):
        """Whether the object that is most like the wanted one is dynamic."""
        masks = found_masks(depth, height, residual)
        overlaps = (masks & wanted).sum((1, 2)) / (masks | wanted).sum((1, 2))
        assert overlaps.max() > 0.6
        return decide(masks, residual, height)[overlaps.argmax()]

    assert dynamic(still, far) and not dynamic(still, car) and dynamic(moves, car)


# ------------------------------------------------------------------------------ scale and label


def test_the_scale_network_recovers_the_scale_of_objects_it_has_not_seen():
    """A slanted plate on the ground at a depth that only the ground under it tells."""
    rng = np.random.default_rng(0)

    def scene(n):
        ground, shape, full = np.zeros((3, n, 1, H, W), np.float32)
        beta = np.zeros(n)
        for i in range(n):
            rows = np.arange(16, H)
            ground[i, 0, rows] = (50 * 1.5 / (rows - 15.5))[:, None]
            last, left = rng.integers(20, H - 1), rng.integers(0, W - 20)
            beta[i] = ground[i, 0, last, 0]
            box = np.s_[i, 0, max(0, last - 12) : last, left : left + 20]
            shape[box] = np.linspace(0.9, 1.1, 20)
            ground[box] = 0
            full[box] = shape[box] * beta[i]
        images = np.full((n, 3, H, W, 3), 128, np.uint8)
        maps = {"images": images, "ground": ground, "shape": shape, "scene": full}
        return {k: torch.from_numpy(v) for k, v in maps.items()}, beta

    torch.manual_seed(0)
    network = LightScaleNet()
    adam = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(60):
        batch, _ = scene(12)
        adam.zero_grad()
        scale_loss(network, batch).backward()
        adam.step()
    batch, beta = scene(32)
    said = torch.cat(
        [
            scales(network.eval(), i[1].permute(2, 0, 1) / 255, g, s[None])
            for i, g, s in zip(batch["images"], batch["ground"], batch["shape"])
        ]
    ).numpy()
    assert np.median(np.abs(said - beta) / beta) < 0.05


def test_the_loss_of_the_scale_is_nothing_at_the_planted_scale():
    shape, ground = torch.zeros(2, 1, 1, H, W)
    shape[..., 5:9, 5:9] = torch.linspace(0.8, 1.2, 4)
    batch = {
        "images": torch.zeros(1, 3, H, W, 3, dtype=torch.uint8),
        "ground": ground,
        "shape": shape,
        "scene": torch.where(shape > 0, 6.5 * shape, torch.tensor(40.0)),
    }

    def at(beta):
        return float(scale_loss(lambda x: torch.tensor([math.log(beta)]), batch))

    assert at(6.5) == pytest.approx(0, abs=1e-9)
    # Huber beyond δ: δ (|e| - δ/2), of a share of 6.5, and the mean of D^o is 1.
    assert at(7.5) == pytest.approx(0.005 * (1 / 6.5 - 0.0025), rel=1e-4)


def test_a_scene_twice_as_large_has_objects_twice_as_large():
    torch.manual_seed(1)
    network, rng = LightScaleNet().eval(), torch.Generator().manual_seed(1)
    ground, shape = 3 + torch.rand(1, H, W, generator=rng), torch.zeros(2, 1, H, W)
    shape[:, :, 5:9, 5:9] = 1
    one, two = (scales(network, texture()[0], factor * ground, shape) for factor in (1.0, 2.0))
    assert torch.allclose(two, 2 * one) and one.shape == (2,)


def test_shapes_have_mean_one_inside_their_masks():
    masks = torch.zeros(2, 1, H, W, dtype=torch.bool)
    masks[0, 0, :4, :4], masks[1, 0, 10:20, 30:50] = True, True
    shapes = of_mean_one(3 + 5 * torch.rand(2, 1, H, W), masks)
    assert [float(s[m].mean()) for s, m in zip(shapes, masks)] == pytest.approx([1, 1], abs=1e-5)
    assert (shapes[~masks] == 0).all()


def test_where_objects_overlap_the_pseudo_label_takes_the_nearer_and_the_scene_elsewhere():
    scene = np.full((4, 6), 20.0, np.float32)
    shapes = np.zeros((2, 4, 6), np.float32)
    shapes[0, :, 1:4], shapes[1, :, 3:5] = 1.0, 1.0
    label = pseudo_label(scene, shapes, np.array([8.0, 5.0]))
    assert np.array_equal(label, np.tile(np.array([20, 8, 8, 5, 5, 20], np.float32), (4, 1)))
    farther = pseudo_label(np.full((4, 6), 2.0), shapes, np.array([8.0, 5.0]))
    assert (farther[:, 1:5] > 2).all()  # what the scene says of a moving thing is not asked
    assert np.array_equal(pseudo_label(scene, shapes[:0], np.zeros(0)), scene)


def test_l_dyn_does_not_change_with_the_scale_of_the_labels_and_counts_dynamic_pixels_alone():
    rng = torch.Generator().manual_seed(4)
    disparities = [torch.rand(2, 1, h, 2 * h, generator=rng) * 0.02 + 0.002 for h in (32, 16)]
    label = 5 + 10 * torch.rand(2, 1, H, W, generator=rng)
    moving = torch.zeros(2, 1, H, W, dtype=torch.bool)
    moving[..., 10:20, 10:30] = True
    loss = dynamic_loss(disparities, label, moving)
    assert loss > 0.1
    for factor in (0.05, 7.0):
        assert dynamic_loss(disparities, factor * label, moving) == pytest.approx(
            float(loss), rel=1e-4
        )
    assert dynamic_loss(disparities, label, torch.zeros_like(moving)) == 0
    exact = 1 / (1 / 100 + (10 - 1 / 100) * disparities[0])
    assert dynamic_loss(disparities[:1], 3 * exact, moving) < 1e-5


def test_points_that_move_with_the_camera_do_not_move_in_its_image():
    """What the whole method is for: such a thing is explained by a depth without end."""
    depth = torch.full((1, 1, H, W), 10.0)
    there, _ = project(transform(moved(), unproject(depth, K)), K)
    endless, _ = project(transform(moved(z=-1.0), unproject(1e6 * depth, K)), K)
    assert torch.allclose(there, endless, atol=1e-3)


# ----------------------------------------------------------------------------------- the stages


SHORT = LoopSettings(
    steps=2, batch=2, lr=1e-4, encoder_lr=1e-4, optimizer="adam", warmup=0, ema=0.0, workers=0,
    threads=1, precision="32-true",
)  # fmt: skip


def write_clip(folder, seed):
    """Five frames of a wall that goes by to the left, and two marked things, one of them a car."""
    (folder / "rgb").mkdir(parents=True)
    (folder / "instance").mkdir()
    wide = (255 * texture(seed, 64, 192)[0].permute(1, 2, 0).numpy()).astype(np.uint8)
    instance = np.zeros((64, 96), np.uint16)
    instance[20:50, 10:30], instance[30:60, 60:90] = 1, 2
    for i in range(5):
        cv2.imwrite(str(folder / f"rgb/{i}.png"), wide[:, 8 * i : 8 * i + 96])
        cv2.imwrite(str(folder / f"instance/{i}.png"), instance)
    keys = {"fx": 70, "fy": 70, "cx": 47.5, "cy": 31.5, "width": 96, "height": 64}
    (folder / "intrinsics.json").write_text(json.dumps(keys))
    np.savez(folder / "scan.npz", object_names=np.array(["car", "person"]))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("video")
    for seed in (1, 2):
        write_clip(folder / f"clip{seed}", seed)
    return folder


def settings_for(videos, **changes):
    options = {
        "initial": "",
        "sources": (VideoSource(str(videos), still=0.0),),
        "size": (64, 32),
        "keep": "top",
        "objects": "marked",
        "flow_by": "images",
        "scene_loss": SceneLoss(settle=1, motion_alone=1, scales=2),
        **dict.fromkeys(("scene", "shapes", "scales", "final"), SHORT),
    }
    return DynamicSettings(**{**options, **changes})


@pytest.fixture(scope="module")
def trained(videos, tmp_path_factory):
    """All stages once; of two steps each, so that what moves is planted: every second object."""
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_mining, "decide", lambda masks, *_: np.arange(len(masks)) % 2 > 0)
        return train(settings_for(videos), out), out


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_frames_on_disk_are_those_of_the_video_and_K_follows_the_window(trained, videos):
    frames = Frames(trained[1] / "frames")
    assert len(frames) == 6 and len(frames.images) == 10  # three triplets of two clips
    image = cv2.imread(str(videos / "clip2/rgb/2.png"))[..., ::-1]
    index = frames.names.index("clip2/2")
    expected = cv2.resize(image[:48], (64, 32), interpolation=cv2.INTER_AREA)  # the top rows
    assert np.array_equal(frames.images_of(index)[1], expected)
    assert frames.K[index, 0, 0] == pytest.approx(70 * 2 / 3)
    assert frames.K[index, 1, 2] == pytest.approx((31.5 + 0.5) * 2 / 3 - 0.5)


def test_batches_mirror_images_maps_and_K_together(trained):
    frames = Frames(trained[1] / "frames")
    ramp = np.tile(np.arange(64, dtype=np.float32), (32, 1))
    batches = TripletBatches(frames, [(3, 0)], [1.0], 8, 0, lambda *entry: {"column": ramp})
    batch = batches[0]
    flipped = batch["column"][:, 0, 0, 0] == 63
    assert 0 < flipped.sum() < 8
    for images, K, mirrored in zip(batch["images"], batch["K"], flipped):
        wanted = frames.images_of(3)
        assert np.array_equal(images.numpy(), wanted[:, :, ::-1] if mirrored else wanted)
        cx = float(frames.K[3, 0, 2])
        assert K[0, 2] == pytest.approx(63 - cx if mirrored else cx)
    again = batches[0]
    assert all(torch.equal(batch[k], again[k]) for k in batch)


def test_sources_are_drawn_from_by_their_weights_however_many_objects_they_have(trained):
    frames = Frames(trained[1] / "frames")
    frames.origin = np.array([[0, 1], [0, 2], [0, 3], [0, 4], [0, 5], [1, 1]])
    drawn = []

    def maps(index, number):
        drawn.append((index, number))
        return {}

    batches = TripletBatches(frames, [(i, 7) for i in range(6)], [1.0, 3.0], 800, 0, maps)
    batches[0]
    assert {number for _, number in drawn} == {7}
    assert drawn.count((5, 7)) / 800 == pytest.approx(0.75, abs=0.05)


def test_labels_replace_moving_objects_and_nothing_else(trained):
    _, out = trained
    frames = Frames(out / "frames")
    for name in frames.names:
        found = read_npz(out / "round-1/objects" / f"{name}.npz")
        label = read_npz(out / "round-1/labels" / f"{name}.npz")
        assert found["dynamic"].tolist() == [False, True]
        assert np.array_equal(label["moving"], found["masks"][1, 1])
        still = ~label["moving"]
        assert np.array_equal(label["depth"][still], found["depth"][still])
        inside = read_npz(out / "round-1/shapes" / f"{name}.npz")["shapes"]
        assert inside.size == found["masks"][:, 1].sum()
        assert not found["ground"][found["masks"].any(0)[1]].any()


def test_the_last_model_is_relative_and_remembers_its_lens(trained):
    path, out = trained
    made = load(path)
    assert path == out / "round-1/final/model.safetensors"
    assert made.spec["metric"] is False and made.spec["pixels"] == 64 * 32
    assert made.spec["focal_px"] == pytest.approx(70 * 2 / 3)


def test_stages_that_were_interrupted_are_done_again_with_the_same_result(
    trained, videos, tmp_path, monkeypatch
):
    """Half of each stage's files are gone, and the same command goes on: all files as they were."""
    monkeypatch.setattr(dynamic_mining, "decide", lambda masks, *_: np.arange(len(masks)) % 2 > 0)
    out = tmp_path / "out"
    shutil.copytree(trained[1], out)
    for stage in ("objects", "shapes", "scale-net", "labels"):
        files = sorted(p for p in (out / "round-1" / stage).rglob("*") if p.is_file())
        for file in files[: (len(files) + 1) // 2]:
            file.unlink()
    (out / "round-1/final/state.safetensors").unlink()
    train(settings_for(videos), out)
    before, after = contents(trained[1]), contents(out)
    assert before.keys() == after.keys()
    assert [str(k) for k in before if before[k] != after[k]] == []


def test_stages_end_where_they_are_told_to_and_rounds_follow_each_other(
    trained, videos, tmp_path, monkeypatch
):
    monkeypatch.setattr(dynamic_mining, "decide", lambda masks, *_: np.arange(len(masks)) % 2 > 0)
    out = tmp_path / "out"
    path = train(settings_for(videos, until="scene"), out)
    assert path == out / "scene/model.safetensors" and not (out / "round-1").exists()
    assert contents(out / "scene") == contents(trained[1] / "scene")
    path = train(settings_for(videos, rounds=2), out)
    assert path == out / "round-2/final/model.safetensors"
    assert contents(out / "round-1/labels") == contents(trained[1] / "round-1/labels")
    name = "round-2/objects/clip1/2.npz"
    first = read_npz(out / name.replace("round-2", "round-1"))["depth"]
    assert not np.array_equal(read_npz(out / name)["depth"], first)  # by the final networks


def test_a_round_that_was_mined_with_other_networks_is_not_gone_on_with(trained, videos, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(trained[1], out)
    longer = replace(SHORT, steps=3)
    with pytest.raises(ConfigError, match="mined with another state of it; delete the folder"):
        train(settings_for(videos, scene=longer), out)


def test_without_an_object_that_stands_still_the_error_says_so(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic_mining, "decide", lambda masks, *_: np.ones(len(masks), bool))
    with pytest.raises(ConfigError, match="expected some that stand still"):
        train(settings_for(videos), tmp_path)


def test_instances_are_asked_for_where_there_are_none(videos, tmp_path):
    shutil.copytree(videos, tmp_path / "plain")
    for clip in (tmp_path / "plain").iterdir():
        shutil.rmtree(clip / "instance")
    with pytest.raises(ConfigError, match="expected a mask of clip1/1, found none"):
        train(settings_for(tmp_path / "plain"), tmp_path / "out")
