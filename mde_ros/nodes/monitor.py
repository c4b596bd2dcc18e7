"""What the monitor of the defence counts, and how it tells /diagnostics."""

from __future__ import annotations

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from mde_ros.nodes.diagnostics import make_status
from mde_ros.runtime import Alarm


class Monitor:
    """Disagreements of the masked image's depth with the whole image's, frame by frame.

    A single frame above the threshold counts in `alarms`, and says little: by its false-alarm rate
    some clean ones are. The status is a warning when the median of the frames since the last status
    is above it. Where a part r of clean frames is, that happens in at most 2 r of the statuses.
    """

    def __init__(self) -> None:
        self.frames = self.alarms = 0
        self._since: list[float] = []  # last status

    def take(self, disagreement: float, alarm: Alarm) -> None:
        """Count a frame; NaN, of depth that is nowhere valid, is an alarm."""
        self.frames += 1
        self.alarms += alarm.threshold > 0 and not disagreement <= alarm.threshold
        self._since.append(disagreement)

    def status(self, name: str, about: dict[str, str], alarm: Alarm) -> DiagnosticStatus:
        """The counts for /diagnostics.

        Args:
            name: of the status.
            about: further values to tell; its device is needed.
        """
        measured, median = {}, None
        if self._since:
            median = float(np.median(self._since))
            measured = {
                "disagreement": f"{median:.4g}",
                "disagreement_max": f"{max(self._since):.4g}",
            }
        self._since.clear()
        rate = alarm.false_alarm_rate
        known = f" ({100 * rate:g} % of clean frames are above it)" if rate else ""
        level, text = DiagnosticStatus.OK, "nothing to compare"
        if not alarm.threshold:
            level, text = DiagnosticStatus.WARN, "no threshold is known: set alarm_threshold"
        elif median is not None and median <= alarm.threshold:
            text = f"disagreement {median:.3f}, threshold {alarm.threshold:.3f}{known}"
        elif median is not None:
            level = DiagnosticStatus.WARN
            text = f"disagreement {median:.3f} is above {alarm.threshold:.3f}{known}"
        values = {
            **measured,
            "threshold": f"{alarm.threshold:.4g}",
            "false_alarm_rate": f"{rate:g}" if rate else "unknown",
            "frames": str(self.frames),
            "alarms": str(self.alarms),
            **about,
        }
        return make_status(name, level, text, values, about["device"])
