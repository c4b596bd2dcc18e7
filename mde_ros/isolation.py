"""Processes that measure: in a ROS domain of their own on this machine, and gone when we are."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

DOMAINS = (*range(215, 233), *range(80, 102))  # Linux leaves the ports of these to DDS
STOP_LIMIT_S = 5.0
PR_SET_PDEATHSIG = 1


class DomainError(ValueError):
    """No ROS domain is free."""


class ChildError(ValueError):
    """A process of ours failed; the message is one sentence, with what it said last."""


@contextmanager
def own_domain() -> Iterator[dict[str, str]]:
    """Environment variables that keep ROS on this machine, in a domain that nobody else of us has.

    They go on top of the user's own, which may be those of a running robot.

    Raises:
        DomainError: when all domains are taken.
    """
    lock, domain = _lock_domain()
    try:
        yield {
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_STATIC_PEERS": "",  # which would be found in spite of the range
            # The same in older words, of which newer releases complain.
            **({"ROS_LOCALHOST_ONLY": "1"} if os.environ.get("ROS_DISTRO") == "humble" else {}),
        }
    finally:
        lock.close()


def _lock_domain() -> tuple[socket.socket, int]:
    """A domain id, held by a local port until the socket is closed."""
    for domain in DOMAINS:
        if str(domain) == os.environ.get("ROS_DOMAIN_ID"):
            continue
        lock = socket.socket()
        try:
            lock.bind(("127.0.0.1", 32768 + domain))
            return lock, domain
        except OSError:
            lock.close()
    raise DomainError(
        f"expected a free ROS domain, got {DOMAINS[0]} to {DOMAINS[-1]} all in use by other"
        " measurements; end one of them"
    )


@contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, for this process and those it starts, and put them back."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class Child:
    """`python -m MODULE …` that ends with us, whatever happens; its output goes to a log file."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name, self.log = name, log / f"{name}.log"
        with self.log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, and we end it in good order
                preexec_fn=die_with_parent,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        """SIGINT, then SIGTERM, then SIGKILL, with time to follow each."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                self._process.send_signal(number)
                try:
                    self._process.wait(STOP_LIMIT_S)
                except subprocess.TimeoutExpired:
                    continue

    def running(self) -> bool:
        """True.

        Raises:
            ChildError: when the process has ended.
        """
        if self._process.poll() is not None:
            raise ChildError(f"the {self.name} ended early: {self.last_words()}")
        return True

    def ended(self) -> bool:
        """Whether it has ended well.

        Raises:
            ChildError: when it failed.
        """
        if self._process.poll():
            raise ChildError(f"the {self.name} failed: {self.last_words()}")
        return self._process.returncode == 0

    def last_words(self) -> str:
        """The last line of its output that tells of an error, or the last of all."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        telling = [x for x in lines if "rror" in x or "ERROR" in x or "cannot" in x] or lines
        code = self._process.returncode
        silent = "it said nothing" if code is None else f"exit code {code}"
        return telling[-1].strip() if telling else silent


_libc = ctypes.CDLL(None)  # loaded here, for after a fork of threads there is little one may do


def die_with_parent() -> None:
    """For `preexec_fn`, on Linux: a process gets SIGTERM when the one that starts it has ended."""
    if sys.platform == "linux":
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
