"""mde demo: recorded frames through the real node, what came back over DDS, and a report on it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mde_ros.datasets import open_dataset
from mde_ros.live.replay import (
    NAMESPACE,
    RECORDED,
    TRANSPORT,
    UNCERTAINTY,
    Arrived,
    Replay,
    bar,
    replay,
)

if TYPE_CHECKING:
    from mde_ros.evaluation.pictures import Model

OUTPUT = {
    **RECORDED,
    f"{NAMESPACE}/depth/camera_info": "sensor_msgs/msg/CameraInfo",
    f"{NAMESPACE}/points": "sensor_msgs/msg/PointCloud2",
    UNCERTAINTY: "sensor_msgs/msg/Image",
}
# Every fourth row and column of the cloud: enough to look at, and the bag stays small.
SETTINGS = {"point_stride": 4}


class DemoError(ValueError):
    """The demo cannot be run; the message is one sentence."""


def run_demo(
    *,
    bag: str | None = None,
    folder: str | None = None,
    completion: bool = False,
    model: str | None = None,
    output: str | None = None,
    rate: float = 1.0,
    folder_rate: float = 10.0,
    progress: bool = True,
    topics: Mapping[str, Any] | None = None,
) -> int:
    """`mde demo`: play recorded frames through the node, judge what comes back, write a report.

    Args:
        bag: with images, camera_info and, for the accuracy, depth; a sample bag by default.
        folder: an RGB-D folder instead.
        completion: the completion node, which takes the bag's scans too. Its depth is judged beside
            that of the default model, and beside that scaled to the scan.
        model: shipped name or file; by default "default", or "completion".
        output: folder that gets output.mcap, results.json, report.html and log/; by default "demo",
            or "demo/completion".
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
    sample = "drive.mcap" if completion else "stills.mcap"
    source = Path(folder or bag or str(resources.files("mde_ros") / "samples" / sample))
    dataset = open_dataset(source, **(topics or {}))
    model = model or ("completion" if completion else "default")
    baselines = scan_baselines() if completion else {}
    out = Path(output or ("demo/completion" if completion else "demo"))
    out.mkdir(parents=True, exist_ok=True)
    results_json = out / "results.json"
    for old in (results_json, out / "results.npz", out / "report.html", out / "output.mcap"):
        old.unlink(missing_ok=True)
    try:
        live = replay(
            source,
            dataset,
            out,
            model,
            rate,
            folder_rate,
            parameters={**SETTINGS, **node_settings(topics or {}, completion)},
            recorded=OUTPUT,
            progress=progress,
            completion=completion,
        )
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    arrived = Arrived(dataset, live)
    said = live.diagnostics.get("model", model)
    models = {said: arrived.depth_of, **{n: m for n, m in baselines.items() if n != said}}
    name = source.resolve().name if source.is_dir() else source.stem
    with bar(f"judging {name}", len(arrived), progress) as show:
        results = judge(live, arrived, models, name, show)
    pictures = take_pictures(arrived, models, results)
    write_json(results_json, results)
    save_pictures(results_json.with_suffix(".npz"), pictures)
    title = f"{next(iter(models))} on {results['data']['name']}, through the ROS node"
    write_report([results], pictures, out / "report.html", title)
    print_table(results)
    written = [out / name for name in ("report.html", "results.json", "output.mcap")]
    for line in (*results["verdict"], *written):
        print(line)
    return 0


def scan_baselines() -> dict[str, Model]:
    """What a scan is worth without a network that takes it, as `mde evaluate --scan-scaled`."""
    from mde_ros.config import PipelineSettings
    from mde_ros.evaluation.parts import Job
    from mde_ros.evaluation.run import EvaluateSettings

    settings = EvaluateSettings(scan_scaled=True)
    return Job(("default",), settings, PipelineSettings(), {}).load()


def node_settings(topics: Mapping[str, Any], completion: bool) -> dict[str, Any]:
    """Parameters of the completion node among arguments of open_dataset."""
    if not completion:
        return {}
    out = dict(topics)
    if "laser_to_camera" in out:
        out["laser_to_camera"] = " ".join(map(str, out["laser_to_camera"]))
    return {name: out[name] for name in ("laser_to_camera", "max_scan_age") if name in out}


def judge(
    live: Replay,
    arrived: Arrived,
    models: Mapping[str, Model],
    name: str,
    show: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """results.json of a replay: accuracy of the recorded depth, latency and drops of the node.

    Args:
        models: the first is the node, `arrived.depth_of`; others predict here, after the replay.
    """
    from mde_ros.evaluation.evaluate import evaluate
    from mde_ros.evaluation.results import (
        VERSION,
        EvaluationError,
        latency_summary,
        machine,
        versions,
    )

    try:
        results = evaluate(arrived, models, name=name, progress=lambda done, total: show(done))
    except EvaluationError:  # nothing was measured; latency and drops can be told all the same
        empty = {"metrics": {}, "median_scaled": {}, "aggregation": "image", "per_image": []}
        results = {
            "version": VERSION,
            "settings": {},
            "data": {"name": name, "frames": len(arrived), "sha256": None},
            "models": [{"name": next(iter(models)), **empty}],
            "machine": machine(),
            "versions": versions(),
        }
    said, (model, *others) = live.diagnostics, results["models"]
    latency = latency_summary(list(live.latency_ms.values()))
    model.update(weights_sha256=said.get("model_sha256"), latency_ms=latency)
    model.update(runtime=said.get("runtime"), device=said.get("device"))
    for image in model["per_image"]:
        stamp = live.stamps_ns[arrived.indices[image["index"]]]
        image["latency_ms"] = live.latency_ms.get(stamp)
    for other in others:  # a call is not the way through a node
        other["latency_ms"] = {}
        for image in other["per_image"]:
            del image["latency_ms"]
    results.pop("speed", None)  # that of reading what the node said
    without_truth = results.pop("dropped", {}).get("no truth", 0)
    results["settings"]["node"] = {**live.settings, "transport": TRANSPORT}
    results.update(
        latency_ms=latency,
        frames_in=len(live.stamps_ns),
        frames_out=len(live.logged_ns),
        dropped=live.dropped(),
        frames_without_truth=without_truth,
        verdict=[comparison(model, other) for other in others],
        # On the bag's clock, which moves in steps, its own latencies mean nothing.
        node={k: v for k, v in said.items() if not k.startswith("latency_")},
    )
    return results


def comparison(model: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """In plain words, whether a model of results.json is better than another.

    It is when both RMSE and AbsRel are smaller.
    """
    better, figures = [], []
    for key, name, unit in (("rmse_m", "RMSE", " m"), ("abs_rel", "AbsRel", "")):
        ours, theirs = model["metrics"][key], other["metrics"][key]
        better += [name] if ours < theirs else []
        figures.append(f"{name} {ours:.3f}{unit} against {theirs:.3f}{unit}")
    words = ("is not better than", f"is better only in {''.join(better)} than", "is better than")
    return f"{model['name']} {words[len(better)]} {other['name']}: {', '.join(figures)}"
