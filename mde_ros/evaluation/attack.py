"""`mde attack`: the table of robustness.py on data sets, kept while it is made, and its report."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mde_ros.config import ConfigError, PipelineSettings, as_dict, build
from mde_ros.datasets import DatasetError
from mde_ros.datasets.virtual_scan import VirtualScan
from mde_ros.evaluation.evaluate import network_threads, progress_bar, until_ctrl_c
from mde_ros.evaluation.opened import OpenPipeline, load_mask, target_of
from mde_ros.evaluation.page import need_libraries
from mde_ros.evaluation.partial import Partial, stamp
from mde_ros.evaluation.parts import Job, Parts, find_parts
from mde_ros.evaluation.results import VERSION, EvaluationError, machine, versions, write_json
from mde_ros.evaluation.robustness import (
    AttackSettings,
    Suspects,
    attack_data,
    columns,
    monitor_of,
    names,
    table_of,
    verdict,
)
from mde_ros.evaluation.run import KEEP_PERIOD_S, Tally
from mde_ros.runtime import ModelError, find_mask, sha256_of

WARNING = (
    "The defence assumes that the attacker knows N and does not know of the mask. Who knows both"
    " attacks N(x⊗G(x)) as a whole, and the mask fails: in the paper that takes its RMSE from 0.683"
    " to 1.052 m (ε = 0.05) and 1.108 m (ε = 0.1) (Hu & Okatani, arXiv 1911.08790)."
)


def run_attack(
    data: Sequence[str],
    model: str = "default",
    mask: str = "auto",
    clean_mask: str | None = None,
    adversarial: str | None = None,
    *,
    out: str = "attack",
    json_path: str | None = None,
    settings: Mapping[str, Any] | None = None,
    pipeline: Mapping[str, Any] | None = None,
    topics: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> int:
    """Attack a model on data sets: print the table, write attack.json, .html and .png into `out`.

    Args:
        data: one or more paths that datasets.open_dataset takes, or folders of bags.
        model: N, a shipped name or checkpoint.
        mask: G_adv, a checkpoint; "auto": the shipped mask of the model, if there is one; "none".
        clean_mask: G, trained on clean images. adversarial: N_adv.
        json_path: attack.json once more; "-" is stdout.
        settings, pipeline: fields of AttackSettings and PipelineSettings.
        topics: more arguments of open_dataset, such as a bag's topics.
        resume: go on with what a run to the same `out` left that was ended early.

    Returns:
        0; 1 when a data set failed and others did not; 130 when Ctrl-C ended it early (what was
        done is written all the same).

    Raises:
        ValueError: on any user's error, in one sentence.
    """
    need_libraries()
    chosen = build(AttackSettings, settings or {})
    run_by = build(PipelineSettings, {"threads": network_threads(), **(pipeline or {})})
    run_by = replace(run_by, model=model)
    paths = find_parts(data)
    scan = VirtualScan.parse(chosen.frames.virtual_scan) if chosen.frames.virtual_scan else None
    job = Job((model,), chosen.frames, run_by, dict(topics or {}), scan)
    suspects, about = load_suspects(run_by, mask, clean_mask, adversarial)
    rows = suspects.rows(chosen.adaptive)
    target = target_of(readable(job, paths), chosen.frames, chosen.target)
    same = {
        "settings": as_dict(chosen),
        "pipeline": as_dict(run_by),
        "options": job.options,
        "models": {name: entry["weights_sha256"] for name, entry in about.items()},
        "target": target,
        "data": {str(path): stamp(path) for path in paths},
        "versions": versions(),
    }
    kept = Partial(paths, Path(out) / "partial", same, resume)
    name = ", ".join(dict.fromkeys(Path(d).resolve().name for d in data))
    with progress_bar(name, len(paths) > 1) as show, until_ctrl_c() as stop:
        for done, path in enumerate(paths):
            if stop():
                break
            if not kept.is_done(path):

                def shown(begun: int, frames: int, done: int = done) -> None:
                    several = (done + begun / max(1, frames), len(paths))
                    show(*(several if len(paths) > 1 else (begun, frames)))

                attack_part(job, path, suspects, chosen, target, kept, shown, stop)
    try:
        total, _ = kept.total(names(rows, chosen), chosen.frames.score)
        results = results_of(total, suspects, chosen, about, target, name)
    except EvaluationError:
        kept.remove()
        raise
    results["settings"]["pipeline"] = as_dict(run_by)
    results["interrupted"] = bool(kept.todo)
    print_attack(results, stderr=json_path == "-")
    written = Path(out) / "attack.json"
    for file in dict.fromkeys((str(written), json_path or str(written))):
        write_json(file, results)
    from mde_ros.evaluation.attack_report import take_pictures, write_attack_report

    pictures = take_pictures(Parts(job, kept), suspects, chosen, results)
    write_attack_report(results, pictures, written.with_suffix(".html"))
    print(f"wrote {written}, {written.with_suffix('.html')} and .png", file=sys.stderr)
    if not (kept.todo or kept.failed):
        kept.remove()
    else:
        print("not all is done: the same command with --resume goes on", file=sys.stderr)
    return 130 if kept.todo else int(bool(kept.failed))


def readable(job: Job, paths: Iterable[Path]) -> Iterator[Any]:
    """The data sets that can be opened; what is wrong with the others, attack_part tells."""
    for path in paths:
        with contextlib.suppress(DatasetError):
            yield job.open(path)


def load_suspects(
    settings: PipelineSettings, mask: str, clean_mask: str | None, adversarial: str | None
) -> tuple[Suspects, dict[str, dict[str, Any]]]:
    """All networks of a table, and what results.json says of each.

    Raises:
        ModelError: when one cannot be found or read.
        ConfigError: when a mask belongs to another N, or N_adv wants another input than N.
    """
    n = OpenPipeline(settings)
    about = {"N": {"name": n.name, "weights_sha256": n.sha256}}
    networks: dict[str, Any] = {}
    alarm = None
    if mask == "auto":
        try:
            mask = str(find_mask("auto", n.pipeline.runtime))
        except ModelError as error:
            print(f"{error}; N alone is attacked", file=sys.stderr)
            mask = "none"
    for role, given in (("G_adv", mask), ("G", clean_mask or "none")):
        if given != "none":
            networks[role], path, spec = load_mask(given, n)
            about[role] = {"name": path.stem, "weights_sha256": sha256_of(path)}
            alarm = spec.alarm if role == "G_adv" else alarm
    trained = OpenPipeline(replace(settings, model=adversarial)) if adversarial else None
    if trained:
        about["N_adv"] = {"name": trained.name, "weights_sha256": trained.sha256}
        for key in ("size", "pixels", "multiple", "takes_points"):
            ours, theirs = getattr(n.spec, key), getattr(trained.spec, key)
            if ours != theirs:
                raise ConfigError(
                    f"adversarial: expected a network of the same input as {n.name} ({key} {ours}),"
                    f" got {trained.name} ({theirs})"
                )
    return Suspects(n, networks.get("G_adv"), networks.get("G"), trained, alarm), about


def attack_part(
    job: Job,
    path: Path,
    suspects: Suspects,
    settings: AttackSettings,
    target: str,
    kept: Partial,
    progress: Callable[[int, int], None],
    stop: Callable[[], bool],
) -> None:
    """Attack one data set, or the rest of it; `kept` holds what came of it, failures included."""
    tally = Tally(names(suspects.rows(settings.adaptive), settings), settings.frames.score)
    if state := kept.get(path):
        tally.merge(state)
    due = time.monotonic() + KEEP_PERIOD_S

    def keep() -> None:
        nonlocal due
        if time.monotonic() > due:
            kept.put(path, tally.state())
            due = time.monotonic() + KEEP_PERIOD_S

    problem = {}
    try:
        attack_data(job.open(path), suspects, settings, target, tally, progress, stop, keep)
    except (DatasetError, EvaluationError, OSError) as error:
        problem = {"problem": str(error)}
    kept.put(path, {**tally.state(), **problem})


def results_of(
    tally: Tally,
    suspects: Suspects,
    settings: AttackSettings,
    about: Mapping[str, Mapping[str, Any]],
    target: str,
    name: str,
) -> dict[str, Any]:
    """What attack.json holds of a tally.

    Raises:
        EvaluationError: when no frame could be attacked.
    """
    if not tally.images:
        reasons = [f"{n} {reason}" for reason, n in tally.dropped.items()] + tally.problems[:1]
        why = "; ".join(reasons) or "it has no frames"
        raise EvaluationError(f"{name}: no frame could be attacked ({why})")
    rows = suspects.rows(settings.adaptive)
    table = table_of(tally, rows, settings)
    return {
        "version": VERSION,
        "settings": {"attack": as_dict(settings)},
        "data": {"name": name, "frames": len(tally.images), "sha256": tally.sha256},
        "target": target,
        "models": about,
        "columns": columns(settings),
        "rows": table,
        "monitor": monitor_of(tally, rows, settings, suspects.alarm),
        "verdict": verdict(table, settings),
        "warning": WARNING,
        "per_frame": [
            {"name": image["name"], "index": image["index"], "rmse_m": cells}
            for image, cells in zip(tally.images, _cells(tally, rows, settings))
        ],
        "frames_in": tally.begun,
        "frames_out": len(tally.images),
        "dropped": dict(tally.dropped),
        "problems": tally.problems,
        "interrupted": not tally.is_complete,
        "seconds": round(tally.seconds, 1),
        "machine": machine(),
        "versions": versions(),
    }


def _cells(
    tally: Tally, rows: list[str], settings: AttackSettings
) -> Iterator[dict[str, list[float | None]]]:
    """Of every frame: row → RMSE by column."""
    for i in range(len(tally.images)):
        yield {
            row: [
                tally.scorers[f"{row} {column}"].images[i].get("rmse_m")
                for column in columns(settings)
            ]
            for row in rows
        }


def print_attack(results: Mapping[str, Any], stderr: bool = False) -> None:
    """Print RMSE by row and ε, what it means, and the warning."""
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=stderr)
    settings, scored = results["settings"]["attack"], results["frames_out"]
    against = {"truth": "measured depth", "prediction": "N's own clean depth"}[results["target"]]
    where = (
        f" on a patch of {settings['patch']:.0%} of the shorter side" if settings["patch"] else ""
    )
    console.print(
        f"{results['data']['name']}: {scored} frames, IFGSM of {settings['iterations']} iterations"
        f"{where}, RMSE in m against {against}",
        highlight=False,
    )
    table = Table()
    table.add_column("", no_wrap=True)
    for column in results["columns"]:
        table.add_column(column if column == "clean" else f"ε {column}", justify="right")
    for row in results["rows"]:
        cells = [row["clean"], *row["attacked"].values()]
        values = [f"{c['rmse_m']:.3f}" if "rmse_m" in c else "–" for c in cells]
        table.add_row(row["name"], *values)
    console.print(table)
    for entry in (results["monitor"] or {"attacks": []})["attacks"]:
        console.print(
            f"monitor, {entry['row']} ε {entry['eps']:g}: AUC {entry['auc']:.3f},"
            f" {100 * entry['detected']:.0f} % detected at 1 % false alarms",
            highlight=False,
        )
    for sentence in results["verdict"]:
        console.print(f"{sentence[0].upper()}{sentence[1:]}.", highlight=False)
    for problem in results["problems"]:
        console.print(problem, style="red", markup=False, highlight=False)
    console.print(results["warning"], style="yellow", highlight=False)
