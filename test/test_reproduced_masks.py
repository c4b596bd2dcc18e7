"""Reproductions of masks and attacks: what is held out, and claims that say what the rows say."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from mde_ros.cli import main
from mde_ros.reproduce import defence, places, saliency
from mde_ros.reproduce.record import Record, ReproduceSettings
from mde_ros.training.batches import Source


def claims_of(experiment, planted):
    """Text → whether it holds, of planted figures."""
    record = Record("x", "x", "x", ReproduceSettings())
    experiment.claim(record, "room", planted)
    return {c["text"].removeprefix("room: "): c["holds"] for c in record.claims}


def masks_table(shown, soft, hard):
    rows = zip(["original", *(f"λ = {i}" for i in range(9))], soft, hard, shown)
    keys = ("name", saliency.SOFT, saliency.HARD, saliency.SHOWN)
    return [dict(zip(keys, row)) for row in rows]


RISING = [1.0, 1.1, 1.2, 1.5]


@pytest.mark.parametrize(
    ("shown", "soft", "hard", "holds"),
    [
        ([1.0, 0.8, 0.5, 0.3], RISING, RISING, (True, True, True, True)),
        ([1.0, 0.5, 0.8, 0.3], RISING, RISING, (False, True, True, True)),
        ([1.0, 0.8, 0.5, 0.3], [1.0, 1.1, 1.1, 1.2], RISING, (True, False, True, True)),
        ([1.0, 0.8, 0.5, 0.3], RISING, [1.0, 1.3, 1.2, 1.3], (True, True, False, True)),
        # Half way from 50 % to 30 % it is half way from 1.3 to 1.6: 1.45 of 1.
        ([1.0, 0.8, 0.5, 0.3], RISING, [1.0, 1.1, 1.3, 1.6], (True, True, True, False)),
        ([1.0, 0.8, 0.6, 0.5], RISING, RISING, (True, True, True, False)),  # nobody shows 40 %
    ],
)
def test_claims_about_sparseness_follow_the_rows(shown, soft, hard, holds):
    assert tuple(claims_of(saliency, masks_table(shown, soft, hard)).values()) == holds


def test_published_rows_of_masks_hold_the_claims_and_are_those_of_the_paper():
    keys = ("name", saliency.SOFT, saliency.HARD, saliency.SHOWN)
    assert all(claims_of(saliency, [dict(zip(keys, row)) for row in saliency.PAPER]).values())


def attack_table(**changed):
    """Clean and attacked RMSE of all rows, such that every claim holds."""
    rows = {
        "N": (1.0, 2.5), defence.DEFENCE: (1.1, 1.3), "N_adv": (1.2, 1.4),
        "N(x*⊗G(x*))": (1.1, 2.0), "N(x*⊗G(x))": (1.1, 1.2), defence.KNOWN: (1.1, 2.2),
        "FGSM: N": (1.0, 1.8), "N_adv(x†)": (1.2, 1.5),
    }  # fmt: skip
    for objective in defence.OBJECTIVES:
        rows[f"{objective}, 5 iterations: N"] = (1.0, 2.4)
        rows[f"{objective}, 5 iterations: {defence.DEFENCE}"] = (1.1, 1.3)
    rows |= changed
    return {name: dict(zip(("clean", defence.SHOWN), row)) for name, row in rows.items()}


@pytest.mark.parametrize(
    ("row", "figures", "broken"),
    [
        ("N", (1.0, 1.99), "IFGSM takes the RMSE of N to 2 times its own"),
        (defence.DEFENCE, (1.1, 1.45), "behind the mask it stays within 1.3 times that of the"),
        (defence.DEFENCE, (1.16, 1.3), "the mask costs at most 15% clean"),
        ("N_adv", (1.2, 1.29), "the defence is better than N_adv under attack"),
        ("N(x*⊗G(x))", (1.1, 2.6), "the mask of the clean image, if one had it, holds"),
        ("N(x*⊗G(x*))", (1.1, 1.2), "G_adv is better under attack than G, which never saw one"),
        ("FGSM: N", (1.0, 2.6), "one step (FGSM) spoils N less than ten"),
        (defence.KNOWN, (1.1, 1.2), "who knows the mask breaks it: the paper's own warning"),
        ("rel, 5 iterations: N", (1.0, 1.2), "the defence holds when the attacker maximises rel"),
    ],
)
def test_claim_about_attacks_fails_when_its_own_row_says_otherwise(row, figures, broken):
    assert all(claims_of(defence, attack_table()).values())
    failed = [
        t for t, holds in claims_of(defence, attack_table(**{row: figures})).items() if not holds
    ]
    assert any(text.startswith(broken) for text in failed)
    if row not in (defence.DEFENCE, "N"):
        assert len(failed) == 1


@pytest.fixture
def tiny(monkeypatch, tmp_path, students):
    """Two pictures for scenes, a small planted student for N, and a step or two of training."""

    def scenes(work, name, rooms, streets, seed, frames=12):
        return pictures(tmp_path / "scenes" / name, seed)

    monkeypatch.setattr(places, "scenes", scenes)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # they would only wait
    for module in (saliency, defence):
        monkeypatch.setattr(module, "MODEL", str(students["fast_mobilenet_v2"][0]))
        monkeypatch.setattr(module, "PIXELS", 64 * 48)
    monkeypatch.setattr(places, "FRAMES", 1)
    monkeypatch.setattr(saliency, "STEPS", 1)
    monkeypatch.setitem(saliency.WEIGHTS, "small", (1.0, 2.0))
    monkeypatch.setattr(defence, "STEPS", {"G": 1, "G_adv": 1, "N_adv": 1})
    monkeypatch.setattr(defence, "EPSILONS", (0.05, 0.1))
    monkeypatch.setattr(defence, "ITERATIONS", 2)
    monkeypatch.setattr(defence, "FEWER", 1)
    for module in (saliency.saliency, defence.saliency, defence.defence):
        monkeypatch.setattr(module, "train", hasty(module.train))
    return tmp_path


def hasty(training):
    def train(settings, out):
        loop = replace(settings.loop, batch=2, device="cpu", threads=1, workers=0)
        return training(replace(settings, loop=loop), out)

    train.hasty = True
    return training if hasattr(training, "hasty") else train


def pictures(folder, seed):
    """Four tiny RGB-D pictures."""
    if not folder.is_dir():
        for part in ("rgb", "depth"):
            (folder / part).mkdir(parents=True)
        intrinsics = {"fx": 60, "fy": 60, "cx": 31.5, "cy": 23.5, "width": 64, "height": 48}
        (folder / "intrinsics.json").write_text(json.dumps(intrinsics))
        rng = np.random.default_rng(seed)
        for i in range(4):
            depth = np.tile(np.linspace(6, 1 + i / 3, 48)[:, None], (1, 64))
            rgb = rng.integers(0, 256, (48, 64, 3), np.uint8)
            cv2.imwrite(str(folder / f"rgb/{i}.png"), rgb)
            cv2.imwrite(str(folder / f"depth/{i}.png"), (1000 * depth).astype(np.uint16))
    return folder


def run(name, folder, *flags):
    where = ["--work", str(folder / "work"), "--out", str(folder / "out")]
    assert main(["reproduce", name, "--seeds", "0", *where, *flags]) == 0
    return json.loads((folder / f"out/{name}.json").read_text())


def test_saliency_has_a_row_for_every_weight_and_place(tiny, monkeypatch):
    monkeypatch.setattr(places, "REAL", {"office": 1})
    pictures(tiny / "real" / "office", 5)
    record = run("saliency", tiny, "--data", f"real={tiny / 'real'}")
    names = [f"{p}: {n}" for p in ("rooms", "office") for n in ("original", "λ = 1", "λ = 2")]
    assert [row["name"] for row in record["ours"]] == names
    assert len(record["claims"]) == 8
    assert (tiny / "out/saliency.md").read_text().count("λ = 6") == 1


def test_defence_has_the_rows_of_the_papers_tables(tiny):
    record = run("defence", tiny)
    rows = {row["name"].removeprefix("rooms: "): row for row in record["ours"]}
    expected = {"N", "N_adv", "N(x*⊗G(x))", defence.DEFENCE, defence.KNOWN, "FGSM: N"}
    assert expected | {f"{o}, 5 iterations: N" for o in defence.OBJECTIVES} <= set(rows)
    assert set(rows["N"]) == {"name", "clean", "ε = 0.05", "ε = 0.1"}
    assert len(record["claims"]) == 8 + 5


def test_frames_that_are_judged_on_are_the_ones_left_out_of_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "scenes", lambda *a, **k: pictures(tmp_path / "scenes", 0))
    monkeypatch.setattr(places, "REAL", {"office": 3})
    pictures(tmp_path / "office", 1)
    where = places.places(ReproduceSettings(data=(f"real={tmp_path}",)))
    source, (data, frames) = where.sources[1], where.tests["office"]
    assert source == Source(str(tmp_path / "office"), weight=0.5, skip_last=3)
    learnt = set(range(len(data) - source.skip_last))
    assert not learnt & set(frames.indices(len(data)))
    assert list(places.places(ReproduceSettings()).tests) == ["rooms"]
