"""Simulated scenes for the small scale: made once, the same on every machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mde_ros.simulation.clip import SimulationSettings
from mde_ros.simulation.generate import simulate


def scenes(
    work: str, name: str, rooms: int, streets: int, seed: int, frames: int = 12, **more: Any
) -> Path:
    """The folder of so many clips; a second call finds them there.

    Args:
        more: further SimulationSettings.

    Raises:
        KeyboardInterrupt: after Ctrl-C; complete clips are kept.
    """
    out = Path(work) / "scenes" / name
    settings = SimulationSettings(rooms=rooms, streets=streets, frames=frames, seed=seed, **more)
    if simulate(settings, out):
        raise KeyboardInterrupt
    return out
