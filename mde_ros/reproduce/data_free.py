"""Distillation without the teacher's data: arXiv 2208.12464, KBS 2024 (METHODS 6)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

from mde_ros.checkpoint import load
from mde_ros.config import ConfigError
from mde_ros.datasets import Dataset, open_dataset
from mde_ros.datasets.published import Prepared
from mde_ros.evaluation.run import EvaluateSettings
from mde_ros.reproduce.record import Record, ReproduceSettings, console
from mde_ros.reproduce.scores import FIGURES, Runs, claim_better, rows, score
from mde_ros.reproduce.simulated import scenes, small_loop
from mde_ros.training import distill, distill_free
from mde_ros.training.batches import Source
from mde_ros.training.distill import DistillSettings
from mde_ros.training.distill_free import DistillFreeSettings
from mde_ros.training.loop import LoopSettings

METHODS = {"noise": "random noise", "generator": "DFAD", "simulated": "KD-OOD", "mixed": "ours"}
KEYS = ("abs_rel", "delta1")
PAIRS = ("ResNet-34 → ResNet-34", "ResNet-34 → MobileNet-V2", "FCRN", "WACV 2019")
STUDENTS = {  # of the published teachers
    "light_resnet34": ("light_resnet34", "light_mobilenet_v2"),
    "fcrn_resnet50": ("fcrn_resnet18",),
    "mff_resnet50": ("mff_resnet18",),
    "sarpn_senet154": ("sarpn_resnet34",),
}
PAPER = [  # REL and δ < 1.25 of each pair
    ("teacher", 0.133, 0.829, 0.133, 0.829, 0.134, 0.824, 0.126, 0.843),
    ("student, with the data", 0.133, 0.829, 0.145, 0.802, 0.145, 0.805, 0.137, 0.826),
    ("random noise", 0.426, 0.193, 0.431, 0.194, 0.517, 0.102, 0.511, 0.112),
    ("DFAD", 0.285, 0.402, 0.306, 0.329, 0.300, 0.382, 0.341, 0.338),
    ("KD-OOD, X'1", 0.164, 0.753, 0.175, 0.712, 0.188, 0.660, 0.175, 0.710),
    ("ours, X'1", 0.155, 0.774, 0.168, 0.742, 0.173, 0.701, 0.167, 0.722),
    ("KD-OOD, X'2", 0.158, 0.761, 0.165, 0.742, 0.180, 0.676, 0.172, 0.713),
    ("ours, X'2", 0.151, 0.789, 0.157, 0.778, 0.165, 0.726, 0.157, 0.760),
]
STEPS = {"teacher": 300, "student": 160}  # of the small scale
SIZE = (152, 112)  # of the small scale
LAST = 60  # frames of a recording that are judged on


@dataclass(frozen=True)
class Case:
    """A teacher's data, what stands for them, and what students of which network are judged on."""

    name: str
    source: Source  # the teacher's
    images: Source
    test: Dataset
    judged: EvaluateSettings
    network: str = "fast_mobilenet_v2"


def run(settings: ReproduceSettings) -> Record:
    """A teacher, then every method for every seed, scored on scenes like the teacher's."""
    record = Record(
        "data-free",
        "Distillation without the data of the teacher",
        "arXiv 2208.12464, KBS 2024, table as shown on the author's slides (four pairs)",
        settings,
    )
    heads = [f"{FIGURES[key]}, {pair}" for pair in PAIRS for key in KEYS]
    record.paper = [dict(zip(("name", *heads), row)) for row in PAPER]
    if settings.scale == "small":
        cases = [simulated(settings)]
        if real := settings.given("real"):
            cases.append(recorded(settings, Path(real)))
    else:
        cases = nyu(settings)
    for case in cases:
        compare(record, case)
    if settings.scale == "small":
        record.notes = [
            "The small scale: teacher light MobileNet-V2, student the fast one, each from the"
            " other's shipped trunk, which has seen rooms; 152x112 pixels. Of simulated rooms"
            " the teacher knows nothing else, and streets stand for them."
        ]
    return record


def compare(record: Record, case: Case) -> None:
    """All methods for one teacher: rows, and what is claimed of them."""
    settings = record.settings
    work = Path(settings.work) / "data-free" / f"{settings.scale}-{case.name}"
    if settings.scale == "small":
        loop = small_loop(STEPS["teacher"])
        teacher = with_data("light_mobilenet_v2", "student-fast", case, loop, work / "teacher")
    else:
        teacher = Path(settings.path("teacher"))
    common = student(settings.scale, teacher, case)
    runs: Runs = {"teacher": [score(teacher, case.test, case.judged)]}

    def add(name: str, model: Path) -> None:
        runs.setdefault(name, []).append(score(model, case.test, case.judged))

    for seed in settings.seeds:
        loop = replace(common.loop, seed=seed)
        if settings.scale == "small":
            out = work / f"with-data-{seed}"
            model = with_data(common.network, common.initial, case, loop, out)
            add("student, with the data", model)
        for method, name in METHODS.items():
            console.print(f"{case.name}: {name}, seed {seed}", highlight=False)
            options = replace(common, method=method, loop=loop)
            add(name, distill_free.train(options, work / f"{method}-{seed}"))
    record.ours += rows(runs, KEYS, f"{case.name}: ")
    for worse, better in pairwise(METHODS.values()):
        for key in KEYS:
            claim_better(record, runs, better, worse, key, f"{case.name}: ")
    record.details[case.name] = {"student": asdict(common), "data": asdict(case.source)}


def with_data(network: str, initial: str, case: Case, loop: LoopSettings, out: Path) -> Path:
    """A network that learnt from the teacher's own data."""
    pixels = SIZE[0] * SIZE[1]
    options = DistillSettings(
        network=network, initial=initial, sources=(case.source,), pixels=pixels, loop=loop
    )
    return distill.train(options, out)


def student(scale: str, teacher: Path, case: Case) -> DistillFreeSettings:
    """How students are trained, by whatever method."""
    options = DistillFreeSettings(
        teacher=str(teacher), sources=(case.images,), network=case.network
    )
    if scale == "full":
        return replace(options, initial="imagenet", loop=replace(options.loop, steps=120_000))
    return replace(
        options,
        initial="student-published",
        size=SIZE,
        loop=small_loop(STEPS["student"]),
    )


def simulated(settings: ReproduceSettings) -> Case:
    """A teacher of rooms, and streets to teach with."""
    learn = scenes(settings.work, "rooms", rooms=30, streets=0, seed=31)
    judged_on = scenes(settings.work, "rooms-test", rooms=10, streets=0, seed=32)
    other = scenes(settings.work, "streets", rooms=0, streets=30, seed=34)
    source, images = Source(str(learn)), Source(str(other))
    return Case("rooms by streets", source, images, open_dataset(judged_on), EvaluateSettings())


def recorded(settings: ReproduceSettings, data: Path) -> Case:
    """A teacher of a real office, and simulated rooms to teach with."""
    images = Source(str(scenes(settings.work, "rooms", rooms=30, streets=0, seed=31)))
    office = data / "hololens_office"
    source = Source(str(office), skip_last=LAST)
    judged = EvaluateSettings(last=LAST)
    return Case("HoloLens by rooms", source, images, open_dataset(office), judged)


def nyu(settings: ReproduceSettings) -> list[Case]:
    """teacher= a checkpoint trained on NYU-v2, simulated= rooms, nyu_test= the authors' list.

    Raises:
        ConfigError: when the teacher is none of the published pairs'.
    """
    teacher = load(Path(settings.path("teacher"))).network_name
    if teacher not in STUDENTS:
        raise ConfigError(
            f"teacher: expected a published one ({', '.join(STUDENTS)}), got {teacher}; for others:"
            " mde train distill_free"
        )
    images, judged = Source(settings.path("simulated")), EvaluateSettings()
    test = Prepared(open_dataset(settings.path("nyu_test")), "nyu")
    return [
        Case(f"{teacher} to {network}", images, images, test, judged, network)
        for network in STUDENTS[teacher]
    ]
