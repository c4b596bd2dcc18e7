"""What masks are learnt from and judged on: simulated rooms, and recordings if they are given."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mde_ros.datasets import Dataset, open_dataset
from mde_ros.datasets.published import Prepared
from mde_ros.evaluation.run import EvaluateSettings
from mde_ros.reproduce.record import ReproduceSettings
from mde_ros.reproduce.simulated import scenes
from mde_ros.training.batches import Source

REAL = {"hololens_office": 60}  # frames at the end, to be judged on
FRAMES = 8  # of each place are judged on
MODEL = "student-fast"  # N of the small scale


@dataclass(frozen=True, eq=False)
class Places:
    """Sources of trainings; and data sets that none of them saw, by name."""

    sources: tuple[Source, ...]
    tests: dict[str, tuple[Dataset, EvaluateSettings]] = field(default_factory=dict)


def places(settings: ReproduceSettings) -> Places:
    """Of the scale; real=FOLDER adds the recordings of REAL that it has to the small one.

    Raises:
        ConfigError: without nyu= and nyu_test= of the full scale. DatasetError: when one cannot be
            read.
    """
    if settings.scale == "full":
        test = Prepared(open_dataset(settings.path("nyu_test")), "nyu")
        return Places((Source(settings.path("nyu")),), {"NYU": (test, EvaluateSettings())})
    learn = scenes(settings.work, "rooms", rooms=30, streets=0, seed=31)
    judged_on = scenes(settings.work, "rooms-test", rooms=10, streets=0, seed=32)
    judged = EvaluateSettings(max_frames=FRAMES)
    sources, tests = [Source(str(learn))], {"rooms": (open_dataset(judged_on), judged)}
    if real := settings.given("real"):
        for name, last in REAL.items():
            path = Path(real) / name
            sources.append(Source(str(path), weight=0.5, skip_last=last))
            judged = EvaluateSettings(last=last, max_frames=FRAMES)
            tests[name] = (open_dataset(path), judged)
    return Places(tuple(sources), tests)
