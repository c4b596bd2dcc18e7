"""Depth under attack: the paper's Table 2 for any model, mask and data set.

Hu & Okatani, arXiv 1911.08790 (METHODS 3). x* is made by one who knows the depth network N and
nothing of a defence; x† by one who knows all. Every number goes through the deployed pipeline, but
for the network, which needs torch for its gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mde_ros.attacks import BESIDE, OBJECTIVES, SPACES, ifgsm, patch, spoiling
from mde_ros.config import ConfigError, as_dict, check, setting
from mde_ros.defence import disagreement
from mde_ros.evaluation.opened import Known, OpenPipeline, Seen, scored_frames, take
from mde_ros.evaluation.roc import detection
from mde_ros.evaluation.run import EvaluateSettings, Tally
from mde_ros.metrics import NAMES
from mde_ros.runtime import Alarm

# Every row of the table, and what it means.
ROWS = {
    "N": "the network alone",
    "N_adv": "a network trained under attack, given the noise that was made for N",
    "N(x*⊗G(x*))": "behind a mask that was trained on clean images",
    "N(x*⊗G(x))": "the same, the mask taken from the clean image, which nobody has",
    "N(x*⊗G_adv(x*))": "behind a mask that was trained under attack: the defence",
    "N(x*⊗G_adv(x))": "the same, the mask taken from the clean image, which nobody has",
    "N(x†⊗G_adv(x†))": "the defence against one who knows it",
    "N_adv(x†)": "a network trained under attack against one who knows it",
}
DEFENCE, KNOWN = "N(x*⊗G_adv(x*))", "N(x†⊗G_adv(x†))"


@dataclass(frozen=True)
class AttackSettings:
    """How frames are attacked, and what counts."""

    eps: tuple[float, ...] = setting((0.05, 0.1, 0.15, 0.2), "largest change of a value")
    iterations: int = setting(10, "of IFGSM; 1 is FGSM", low=1, high=10_000)
    alpha: float = setting(1.0, "step, in the units of eps; as published larger than any", low=0.0)
    space: str = setting(
        "normalised",
        "what eps is measured in: the network's input, or pixels of 0 to 1",
        choices=SPACES,
    )
    patch: float = setting(
        0.0,
        "attack a square in the middle alone, this share of the image's shorter side; 0: all of it",
        low=0.0,
        high=1.0,
    )
    objective: str = setting("l1", "error that is made large", choices=tuple(OBJECTIVES))
    target: str = setting(
        "auto",
        "what the attack leads away from, and the score holds against: measured depth, or N's own"
        " clean prediction; auto: measured depth where the data have any",
        choices=("auto", "truth", "prediction"),
    )
    adaptive: bool = setting(True, "also by an attacker who knows the defence")
    frames: EvaluateSettings = field(default_factory=EvaluateSettings)

    def __post_init__(self) -> None:
        check(self)
        if not self.eps or min(self.eps) <= 0 or len(set(self.eps)) < len(self.eps):
            raise ConfigError(f"eps: expected different numbers above 0, got {list(self.eps)}")


@dataclass(frozen=True, eq=False)
class Suspects:
    """What is attacked.

    Attributes:
        n: the depth network N.
        defence: G_adv, a mask trained under attack. mask: G, one trained on clean images.
        adversarial: N_adv, trained under attack, of the same input as N.
        alarm: of the defence.
    """

    n: OpenPipeline
    defence: Callable[[Tensor], Tensor] | None = None
    mask: Callable[[Tensor], Tensor] | None = None
    adversarial: OpenPipeline | None = None
    alarm: Alarm | None = None

    def defended(self, seen: Seen, x: Tensor) -> Tensor:
        """N(x ⊗ G_adv(x))."""
        assert self.defence is not None
        return self.n.depth(seen, x * self.defence(x))

    def rows(self, adaptive: bool) -> list[str]:
        """The rows of ROWS that these have."""
        there = {
            "N": True,
            "N_adv": self.adversarial is not None,
            "N(x*⊗G(x*))": self.mask is not None,
            "N(x*⊗G(x))": self.mask is not None,
            DEFENCE: self.defence is not None,
            "N(x*⊗G_adv(x))": self.defence is not None,
            KNOWN: adaptive and self.defence is not None,
            "N_adv(x†)": adaptive and self.adversarial is not None,
        }
        return [row for row in ROWS if there[row]]


@dataclass(frozen=True, eq=False)
class Attacked:
    """One frame, clean and with every ε.

    Attributes:
        images: "N", "defence", "adversarial" → (1 + E, 3, h, w) normalised, made against that one;
            the first is the clean image.
        depths: row → (1 + E, 1, h', w') metres.
        suspicions: row → (1 + E) disagreements of the defence with N on the same images.
    """

    images: dict[str, Tensor]
    depths: dict[str, Tensor]
    suspicions: dict[str, list[float]]


def attack_frame(
    suspects: Suspects, known: Known, target: str, settings: AttackSettings
) -> Attacked:
    """Attack a frame by every ε, and let all rows answer.

    Args:
        target: "truth" or "prediction", of target_of: what `known` is scored against.
    """
    n, defence, adversarial = suspects.n, suspects.defence, suspects.adversarial
    seen, beside = known.seen, 1.0 if target == "truth" else BESIDE
    count = len(settings.eps)
    clean = seen.x.expand(count, -1, -1, -1)
    epsilon = clean.new_tensor(settings.eps).view(-1, 1, 1, 1)
    if settings.patch:
        epsilon = epsilon * patch(settings.patch, clean)
    away_from = torch.from_numpy(
        np.ascontiguousarray(known.truth_m, np.float32) * np.float32(beside)
    )
    away_from = away_from.to(clean.device).expand(count, 1, -1, -1)

    def images(predict: Callable[[Tensor], Tensor]) -> Tensor:
        loss_of = spoiling(predict, away_from, settings.objective)
        given = (settings.iterations, settings.alpha, settings.space)
        return torch.cat([seen.x, ifgsm(loss_of, clean, epsilon, *given)])

    made = {"N": images(lambda x: n.depth(seen, x))}
    if defence and settings.adaptive:
        made["defence"] = images(lambda x: suspects.defended(seen, x))
    if adversarial and settings.adaptive:
        made["adversarial"] = images(lambda x: adversarial.depth(seen, x))
    with torch.no_grad():
        x = made["N"]
        depths, suspicions = {"N": n.depth(seen, x)}, {}
        if adversarial:
            depths["N_adv"] = adversarial.depth(seen, x)
        if mask := suspects.mask:
            shown = mask(x)
            depths["N(x*⊗G(x*))"] = n.depth(seen, x * shown)
            depths["N(x*⊗G(x))"] = n.depth(seen, x * shown[:1])
        if defence:
            shown = defence(x)
            depths[DEFENCE] = n.depth(seen, x * shown)
            depths["N(x*⊗G_adv(x))"] = n.depth(seen, x * shown[:1])
            suspicions[DEFENCE] = _disagreements(depths[DEFENCE], depths["N"])
        if "defence" in made:
            depths[KNOWN] = suspects.defended(seen, made["defence"])
            undefended = n.depth(seen, made["defence"])
            suspicions[KNOWN] = _disagreements(depths[KNOWN], undefended)
        if "adversarial" in made:
            assert adversarial is not None
            depths["N_adv(x†)"] = adversarial.depth(seen, made["adversarial"])
    return Attacked(made, depths, suspicions)


def _disagreements(defended: Tensor, undefended: Tensor) -> list[float]:
    """Of every pair of depth maps; 0, which raises no alarm, where one of them has no depth."""
    pairs = zip(defended[:, 0].cpu().numpy(), undefended[:, 0].cpu().numpy())
    scores = [disagreement(*pair) for pair in pairs]
    return [0.0 if math.isnan(score) else score for score in scores]


def columns(settings: AttackSettings) -> list[str]:
    """The columns of the table: clean, and every ε."""
    return ["clean", *(f"{e:g}" for e in settings.eps)]


def names(rows: list[str], settings: AttackSettings) -> list[str]:
    """What the tally calls the cells of the table."""
    return [f"{row} {column}" for row in rows for column in columns(settings)]


def attack_data(
    dataset: Any,
    suspects: Suspects,
    settings: AttackSettings,
    target: str,
    tally: Tally,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
    keep: Callable[[], None] = lambda: None,
) -> None:
    """Attack the frames that `tally` does not have yet, and score them.

    Args:
        target: "truth" or "prediction", of target_of.
        progress, stop: as scored_frames takes them.
        keep: called after every frame, when `tally` is whole.
    """
    n, frames = suspects.n, settings.frames
    for known in scored_frames(dataset, n, frames, target, tally, progress, stop):
        attacked = attack_frame(suspects, known, target, settings)
        for row, depths in attacked.depths.items():
            for i, column in enumerate(columns(settings)):
                image = take(tally, n, f"{row} {column}", depths[i, 0], known)
                if row in attacked.suspicions:
                    image["disagreement"] = attacked.suspicions[row][i]
        keep()


def table_of(tally: Tally, rows: list[str], settings: AttackSettings) -> list[dict[str, Any]]:
    """The rows of the table: name, meaning, and metrics by column."""
    table = []
    for row in rows:
        cells = {}
        for column in columns(settings):
            metrics = tally.scorers[f"{row} {column}"].result()["metrics"]
            cells[column] = {k: v for k, v in metrics.items() if k in (*NAMES, "coverage")}
        clean = cells.pop("clean")
        table.append({"name": row, "about": ROWS[row], "clean": clean, "attacked": cells})
    return table


def monitor_of(
    tally: Tally, rows: list[str], settings: AttackSettings, alarm: Alarm | None
) -> dict[str, Any] | None:
    """How well the disagreement of the defence with N tells attacked frames from clean ones.

    Args:
        alarm: that of the mask, which a robot has.

    Returns:
        The disagreements of all frames, and roc.detection of every attack; None without defence.
    """
    if DEFENCE not in rows:
        return None

    def scores(row: str, column: str) -> list[float]:
        return [image["disagreement"] for image in tally.scorers[f"{row} {column}"].images]

    clean, known = scores(DEFENCE, "clean"), alarm is not None and alarm.threshold > 0
    out: dict[str, Any] = {
        "clean": clean,
        "attacks": [],
        "alarm": as_dict(alarm) if known else None,
    }
    for row in (r for r in (DEFENCE, KNOWN) if r in rows):
        for column in columns(settings)[1:]:
            attacked = scores(row, column)
            entry = {"row": row, "eps": float(column), "scores": attacked}
            entry |= detection(clean, attacked)
            if alarm is not None and known:
                entry["by_alarm"] = detection(clean, attacked, alarm.threshold)
            out["attacks"].append(entry)
    return out


def verdict(table: list[dict[str, Any]], settings: AttackSettings) -> list[str]:
    """What the table says in words, each with its figures."""
    by_name = {row["name"]: row for row in table}
    column = f"{settings.eps[middle(settings)]:g}"

    def rmse(name: str, cell: str) -> float:
        row = by_name[name]
        metrics = row["clean"] if cell == "clean" else row["attacked"][cell]
        return metrics.get("rmse_m", math.nan)  # none, where no pixel has a depth any more

    alone, spoilt = rmse("N", "clean"), rmse("N", column)
    words = [f"at ε = {column} the RMSE of N goes from {alone:.3f} to {spoilt:.3f} m"]
    if DEFENCE in by_name:
        clean, held = rmse(DEFENCE, "clean"), rmse(DEFENCE, column)
        words.append(
            f"behind the mask it goes from {clean:.3f} to {held:.3f} m,"
            f" {held / clean:.2f} times its own clean value"
            if clean
            else f"behind the mask it is {held:.3f} m"
        )
        if alone:
            words.append(
                f"on clean frames the mask costs {100 * (clean / alone - 1):.0f} % of RMSE"
            )
    if KNOWN in by_name:
        broken = rmse(KNOWN, column)
        words.append(f"an attacker who knows the mask takes the defended model to {broken:.3f} m")
    return words


def middle(settings: AttackSettings) -> int:
    """Which ε is shown in pictures and told in words."""
    return (len(settings.eps) - 1) // 2
