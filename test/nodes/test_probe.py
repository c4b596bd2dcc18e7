"""The probe: its sums in closed form, its eyes against planted work, and once the real node."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from domain_coordinator import domain_id

from mde_ros.datasets.scans import scan_returns
from mde_ros.nodes.probe import Feed, _summary, cpu_seconds, make_messages, make_scan, rss_mb


def test_summary_of_frames_with_known_times():
    feed = Feed({1: 10.0, 2: 10.1, 3: 10.2, 4: 10.3}, {1: 10.01, 2: 10.12, 4: 10.5})
    out = _summary(feed, cpu_s=0.06)
    assert (out["sent"], out["received"], out["lost"]) == (4, 3, 1)
    assert out["latency_ms"]["p50"] == pytest.approx(20)
    assert out["fps"] == pytest.approx(3 / 0.5)
    assert out["cpu_ms_per_frame"] == pytest.approx(20)


def test_frames_before_the_last_that_came_back_are_not_waited_for():
    feed = Feed(dict.fromkeys(range(1, 6), 0.0))
    assert Feed({7: 0.0}).on_the_way() == 1
    feed.received[3] = 1.0  # 1 and 2 are lost
    assert feed.on_the_way() == 2
    feed.received[5] = 1.0
    assert feed.on_the_way() == 0


def test_cpu_time_counts_work_and_not_sleep():
    before = cpu_seconds(os.getpid())
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    time.sleep(0.2)
    assert cpu_seconds(os.getpid()) - before == pytest.approx(0.3, abs=0.06)


def test_memory_grows_by_what_is_held():
    before = rss_mb(os.getpid())
    held = np.ones(64 * 2**20, np.uint8)
    assert rss_mb(os.getpid()) - before == pytest.approx(64, abs=8)
    del held


def test_messages_carry_the_pixels_and_the_camera():
    images = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
    (first, second), info = make_messages(images, 50.0)
    assert bytes(second.data) == images[1].tobytes() and first.step == 18
    assert list(info.k) == [50, 0, 2.5, 0, 50, 1.5, 0, 0, 1] and list(info.p[:3]) == [50, 0, 2.5]


def test_scan_is_a_wall_three_metres_away_over_270_degrees():
    points = scan_returns(make_scan(541)).points
    angles = np.radians(np.linspace(-135, 135, 541))
    assert points[:, 0] == pytest.approx(3 * np.cos(angles), abs=1e-4)
    assert points[:, 1] == pytest.approx(3 * np.sin(angles), abs=1e-4)


def run_probe(images, *arguments, domain=0):
    environment = dict(os.environ, ROS_DOMAIN_ID=str(domain))
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    command = [sys.executable, "-m", "mde_ros.nodes.probe", str(images), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


@pytest.fixture
def images(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((1, 48, 64, 3), np.uint8))
    return tmp_path / "images.npy"


def test_real_node_is_fed_and_measured_and_ends_cleanly(images, wall):
    with domain_id() as domain:
        done = run_probe(
            images, "--feeds", "depth", "cloud", "--frames", "15", "--soak", "40",
            "--set", f"model:={wall}", domain=domain,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    assert out["exit_code"] == 0 and 0 < out["first_depth_s"] < 60
    for feed in out["feeds"].values():
        assert feed["sent"] == 15 == feed["received"] + feed["lost"]
        assert feed["received"] > 0 and feed["latency_ms"]["p50"] > 0
    assert out["soak"]["frames"] == 40 and len(out["soak"]["rss_mb"]) >= 20


def test_completion_node_which_drops_images_without_a_scan_is_fed_one(images, ruler):
    with domain_id() as domain:
        done = run_probe(
            images, "--feeds", "depth", "--frames", "15", "--beams", "90", "--focal", "50", "--set",
            f"model:={ruler[1]}", "laser_to_camera:=0 0.2 0 0.5 -0.5 0.5 0.5", domain=domain,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    feed = json.loads(done.stdout)["feeds"]["depth"]
    assert feed["sent"] == 15 and feed["received"] > 0


def test_node_that_cannot_start_is_told_in_a_sentence(images, tmp_path):
    with domain_id() as domain:
        done = run_probe(images, "--set", f"model:={tmp_path / 'none.onnx'}", domain=domain)
    assert done.returncode == 1
    assert "the node ended with code 1 before any depth" in done.stderr.splitlines()[-1]


def test_the_node_ends_with_a_probe_that_is_killed(images, wall):
    """Left alone, it would answer whoever comes into its domain next."""

    def nodes() -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "depth_node" in command and str(wall) in command:
                found.append(int(entry.name))
        return found

    arguments = [str(images), "--feeds", "depth", "--soak", "1000000", "--set", f"model:={wall}"]
    with domain_id() as domain:
        environment = dict(os.environ, ROS_DOMAIN_ID=str(domain))
        environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        command = [sys.executable, "-m", "mde_ros.nodes.probe", *arguments]
        probe = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 40
        while not nodes():
            assert probe.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        probe.kill()
        probe.wait()
        while nodes():
            assert time.monotonic() < deadline
            time.sleep(0.1)
