"""What a node counts about its frames, and how it tells /diagnostics."""

from __future__ import annotations

import time
from collections import Counter, deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

WARN_EVERY_S = 5.0


class Statistics:
    """Counts since configuration, and the latencies of the last frames.

    Every image counts in frames_in and then once more: in frames_out, frames_idle (nobody
    subscribes to any output, so nothing was computed), frames_disabled or dropped, by reason. At
    most one image is in between, waiting for its camera_info.
    """

    def __init__(self, window: int = 1000) -> None:
        self.frames_in = self.frames_out = self.frames_idle = self.frames_disabled = 0
        self.stamp_jumps = 0
        self.dropped: Counter[str] = Counter()
        self.latencies_s: deque[float] = deque(maxlen=window)
        self._warned_at: dict[str, float] = {}
        self._last = (time.monotonic(), 0, 0, 0)

    def published(self, latency_s: float) -> None:
        """Count a frame that went out, and how long after its stamp."""
        self.frames_out += 1
        self.latencies_s.append(latency_s)

    def may_warn(self, reason: str) -> bool:
        """Whether a warning for this reason is due again, so that none floods the log."""
        now = time.monotonic()
        due = now - self._warned_at.get(reason, -WARN_EVERY_S) >= WARN_EVERY_S
        if due:
            self._warned_at[reason] = now
        return due

    def percentiles_ms(self) -> dict[str, float]:
        """p50, p95 and p99 of the stamp-to-publish latency; empty before the first frame."""
        if not self.latencies_s:
            return {}
        values = np.percentile(np.array(self.latencies_s) * 1e3, (50, 95, 99))
        return dict(zip(("p50", "p95", "p99"), values.tolist()))

    def message(self, name: str, about: dict[str, str], stamp) -> DiagnosticArray:
        """The counts as a diagnostics message; rate and level regard the time since the last one.

        Args:
            name: of the status, the node's.
            about: further values to tell; its image (topic) and device are needed.
            stamp: builtin_interfaces Time of the message.
        """
        now, lost = time.monotonic(), self.dropped.total()
        then, old_in, old_out, old_lost = self._last
        self._last = (now, self.frames_in, self.frames_out, lost)
        rate = (self.frames_out - old_out) / max(now - then, 1e-9)
        if lost > old_lost:
            worst = ", ".join(f"{reason} {n}" for reason, n in self.dropped.most_common())
            level, text = DiagnosticStatus.WARN, f"frames dropped: {worst}"
        elif self.frames_in == old_in:
            level, text = DiagnosticStatus.WARN, f"no images on {about['image']}"
        elif self.frames_out == old_out:
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
            "stamp_jumps": str(self.stamp_jumps),
            "dropped": str(lost),
            **{f"dropped.{reason}": str(n) for reason, n in sorted(self.dropped.items())},
            **about,
        }
        status = DiagnosticStatus(level=level, name=name, message=text, hardware_id=about["device"])
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = stamp
        return message
