"""The reproduction of mining supervision: what is scored, and when its claims hold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mde_ros.datasets import Sample
from mde_ros.frame import Camera, Frame, Prediction
from mde_ros.reproduce import dynamic
from mde_ros.reproduce.record import Record, ReproduceSettings

CAMERA = Camera(64, 48, np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]]))


def test_what_moves_and_what_stands_share_the_one_median_ratio_of_all_pixels(monkeypatch):
    """All is half as far as it is, and what moves, a tenth of the image, a quarter."""
    truth, moving = np.full((48, 64), 8.0, np.float32), np.zeros((48, 64), bool)
    moving[10:20, 10:40] = True
    said = np.where(moving, 2.0, 4.0).astype(np.float32)
    monkeypatch.setattr(dynamic, "DepthPipeline", lambda options: lambda frame: Prediction(said))
    frame = Frame(np.zeros((48, 64, 3), np.uint8), CAMERA)
    figures = dynamic.score("model", [Sample(frame, truth, "0", moving)])
    assert figures == {
        "static_scaled abs_rel": pytest.approx(0, abs=1e-6),
        "static_scaled delta1": 1,
        "dynamic_scaled abs_rel": pytest.approx(0.5),
        "dynamic_scaled delta1": 0,
    }


@pytest.mark.parametrize(
    ("moving", "standing", "hold"),
    [
        (0.28, 0.20, [True, True]),
        (0.29, 0.20, [True, False]),  # it falls, but not clearly
        (0.20, 0.205, [False, True]),  # what stands got worse
    ],
)
def test_claims_hold_when_the_dynamic_error_falls_clearly_and_the_static_one_stays(
    moving, standing, hold
):
    def scores(m, s):
        return [
            {
                f"{part} {key}": e + d
                for part, e in zip(dynamic.PARTS, (s, m))
                for key in dynamic.KEYS
            }
            for d in (-0.01, 0.01)
        ]

    record = Record("x", "X", "X", ReproduceSettings())
    before, after = scores(0.30, 0.20), scores(moving, standing)
    dynamic.judge(record, "drives", {dynamic.BEFORE: before, dynamic.AFTER: after})
    assert [claim["holds"] for claim in record.claims] == hold


def test_every_stage_of_a_seed_has_that_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic, "scenes", lambda *a, **k: tmp_path)
    monkeypatch.setattr(dynamic, "open_dataset", lambda path: path)
    options, _ = dynamic.simulated(ReproduceSettings(), "drives")
    seeded = dynamic.seeded(options, 7)
    loops = (seeded.scene, seeded.shapes, seeded.scales, seeded.final)
    assert [loop.seed for loop in loops] == [7] * 4
    assert seeded == replace(
        options, scene=loops[0], shapes=loops[1], scales=loops[2], final=loops[3]
    )


def test_the_full_scale_is_the_published_preset_on_the_data_that_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic, "open_dataset", lambda path: path)
    preset = Path(__file__).parents[1] / "config/train/dynamic-published.yaml"
    data = ("train=/t", "val=/v", f"preset={preset}")
    options, test = dynamic.cityscapes(ReproduceSettings(scale="full", data=data))
    assert (options.sources[0].path, test, options.objects) == ("/t", "/v", "found")
    assert (options.size, options.scene.steps, options.scene.lr) == ((512, 192), 87_165, 2e-4)
    assert options.scene_loss.settle == 5811 and options.final.lr == 2e-5 and not options.light
    options, _ = dynamic.cityscapes(ReproduceSettings(scale="full", data=(*data, "masks=/m")))
    assert (options.objects, options.masks) == ("marked", "/m")
