"""Many clips: the same whatever the number of processes, resumable, refusing to mix."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from mde_ros.simulation.generate import SimulationSettings, generate, interleaved

SMALL = {"rooms": 2, "streets": 1, "frames_per_clip": 2, "size": (96, 72), "seed": 11}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The same clips by one process."""
    out = tmp_path_factory.mktemp("one")
    return out, lambda: generate(out, **SMALL, jobs=1)


def images(folder, kind):
    files = sorted((folder / kind).iterdir())
    return [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files]


def test_two_processes_make_the_same_clips_as_one(opengl, made, tmp_path):
    reports = []
    one = made[1]()
    two = generate(tmp_path / "two", **SMALL, jobs=2, progress=lambda *each: reports.append(each))
    assert [folder.name for folder in one] == [folder.name for folder in two]
    assert reports == [(0, 3), (1, 3), (2, 3), (3, 3)]
    for a, b in zip(one, two):
        for kind in ("depth", "instance"):
            for first, second in zip(images(a, kind), images(b, kind)):
                assert np.array_equal(first, second)
        for first, second in zip(images(a, "rgb"), images(b, "rgb")):
            assert np.abs(first.astype(int) - second).mean() < 2
        assert np.array_equal(np.load(a / "scan.npz")["ranges"], np.load(b / "scan.npz")["ranges"])


def test_a_rerun_makes_only_what_is_missing(opengl, made):
    out, run = made
    folders = run()
    before = {folder.name: (folder / "scan.npz").stat().st_mtime_ns for folder in folders}
    lost = images(folders[1], "depth")
    for file in sorted(folders[1].rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    folders[1].rmdir()
    (out / ".partial" / folders[1].name / "rgb").mkdir(parents=True)  # what an abort leaves
    run()
    after = {folder.name: (folder / "scan.npz").stat().st_mtime_ns for folder in folders}
    assert [name for name in before if before[name] != after[name]] == [folders[1].name]
    assert all(np.array_equal(a, b) for a, b in zip(lost, images(folders[1], "depth")))
    assert not list(out.glob(".*"))


def test_a_larger_run_goes_on_from_a_smaller(opengl, made):
    folders = made[1]()
    stamps = [(folder / "scan.npz").stat().st_mtime_ns for folder in folders]
    more = generate(made[0], **{**SMALL, "rooms": 3}, jobs=1)
    assert len(more) == 4 and set(folders) < set(more)
    assert stamps == [(folder / "scan.npz").stat().st_mtime_ns for folder in folders]


def test_clips_of_other_settings_are_not_mixed_in(opengl, made):
    made[1]()
    with pytest.raises(ValueError, match="seed 11, wanted 12"):
        generate(made[0], **{**SMALL, "seed": 12})


def test_another_seed_makes_other_clips(opengl, made, tmp_path):
    one = made[1]()[0]
    other = generate(tmp_path, **{**SMALL, "seed": 12, "rooms": 1, "streets": 0}, jobs=1)[0]
    assert not np.array_equal(images(one, "depth")[0], images(other, "depth")[0])


def test_streets_are_spread_among_rooms():
    clips = interleaved(SimulationSettings(rooms=40, streets=10))
    assert len(set(clips)) == 50
    for start in range(0, 50, 10):
        kinds = [kind for kind, _ in clips[start : start + 10]]
        assert kinds.count("street") == 2


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"rooms": -1}, "rooms must not be negative, got -1"),
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"jobs": -2}, "jobs must be at least 1, got -2"),
        ({"size": (8, 8)}, "size must be"),
        ({"rate_hz": 0.0}, "rate_hz must be positive, got 0.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        SimulationSettings(**wrong)


def test_an_interrupt_keeps_complete_clips_and_leaves_nothing_half_done(opengl, tmp_path):
    code = (
        "from mde_ros.simulation.generate import SimulationSettings, simulate\n"
        "if __name__ == '__main__':\n"
        "    settings = SimulationSettings(rooms=99, streets=0, frames=2, size=(96, 72), jobs=2)\n"
        f"    raise SystemExit(simulate(settings, {str(tmp_path / 'out')!r}))\n"
    )
    (tmp_path / "run.py").write_text(code)
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "run.py")], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("room_*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    folders = list((tmp_path / "out").glob("room_*"))
    assert process.returncode == 130 and "the same command goes on" in error
    assert 1 <= len(folders) < 99 and not (tmp_path / "out" / ".partial").exists()
    assert all((folder / "scan.npz").exists() for folder in folders)
