"""The `mde` command. Every subcommand imports what it needs when it runs, so --help is instant."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mde_ros import __version__

Command = Callable[[argparse.Namespace], int]


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; a user's mistake ends with one sentence and exit code 2."""
    arguments = make_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments) or 0)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except ImportError as error:
        print(f"mde: {error}; {extra_for(error.name)}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None:
            raise
        print(f"mde: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except (ValueError, RuntimeError, FloatingPointError) as error:
        # An error class of this package holds one sentence for the user; others are bugs.
        if not is_ours(error):
            raise
        print(f"mde: {error}", file=sys.stderr)
        return 2


def is_ours(error: BaseException) -> bool:
    """Whether an exception class was defined in this package."""
    return type(error).__module__.startswith("mde_ros.") or isinstance(error, FloatingPointError)


def extra_for(module: str | None) -> str:
    """What to install for a missing module."""
    extras = {
        "torch": "training",
        "safetensors": "training",
        "lightning_fabric": "training",
        "lightning_utilities": "training",
        "onnx": "training",
        "jinja2": "report",
        "matplotlib": "report",
        "mujoco": "sim",
        "rerun": "view",
        "rerun_cli": "view",
        "h5py": "datasets",
        "scipy": "datasets",
        "ray": "ray",
        "timm": "timm",
        "torchvision": "timm",
        "transformers": "transformers",
    }
    # What every installation has, unless ROS installed the package and not pip.
    packages = {
        "cv2": "opencv-python-headless",
        "numpy": "numpy",
        "onnxruntime": "onnxruntime",
        "rich": "rich",
        "rosbags": "rosbags",
        "rosbags.image": "rosbags-image",
        "yaml": "PyYAML",
    }
    if module == "rclpy":
        return "source a ROS 2 installation, or install mde_ros[ros]"
    parts = (module or "").split(".")
    for name in (".".join(parts[:2]), parts[0]):
        if name in extras:
            return f"install mde_ros[{extras[name]}]"
        if name in packages:
            return f"pip install {packages[name]}"
    return "it is not installed"


def make_parser() -> argparse.ArgumentParser:
    """All subcommands with their flags."""
    parser = argparse.ArgumentParser(
        prog="mde",
        description="Metric depth for robots from one camera: run it, judge it, train it.",
        epilog="`mde COMMAND --help` says more.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Command, help: str) -> Callable[..., Any]:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        return sub.add_argument

    flag = command("demo", run_demo, "play recorded frames through the real node and report")
    flag("--bag", metavar="BAG", help="a bag with images, camera_info and depth")
    flag("--folder", metavar="RGBD", help="an RGB-D folder instead of a bag")
    flag("--completion", action="store_true", help="the completion node, on a drive with a LiDAR")
    flag("--model", help="shipped name or file (default: default, or completion)")
    flag("--output", metavar="DIR", help="where to write (default: demo, or demo/completion)")
    topic_flags(flag)

    flag = command("play", run_play, "play a bag's messages onto their topics, with /clock")
    flag("bag", metavar="BAG")
    flag("--rate", type=float, default=1.0, help="speed, 1 = as recorded")
    flag("--loop", action="store_true", help="start again at the end")
    flag("--start", type=float, default=0.0, metavar="SECONDS", help="skip this much")
    flag("--topics", nargs="+", metavar="TOPIC", help="only these")
    flag("--remap", nargs="+", default=[], metavar="FROM:=TO", help="publish under other names")
    flag("--wait", action="store_true", help="begin when somebody listens")

    flag = command("evaluate", run_evaluate, "score models on a bag or folder, side by side")
    flag("data", nargs="+", metavar="DATA", help="bags, folders of bags, RGB-D folders, …")
    flag("--models", nargs="+", default=["default"], metavar="MODEL", help="shipped names or files")
    flag("--last", type=int, metavar="N", help="only the last N frames")
    flag("--max-frames", type=int, metavar="N", help="at most N frames, evenly spread")
    flag("--crop", help="part of the image that counts: none, nyu, eigen, garg or cityscapes")
    flag("--aggregation", help="how images are averaged: image, mean or pixel")
    flag("--depth-range", nargs=2, type=float, metavar=("MIN", "MAX"), help="metres that count")
    flag("--strict", action="store_true", default=None, help="count delta with < and not with <=")
    scan = "height=H[,pitch=P,beams=N,noise=S]"
    flag(
        "--virtual-scan", metavar=scan, help="cut a scan out of the truth: metres below the camera"
    )
    scaled = "also every model without LiDAR, times the median of scan / model"
    flag("--scan-scaled", action="store_true", default=None, help=scaled)
    topic_flags(flag)
    flag("--live", action="store_true", help="also through the real node, at the bag's own rate")
    flag("--rate", type=float, metavar="R", help="with --live: R times as fast (default: 1)")
    flag("--json", metavar="FILE", help="write results.json here (- for standard output)")
    flag("--report", metavar="FILE", help="write a HTML report here")
    flag("--resume", action="store_true", help="go on where a run to the same --json was ended")
    flag("--ray", metavar="ADDRESS", help="data sets as tasks of a Ray cluster (local: make one)")
    flag("--runtime", default="auto", help="auto, torch, onnxruntime, openvino or tensorrt")
    flag("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    spare = "CPU threads of the network (default: 2, or one less than there are cores)"
    flag("--threads", type=int, metavar="N", help=spare)

    flag = command("attack", run_attack, "how far noise spoils depth, and what a mask saves")
    flag("--data", nargs="+", required=True, metavar="DATA", help="as in mde evaluate")
    flag("--model", default="default", help="the depth network N: shipped name or checkpoint")
    flag(
        "--mask", default="auto", metavar="auto|none|G", help="defence; auto: the shipped one of N"
    )
    flag("--clean-mask", metavar="G", help="a mask that was trained on clean images, beside it")
    flag("--adversarial", metavar="MODEL", help="a depth network trained under attack, beside N")
    flag("--eps", nargs="+", type=float, metavar="E", help="largest change (0.05 0.1 0.15 0.2)")
    flag("--iterations", type=int, metavar="N", help="of IFGSM (10); 1 is FGSM")
    flag(
        "--patch",
        type=float,
        metavar="SHARE",
        help="attack a square in the middle alone, this part of the image's shorter side",
    )
    flag("--space", help="of eps: the normalised input (default), or unit, pixel values of 0 to 1")
    flag("--objective", help="what is made large: l1 (default), l2, rel, log10 or l_dif")
    flag("--target", help="auto, truth, or prediction: the depth of the clean image")
    adaptive = "leave out the attacker who knows the defence, half of the time"
    flag("--no-adaptive", action="store_true", help=adaptive)
    flag("--last", type=int, metavar="N", help="only the last N frames")
    flag("--max-frames", type=int, metavar="N", help="at most N frames, evenly spread")
    topic_flags(flag)
    flag("--out", default="attack", metavar="DIR", help="for attack.html, .json and .png")
    flag("--json", metavar="FILE", help="write attack.json here too (- for standard output)")
    flag("--resume", action="store_true", help="go on where a run to the same --out was ended")
    flag("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    flag("--threads", type=int, metavar="N", help=spare)

    flag = command("saliency", run_saliency, "how much of an image a depth network needs")
    flag("--data", nargs="+", required=True, metavar="DATA", help="as in mde evaluate")
    flag("--masks", nargs="+", required=True, metavar="G", help="mask networks of the model")
    flag("--model", default="default", help="the depth network N: shipped name or checkpoint")
    flag("--threshold", type=float, metavar="T", help="above it a pixel is shown (0.025)")
    flag("--target", help="auto, truth, or prediction: the depth of the whole image")
    flag("--last", type=int, metavar="N", help="only the last N frames")
    flag("--max-frames", type=int, metavar="N", help="at most N frames, evenly spread")
    topic_flags(flag)
    flag("--out", default="saliency", metavar="DIR", help="for saliency.html, .json and .png")
    flag("--json", metavar="FILE", help="write saliency.json here too (- for standard output)")
    flag("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    flag("--threads", type=int, metavar="N", help=spare)

    flag = command("watch", run_watch, "score a running node's depth while its bag is played")
    flag("data", metavar="DATA", help="the bag or RGB-D folder that is played")
    flag("--listen", default="/depth/image_rect", metavar="TOPIC", help="the node's depth")
    topic_flags(flag)
    flag("--json", metavar="FILE", help="write results.json here at the end (- for stdout)")

    flag = command("report", run_report, "turn results.json files into one HTML page")
    flag("results", nargs="+", metavar="RESULTS.json")
    flag("--output", default="report.html", metavar="FILE")

    flag = command("view", run_view, "show recordings in rerun, all on one time line")
    flag(
        "data", nargs="+", metavar="DATA", help="bags (output.mcap of the demo, too), RGB-D folders"
    )
    flag("--model", help="shipped name or file, whose prediction is shown too")
    flag("--max-frames", type=int, default=0, metavar="N", help="at most N of each, evenly spread")
    flag("--save", metavar="FILE.rrd", help="write a file for the viewer instead of opening it")
    flag("--screenshot", metavar="FILE.png", help="draw the last frame as the viewer shows it")
    topic_flags(flag)

    flag = command("benchmark", run_benchmark, "measure network, pipeline and node on this machine")
    flag("--models", nargs="+", default=["default"], metavar="MODEL", help="shipped names or files")
    flag("--completion", action="store_true", help="the shipped completion model too, with a LiDAR")
    flag("--beams", type=int, default=720, help="of each scan of that LiDAR")
    flag("--frames", type=int, default=200, help="frames per measurement")
    flag("--defence", action="store_true", help="also with the models' masks, and with the monitor")
    flag("--soak", type=int, default=0, metavar="N", help="watch the node's memory over N frames")
    flag("--size", default="640x480", metavar="WxH", help="of the camera's image, in pixels")
    flag("--threads", type=int, default=2, help="CPU threads of the network")
    flag("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    flag("--json", metavar="FILE", help="write benchmark.json here (- for standard output)")

    flag = command("train", run_train, "train a model by a recipe")
    flag(
        "recipe",
        choices=(
            *("supervised", "distill", "distill_free"),
            *("completion", "lifelong", "video", "dynamic"),
            *("saliency", "defence"),
        ),
        help="what to do",
    )
    flag("--bag", nargs="+", metavar="BAG", help="recordings to learn from, in place of sources")
    flag("--add", metavar="[NAME=]DATA", help="lifelong: a labelled recording of a new domain")
    flag("--to", metavar="MODEL", help="lifelong: the model that learns it (default: the shipped)")
    topic_flags(flag)
    flag("--list", action="store_true", help="print every setting with its default, and end")
    flag("--config", metavar="YAML", help="settings; see config/train/")
    flag("--out", default="runs/train", metavar="DIR", help="checkpoints and log; resumed if there")
    flag("--set", nargs="+", default=[], metavar="KEY=VALUE", help="override, e.g. loop.steps=100")

    flag = command("scale", run_scale, "put a model that was trained on video into metres")
    flag("model", metavar="MODEL", help="checkpoint of mde train video")
    flag("--scan", metavar="DATA", help="bag or folder whose LiDAR tells the scale")
    flag("--virtual-scan", metavar=scan, help="of data without LiDAR: cut out of measured depth")
    flag("--factor", type=float, metavar="F", help="metres per unit, where they are known")
    topic_flags(flag)
    flag("--out", required=True, metavar="FILE", help=".safetensors to write, and .onnx beside it")
    flag("--json", metavar="FILE", help="write the factor and its spread (- for standard output)")

    flag = command("reproduce", run_reproduce, "train and score a published table again")
    flag("experiment", metavar="NAME", help="one of mde_ros/reproduce; `list` prints them")
    flag("--scale", help="small: minutes, simulated scenes (default); full: the real data")
    flag("--data", nargs="+", metavar="NAME=PATH", help="data sets that the experiment takes")
    flag("--seeds", nargs="+", type=int, metavar="N", help="a training for each (default: 0 1 2)")
    flag("--work", metavar="DIR", help="trainings and scenes; a second run goes on from there")
    flag("--out", metavar="DIR", help="where NAME.json and NAME.md go (default: docs/reproduction)")

    flag = command("simulate", run_simulate, "render random furnished rooms and streets")
    flag("--out", required=True, metavar="DIR")
    flag("--rooms", type=int, help="clips of rooms")
    flag("--streets", type=int, help="clips of streets")
    flag("--drives", type=int, help="clips of streets as a car in traffic sees them")
    flag("--closeups", type=int, help="clips of rooms by a camera that looks down on what is near")
    flag("--frames", type=int, help="frames per clip")
    flag("--size", metavar="WxH", help="image size in pixels")
    flag("--seed", type=int)
    flag("--jobs", type=int, help="processes")
    flag("--rate", type=float, metavar="HZ", help="frames per second of a clip")
    flag("--bag", action="store_true", default=None, help="write every clip as a rosbag too")

    flag = command("export", run_export, "write a checkpoint as ONNX, checked against torch")
    flag("checkpoint", metavar="MODEL.safetensors")
    flag("--output", metavar="FILE", help="default: the checkpoint's name with .onnx")
    flag("--linked", action="store_true", help="point into the checkpoint instead of copying it")
    flag("--model", help="of a mask: the model it is exported with (default: the one it names)")

    flag = command("networks", run_networks, "list every network: parameters, GMAC, source")
    flag("--json", metavar="FILE", help="write the list here (- for standard output)")
    return parser


def topic_flags(flag: Callable[..., Any]) -> None:
    """What chooses among the topics of a bag, and where its LiDAR is."""
    kinds = {
        "image": "images of a bag, when there are several",
        "camera-info": "their camera",
        "truth": "depth images, LaserScan or PointCloud2 to judge by, or none",
        "scan": "LaserScan or PointCloud2 that goes in, or none",
        "mask": "masks of what moves, or none",
    }
    for kind, help in kinds.items():
        flag(f"--{kind}-topic", metavar="TOPIC", help=help)
    reader = "of the data set's reader, e.g. split=eigen_test.txt points=all"
    flag("--options", nargs="+", default=[], metavar="KEY=VALUE", help=reader)
    flag("--max-scan-age", type=float, metavar="SECONDS", help="most between scan and image")
    flag(
        "--laser-to-camera",
        nargs=7,
        type=float,
        metavar=("X", "Y", "Z", "QX", "QY", "QZ", "QW"),
        help="the LiDAR in the camera's optical frame, instead of a bag's /tf",
    )


def run_networks(a: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from mde_ros.evaluation.results import write_json
    from mde_ros.networks.describe import describe_all

    rows = describe_all()
    if a.json:
        write_json(a.json, rows)
    if a.json != "-":
        table = Table("network", "parameters", "GMAC", "input", "source")
        table.columns[0].no_wrap = True
        for r in rows:
            table.add_row(
                r["name"], f"{r['parameters']:,}", f"{r['gmac']:.2f}", r["input"], r["source"]
            )
        Console().print(table)
    return 0


def run_export(a: argparse.Namespace) -> int:
    from mde_ros.config import ConfigError
    from mde_ros.export import export, model_of
    from mde_ros.runtime import find_model, read_spec

    source = Path(a.checkpoint)
    target = Path(a.output) if a.output else source.with_suffix(".onnx")
    if read_spec(source).masks:
        model = find_model(a.model, ".safetensors") if a.model else model_of(source)
        difference = export(model, target, a.linked, mask=source)
    elif a.model:
        raise ConfigError(f"--model: expected together with a mask, {source.name} is none")
    else:
        difference = export(source, target, a.linked)
    print(f"{target}: differs from torch by at most {difference:.1e}")
    return 0


def overrides(pairs: list[str], flag: str = "--set") -> dict[str, Any]:
    """["loop.steps=100"] → {"loop": {"steps": 100}}; values are read as YAML."""
    import yaml

    from mde_ros.config import ConfigError

    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"{flag}: expected KEY=VALUE, got {pair!r}")
        *path, last = key.split(".")
        inner = values
        for part in path:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set: {part!r} is given a value and, in {pair!r}, a group")
        try:
            inner[last] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"{flag}: expected a YAML value, got {pair!r}") from None
    return values


def listed(cls: Any, defaults: Any = None, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted name, default, help) of every field of a settings class.

    Args:
        defaults: an instance whose values stand for the class's own.
    """
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        made = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        default, name = getattr(defaults, f.name, made), prefix + f.name
        if dataclasses.is_dataclass(default):
            yield from listed(type(default), default, f"{name}.")
            continue
        choices = ", ".join(map(str, f.metadata["choices"] or ()))
        yield name, json.dumps(default), f.metadata["help"] + (f" ({choices})" if choices else "")
        for item in filter(dataclasses.is_dataclass, typing.get_args(hints[f.name])):
            yield from listed(item, prefix=f"{name}[].")


def run_train(a: argparse.Namespace) -> int:
    import importlib

    from mde_ros.config import ConfigError, load

    recipe = importlib.import_module(f"mde_ros.training.{a.recipe}")
    if a.list:
        for name, default, help in listed(recipe.SETTINGS):
            print(f"{name:<24} {default:<16} {help}")
        return 0
    flags = overrides(a.set)
    if a.bag:
        options = [f"{name}={json.dumps(value)}" for name, value in topics_of(a).items()]
        flags["sources"] = [{"path": bag, "options": options} for bag in a.bag]
    if a.recipe == "lifelong":
        flags |= given({"to": a.to}) | (new_domain(a.add, topics_of(a)) if a.add else {})
    elif a.add or a.to:
        raise ConfigError(f"--add, --to: expected the recipe lifelong, got {a.recipe}")
    settings = load(recipe.SETTINGS, a.config, **flags)
    print(recipe.train(settings, Path(a.out)))
    return 0


def run_scale(a: argparse.Namespace) -> int:
    from mde_ros.config import ConfigError
    from mde_ros.datasets import Dataset, open_dataset
    from mde_ros.datasets.virtual_scan import VirtualScan, WithScan
    from mde_ros.evaluation.results import write_json
    from mde_ros.training.scale import fit_scale, open_relative, scaled, write

    if (a.scan is None) == (a.factor is None):
        raise ConfigError("scale: expected either --scan DATA or --factor F")
    model = open_relative(Path(a.model))
    how: dict[str, Any] = {"factor": a.factor}
    if a.scan:
        data: Dataset = open_dataset(a.scan, **topics_of(a))
        if a.virtual_scan:
            data = WithScan(data, VirtualScan.parse(a.virtual_scan))
        fit = fit_scale(Path(a.model), data)
        how = {"data": data.name, **dataclasses.asdict(fit)}
        if a.json != "-":
            print(fit)
    written = write(scaled(model, how["factor"], how), Path(a.out))
    if a.json:
        write_json(a.json, how)
    if a.json != "-":
        print(written)
    return 0


def new_domain(text: str, topics: dict[str, Any]) -> dict[str, Any]:
    """ "lab=run.mcap", or "run.mcap" for a domain named after it → settings of the recipe."""
    name, equals, path = text.partition("=")
    if not equals:
        path, name = text, re.sub(r"[^A-Za-z0-9_-]+", "-", Path(text).resolve().stem)
    options = [f"{key}={json.dumps(value)}" for key, value in topics.items()]
    return {"domain": name, "sources": [{"path": path, "options": options}]}


def run_demo(a: argparse.Namespace) -> int:
    from mde_ros.demo import run_demo as run

    return run(
        bag=a.bag,
        folder=a.folder,
        completion=a.completion,
        model=a.model,
        output=a.output,
        topics=topics_of(a),
    )


def run_play(a: argparse.Namespace) -> int:
    from mde_ros.nodes.player import play

    return play(
        a.bag, rate=a.rate, loop=a.loop, start=a.start, topics=a.topics, remap=a.remap, wait=a.wait
    )


def run_evaluate(a: argparse.Namespace) -> int:
    from mde_ros.config import ConfigError
    from mde_ros.evaluation.evaluate import run_evaluate as run

    score = {
        "crop": a.crop,
        "aggregation": a.aggregation,
        "depth_range": a.depth_range,
        "strict": a.strict,
    }
    frames = {
        "last": a.last,
        "max_frames": a.max_frames,
        "virtual_scan": a.virtual_scan,
        "scan_scaled": a.scan_scaled,
        "score": given(score),
    }
    live = None
    if a.live:
        from mde_ros.live.evaluation import live_evaluation

        flags = {"rate": a.rate, "laser_to_camera": a.laser_to_camera}
        live = live_evaluation(a.data[0], **given(flags))
    elif a.rate is not None:
        raise ConfigError("--rate: expected together with --live, got it alone")
    return run(
        a.data,
        a.models,
        json_path=a.json,
        report=a.report,
        settings=given(frames),
        pipeline=given({"runtime": a.runtime, "device": a.device, "threads": a.threads}),
        topics=topics_of(a),
        live=live,
        resume=a.resume,
        ray=a.ray,
    )


def run_attack(a: argparse.Namespace) -> int:
    from mde_ros.evaluation.attack import run_attack as run

    flags = {
        "eps": a.eps and tuple(a.eps),
        "iterations": a.iterations,
        "space": a.space,
        "patch": a.patch,
        "objective": a.objective,
        "target": a.target,
        "adaptive": False if a.no_adaptive else None,
        "frames": given({"last": a.last, "max_frames": a.max_frames}),
    }
    return run(
        a.data,
        a.model,
        a.mask,
        a.clean_mask,
        a.adversarial,
        out=a.out,
        json_path=a.json,
        settings=given(flags),
        pipeline=given({"device": a.device, "threads": a.threads}),
        topics=topics_of(a),
        resume=a.resume,
    )


def run_saliency(a: argparse.Namespace) -> int:
    from mde_ros.evaluation.saliency import run_saliency as run

    flags = {
        "threshold": a.threshold,
        "target": a.target,
        "frames": given({"last": a.last, "max_frames": a.max_frames}),
    }
    return run(
        a.data,
        a.masks,
        a.model,
        out=a.out,
        json_path=a.json,
        settings=given(flags),
        pipeline=given({"device": a.device, "threads": a.threads}),
        topics=topics_of(a),
    )


def run_watch(a: argparse.Namespace) -> int:
    from mde_ros.live.watch import run_watch as run

    return run(a.data, a.listen, json_path=a.json, topics=topics_of(a))


def topics_of(a: argparse.Namespace) -> dict[str, Any]:
    """What was given of topic_flags, as open_dataset takes it."""
    kinds = ("image", "camera_info", "truth", "scan", "mask")
    names = (*(f"{kind}_topic" for kind in kinds), "max_scan_age", "laser_to_camera")
    options = overrides(a.options, "--options")
    return {**given({name: getattr(a, name) for name in names}), **options}


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given."""
    return {name: value for name, value in flags.items() if value is not None}


def run_report(a: argparse.Namespace) -> int:
    from mde_ros.evaluation.report import run_report as run

    return run(a.results, output=a.output)


def run_view(a: argparse.Namespace) -> int:
    from mde_ros.view import run_view as run

    return run(
        a.data,
        model=a.model,
        save=a.save,
        screenshot=a.screenshot,
        max_frames=a.max_frames,
        topics=topics_of(a),
    )


def run_benchmark(a: argparse.Namespace) -> int:
    from mde_ros.evaluation.benchmark import run_benchmark as run

    return run(
        [*a.models, "completion"] if a.completion else a.models,
        beams=a.beams,
        frames=a.frames,
        size=picture_size(a.size),
        threads=a.threads,
        device=a.device,
        defence=a.defence,
        soak=a.soak,
        json_path=a.json,
    )


def picture_size(text: str) -> tuple[int, int]:
    """ "640x480" → (640, 480)."""
    from mde_ros.config import ConfigError

    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise ConfigError(f"--size: expected WxH, e.g. 640x480, got {text!r}")
    return int(width), int(height)


def run_reproduce(a: argparse.Namespace) -> int:
    import importlib

    from mde_ros.config import ConfigError, load
    from mde_ros.reproduce import EXPERIMENTS
    from mde_ros.reproduce.record import ReproduceSettings

    if a.experiment == "list":
        print("\n".join(EXPERIMENTS))
        return 0
    if a.experiment not in EXPERIMENTS:
        raise ConfigError(
            f"reproduce: expected one of {', '.join(EXPERIMENTS)}, got {a.experiment!r}"
        )
    flags = {
        "scale": a.scale,
        "data": a.data and tuple(a.data),
        "seeds": a.seeds and tuple(a.seeds),
        "work": a.work,
        "out": a.out,
    }
    settings = load(ReproduceSettings, None, **flags)
    experiment = importlib.import_module(f"mde_ros.reproduce.{a.experiment.replace('-', '_')}")
    print(experiment.run(settings).save())
    return 0


def run_simulate(a: argparse.Namespace) -> int:
    from mde_ros.config import load
    from mde_ros.simulation.generate import SimulationSettings, simulate

    flags = {
        "rooms": a.rooms,
        "streets": a.streets,
        "drives": a.drives,
        "closeups": a.closeups,
        "frames": a.frames,
        "size": picture_size(a.size) if a.size else None,
        "seed": a.seed,
        "jobs": a.jobs,
        "rate_hz": a.rate,
        "bag": a.bag,
    }
    return simulate(load(SimulationSettings, None, **flags), a.out)


if __name__ == "__main__":
    sys.exit(main())
