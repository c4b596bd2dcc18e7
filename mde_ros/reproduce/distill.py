"""A light student with and without a teacher: Hu et al., KSEM 2023 (METHODS 5)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mde_ros.datasets import Dataset, open_dataset
from mde_ros.datasets.published import Prepared
from mde_ros.reproduce.record import Record, ReproduceSettings, console
from mde_ros.reproduce.scores import Runs, claim_better, rows, score
from mde_ros.reproduce.simulated import scenes, small_loop
from mde_ros.training import distill
from mde_ros.training.batches import Source
from mde_ros.training.distill import DistillSettings
from mde_ros.training.supervised import paper_schedule
from mde_ros.training.teacher import make_teacher

KEYS = ("rmse_m", "abs_rel", "delta1")
PAPER = [
    {"name": "teacher, X", "REL": 0.133, "δ < 1.25": 0.829},
    {"name": "student, X, no teacher", "REL": 0.145, "δ < 1.25": 0.802},
    {"name": "student, X and U", "RMSE, m": 0.482, "REL": 0.131, "δ < 1.25": 0.837},
    {"name": "student, X and U, teacher of X and U'", "RMSE, m": 0.461, "REL": 0.121,
     "δ < 1.25": 0.855},
]  # fmt: skip
STEPS = {"teacher": 500, "student": 250}  # of the small scale
PIXELS = 152 * 114  # of the small scale
TEACHER = {  # network, and what it begins with
    "small": ("light_mobilenet_v2", "student-fast"),
    "full": ("light_resnet34", "imagenet"),
}


@dataclass(frozen=True)
class Student:
    """What a student is trained on: X, U without labels, U' with them; and by which teacher."""

    uses: tuple[str, ...]
    teacher: str = ""  # what the teacher was trained on


STUDENTS = {
    "student, X, no teacher": Student(("X",)),
    "student, X and U', no teacher": Student(("X", "U'")),
    "student, U alone": Student(("U",), "X"),
    "student, X and U": Student(("X", "U"), "X"),
    "student, X and U, teacher of X and U'": Student(("X", "U"), "X U'"),
}
CLAIMS = (  # the first is better than the second
    ("student, X and U", "student, X, no teacher"),
    ("student, X and U", "student, U alone"),
    ("student, X and U, teacher of X and U'", "student, X and U"),
    ("student, X and U, teacher of X and U'", "student, X and U', no teacher"),
)


def run(settings: ReproduceSettings) -> Record:
    """Two teachers, then every student for every seed, scored on scenes not seen."""
    record = Record(
        "distill",
        "Distillation into a light student, with images that nobody labelled",
        "Hu et al., KSEM 2023; the slides' table III and the figure of the authors' repository",
        settings,
    )
    record.paper = [dict(row) for row in PAPER]
    small = settings.scale == "small"
    common, sets, test = simulated(settings) if small else published(settings)
    network, initial = TEACHER[settings.scale]
    teachers: dict[str, Path] = {}
    runs: Runs = {}
    for taught_on in ("X", "X U'"):
        name = f"teacher, {taught_on.replace(' ', ' and ')}"
        sources = tuple(sets[part] for part in taught_on.split())
        options = replace(common, network=network, initial=initial, sources=sources)
        if small:
            options = replace(options, loop=small_loop(STEPS["teacher"]))
        teachers[taught_on] = distill.train(options, folder(settings, name))
        runs[name] = [score(teachers[taught_on], test)]
    for name, student in STUDENTS.items():
        options = replace(
            common,
            teacher=str(teachers[student.teacher]) if student.teacher else "",
            sources=tuple(sets[part] for part in student.uses),
        )
        # A teacher looks at each image six times, so the seeds share what it says.
        stored = distill.labelled(options, make_teacher(options.teacher, affine=True))
        for seed in settings.seeds:
            console.print(f"{name}, seed {seed}", highlight=False)
            seeded = replace(options, loop=replace(common.loop, seed=seed))
            model = distill.train(seeded, folder(settings, f"{name} {seed}"), stored)
            runs.setdefault(name, []).append(score(model, test))
    record.ours = rows(runs, KEYS)
    for one, other in CLAIMS:
        for key in ("abs_rel", "delta1"):
            claim_better(record, runs, one, other, key)
    record.details = {"training": asdict(common), "sets": {k: asdict(v) for k, v in sets.items()}}
    record.notes = [
        "X is labelled, U is not; U' is U with its labels. The paper's U is ScanNet."
        + (
            " At the small scale X are 12 simulated rooms and U 30 others; the teacher is the light"
            " MobileNet-V2 after 500 steps, the student the fast one after 250, each from the"
            " other's shipped trunk."
            if small
            else ""
        )
    ]
    return record


def folder(settings: ReproduceSettings, name: str) -> Path:
    """Where a training is kept."""
    plain = "-".join("".join(c if c.isalnum() else " " for c in name.replace("'", "l")).split())
    return Path(settings.work) / "distill" / f"{settings.scale}-{plain}"


def simulated(
    settings: ReproduceSettings,
) -> tuple[DistillSettings, dict[str, Source], Dataset]:
    """The fast student's fusion and refinement, learnt anew at half the size."""
    few = str(scenes(settings.work, "rooms-few", rooms=12, streets=0, seed=33))
    many = str(scenes(settings.work, "rooms", rooms=30, streets=0, seed=31))
    judged_on = scenes(settings.work, "rooms-test", rooms=10, streets=0, seed=32)
    sets = {"X": Source(few), "U": Source(many, truth=False), "U'": Source(many)}
    common = DistillSettings(
        network="fast_mobilenet_v2",
        initial="student-published",
        sources=(sets["X"],),
        pixels=PIXELS,
        loop=small_loop(STEPS["student"]),
    )
    return common, sets, open_dataset(judged_on)


def published(
    settings: ReproduceSettings,
) -> tuple[DistillSettings, dict[str, Source], Dataset]:
    """nyu= and nyu_test= are the authors' lists, scannet= the auxiliary images."""
    many = settings.path("scannet")
    sets = {"X": Source(settings.path("nyu")), "U": Source(many, truth=False), "U'": Source(many)}
    common = DistillSettings(
        network="light_mobilenet_v2",
        initial="imagenet",
        sources=(sets["X"],),
        loss="three_term",
        loop=paper_schedule(),
    )
    return common, sets, Prepared(open_dataset(settings.path("nyu_test")), "nyu")
