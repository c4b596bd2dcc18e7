"""Which domain of a lifelong network to believe, from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence

from mde_ros.config import ConfigError

MARGIN = 0.05  # of the present domain's distance
FRAMES = 5


class DomainSwitch:
    """The nearest domain, but not at every whim: call it with the distances of each frame.

    Another domain takes over after it was the nearest for FRAMES frames in a row, each time by more
    than MARGIN. So noise below the margin moves nothing, and two switches are never nearer to each
    other than FRAMES frames. Ours; published is the choice frame by frame (METHODS 4).

    Args:
        names: of the domains.
        wanted: auto, or the one that is taken whatever the distances say.

    Raises:
        ConfigError: when there is no such domain, listing those there are.
    """

    def __init__(self, names: Sequence[str], wanted: str = "auto") -> None:
        if wanted not in ("auto", *names):
            among = (
                f"one of auto, {', '.join(names)}" if names else "auto, the model has no domains"
            )
            raise ConfigError(f"domain: expected {among}, got {wanted!r}")
        self.names = tuple(names)
        self._fixed = None if wanted == "auto" else self.names.index(wanted)
        self._present: int | None = None
        self._rival, self._streak = 0, 0

    def __call__(self, distances: Sequence[float]) -> int:
        """The index of the domain to believe for the frame of these distances."""
        if self._fixed is not None:
            return self._fixed
        nearest = min(range(len(distances)), key=lambda i: distances[i])
        if self._present is None:
            self._present = nearest
        if distances[nearest] < (1 - MARGIN) * distances[self._present]:
            self._streak = self._streak + 1 if nearest == self._rival else 1
            self._rival = nearest
        else:
            self._streak = 0
        if self._streak >= FRAMES:
            self._present, self._streak = nearest, 0
        return self._present
