"""`mde benchmark`: how fast network, pipeline and node are on this machine, all in one run.

Models and runtimes take turns in every round, so that a busy moment hits all of them; medians are
told. What needs ROS is measured by the probe (nodes/probe.py) in processes of its own.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mde_ros.config import PipelineSettings
from mde_ros.evaluation.benchmark_table import NODE_FEEDS, defence_costs, print_benchmark
from mde_ros.evaluation.laser import LASER_TO_CAMERA, make_scans, scan_costs, with_points
from mde_ros.evaluation.results import machine, versions, write_json
from mde_ros.frame import Camera, Frame, Prediction
from mde_ros.isolation import own_domain
from mde_ros.pipeline import DepthPipeline
from mde_ros.runtime import ModelError

ROUNDS = 10
FOCAL_AT_640 = 525.0  # a usual RGB-D camera, in pixels


class BenchmarkError(ValueError):
    """Nothing could be measured; the message says why."""


@dataclass(eq=False)
class Candidate:
    """A model on a runtime, with the milliseconds of every call so far, by part."""

    name: str
    model: str
    pipeline: DepthPipeline
    spent_ms: dict[str, list[float]] = field(default_factory=dict)

    @property
    def takes_points(self) -> bool:
        """Whether frames come with a scan."""
        return self.pipeline.runtime.spec.takes_points

    def measure(self, frames: Sequence[Frame], scans: Sequence[Any]) -> None:
        """One round: each frame through the parts, then through the pipeline as a whole.

        Networks that take points get those of a scan; making them of the message counts.
        """
        pipeline = self.pipeline
        optics = pipeline.optics(frames[0].camera)
        for i, frame in enumerate(frames):
            if self.takes_points:
                frame = self._time("scan", with_points, frame, scans[i % len(scans)])
            image, sparse = self._time("prepare", pipeline.prepare, frame, optics)
            begin = time.process_time()
            focal_px = optics.network.focal_px
            outputs = self._time("network", pipeline.infer, image, focal_px, sparse)
            self.spent_ms.setdefault("network_cpu", []).append(1e3 * (time.process_time() - begin))
            self._time("finish", pipeline.finish, outputs, optics)
        for i, frame in enumerate(frames):
            self._time("pipeline", self._whole, frame, scans[i % len(scans)])

    def median_ms(self, part: str) -> float:
        """Median over all rounds."""
        return float(np.median(self.spent_ms[part]))

    def _whole(self, frame: Frame, scan: Any) -> Prediction:
        return self.pipeline(with_points(frame, scan) if self.takes_points else frame)

    def _time(self, part: str, call: Callable, *arguments: Any) -> Any:
        begin = time.perf_counter()
        value = call(*arguments)
        self.spent_ms.setdefault(part, []).append(1e3 * (time.perf_counter() - begin))
        return value


def find_candidates(
    models: Iterable[str], settings: PipelineSettings, defences: Sequence[str] = ("off",)
) -> tuple[list[Candidate], dict[str, str]]:
    """Every model on every runtime that is installed and can run it, and why others cannot.

    TensorRT, which is a part of ONNX Runtime, is tried where that uses a GPU.

    Args:
        defences: each model is measured with all of them, see PipelineSettings.

    Raises:
        BenchmarkError: when none can.
    """
    runtimes = [r for r in ("onnxruntime", "torch", "openvino") if importlib.util.find_spec(r)]
    found: list[Candidate] = []
    skipped: dict[str, str] = {}
    for model in models:
        tried = list(runtimes)
        for runtime in tried:
            try:
                choice = dataclasses.replace(settings, model=model, runtime=runtime)
                pipeline = DepthPipeline(choice)
            except ModelError as error:
                skipped[f"{Path(model).name} on {runtime}"] = str(error)
                continue
            name = pipeline.runtime.spec.name or pipeline.runtime.path.stem
            found.append(Candidate(name, model, pipeline))
            for defence in defences[1:]:
                try:
                    defended = DepthPipeline(dataclasses.replace(choice, defence=defence))
                    found.append(Candidate(f"{name}, {defence}", model, defended))
                except ModelError as error:
                    skipped[f"{defence} of {name} on {runtime}"] = str(error)
            if runtime == "onnxruntime" and pipeline.runtime.device != "cpu":
                tried.append("tensorrt")
    if not found:
        reasons = "; ".join(f"{k}: {v}" for k, v in skipped.items()) or "no model was given"
        raise BenchmarkError(f"benchmark: no model can be run here ({reasons})")
    return found, skipped


def make_frames(width: int, height: int, count: int = 8, seed: int = 0) -> list[Frame]:
    """Smooth coloured noise: what is in a picture does not change the time it takes."""
    rng = np.random.default_rng(seed)
    f = FOCAL_AT_640 * width / 640
    K = np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1.0]])
    camera = Camera(width, height, K)
    small = [rng.integers(0, 256, (12, 16, 3), np.uint8) for _ in range(count)]
    images = [cv2.resize(s, (width, height), interpolation=cv2.INTER_CUBIC) for s in small]
    return [Frame(image, camera) for image in images]


def measure_pipelines(
    candidates: Sequence[Candidate],
    frames: Sequence[Frame],
    scans: Sequence[Any],
    calls: int,
    rounds: int = ROUNDS,
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Warm up, then let all candidates take turns for some rounds of `calls` frames in all."""
    per_round = max(1, calls // rounds)
    for candidate in candidates:
        candidate.measure(frames[:3], scans)
        candidate.spent_ms.clear()
    for i in range(rounds):
        chosen = [frames[(i * per_round + k) % len(frames)] for k in range(per_round)]
        turn = i % len(candidates)
        for candidate in [*candidates[turn:], *candidates[:turn]]:
            time.sleep(0.02)  # threads of the one before spin for a while
            candidate.measure(chosen, scans)
            progress()


def probe(frames: Sequence[Frame], arguments: Sequence[str]) -> dict[str, Any]:
    """Run nodes/probe.py on these frames, in a DDS domain of its own, and read what it prints.

    Raises:
        BenchmarkError: when it fails, with the last line it wrote.
    """
    with tempfile.TemporaryDirectory(prefix="mde_benchmark_") as folder:
        file = str(Path(folder) / "images.npy")
        np.save(file, np.stack([f.image for f in frames]))
        command = [sys.executable, "-m", "mde_ros.nodes.probe", file, *arguments]
        command += ["--focal", str(frames[0].camera.focal_px)]
        with own_domain() as apart:
            environment = {**os.environ, **apart, "ROS_LOG_DIR": folder}
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BenchmarkError(f"benchmark: the node could not be measured ({last})")
    return json.loads(done.stdout.splitlines()[-1])


def measure_node(
    candidate: Candidate, frames: Sequence[Frame], beams: int, count: int, soak: int = 0
) -> dict[str, Any]:
    """The node with this model, fed over DDS: see probe.measure for what comes back."""
    runtime, settings = candidate.pipeline.runtime, candidate.pipeline.settings
    parameters = {
        "model": runtime.path,
        "runtime": runtime.name,
        "device": runtime.device,
        "threads": settings.threads,
        "defence": settings.defence,
    }
    arguments = ["--feeds", *NODE_FEEDS, "--frames", str(count), "--soak", str(soak)]
    if candidate.takes_points:
        parameters["laser_to_camera"] = " ".join(f"{x:g}" for x in LASER_TO_CAMERA)
        arguments += ["--beams", str(beams)]
    return probe(frames, [*arguments, "--set", *(f"{k}:={v}" for k, v in parameters.items())])


def row(
    candidate: Candidate, messages: Mapping[str, float] | None, node: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The entry of one candidate in benchmark.json."""
    runtime = candidate.pipeline.runtime
    own = ("scan", "prepare", "network", "finish")
    parts = {p: candidate.median_ms(p) for p in own if p in candidate.spent_ms}
    parts.update(messages or {})
    # Colour is for looking: a robot that drives does not subscribe to it.
    others = ("scan", "prepare", "finish", "image_to_rgb", "depth_message")
    other = sum(parts.get(k, 0.0) for k in others)
    entry: dict[str, Any] = {
        "name": candidate.name,
        "file": runtime.path.name,
        "weights_sha256": runtime.sha256,
        "runtime": runtime.name,
        "device": runtime.device,
        "takes_points": candidate.takes_points,
        "threads": candidate.pipeline.settings.threads,
        "defence": candidate.pipeline.settings.defence,
        "network_ms": parts["network"],
        "other_ms": other,
        "other_with_cloud_ms": other + parts["cloud_message"] if messages else None,
        "parts_ms": parts,
        "network_cpu_ms": candidate.median_ms("network_cpu"),
        "pipeline_ms": candidate.median_ms("pipeline"),
        "pipeline_fps": 1e3 / candidate.median_ms("pipeline"),
        "node_fps": None,
        "latency_ms": None,
        "cpu_ms_per_frame": None,
        "rss_mb": None,
    }
    if node:
        feeds = node["feeds"]
        entry.update(
            node_fps=feeds["fast"].get("fps"),
            latency_ms=feeds["depth"].get("latency_ms"),
            cpu_ms_per_frame=feeds["depth"]["cpu_ms_per_frame"],
            rss_mb=node["rss_mb"],
            first_depth_s=node["first_depth_s"],
            node=node,
        )
    return entry


def run_benchmark(
    models: Iterable[str] = ("default",),
    *,
    frames: int = 200,
    size: tuple[int, int] = (640, 480),
    beams: int = 720,
    threads: int = 2,
    device: str = "auto",
    defence: bool = False,
    node: bool = True,
    soak: int = 0,
    json_path: str | None = None,
) -> int:
    """`mde benchmark`: measure, print tables, write benchmark.json.

    Args:
        models: shipped names or files, the first is the one the others are compared with.
        frames: per measurement, at least 10.
        size: of the camera's image, pixels.
        beams: of the scans that models which take points get.
        threads, device: for the network.
        defence: whether to measure every model with its mask and with the monitor too.
        node: whether to measure the node over DDS too; needs ROS 2.
        soak: frames over which the memory of the first model's node is watched.
        json_path: benchmark.json to be written; "-" is stdout.

    Returns:
        0.

    Raises:
        ValueError: on any user's error, in one sentence.
    """
    from rich.console import Console
    from rich.progress import Progress

    if frames < ROUNDS:
        raise BenchmarkError(f"frames: expected at least {ROUNDS}, got {frames}")
    if min(size) < 16:
        raise BenchmarkError(f"size: expected at least 16x16 pixels, got {size[0]}x{size[1]}")
    if beams < 2:
        raise BenchmarkError(f"beams: expected at least 2, got {beams}")
    settings = PipelineSettings(threads=threads, device=device)
    defences = ("off", "mask", "monitor") if defence else ("off",)
    candidates, skipped = find_candidates(models, settings, defences)
    pictures = make_frames(*size)
    with_node = node and importlib.util.find_spec("rclpy") is not None
    if node and not with_node:
        skipped["node"] = "rclpy is not installed (source ROS 2, or pip install mde_ros[ros])"
    load = list(os.getloadavg())  # of the others, before our own
    messages, nodes = None, dict.fromkeys(range(len(candidates)))
    with Progress(transient=True, console=Console(stderr=True)) as bar:
        steps = len(candidates) * (ROUNDS + (3 * ROUNDS if with_node else 0))
        task = bar.add_task("pipelines", total=steps)
        measure_pipelines(
            candidates, pictures, make_scans(beams), frames, progress=lambda: bar.advance(task)
        )
        if with_node:
            messages = probe(pictures, ["--messages"])
            for i, candidate in enumerate(candidates):
                bar.update(task, description=f"node, {candidate.name}")
                try:
                    nodes[i] = measure_node(
                        candidate, pictures, beams, frames, soak if i == 0 else 0
                    )
                except BenchmarkError as error:
                    skipped[f"node of {candidate.name} on {candidate.pipeline.runtime.name}"] = str(
                        error
                    )
                bar.advance(task, 3 * ROUNDS)
    rows = [row(c, messages, nodes[i]) for i, c in enumerate(candidates)]
    result = {
        "version": 1,
        "machine": {**machine(), "load": load},
        "versions": versions(),
        "image": list(size),
        "beams": beams,
        "frames": frames,
        "rows": rows,
        "scan": scan_costs([r for r in rows if r["defence"] == "off"]),
        "defence": defence_costs(rows),
        "skipped": skipped,
    }
    print_benchmark(result, stderr=json_path == "-")
    if json_path:
        write_json(json_path, result)
    return 0
