"""A ROS domain of our own on this machine: what we publish to measure never reaches a robot."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

DOMAINS = (*range(215, 233), *range(80, 102))  # Linux leaves the ports of these to DDS


class DomainError(ValueError):
    """No ROS domain is free."""


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
