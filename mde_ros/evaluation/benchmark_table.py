"""The table that `mde benchmark` prints: a column for each model on each runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mde_ros.evaluation.laser import cost_sentence

NODE_FEEDS = {
    "depth": "at 30 Hz, depth",
    "cloud": "at 30 Hz, depth and cloud",
    "fast": "as fast as it takes, depth",
    "fast_cloud": "as fast as it takes, both",
}


def print_benchmark(result: Mapping[str, Any], stderr: bool = False) -> None:
    """Print what run_benchmark measured."""
    from rich.console import Console
    from rich.table import Table

    rows = result["rows"]
    width, height = result["image"]
    title = f"{width}x{height}, medians of {result['frames']} frames"
    table = Table(title=title, title_justify="left")
    table.add_column("milliseconds per frame, unless said")
    for r in rows:
        table.add_column(f"{r['name']}\n[dim]{r['runtime']}, {r['device']}[/dim]", justify="right")

    def line(text: str, value: Callable[[Mapping[str, Any]], float | None], decimals: int) -> None:
        values = [value(r) for r in rows]
        if any(v is not None for v in values):
            table.add_row(text, *("–" if v is None else f"{v:.{decimals}f}" for v in values))

    def node(text: str, path: str, decimals: int) -> None:
        line(text, lambda r: _dig(r.get("node"), path), decimals)

    line("network", lambda r: r["network_ms"], 2)
    line("  its CPU time, all threads", lambda r: r["network_cpu_ms"], 2)
    line("everything else, depth only", lambda r: r["other_ms"], 2)
    line("  its scan to points", lambda r: r["parts_ms"].get("scan"), 2)
    line("everything else, with xyzrgb cloud", lambda r: r["other_with_cloud_ms"], 2)
    line("pipeline without DDS, frames/s", lambda r: r["pipeline_fps"], 0)
    first = rows[0]["pipeline_fps"]
    if len(rows) > 1:
        line(f"  times {rows[0]['name']}", lambda r: r["pipeline_fps"] / first, 2)
    if any(r.get("node") for r in rows):
        table.add_section()
        node("node: first depth, s after start", "first_depth_s", 2)
        node("node: memory, MiB", "rss_mb", 0)
        node("  growth over the soak, MiB", "soak.growth_mb", 1)
    for feed, text in NODE_FEEDS.items():
        if any(_dig(r.get("node"), f"feeds.{feed}") for r in rows):
            table.add_section()
            node(f"node fed {text}: frames/s", f"feeds.{feed}.fps", 1)
            if not feed.startswith("fast"):  # there, frames are overtaken by newer ones on purpose
                node("  frames lost", f"feeds.{feed}.lost", 0)
            for p in ("p50", "p95", "p99"):
                node(f"  stamp to receive, {p}", f"feeds.{feed}.latency_ms.{p}", 1)
            node("  CPU of the node", f"feeds.{feed}.cpu_ms_per_frame", 1)
            line(
                "  CPU of all but the network",
                lambda r, f=feed: _other_cpu(r, f),  # type: ignore[misc]
                1,
            )
    console = Console(stderr=stderr)
    console.print(table)
    for cost in result["scan"]:
        console.print(cost_sentence(cost), highlight=False)
    for cost in result["defence"]:
        console.print(
            f"{cost['name']} on {cost['runtime']}: network {cost['network_ratio']:.2f} times, frame"
            f" {cost['frame_ratio']:.2f} times what it takes without",
            highlight=False,
        )
    for what, why in result["skipped"].items():
        console.print(f"not measured: {what}: {why}", highlight=False, markup=False)
    machine_ = result["machine"]
    if machine_["load"][0] > machine_["cores"]:
        console.print(f"this machine is busy (load {machine_['load'][0]:.1f}): expect better ones")


def defence_costs(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each defence costs: times the network, and the frame, of the same model without."""
    same = ("file", "weights_sha256", "runtime", "device")
    costs = []
    for r in (r for r in rows if r["defence"] != "off"):
        off = next(o for o in rows if o["defence"] == "off" and all(o[k] == r[k] for k in same))
        costs.append(
            {
                "name": r["name"],
                "runtime": r["runtime"],
                "device": r["device"],
                "network_ratio": r["network_ms"] / off["network_ms"],
                "frame_ratio": r["pipeline_ms"] / off["pipeline_ms"],
            }
        )
    return costs


def _dig(values: Any, path: str) -> Any:
    for key in path.split("."):
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _other_cpu(r: Mapping[str, Any], feed: str) -> float | None:
    cpu = _dig(r.get("node"), f"feeds.{feed}.cpu_ms_per_frame")
    return None if cpu is None else cpu - r["network_cpu_ms"]
