"""What experiments of the small scale share: simulated scenes, and a loop of minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mde_ros.simulation.clip import SimulationSettings
from mde_ros.simulation.generate import simulate
from mde_ros.training.loop import LoopSettings

FROZEN = tuple(f"encoder.features.{i}" for i in range(4))  # half the cost of a step


def small_loop(steps: int) -> LoopSettings:
    """What the shipped trunk has above its first four blocks moves."""
    return LoopSettings(steps=steps, batch=8, lr=1e-3, encoder_lr=2e-4, warmup=20, frozen=FROZEN)


def scenes(
    work: str, name: str, rooms: int, streets: int, seed: int, frames: int = 12, **more: Any
) -> Path:
    """The folder of so many clips, the same on every machine; a second call finds them there.

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
