"""Validation while training: the kept weights, run by the pipeline that a robot runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mde_ros.config import ConfigError, PipelineSettings, check, setting
from mde_ros.datasets import Dataset, open_dataset
from mde_ros.datasets.published import TEST_SIZES, Prepared
from mde_ros.datasets.virtual_scan import VirtualScan, WithScan
from mde_ros.evaluation.measure import ScoreSettings, measure
from mde_ros.metrics import Aggregate
from mde_ros.pipeline import DepthPipeline

SHOWN = ("delta1", "abs_rel", "rmse_m", "edge_f1")


@dataclass(frozen=True)
class HeldOut:
    """A data set with truth that is not trained on."""

    path: str = setting("", "bag, RGB-D folder or folder of such; $VARIABLES are expanded")
    last: int = setting(0, "only the last N frames, 0 = all", low=0)
    every: int = setting(5, "take every n-th frame", low=1)
    prepared: str = setting(
        "", "resize and crop as the published tests of this set do", choices=("", *TEST_SIZES)
    )
    scan: str = setting("", "virtual scan cut out of its depth: height=H[,pitch=P,beams=N,noise=S]")

    def __post_init__(self) -> None:
        check(self)

    def open(self) -> tuple[Dataset, range]:
        """The data set, and which of its frames are taken.

        Raises:
            DatasetError: when it cannot be opened.
        """
        data: Dataset = open_dataset(os.path.expandvars(self.path))
        if self.prepared:
            data = Prepared(data, self.prepared)
        if self.scan:
            data = WithScan(data, VirtualScan.parse(self.scan))
        first = max(0, len(data) - self.last) if self.last else 0
        return data, range(first, len(data), self.every)


def validation(sets: tuple[HeldOut, ...]) -> Callable[[Path], dict[str, float]] | None:
    """A function from a checkpoint's path to figures, named SET/METRIC; None without a set.

    Raises:
        ConfigError: when none of a set's frames has truth. DatasetError: when it cannot be read.
    """
    if not sets:
        return None
    opened = []
    for held in sets:
        data, chosen = held.open()
        if not any(data[i].has_truth() for i in chosen):
            raise ConfigError(
                f"held_out: expected measured depth in {held.path}, got none in its"
                f" {len(chosen)} frames that are taken; leave it out"
            )
        opened.append((data, chosen))

    def validate(checkpoint: Path) -> dict[str, float]:
        settings = PipelineSettings(model=str(checkpoint), device="cpu", threads=0)
        pipeline = DepthPipeline(settings)
        metric = pipeline.runtime.spec.metric
        if not metric:  # it is judged by what median scaling leaves, whatever its scale
            pipeline.settings = replace(settings, min_depth=0.0, max_depth=1000.0)
        figures: dict[str, float] = {}
        for data, chosen in opened:
            total = Aggregate()
            for i in chosen:
                sample = data[i]
                if sample.truth_m is not None and sample.has_truth():
                    measured = measure(pipeline(sample.frame), sample.truth_m, ScoreSettings())
                    total.add(measured.metric if metric else measured.scaled)
            result = total.result()
            # A network that sees no depth anywhere has no error, only coverage 0; sparse truth has
            # no edges.
            figures |= {f"{data.name}/{k}": result[k] for k in SHOWN if k in result}
        return figures

    return validate
