"""results.json: how it is written, read back, checked and printed."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

VERSION = 1
KEYS = ("version", "settings", "data", "models", "latency_ms", "frames_in", "frames_out", "dropped")
# Every metric that is shown: key, title, what is better, decimals.
COLUMNS = (
    ("rmse_m", "RMSE, m", "lower", 3),
    ("mae_m", "MAE, m", "lower", 3),
    ("abs_rel", "AbsRel", "lower", 3),
    ("log10", "log10", "lower", 3),
    ("delta1", "δ < 1.25", "higher", 3),
    ("delta2", "δ < 1.25²", "higher", 3),
    ("delta3", "δ < 1.25³", "higher", 3),
    ("edge_precision", "edge P", "higher", 3),
    ("edge_recall", "edge R", "higher", 3),
    ("edge_f1", "edge F1", "higher", 3),
    ("coverage", "coverage", "higher", 3),
)
# More of a model, where it is known: group, key, title, what is better, decimals.
MORE = (
    ("static", "abs_rel", "AbsRel, standing", "lower", 3),
    ("dynamic", "abs_rel", "AbsRel, moving", "lower", 3),
    ("uncertainty", "within_1_sigma", "within 1 σ (0.683)", "", 3),
    ("uncertainty", "ause", "AUSE", "lower", 4),
    ("temporal", "flicker", "flicker", "lower", 3),
    ("temporal", "scale_spread", "scale spread", "lower", 3),
    ("latency_ms", "p50", "latency p50, ms", "lower", 1),
    ("latency_ms", "p95", "latency p95, ms", "lower", 1),
)
# The same of a model in the real node (`mde evaluate --live`).
LIVE = (
    ("fps", "live: frames/s ↑", "higher", 1),
    ("p50", "live: p50, ms ↓", "lower", 1),
    ("p95", "live: p95, ms ↓", "lower", 1),
    ("p99", "live: p99, ms ↓", "lower", 1),
)


class EvaluationError(ValueError):
    """Nothing could be evaluated; the message says why."""


class ResultsError(ValueError):
    """A results file that cannot be used; the message says why."""


def write_json(path: str | Path, values: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write JSON so that a reader sees the old file or the whole new one; "-" is stdout.

    Raises:
        ResultsError: when the file cannot be written.
    """
    text = json.dumps(values, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
        return
    write_atomically(path, text.encode())


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file under a temporary name beside it and rename it.

    Raises:
        ResultsError: when the file cannot be written.
    """
    path = Path(path)
    name = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            name = file.name
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True) if name else None
        raise ResultsError(f"{path}: cannot be written ({error.strerror})") from None


def load_results(path: str | Path) -> dict[str, Any]:
    """Read and check a results.json.

    Raises:
        ResultsError: when it is missing, damaged, of another version or not a results file.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ResultsError(f"{path}: not valid JSON ({error})") from None
    check_results(values, str(path))
    return values


def check_results(values: Any, source: str = "results") -> None:
    """Hold a results dictionary against the format.

    Raises:
        ResultsError: naming what is missing or of another version.
    """
    if not isinstance(values, dict):
        raise ResultsError(f"{source}: expected the results of `mde evaluate`, got another JSON")
    missing = [key for key in KEYS if key not in values]
    if missing:
        raise ResultsError(
            f"{source}: expected the results of `mde evaluate`, but {', '.join(missing)} is missing"
        )
    if values["version"] != VERSION:
        raise ResultsError(
            f"{source}: expected results of version {VERSION}, got {values['version']!r};"
            " evaluate again with this release"
        )
    for model in values["models"]:
        for key in ("name", "weights_sha256", "metrics", "median_scaled", "aggregation"):
            if key not in model:
                raise ResultsError(f"{source}: a model without {key!r}")


def latency_summary(latencies_ms: Sequence[float]) -> dict[str, Any]:
    """Percentiles and a histogram of latencies in milliseconds; empty when there are none."""
    if not len(latencies_ms):
        return {}
    values = np.asarray(latencies_ms, np.float64)
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    low, high = float(values.min()), float(np.percentile(values, 99.5))
    counts, edges = np.histogram(values.clip(low, high), 24, (low, max(high, low + 1e-3)))
    return {
        "p50": float(p50),
        "p95": float(p95),
        "p99": float(p99),
        "max": float(values.max()),
        "mean": float(values.mean()),
        "frames": len(values),
        "histogram": {"edges_ms": edges.tolist(), "counts": counts.tolist()},
    }


def machine() -> dict[str, Any]:
    """The computer in words: CPU model, usable cores, memory, system, Python."""
    cpu = platform.processor() or platform.machine()
    memory_gb = None
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
        kilobytes = int(Path("/proc/meminfo").read_text().split()[1])
        memory_gb = round(kilobytes / 2**20, 1)
    except (OSError, ValueError, IndexError):
        pass  # not Linux: the words of `platform` do
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gb": memory_gb,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Versions of this package and of the libraries that can move a number."""
    out = {}
    for name in ("mde_ros", "numpy", "opencv-python-headless", "onnxruntime", "torch", "openvino"):
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out


def print_table(results: Mapping[str, Any], stderr: bool = False) -> None:
    """Print the models of a results dictionary side by side, the best of each row in bold."""
    from rich.console import Console
    from rich.table import Table

    models = results["models"]
    data = results["data"]
    table = Table(
        title=f"{data['name']}: {results['frames_out']} frames"
        f" (aggregation: {models[0]['aggregation']})",
        title_justify="left",
    )
    table.add_column("", no_wrap=True)
    console = Console(stderr=stderr)
    kinds = {"metrics": "metric", "median_scaled": "median-scaled"}
    width = 20 + 2 * sum(max(len(m["name"]), len("median-")) + 3 for m in models)
    beside = len(models) == 1 or width <= console.width
    for kind in list(kinds.values())[: 2 if beside else 1]:
        for model in models:
            title = f"{model['name']}\n[dim]{kind}[/dim]" if beside else model["name"]
            table.add_column(title, justify="right")
    for shown in [list(kinds)] if beside else [[kind] for kind in kinds]:
        if not beside:
            table.add_section()
            table.add_row(f"[dim]{kinds[shown[0]]}[/dim]")
        for key, title, better, decimals in COLUMNS:
            cells = []
            for kind in shown:
                values = [model[kind].get(key) for model in models]
                cells += _row(values, better, decimals)
            if any(c != "–" for c in cells):
                table.add_row(f"{title} {'↓' if better == 'lower' else '↑'}", *cells)
    table.add_section()
    for group, key, title, better, decimals in MORE:
        values = [(m.get(group) or {}).get(key) for m in models]
        if any(v is not None for v in values):
            arrow = {"lower": " ↓", "higher": " ↑"}.get(better, "")
            table.add_row(f"{title}{arrow}", *_row(values, better, decimals))
    lives = [m.get("live", {}) for m in models]
    for key, title, better, decimals in LIVE:
        values = [{**live, **live.get("latency_ms", {})}.get(key) for live in lives]
        if any(v is not None for v in values):
            table.add_row(title, *_row(values, better, decimals))
    console.print(table)
    for model in models:
        if "live" in model:
            console.print(f"live, {model['name']}: {_live_words(model['live'])}", highlight=False)
    if results["dropped"]:
        reasons = ", ".join(f"{n} {reason}" for reason, n in results["dropped"].items())
        console.print(f"frames: {results['frames_in']} in, {results['frames_out']} out; {reasons}")
    if "parts" in results:
        console.print(_parts_table(results["parts"]))
    for problem in results.get("problems", []):
        console.print(problem, style="red", markup=False, highlight=False)
    if "speed" in results:
        console.print(speed_words(results["speed"]), highlight=False)


def speed_words(speed: Mapping[str, float]) -> str:
    """How fast a run was, beside its models alone on the same machine."""
    return (
        f"{speed['frames_per_s']:.1f} frames/s; the models alone take"
        f" {speed['models_alone_frames_per_s']:.1f}, and they ran"
        f" {100 * speed['share_in_models']:.0f} % of the time"
    )


def _parts_table(parts: Sequence[Mapping[str, Any]]) -> Any:
    """Every data set with the errors of its models, or what went wrong."""
    from rich.table import Table

    names = next((list(p["models"]) for p in parts if p.get("models")), [])
    table = Table("data set", "frames", *(f"{m['name']}\n[dim]AbsRel ↓[/dim]" for m in names))
    for part in parts:
        values = [m["metrics"].get("abs_rel") for m in part.get("models", [])]
        cells = _row(values, "lower", 3) if "problem" not in part else ["failed"] * len(names)
        table.add_row(part["name"], str(part.get("frames_out", 0)), *cells)
    return table


def _live_words(live: Mapping[str, Any]) -> str:
    reasons = "".join(f"; {n} {reason}" for reason, n in live["dropped"].items())
    return (
        f"{live['frames_in']} frames in, {live['frames_out']} out{reasons};"
        f" {live['identical']} as offline bit for bit, at most {live['max_difference_m']:.2g} m off"
    )


def _row(values: Sequence[float | None], better: str, decimals: int) -> list[str]:
    known = [round(v, decimals) for v in values if v is not None]
    best = (min(known) if better == "lower" else max(known)) if better and len(known) > 1 else None
    cells = []
    for value in values:
        text = "–" if value is None else f"{value:.{decimals}f}"
        win = value is not None and best is not None and round(value, decimals) == best
        cells.append(f"[bold]{text}[/bold]" if win and min(known) != max(known) else text)
    return cells
