"""The baselines of the reproduction of depth from video, and what its claims say."""

from dataclasses import replace

import numpy as np
import pytest

from mde_ros.config import ConfigError
from mde_ros.datasets import Sample
from mde_ros.frame import Camera, Frame
from mde_ros.reproduce import video
from mde_ros.reproduce.record import Record, ReproduceSettings

CAMERA = Camera(120, 80, np.array([[60.0, 0, 59.5], [0, 60, 30.0], [0, 0, 1]]))
IMAGE = np.zeros((80, 120, 3), np.uint8)


def test_level_road_is_a_plane_below_the_camera_that_ends_in_walls():
    depth = video.level_road(20.0)(Frame(IMAGE, CAMERA))
    assert (depth[:31] == 20).all()
    rows = np.arange(40, 80)
    y_m = (rows - 30) / 60 * depth[40:, 7]
    assert np.allclose(y_m, video.HEIGHT_M)


def test_scores_do_not_see_the_scale_and_count_in_the_crop_only():
    truth = np.tile(np.linspace(2, 30, 120, dtype=np.float32), (80, 1))
    test = [Sample(Frame(IMAGE, CAMERA), truth, "0"), Sample(Frame(IMAGE, CAMERA), None, "1")]
    outside = truth.copy()
    outside[:30] = 70  # above the crop, which begins at row 32
    assert video.score(lambda frame: outside / 7, test) == {
        "abs_rel": pytest.approx(0, abs=1e-6),
        "delta1": 1.0,
    }
    flat = video.score(video.constant, test)
    columns = truth[0, int(0.03594771 * 120) : int(0.96405229 * 120)]
    ratio = np.maximum(columns / np.median(columns), np.median(columns) / columns)
    assert flat["delta1"] == pytest.approx((ratio <= 1.25).mean(), abs=1e-6)


def test_claim_is_of_a_clear_gain():
    record = Record("video", "", "", ReproduceSettings())
    runs = {video.OURS: [{"delta1": 0.5}, {"delta1": 0.6}], video.CONSTANT: [{"delta1": 0.49}]}
    video.judge(record, runs, video.CONSTANT, "delta1")
    runs[video.CONSTANT][0]["delta1"] = 0.51
    video.judge(record, runs, video.CONSTANT, "delta1")
    assert [claim["holds"] for claim in record.claims] == [True, False]


def test_both_recordings_are_asked_for_by_name_and_full_scale_is_as_published():
    with pytest.raises(ConfigError, match="drive=PATH"):
        video.run(ReproduceSettings(data=("video=x",)))
    settings = ReproduceSettings(data=("video=x", "drive=y"))
    assert video.settings_of(settings, 3).loop.seed == 3
    full = video.settings_of(replace(settings, scale="full"), 0)
    assert full.network == "monodepth2_resnet18" and full.size == (640, 192)
    assert full.initial == "imagenet" and full.loop.batch == 12
