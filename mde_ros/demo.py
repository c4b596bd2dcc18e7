"""mde demo: recorded frames through the real node, what came back over DDS, and a report on it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from mde_ros.datasets import open_dataset
from mde_ros.live.replay import (
    NAMESPACE,
    PARAMETERS,
    RECORDED,
    TRANSPORT,
    Arrived,
    Replay,
    bar,
    replay,
)

OUTPUT = {
    **RECORDED,
    f"{NAMESPACE}/depth/camera_info": "sensor_msgs/msg/CameraInfo",
    f"{NAMESPACE}/points": "sensor_msgs/msg/PointCloud2",
}
# Every fourth row and column of the cloud: enough to look at, and the bag stays small.
SETTINGS = {"point_stride": 4}


class DemoError(ValueError):
    """The demo cannot be run; the message is one sentence."""


def run_demo(
    *,
    bag: str | None = None,
    folder: str | None = None,
    model: str = "default",
    output: str = "demo",
    rate: float = 1.0,
    folder_rate: float = 10.0,
    progress: bool = True,
    topics: dict[str, str] | None = None,
) -> int:
    """`mde demo`: play recorded frames through the node, judge what comes back, write a report.

    Args:
        bag: with images, camera_info and, for the accuracy, depth; the sample bag by default.
        folder: an RGB-D folder instead.
        model: shipped name or file.
        output: folder that gets output.mcap, results.json, report.html and log/.
        rate: times as fast as recorded.
        folder_rate: frames per second of a folder.
        progress: show a bar with the time left on stderr.
        topics: image_topic, camera_info_topic and more arguments of BagDataset.

    Returns:
        0, or 130 after Ctrl-C.

    Raises:
        ValueError: on a user's error, or when the node cannot be run; one sentence.
    """
    from mde_ros.evaluation.pictures import save_pictures, take_pictures
    from mde_ros.evaluation.report import write_report
    from mde_ros.evaluation.results import print_table, write_json

    if bag and folder:
        raise DemoError("expected --bag or --folder, got both")
    source = Path(folder or bag or str(resources.files("mde_ros") / "samples" / "stills.mcap"))
    dataset = open_dataset(source, **(topics or {}))
    out = Path(output)
    out.mkdir(parents=True, exist_ok=True)
    results_json = out / "results.json"
    for old in (results_json, out / "results.npz", out / "report.html", out / "output.mcap"):
        old.unlink(missing_ok=True)
    try:
        live = replay(
            source, dataset, out, model, rate, folder_rate, SETTINGS, OUTPUT, progress=progress
        )
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    arrived = Arrived(dataset, live)
    recorded = {live.diagnostics.get("model", model): arrived.depth_of}
    name = source.resolve().name if source.is_dir() else source.stem
    with bar(f"judging {name}", len(arrived), progress) as show:
        results = judge(live, arrived, recorded, name, show)
    pictures = take_pictures(arrived, recorded, results)
    write_json(results_json, results)
    save_pictures(results_json.with_suffix(".npz"), pictures)
    title = f"{next(iter(recorded))} on {results['data']['name']}, through the ROS node"
    write_report([results], pictures, out / "report.html", title)
    print_table(results)
    for name in ("report.html", "results.json", "output.mcap"):
        print(out / name)
    return 0


def judge(
    live: Replay,
    arrived: Arrived,
    recorded: dict[str, Any],
    name: str,
    show: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """results.json of a replay: accuracy of the recorded depth, latency and drops of the node."""
    from mde_ros.evaluation.evaluate import evaluate
    from mde_ros.evaluation.results import (
        VERSION,
        EvaluationError,
        latency_summary,
        machine,
        versions,
    )

    try:
        results = evaluate(arrived, recorded, name=name, progress=lambda done, total: show(done))
    except EvaluationError:  # nothing was measured; latency and drops can be told all the same
        empty = {"metrics": {}, "median_scaled": {}, "aggregation": "image", "per_image": []}
        results = {
            "version": VERSION,
            "settings": {},
            "data": {"name": name, "frames": len(arrived), "sha256": None},
            "models": [{"name": next(iter(recorded)), **empty}],
            "machine": machine(),
            "versions": versions(),
        }
    said, model = live.diagnostics, results["models"][0]
    latency = latency_summary(list(live.latency_ms.values()))
    model.update(weights_sha256=said.get("model_sha256"), latency_ms=latency)
    model.update(runtime=said.get("runtime"), device=said.get("device"))
    for image in model["per_image"]:
        stamp = live.stamps_ns[arrived.indices[image["index"]]]
        image["latency_ms"] = live.latency_ms.get(stamp)
    results.pop("speed", None)  # that of reading what the node said
    without_truth = results.pop("dropped", {}).get("no truth", 0)
    results["settings"]["node"] = {**PARAMETERS, **SETTINGS, "transport": TRANSPORT}
    results.update(
        latency_ms=latency,
        frames_in=len(live.stamps_ns),
        frames_out=len(live.logged_ns),
        dropped=live.dropped(),
        frames_without_truth=without_truth,
        # On the bag's clock, which moves in steps, its own latencies mean nothing.
        node={k: v for k, v in said.items() if not k.startswith("latency_")},
    )
    return results
