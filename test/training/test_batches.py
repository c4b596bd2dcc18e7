"""Batches: the same for the same step, shared among processes, at the canonical scale."""

import cv2
import numpy as np
import pytest
import torch

from mde_ros.config import ConfigError
from mde_ros.datasets.transforms import View
from mde_ros.frame import Camera, Frame
from mde_ros.training.batches import (
    SHORT_SIDE,
    Batches,
    Source,
    Stored,
    load_sources,
    loader,
    shrink,
)


def camera(width=16, height=12, focal=20.0):
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    return Camera(width, height, K)


def stored(value, focal=20.0):
    image = np.full((12, 16, 3), value, np.uint8)
    depth = np.full((12, 16), 2000, np.uint16)
    return Stored(image, depth, depth * 2, camera(focal=focal))


def noisy(view, rng, width, height):
    """An augmentation whose randomness shows in every pixel, at the size that is asked for."""
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    image[0, 0] = view.image[0, 0]
    return View(image, view.truth_m, view.teacher_m, view.camera)


def make(sources=None, weights=(1.0,), augment=noisy, sizes=((16, 12),), batch=5, **options):
    sources = sources or [[stored(i) for i in range(9)]]
    return Batches(sources, list(weights), augment, sizes, 40.0, batch, 3, **options)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_step_has_the_same_batch_whenever_it_is_asked_for():
    one, two = make(), make()
    batch = one[7]
    assert same(batch, two[7]) and same(batch, one[7])
    assert not torch.equal(batch["image"], one[8]["image"])


@pytest.mark.parametrize("world", [2, 3])
def test_shares_of_the_processes_interleave_to_the_whole_batch(world):
    whole = make()[4]
    shares = [make(rank=r, world=world)[4] for r in range(world)]
    for key in whole:
        for i in range(5):
            assert torch.equal(whole[key][i], shares[i % world][key][i // world])
    assert sum(len(s["image"]) for s in shares) == 5


def test_depth_is_scaled_to_the_canonical_focal_length_and_images_are_left():
    """Canonical 40 px, camera 20 px: the network is to see everything twice as far."""
    batch = make(augment=lambda view, rng, w, h: view)[0]
    assert batch["image"].dtype == torch.uint8 and batch["image"].shape == (5, 12, 16, 3)
    assert batch["truth"].dtype == batch["teacher"].dtype == torch.float32
    assert torch.equal(batch["truth"], torch.full((5, 1, 12, 16), 4.0))
    assert torch.equal(batch["teacher"], torch.full((5, 1, 12, 16), 8.0))


def test_all_images_of_a_batch_have_one_of_the_sizes_and_every_size_comes():
    batches = make(sizes=((16, 12), (12, 16), (20, 8)))
    seen = {tuple(batches[step]["image"].shape[1:3]) for step in range(30)}
    assert seen == {(12, 16), (16, 12), (8, 20)}


def test_sources_are_drawn_by_their_weights():
    sources = [[stored(1)], [stored(2)], [stored(3)]]
    batches = make(sources, (3.0, 1.0, 0.0), batch=40)
    drawn = torch.cat([batches[step]["image"][:, 0, 0, 0] for step in range(20)])
    numbers = torch.cat([batches[step]["source"] for step in range(20)])
    assert set(drawn.tolist()) == {1, 2}
    assert torch.equal(numbers + 1, drawn)
    assert (drawn == 1).float().mean().item() == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_gives_the_asked_steps_in_order(workers):
    batches = make()
    loaded = list(loader(batches, 3, 6, workers))
    assert len(loaded) == 3
    assert all(same(batch, batches[step]) for step, batch in zip(range(3, 6), loaded))


def test_large_images_shrink_with_their_camera_and_small_ones_stay():
    big = Frame(np.zeros((960, 1280, 3), np.uint8), camera(1280, 960, 900.0))
    truth = np.zeros((960, 1280), np.float32)
    truth[:, 640:] = 3.0
    frame, small = shrink(big, truth)
    assert frame.image.shape == (SHORT_SIDE, 427, 3) and small.shape == (SHORT_SIDE, 427)
    assert frame.camera.focal_px == pytest.approx(300, rel=1e-3)
    assert set(np.unique(small)) == {0.0, 3.0}
    tiny = Frame(np.zeros((12, 16, 3), np.uint8), camera())
    assert shrink(tiny, None)[0] is tiny and not shrink(tiny, None)[1].any()


def test_sources_are_read_without_what_is_held_out_and_labelled_where_asked(
    plane_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("ROOMS", str(plane_folder("room", 5).parent))
    cv2.imwrite(str(tmp_path / "lone.png"), np.zeros((48, 64, 3), np.uint8))
    (tmp_path / "photos").mkdir()
    (tmp_path / "lone.png").rename(tmp_path / "photos/lone.png")
    sources = (
        Source("$ROOMS/room", skip_last=2),
        Source(str(tmp_path / "photos")),
        Source("$ROOMS/room", teacher=False),
        Source("$ROOMS/room", skip_last=4, truth=False),
    )
    seen = []

    def teacher(frame):
        seen.append(frame.image.shape)
        return np.full(frame.image.shape[:2], 7.0)

    room, photos, unlabelled, untrue = load_sources(sources, teacher, progress=False)
    assert [len(s) for s in (room, photos, unlabelled, untrue)] == [3, 1, 5, 1]
    assert len(seen) == 5
    assert not untrue[0].truth_mm.any() and (untrue[0].teacher_mm == 7000).all()
    assert (room[0].teacher_mm == 7000).all() and (photos[0].teacher_mm == 7000).all()
    assert not unlabelled[0].teacher_mm.any() and not photos[0].truth_mm.any()
    assert np.array_equal(room[0].truth_mm, unlabelled[0].truth_mm) and room[0].truth_mm.any()


@pytest.mark.parametrize("teacher", [None, lambda frame: 1 / 0])
def test_source_from_which_nothing_can_be_learnt_is_refused_before_the_teacher_begins(
    plane_folder, teacher
):
    folder = plane_folder("photos", 3)
    for file in (folder / "depth").iterdir():
        file.unlink()
    labelled = Source(str(plane_folder("room", 3)))
    unlabelled = Source(str(folder), teacher=False)
    with pytest.raises(ConfigError, match=r"sources: expected measured depth in .*photos"):
        load_sources((labelled, unlabelled), teacher, progress=False)
    untrue = Source(labelled.path, teacher=False, truth=False)
    with pytest.raises(ConfigError, match=r"sources: expected measured depth in .*room"):
        load_sources((labelled, untrue), teacher, progress=False)


def test_source_of_which_nothing_is_left_is_refused(plane_folder):
    source = Source(str(plane_folder("room", 3)), skip_last=3)
    with pytest.raises(ConfigError, match=r"skip_last: 3 leaves none of the 3 frames of .*room"):
        load_sources((source,), None, progress=False)


def test_weights_that_draw_nothing_are_refused():
    with pytest.raises(ConfigError, match="weight: expected one above 0"):
        make(weights=(0.0,))
