"""Reproductions that train, a step or two each: all rows are there, claims say what they say."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from mde_ros.checkpoint import read_tensors
from mde_ros.cli import main
from mde_ros.config import ConfigError
from mde_ros.evaluation import run as evaluation
from mde_ros.networks import NETWORKS
from mde_ros.reproduce import data_free, distill, loss_ablation
from mde_ros.reproduce.record import ReproduceSettings

TITLES = {"REL": False, "δ < 1.25": True, "RMSE, m": False, "F1 > 0.5": True}  # higher is better


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Trainings of a step or two on two tiny pictures instead of simulated scenes."""

    def scenes(work, name, rooms, streets, seed, frames=12):
        folder = tmp_path / "scenes" / name
        if folder.is_dir():
            return folder
        for part in ("rgb", "depth", "instance"):
            (folder / part).mkdir(parents=True)
        intrinsics = {"fx": 60, "fy": 60, "cx": 31.5, "cy": 23.5, "width": 64, "height": 48}
        (folder / "intrinsics.json").write_text(json.dumps(intrinsics))
        rng = np.random.default_rng(seed)
        for i in range(2):
            depth = np.tile(np.linspace(6, 1 + i / 3, 48)[:, None], (1, 64))
            depth[10:30, 20:40] = 1.0
            rgb = rng.integers(0, 256, (48, 64, 3), np.uint8)
            cv2.imwrite(str(folder / f"rgb/{i}.png"), rgb)
            cv2.imwrite(str(folder / f"depth/{i}.png"), (1000 * depth).astype(np.uint16))
            cv2.imwrite(str(folder / f"instance/{i}.png"), np.uint16(depth == 1.0))
        return folder

    def hasty(training):
        def train(settings, *arguments):
            loop = replace(
                settings.loop, batch=2, device="cpu", precision="32-true", threads=1, workers=0
            )
            return training(replace(settings, loop=loop), *arguments)

        return train

    for module in (loss_ablation, distill, data_free):
        monkeypatch.setattr(module, "scenes", scenes)
    monkeypatch.setattr(loss_ablation, "STEPS", 1)
    monkeypatch.setattr(loss_ablation, "SIZE", (64, 48))
    monkeypatch.setattr(distill, "STEPS", {"teacher": 2, "student": 2})
    monkeypatch.setattr(distill, "PIXELS", 64 * 48)
    # A new teacher says 0 m, which is no depth to score; a few steps take it off the ground.
    monkeypatch.setattr(data_free, "STEPS", {"teacher": 20, "student": 1})
    monkeypatch.setattr(data_free, "SIZE", (64, 48))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # they would only wait
    monkeypatch.setattr(evaluation, "ALONE_CALLS", 1)  # by which an evaluation tells the time
    for module in (loss_ablation.supervised, distill.distill, data_free.distill_free):
        monkeypatch.setattr(module, "train", hasty(module.train))

    def run(name):
        folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
        assert main(["reproduce", name, "--seeds", "0", *folders]) == 0
        return json.loads((tmp_path / f"out/{name}.json").read_text())

    return run


EXPECTED = {  # experiment → rows of ours, claims
    "loss-ablation": (list(loss_ablation.LOSSES), 6),
    "distill": (["teacher, X", "teacher, X and U'", *distill.STUDENTS], 8),
    "data-free": (["teacher", "student, with the data", *data_free.METHODS.values()], 6),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_row_is_trained_and_every_claim_follows_from_the_rows(quick, name, tmp_path):
    record, (names, number) = quick(name), EXPECTED[name]
    case = "rooms by streets: " if name == "data-free" else ""
    rows = {row["name"].removeprefix(case): row for row in record["ours"]}
    assert list(rows) == names and len(record["claims"]) == number
    for claim in record["claims"]:
        better, _, rest = claim["text"].removeprefix(case).partition(" is better than ")
        worse, _, title = rest.rpartition(" in ")
        a, b = rows[better][title], rows[worse][title]
        assert claim["holds"] == (a > b if TITLES[title] else a < b)
        assert claim["figure"] == f"{a:.3f} against {b:.3f}"
    # Every row is a training of its own, by other settings than all others.
    made = [read_tensors(path)[1] for path in (tmp_path / "work").rglob("model.safetensors")]
    different = {json.dumps((header["network"], header["settings"])) for header in made}
    assert len(made) == len(different) == len(names)


def test_published_rows_have_the_columns_of_ours():
    for module, paper in ((loss_ablation, 5), (data_free, 9)):
        assert all(len(row) == paper for row in module.PAPER)
    assert {title for row in distill.PAPER for title in row} <= {"name", *TITLES}


def test_students_at_full_scale_are_those_published_with_the_teacher(monkeypatch):
    monkeypatch.setattr(data_free, "load", lambda path: SimpleNamespace(network_name=path.name))
    monkeypatch.setattr(data_free, "open_dataset", lambda path: SimpleNamespace(name=path))

    def pairs(teacher):
        data = ("simulated=rooms", "nyu_test=list.csv", f"teacher={teacher}")
        cases = data_free.nyu(ReproduceSettings(scale="full", data=data))
        return [data_free.student("full", Path(teacher), case).network for case in cases]

    assert pairs("light_resnet34") == ["light_resnet34", "light_mobilenet_v2"]
    found = [(teacher, student) for teacher in data_free.STUDENTS for student in pairs(teacher)]
    assert len(found) == 5 and {name for pair in found for name in pair} <= NETWORKS.keys()
    with pytest.raises(ConfigError, match="fast_mobilenet_v2"):
        pairs("fast_mobilenet_v2")
