"""What the completion node counts about its scans, and how well depth agrees with them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from mde_ros.nodes.convert import Rejected
from mde_ros.nodes.diagnostics import Throttled, make_status


class Agreement(NamedTuple):
    """How the depth of a frame differs from the scan, by medians over the scan's pixels."""

    metres: float  # |depth - measured|
    share: float  # |depth - measured| / measured
    scale: float  # depth / measured


class ScanStatistics:
    """Counts since configuration; ages, points and agreement since the last status.

    Every scan counts in scans_in and, if it cannot be used, in rejected by reason. Every image that
    got points counts in frames_completed; one that went on without, where the parameters allow it,
    in frames_monocular by reason (else it is dropped, see diagnostics.Statistics).
    frames_not_deskewed counts those whose scan could not be moved as `deskew` asks.

    Args:
        warn: writes a warning to the log; called at most every few seconds for the same reason.
        window: number of frames whose median scale the present one is held against.
    """

    def __init__(self, warn: Callable[[str], object], window: int = 1000) -> None:
        self.scans_in = self.scan_jumps = self.frames_completed = 0
        self.rejected: Counter[str] = Counter()
        self.frames_monocular: Counter[str] = Counter()
        self.frames_not_deskewed: Counter[str] = Counter()
        self._tell = Throttled(warn)
        self._used: list[tuple[float, int]] = []  # age in seconds and points, since last status
        self._agreements: list[Agreement] = []
        self._scales: deque[float] = deque(maxlen=window)  # before the last status
        self._before = (0, 0, 0, 0)  # what status() saw last

    def reject(self, error: Rejected) -> None:
        """Count and tell why a scan is not used."""
        self.rejected[error.reason] += 1
        self._tell(error.reason, f"scan rejected: {error}")

    def jump(self, seconds: float) -> None:
        """Look at a bag that starts over or a clock that was set: worth a word, nothing else."""
        self.scan_jumps += 1
        self._tell("jump", f"stamps of scans jumped back by {seconds:.3f} s; going on from there")

    def monocular(self, error: Rejected) -> None:
        """Count and tell why an image gets depth without points."""
        self.frames_monocular[error.reason] += 1
        self._tell(error.reason, f"depth without a scan: {error}")

    def not_deskewed(self, error: Rejected) -> None:
        """Count and tell why a scan is used as if the robot stood still."""
        self.frames_not_deskewed[error.reason] += 1
        self._tell(error.reason, f"scan used as it is: {error}")

    def used(self, age_s: float, points: int) -> None:
        """Count an image that got points of a scan of this age."""
        self.frames_completed += 1
        self._used.append((age_s, points))

    def compared(self, depth_m: np.ndarray, measured_m: np.ndarray) -> None:
        """Take in a frame's depth at the pixels of the scan, and what that says: (N,), N > 0."""
        error, ratio = np.abs(depth_m - measured_m), depth_m / measured_m
        medians = np.median(np.stack([error, error / measured_m, ratio]), axis=1)
        self._agreements.append(Agreement(*medians.tolist()))

    def status(
        self, name: str, about: dict[str, str], max_disagreement: float, hardware_id: str
    ) -> DiagnosticStatus:
        """The counts for /diagnostics; medians and level regard the time since the last call.

        Args:
            name: of the status.
            about: further values to tell; its scan (topic) is needed.
            max_disagreement: largest share of the distance without a warning.
        """
        rejected, monocular, not_deskewed = (
            c.total() for c in (self.rejected, self.frames_monocular, self.frames_not_deskewed)
        )
        now = (self.scans_in, rejected, monocular, not_deskewed)
        came, bad, without, skewed = (b - a for a, b in zip(self._before, now))
        self._before = now
        measured: dict[str, str] = {}
        if self._used:
            age_s, points = np.median(self._used, axis=0)
            measured |= {"scan_age_ms": f"{1e3 * age_s:.1f}", "points": f"{points:.0f}"}
        agreement = None
        if self._agreements:
            agreement = Agreement(*np.median(self._agreements, axis=0).tolist())
            measured |= {
                "disagreement_m": f"{agreement.metres:.3f}",
                "disagreement_percent": f"{100 * agreement.share:.1f}",
                "scale": f"{agreement.scale:.3f}",
            }
            if self._scales:
                drift = agreement.scale / float(np.median(self._scales))
                measured["scale_drift"] = f"{drift:.3f}"
            self._scales.extend(a.scale for a in self._agreements)
        self._used.clear()
        self._agreements.clear()

        level = DiagnosticStatus.WARN
        if agreement and agreement.share > max_disagreement:
            text = (
                f"depth and scan differ by {100 * agreement.share:.0f} % of the distance"
                f" ({agreement.metres:.2f} m)"
            )
        elif bad:
            text = f"scans rejected: {_reasons(self.rejected)}"
        elif without:
            text = f"depth without a scan: {_reasons(self.frames_monocular)}"
        elif skewed:
            text = f"scans used as they are: {_reasons(self.frames_not_deskewed)}"
        elif not came:
            text = f"no scans on {about['scan']}"
        elif agreement:
            level = DiagnosticStatus.OK
            text = f"depth and scan agree within {100 * agreement.share:.0f} % of the distance"
        else:
            level, text = DiagnosticStatus.OK, "no depth to compare"
        values = {
            **measured,
            "scans_in": str(self.scans_in),
            "scan_jumps": str(self.scan_jumps),
            "frames_completed": str(self.frames_completed),
            "frames_monocular": str(monocular),
            "frames_not_deskewed": str(not_deskewed),
            "rejected": str(rejected),
            **_counts("rejected", self.rejected),
            **_counts("frames_monocular", self.frames_monocular),
            **_counts("frames_not_deskewed", self.frames_not_deskewed),
            **about,
        }
        return make_status(name, level, text, values, hardware_id)


def _reasons(counter: Counter[str]) -> str:
    return ", ".join(f"{reason} {n}" for reason, n in counter.most_common())


def _counts(name: str, counter: Counter[str]) -> dict[str, str]:
    return {f"{name}.{reason}": str(n) for reason, n in sorted(counter.items())}
