"""Processes that measure: what they leave behind is nothing, and their failures are told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mde_ros.isolation import Child, ChildError, DomainError, environment, own_domain


def until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """module(code) → the command that runs it with `python -m`."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")

    def write(code: str) -> list[str]:
        (tmp_path / "played.py").write_text(code)
        return ["played"]

    return write


def test_the_environment_is_put_back_also_after_an_error(monkeypatch):
    monkeypatch.setenv("MDE_SET", "before")
    monkeypatch.delenv("MDE_UNSET", raising=False)
    before = dict(os.environ)
    with pytest.raises(ValueError), environment({"MDE_SET": "x", "MDE_UNSET": "y"}):
        assert (os.environ["MDE_SET"], os.environ["MDE_UNSET"]) == ("x", "y")
        raise ValueError
    assert dict(os.environ) == before


def test_domains_that_are_held_at_once_differ_and_are_not_the_users(monkeypatch):
    with own_domain() as first:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(int(first["ROS_DOMAIN_ID"]) + 1))
        with own_domain() as second:
            taken = {first["ROS_DOMAIN_ID"], os.environ["ROS_DOMAIN_ID"]}
            assert second["ROS_DOMAIN_ID"] not in taken
    monkeypatch.setenv("ROS_DOMAIN_ID", "231")
    monkeypatch.setattr("mde_ros.isolation.DOMAINS", (231,))
    with pytest.raises(DomainError, match="expected a free ROS domain"), own_domain():
        pass


def test_a_child_that_ends_well_and_one_that_fails_are_told_apart(module, tmp_path):
    with Child("good", module("print('fine')"), tmp_path) as good:
        until(good.ended)
        with pytest.raises(ChildError, match=r"^the good ended early: fine$"):
            good.running()
    code = "print('[ERROR] no camera')\nprint('bye')\nraise SystemExit(3)"
    with (
        Child("bad", module(code), tmp_path) as bad,
        pytest.raises(ChildError, match=r"^the bad failed: \[ERROR\] no camera$"),
    ):
        until(bad.ended)
    with (
        Child("mute", module("raise SystemExit(3)"), tmp_path) as mute,
        pytest.raises(ChildError, match=r"^the mute failed: exit code 3$"),
    ):
        until(mute.ended)


def test_a_child_that_will_not_end_is_ended(module, tmp_path, monkeypatch):
    monkeypatch.setattr("mde_ros.isolation.STOP_LIMIT_S", 0.5)
    code = (
        "import signal, time\n"
        "def say(number, frame): print(number, flush=True)\n"
        "for s in (signal.SIGINT, signal.SIGTERM): signal.signal(s, say)\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(0.05)\n"
    )
    with Child("deaf", module(code), tmp_path) as deaf:
        until(lambda: "up" in deaf.log.read_text())
        assert deaf.running() and not deaf.ended()
    assert len(deaf.log.read_text().split()) == 3  # it has heard both before the end
    with pytest.raises(ChildError, match="deaf ended early"):
        deaf.running()


@pytest.mark.skipif(sys.platform != "linux", reason="a service of Linux")
def test_a_child_dies_with_its_parent_even_if_that_is_killed(module, tmp_path):
    module("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)")
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import pathlib, time; from mde_ros.isolation import Child\n"
            f"child = Child('orphan', ['played'], pathlib.Path({str(tmp_path)!r})); time.sleep(60)",
        ]
    )
    log = tmp_path / "orphan.log"
    until(lambda: log.exists() and log.read_text().strip())
    pid = int(log.read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()

    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    until(gone)
