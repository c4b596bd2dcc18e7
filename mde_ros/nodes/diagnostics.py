"""What a node counts about its frames, and how it tells /diagnostics."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from mde_ros.nodes.convert import Rejected

WARN_EVERY_S = 5.0
LATEST_S = 10.0  # a longer latency is that of a stamp from another clock


class Throttled:
    """Calls `warn` with a text at most every few seconds for the same reason."""

    def __init__(self, warn: Callable[[str], object]) -> None:
        self._warn, self._warned_at = warn, dict[str, float]()

    def __call__(self, reason: str, text: str) -> None:
        now = time.monotonic()
        if now - self._warned_at.get(reason, -WARN_EVERY_S) >= WARN_EVERY_S:
            self._warned_at[reason] = now
            self._warn(text)


class Statistics:
    """Counts since configuration, and the latencies of the last frames.

    Every image counts in frames_in and then once more: in frames_out, frames_idle (nobody
    subscribes to any output, so nothing was computed), frames_disabled or dropped, by reason. At
    most one image is in between, waiting for its camera_info. loss_reports counts how often the
    middleware said that images were lost before they reached the node; it does not say how many.
    stamp_implausible counts those of frames_out whose latency says nothing: their stamp is missing,
    or of another clock.

    Args:
        warn: writes a warning to the log; called at most every few seconds for the same reason.
        window: number of frames that the latency percentiles are taken over.
    """

    def __init__(self, warn: Callable[[str], object], window: int = 1000) -> None:
        self.frames_in = self.frames_out = self.frames_idle = self.frames_disabled = 0
        self.loss_reports = self.stamp_jumps = self.stamp_implausible = 0
        self.dropped: Counter[str] = Counter()
        self.latencies_s: deque[float] = deque(maxlen=window)
        self._tell = Throttled(warn)
        self._last_stamp_ns = 0
        self._before = (time.monotonic(), 0, 0, 0, 0)  # what status() saw last

    def published(self, latency_s: float) -> None:
        """Count a frame that went out, and how long after its stamp."""
        self.frames_out += 1
        if 0 <= latency_s <= LATEST_S:
            self.latencies_s.append(latency_s)
        else:
            self.stamp_implausible += 1

    def drop(self, error: Rejected) -> None:
        """Count and tell why a frame is not used."""
        self.dropped[error.reason] += 1
        self._tell(error.reason, f"frame dropped: {error}")

    def lost(self) -> None:
        """Count that the middleware reports images lost on the way, and tell what helps."""
        self.loss_reports += 1
        self._tell(
            "lost",
            "images are lost on the way from the camera; give its process and this one more shared"
            " memory: FASTRTPS_DEFAULT_PROFILES_FILE=…/share/mde_ros/config/fastdds.xml",
        )

    def stamp(self, stamp_ns: int) -> None:
        """Look for a bag that starts over or a clock that was set: worth a word, nothing else."""
        if stamp_ns < self._last_stamp_ns:
            self.stamp_jumps += 1
            seconds = (self._last_stamp_ns - stamp_ns) * 1e-9
            self._tell("stamp", f"stamps jumped back by {seconds:.3f} s; going on from there")
        self._last_stamp_ns = stamp_ns

    def percentiles_ms(self) -> dict[str, float]:
        """p50, p95 and p99 of the stamp-to-publish latency; empty before the first frame."""
        if not self.latencies_s:
            return {}
        values = np.percentile(np.array(self.latencies_s) * 1e3, (50, 95, 99))
        return dict(zip(("p50", "p95", "p99"), values.tolist()))

    def status(self, name: str, about: dict[str, str]) -> DiagnosticStatus:
        """The counts for /diagnostics; rate and level regard the time since the last call.

        Args:
            name: of the status.
            about: further values to tell; its image (topic) and device are needed.
        """
        dropped = self.dropped.total()
        now = (time.monotonic(), self.frames_in, self.frames_out, dropped, self.loss_reports)
        seconds, came, went, bad, lost = (b - a for a, b in zip(self._before, now))
        self._before, rate = now, went / max(seconds, 1e-9)
        if bad:
            reasons = ", ".join(f"{reason} {n}" for reason, n in self.dropped.most_common())
            level, text = DiagnosticStatus.WARN, f"frames dropped: {reasons}"
        elif lost:
            level, text = DiagnosticStatus.WARN, "images are lost on the way from the camera"
        elif not came:
            level, text = DiagnosticStatus.WARN, f"no images on {about['image']}"
        elif not went:
            level, text = DiagnosticStatus.OK, "idle: disabled or no subscriber"
        else:
            level, text = DiagnosticStatus.OK, f"{rate:.1f} frames/s"
        values = {
            "rate_hz": f"{rate:.2f}",
            **{f"latency_{k}_ms": f"{v:.2f}" for k, v in self.percentiles_ms().items()},
            "frames_in": str(self.frames_in),
            "frames_out": str(self.frames_out),
            "frames_idle": str(self.frames_idle),
            "frames_disabled": str(self.frames_disabled),
            "loss_reports": str(self.loss_reports),
            "stamp_jumps": str(self.stamp_jumps),
            "stamp_implausible": str(self.stamp_implausible),
            "dropped": str(dropped),
            **{f"dropped.{reason}": str(n) for reason, n in sorted(self.dropped.items())},
            **about,
        }
        return make_status(name, level, text, values, about["device"])


def make_status(
    name: str, level: bytes, text: str, values: dict[str, str], hardware_id: str
) -> DiagnosticStatus:
    """One status of /diagnostics."""
    status = DiagnosticStatus(level=level, name=name, message=text, hardware_id=hardware_id)
    status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    return status
