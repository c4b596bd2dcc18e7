"""Evaluation against models and data whose right numbers are known beforehand."""

import json
import os
import signal
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from mde_ros.config import ConfigError, build
from mde_ros.evaluation.evaluate import (
    EvaluateSettings,
    EvaluationError,
    evaluate,
    run_evaluate,
    until_ctrl_c,
)
from mde_ros.evaluation.pictures import load_pictures, save_pictures, take_pictures
from mde_ros.evaluation.results import (
    ResultsError,
    latency_summary,
    load_results,
    print_table,
    write_json,
)
from mde_ros.evaluation.score import Scorer, ScoreSettings
from mde_ros.frame import Camera, Frame, Prediction

W, H = 64, 48
CAMERA = Camera(W, H, np.array([[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1.0]]))


@dataclass
class Sample:
    frame: Frame
    truth_m: np.ndarray | None
    name: str


def scene(seed: int) -> np.ndarray:
    """A slope with a box in front of it; every seventh column is a hole."""
    rng = np.random.default_rng(seed)
    truth = np.linspace(5, 2, H, dtype=np.float32)[:, None] + np.zeros((1, W), np.float32)
    y, x = rng.integers(5, 25, 2)
    truth[y : y + 15, x : x + 20] = 1.2
    truth[:, ::7] = 0
    return truth


def dataset(n: int = 6, period_ns: int = 100_000_000) -> list[Sample]:
    out = []
    for i in range(n):
        image = np.full((H, W, 3), i, np.uint8)
        out.append(Sample(Frame(image, CAMERA, stamp_ns=i * period_ns), scene(i), f"frame{i}"))
    return out


def oracle(factor):
    """A model that gives the truth of frame i times factor(i); the image holds i."""

    def model(frame: Frame) -> Prediction:
        i = int(frame.image[0, 0, 0])
        return Prediction(scene(i) * np.float32(factor(i)))

    return model


def test_truth_times_constant_has_that_relative_error_and_none_after_median_scaling():
    results = evaluate(dataset(), {"ten percent": oracle(lambda i: 1.1)}, name="planted")
    (model,) = results["models"]
    assert model["metrics"]["abs_rel"] == pytest.approx(0.1, abs=1e-6)
    assert model["metrics"]["log10"] == pytest.approx(np.log10(1.1), abs=1e-6)
    assert model["metrics"]["delta1"] == 1.0
    assert model["median_scaled"]["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert model["median_scaled"]["edge_f1"] == 1.0
    assert model["temporal"]["flicker"] == pytest.approx(0, abs=1e-6)
    assert model["temporal"]["scale_spread"] == pytest.approx(0, abs=1e-6)


def test_models_side_by_side_score_as_each_alone():
    models = {"a": oracle(lambda i: 1.1), "b": oracle(lambda i: 0.8)}
    both = evaluate(dataset(), models)["models"]
    for entry in both:
        (alone,) = evaluate(dataset(), {entry["name"]: models[entry["name"]]})["models"]
        for key in ("metrics", "median_scaled", "by_distance", "by_row", "temporal"):
            assert entry[key] == alone[key]


def test_flicker_and_scale_step_of_an_alternating_scale_are_its_logarithm():
    model = oracle(lambda i: 1.1 if i % 2 else 1 / 1.1)
    temporal = evaluate(dataset(), {"m": model})["models"][0]["temporal"]
    assert temporal["pairs"] == 5
    assert temporal["flicker"] == pytest.approx(2 * np.log(1.1), abs=1e-5)
    assert temporal["scale_step"] == pytest.approx(2 * np.log(1.1), abs=1e-5)
    assert temporal["scale_spread"] == pytest.approx(np.log(1.1), abs=1e-5)


def test_frames_far_apart_in_time_are_no_neighbours():
    data = dataset(period_ns=2_000_000_000)
    assert evaluate(data, {"m": oracle(lambda i: 1 + i)})["models"][0]["temporal"]["pairs"] == 0


def test_distance_bands_hold_the_error_planted_in_them():
    truth = np.repeat([[0.7, 2.5, 8.0]], 9, 0).astype(np.float32)
    scorer = Scorer()
    scorer.add("f", truth + np.float32([[0.1, -0.2, 1.0]]), truth)
    bands = {(b["from_m"], b["to_m"]): b for b in scorer.result()["by_distance"]}
    assert set(bands) == {(0.5, 1.0), (2.0, 3.0), (7.0, 10.0)}
    assert bands[(0.5, 1.0)]["bias_m"] == pytest.approx(0.1, abs=1e-5)
    assert bands[(2.0, 3.0)]["bias_m"] == pytest.approx(-0.2, abs=1e-5)
    assert bands[(7.0, 10.0)]["abs_rel"] == pytest.approx(1 / 8, abs=1e-5)
    assert sum(b["pixels"] for b in bands.values()) == truth.size


def test_image_rows_hold_the_error_planted_in_them():
    truth = np.full((24, 10), 2.0, np.float32)
    predicted = truth.copy()
    predicted[:2] += 0.5  # the first of twelve strips
    scorer = Scorer()
    scorer.add("f", predicted, truth)
    strips = scorer.result()["by_row"]
    assert [round(s["mae_m"], 5) for s in strips] == [0.5] + [0.0] * 11


def test_errors_at_depth_edges_are_told_from_those_elsewhere():
    truth = np.full((20, 20), 2.0, np.float32)
    truth[:, 10:] = 4.0
    predicted = truth.copy()
    predicted[:, 9:11] = 3.0  # smeared over the step: |error| = 1 m on two of the four edge columns
    scorer = Scorer()
    scorer.add("f", predicted, truth)
    result = scorer.result()
    assert result["away_from_edges"]["mae_m"] == pytest.approx(2 * 2 / (400 - 4 * 20), abs=0.05)
    assert result["at_depth_edges"]["mae_m"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("crop", "size", "window"),
    [
        ("nyu", (480, 640), np.s_[45:471, 41:601]),
        ("cityscapes", (1024, 2048), np.s_[256:768, 192:1856]),
    ],
)
def test_crop_counts_only_what_lies_inside(crop, size, window):
    truth = np.full(size, 2.0, np.float32)
    predicted = np.full(size, 9.0, np.float32)
    predicted[window] = 2.0
    scorer = Scorer(ScoreSettings(crop=crop))
    assert scorer.add("f", predicted, truth)["pixels"] == predicted[window].size
    assert scorer.result()["metrics"]["mae_m"] == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, range(10)), ({"last": 3}, range(7, 10)), ({"max_frames": 4}, range(0, 10, 3)),
     ({"last": 4, "max_frames": 2}, range(6, 10, 2)), ({"last": 30}, range(10)),
     ({"max_frames": 10}, range(10))],
)  # fmt: skip
def test_frames_taken(given, expected):
    assert EvaluateSettings(**given).indices(10) == expected


def test_settings_come_from_plain_values_and_unknown_ones_are_named():
    settings = build(EvaluateSettings, {"score": {"depth_range": [0.1, 10]}})
    assert settings.score.depth_range == (0.1, 10)
    with pytest.raises(ConfigError, match="crop: expected one of none, nyu, eigen, garg"):
        build(EvaluateSettings, {"score": {"crop": "square"}})
    with pytest.raises(ConfigError, match="0 <= min < max"):
        ScoreSettings(depth_range=(5.0, 1.0))


def test_unreadable_frames_and_frames_without_truth_are_counted_and_left_out():
    class Data(list):
        def __getitem__(self, i):
            if i == 1:
                raise ValueError("rgb/1.jpg: not a readable image")
            return super().__getitem__(i)

    data = Data(dataset())
    list.__getitem__(data, 2).truth_m = None
    list.__getitem__(data, 3).truth_m = np.zeros((H, W), np.float32)
    results = evaluate(data, {"m": oracle(lambda i: 1)})
    assert (results["frames_in"], results["frames_out"]) == (6, 3)
    assert results["dropped"] == {"unreadable": 1, "no truth": 2}
    assert results["problems"] == ["rgb/1.jpg: not a readable image"]


def test_data_set_without_any_truth_is_one_clear_sentence():
    data = dataset(2)
    for sample in data:
        sample.truth_m = None
    with pytest.raises(EvaluationError, match=r"photos: no frame could be scored \(2 no truth\)"):
        evaluate(data, {"m": oracle(lambda i: 1)}, name="photos")


def test_truth_of_another_size_is_refused_with_both_sizes():
    data = dataset(1)
    data[0].truth_m = np.ones((10, 20), np.float32)
    with pytest.raises(EvaluationError, match="frame0: its image is 64x48 but its truth is 20x10"):
        evaluate(data, {"m": oracle(lambda i: 1)})


def test_truth_follows_the_removal_of_lens_distortion():
    """A distorted camera sees the truth of an ideal plane's ramp where OpenCV says it does."""
    camera = Camera(W, H, CAMERA.K, np.array([-0.25, 0.05, 0, 0]))
    u, v = np.meshgrid(np.arange(W), np.arange(H))
    points = np.stack([u, v], -1).reshape(-1, 1, 2).astype(np.float64)
    ideal = cv2.undistortPoints(points, camera.K, camera.D, P=camera.K).reshape(H, W, 2)
    seen = (3 + 0.02 * ideal[..., 0]).astype(np.float32)  # what the bent lens measures
    flat = (3 + 0.02 * u).astype(np.float32)  # what the ideal camera would
    data = [Sample(Frame(np.zeros((H, W, 3), np.uint8), camera), seen, "bent")]
    results = evaluate(data, {"m": lambda frame: Prediction(flat)})
    assert results["models"][0]["metrics"]["mae_m"] < 0.012  # half a pixel of nearest


def test_data_hash_changes_with_one_pixel_and_not_with_the_run():
    models = {"m": oracle(lambda i: 1)}
    first, second = (evaluate(dataset(), models)["data"]["sha256"] for _ in range(2))
    other = dataset()
    other[3].truth_m = other[3].truth_m.copy()
    other[3].truth_m[5, 5] += 0.001
    assert first == second != evaluate(other, models)["data"]["sha256"]


def test_stop_keeps_what_is_done():
    asked = iter([False, False, True])
    results = evaluate(dataset(), {"m": oracle(lambda i: 1)}, stop=lambda: next(asked))
    assert results["interrupted"] and results["frames_out"] == 2


def test_first_ctrl_c_asks_to_stop_and_the_second_interrupts():
    with pytest.raises(KeyboardInterrupt), until_ctrl_c() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        os.kill(os.getpid(), signal.SIGINT)


def test_results_survive_the_file_and_hold_every_key_of_the_format(tmp_path):
    results = evaluate(dataset(), {"m": oracle(lambda i: 1.1)}, name="planted")
    write_json(tmp_path / "new" / "results.json", results)
    assert load_results(tmp_path / "new" / "results.json") == json.loads(json.dumps(results))
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"results.json"}
    assert set(results["latency_ms"]) >= {"p50", "p95", "p99"}
    assert set(results["data"]) >= {"name", "frames", "sha256"}
    needed = {"rmse_m", "mae_m", "abs_rel", "log10", "delta1", "delta2", "delta3"}
    for model in results["models"]:
        assert set(model["metrics"]) >= needed and set(model["median_scaled"]) >= needed


def test_foreign_and_older_results_files_are_refused(tmp_path):
    path = tmp_path / "r.json"
    with pytest.raises(ResultsError, match="cannot be read"):
        load_results(path)
    path.write_text('{"version": 1')
    with pytest.raises(ResultsError, match="not valid JSON"):
        load_results(path)
    path.write_text('{"version": 1}')
    with pytest.raises(ResultsError, match="settings, data, models"):
        load_results(path)
    results = evaluate(dataset(1), {"m": oracle(lambda i: 1)})
    write_json(path, {**results, "version": 7})
    with pytest.raises(ResultsError, match="version 1, got 7"):
        load_results(path)


def test_pictures_are_the_best_median_and_worst_frame_and_survive_their_file(tmp_path):
    models = {"m/1": oracle(lambda i: 1 + 0.1 * ((i + 2) % 5))}
    data = dataset(5)  # errors .2 .3 .4 .0 .1
    results = evaluate(data, models)
    pictures = take_pictures(data, models, results)
    assert [(p.title, p.name) for p in pictures] == [
        ("best frame", "frame3"), ("median frame", "frame0"), ("worst frame", "frame2")
    ]  # fmt: skip
    save_pictures(tmp_path / "p.npz", pictures)
    back = load_pictures(tmp_path / "p.npz")
    assert [p.name for p in back] == ["frame3", "frame0", "frame2"]
    np.testing.assert_array_equal(back[2].image, pictures[2].image)
    np.testing.assert_allclose(back[2].truth_m, scene(2), atol=6e-4)
    np.testing.assert_allclose(back[2].predictions_m["m/1"], scene(2) * 1.4, atol=6e-4)
    assert back[0].camera.same_as(CAMERA)


def test_latency_percentiles_and_histogram_of_known_values():
    summary = latency_summary([float(i) for i in range(101)])
    assert (summary["p50"], summary["p95"], summary["p99"]) == (50.0, 95.0, 99.0)
    assert sum(summary["histogram"]["counts"]) == summary["frames"] == 101
    assert latency_summary([]) == {}


def test_table_shows_every_model_with_its_numbers(capsys):
    models = {"good": oracle(lambda i: 1.1), "bad": oracle(lambda i: 1.5)}
    print_table(evaluate(dataset(), models))
    text = capsys.readouterr().out
    assert "good" in text and "bad" in text
    (row,) = [line for line in text.splitlines() if "AbsRel" in line]
    assert "0.100" in row and "0.500" in row


@pytest.fixture
def folder(tmp_path):
    """An RGB-D folder of three frames of a wall at 2, 3 and 4 metres."""
    for name in ("rgb", "depth"):
        (tmp_path / "wall" / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(3):
        image = rng.integers(0, 255, (H, W, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "wall" / "rgb" / f"{i}.png"), image)
        depth = np.full((H, W), 1000 * (i + 2), np.uint16)
        cv2.imwrite(str(tmp_path / "wall" / "depth" / f"{i}.png"), depth)
    camera = {"fx": 60, "fy": 60, "cx": 31.5, "cy": 23.5, "width": W, "height": H}
    (tmp_path / "wall" / "intrinsics.json").write_text(json.dumps(camera))
    return tmp_path / "wall"


def test_command_scores_a_constant_network_on_a_folder(folder, wall_model, tmp_path, capsys):
    out = tmp_path / "results.json"
    code = run_evaluate(
        str(folder), [wall_model, wall_model], json_path=str(out), settings={"last": 2}
    )
    results = load_results(out)
    assert code == 0 and results["data"]["name"] == "wall" and results["frames_out"] == 2
    assert [m["name"] for m in results["models"]] == ["wall", "wall 2"]
    for model in results["models"]:  # truth 3 and 4 m, prediction 2 m
        assert model["metrics"]["mae_m"] == pytest.approx(1.5)
        assert model["metrics"]["rmse_m"] == pytest.approx((2.5) ** 0.5)
        assert model["metrics"]["abs_rel"] == pytest.approx((1 / 3 + 1 / 2) / 2)
        assert model["median_scaled"]["abs_rel"] == pytest.approx(0, abs=1e-6)
        assert len(model["weights_sha256"]) == 64 and model["runtime"] == "onnxruntime"
    assert results["settings"]["evaluate"]["last"] == 2
    assert [p.name for p in load_pictures(tmp_path / "results.npz")] == ["wall/1", "wall/2"]
    assert "AbsRel" in capsys.readouterr().out


def test_fastdepth_scores_as_it_does_when_run_by_hand(shared_data, tmp_path):
    """The command against onnxruntime, OpenCV and the formulas, written out once more."""
    import onnxruntime

    data, weights = shared_data / "hololens_office", shared_data / "weights" / "fastdepth_nyu"
    out, last = tmp_path / "results.json", 5
    model = str(weights / "fastdepth_7.onnx")
    assert run_evaluate(str(data), [model], json_path=str(out), settings={"last": last}) == 0

    session = onnxruntime.InferenceSession(model)
    k = json.loads((data / "intrinsics.json").read_text())
    scale_x, scale_y = 224 / k["width"], 224 / k["height"]
    focal = (k["fx"] * scale_x * k["fy"] * scale_y) ** 0.5
    abs_rel, square, close = [], [], []
    for file in sorted((data / "rgb").iterdir())[-last:]:
        rgb = cv2.imread(str(file))[..., ::-1]
        x = cv2.resize(rgb, (224, 224)).astype(np.float32).transpose(2, 0, 1)[None] / 255
        depth = session.run(None, {session.get_inputs()[0].name: x})[0].squeeze() * focal / 229.6
        depth = cv2.resize(depth, (k["width"], k["height"]))
        truth = cv2.imread(str(data / "depth" / f"{file.stem}.png"), -1) / 1000
        p, t = depth[truth > 0], truth[truth > 0]
        abs_rel.append(np.mean(abs(p - t) / t))
        square.append(np.mean((p - t) ** 2))
        close.append(np.mean(np.maximum(p / t, t / p) <= 1.25))
    metrics = load_results(out)["models"][0]["metrics"]
    assert metrics["abs_rel"] == pytest.approx(np.mean(abs_rel), rel=1e-4)
    assert metrics["rmse_m"] == pytest.approx(np.mean(square) ** 0.5, rel=1e-4)
    assert metrics["delta1"] == pytest.approx(np.mean(close), abs=1e-4)


def test_json_on_stdout_is_nothing_but_json(folder, wall_model, capsys):
    assert run_evaluate(str(folder), [wall_model], json_path="-") == 0
    assert json.loads(capsys.readouterr().out)["frames_in"] == 3


def test_edges_do_not_depend_on_the_cameras_resolution():
    """A step of 1 m between walls 0.1 m off: found at any size, and nothing else."""
    scores = []
    for width, height in ((304, 228), (608, 456), (1216, 912)):
        truth = np.full((height, width), 2.0, np.float32)
        truth[:, width // 2 :] = 3.0
        scorer = Scorer()
        scorer.add("step", truth + np.float32(0.1), truth)
        scores.append(scorer.result()["metrics"]["edge_f1"])
    assert scores == [1.0, 1.0, 1.0]
    tilted = np.linspace(1, 3, 1216, dtype=np.float32)[None].repeat(912, 0)
    flat = np.full_like(tilted, 2.0)
    assert scores and Scorer().add("slope", flat, tilted)["edge_f1"] == 1.0  # 8 · 2 m / 304 < 0.25
