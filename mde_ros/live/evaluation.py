"""mde evaluate --live: models in the real node, held against what they say offline."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mde_ros.config import as_dict
from mde_ros.datasets import Dataset
from mde_ros.live.played import LiveError
from mde_ros.live.replay import PARAMETERS, TRANSPORT, Arrived, bar, replay


def difference(a_m: np.ndarray, b_m: np.ndarray) -> tuple[float, float]:
    """Largest difference of two depth maps (H, W): metres, and as a share of the larger value."""
    apart = np.abs(a_m - b_m)
    return float(apart.max()), float((apart / np.maximum(np.maximum(a_m, b_m), 1e-9)).max())


def measure_live(
    source: str | Path,
    dataset: Dataset,
    pipeline: Any,
    rate: float = 1.0,
    progress: bool = True,
    laser_to_camera: Sequence[float] = (),
) -> dict[str, Any]:
    """`mde evaluate --live`: a model in the real node, fed by a player at the bag's own rate.

    A model that takes LiDAR points is run by the completion node, if the bag has scans.

    Args:
        source: path of a bag or RGB-D folder (10 frames a second); `dataset` is the same, opened.
        pipeline: the DepthPipeline of the model; the node gets its settings.
        rate: times as fast as recorded.
        progress: show bars with the time left on stderr.
        laser_to_camera: x y z qx qy qz qw; by default what the bag's /tf_static says.

    Returns:
        `fps`, `latency_ms` from image sent to depth received, `frames_in`, `frames_out`, `dropped`
        by reason, and over all frames that arrived the largest difference from what `pipeline` says
        offline, `max_difference_m` and `max_relative_difference`, and how many are `identical`.

    Raises:
        ValueError: LiveError and what `replay` raises.
    """
    from mde_ros.evaluation.results import latency_summary

    settings = {k: v for k, v in as_dict(pipeline.settings).items() if k != "model"}
    model = str(pipeline.runtime.path)
    topics: Any = getattr(dataset, "topics", None)  # of a bag
    completion = bool(pipeline.runtime.spec.takes_points and topics and topics.scan)
    if completion and laser_to_camera:
        settings["laser_to_camera"] = " ".join(map(str, laser_to_camera))
    with tempfile.TemporaryDirectory(prefix="mde_live_") as folder:
        live = replay(
            source,
            dataset,
            Path(folder),
            model,
            rate,
            parameters=settings,
            progress=progress,
            completion=completion,
        )
        arrived = Arrived(dataset, live)
        worst_m = worst = 0.0
        identical = 0
        with bar("live against offline", len(arrived), progress) as show:
            for done, sample in enumerate(arrived):
                show(done)
                came_m = arrived.depth_of(sample.frame).depth
                apart_m, apart = difference(came_m, pipeline(sample.frame).depth)
                worst_m, worst = max(worst_m, apart_m), max(worst, apart)
                identical += apart_m == 0
    return {
        "rate": rate,
        "fps": live.fps(),
        "latency_ms": latency_summary(list(live.latency_ms.values())),
        "frames_in": len(live.stamps_ns),
        "frames_out": len(arrived),
        "dropped": live.dropped(),
        "max_difference_m": worst_m,
        "max_relative_difference": worst,
        "identical": identical,
        "node": {**PARAMETERS, "transport": TRANSPORT},
    }


def live_evaluation(
    source: str | Path,
    rate: float = 1.0,
    progress: bool = True,
    laser_to_camera: Sequence[float] = (),
) -> Callable[[Any, Mapping[str, Any], dict[str, Any]], None]:
    """What run_evaluate calls to measure every model live too, one after the other.

    The numbers go into `results`: each model's entry gets "live", see measure_live, and the
    results that of the first.

    Raises:
        ValueError: when the source cannot be played.
    """
    from mde_ros.nodes.player import open_source

    if not rate > 0:
        raise LiveError(f"rate: expected more than 0, got {rate}")
    open_source(source).close()

    def measure(dataset: Any, pipelines: Mapping[str, Any], results: dict[str, Any]) -> None:
        for entry in results["models"]:
            pipeline = pipelines[entry["name"]]
            entry["live"] = measure_live(source, dataset, pipeline, rate, progress, laser_to_camera)
            results.setdefault("live", entry["live"])

    return measure
