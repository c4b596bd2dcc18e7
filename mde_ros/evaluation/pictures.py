"""Frames to be shown in a report: chosen, kept beside results.json, read again."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mde_ros.evaluation.results import EvaluationError, ResultsError, write_atomically
from mde_ros.frame import Camera, Frame, Prediction
from mde_ros.geometry import to_millimetres, undistort_depth, undistort_maps

Model = Callable[[Frame], Prediction]


@dataclass(eq=False)
class Picture:
    """One frame to be shown in a report.

    Attributes:
        title: why it is shown ("best frame").
        name: the frame's name in its data set.
        image: (H, W, 3) uint8 RGB, without lens distortion.
        camera: its camera.
        truth_m: (H, W) float32 metres, 0 = none; None when there is no truth.
        predictions_m: model name → (H, W) float32 metres, 0 = none.
        points: (N, 3) float32 metres that a LiDAR measured, in the camera's optical frame.
    """

    title: str
    name: str
    image: np.ndarray
    camera: Camera
    truth_m: np.ndarray | None
    predictions_m: dict[str, np.ndarray]
    points: np.ndarray | None = None


def take_pictures(
    dataset: Any, models: Mapping[str, Model], results: Mapping[str, Any]
) -> list[Picture]:
    """The best, median and worst frame of the first model by AbsRel, predicted once more.

    Only these are held in memory, whatever the length of the data set.
    """
    images = [i for i in results["models"][0]["per_image"] if "abs_rel" in i]
    ranked = [i["index"] for i in sorted(images, key=lambda i: i["abs_rel"])]
    if not ranked:
        return []
    chosen = {ranked[0]: "best frame"}
    chosen.setdefault(ranked[len(ranked) // 2], "median frame")
    chosen.setdefault(ranked[-1], "worst frame")
    return [make_picture(title, dataset[index], models) for index, title in chosen.items()]


def make_picture(title: str, sample: Any, models: Mapping[str, Model]) -> Picture:
    """A sample with the models' predictions, ready to be shown."""
    frame, camera = sample.frame, sample.frame.camera
    image = frame.image
    if camera.is_distorted:
        image = cv2.remap(image, *undistort_maps(camera), cv2.INTER_LINEAR)
    predictions = {name: model(frame).depth for name, model in models.items()}
    truth_m, ideal = rectified_truth(sample), camera.undistorted()
    return Picture(title, sample.name, image, ideal, truth_m, predictions, frame.points)


def save_pictures(path: str | Path, pictures: Iterable[Picture]) -> None:
    """Keep pictures in one .npz file: images as they are, depth as 16-bit millimetres.

    Raises:
        results.ResultsError: when the file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    for i, p in enumerate(pictures):
        arrays[f"{i}/text"] = np.array([p.title, p.name])
        arrays[f"{i}/image"] = p.image
        arrays[f"{i}/K"] = p.camera.K
        if p.truth_m is not None:
            arrays[f"{i}/truth"] = to_millimetres(p.truth_m)
        if p.points is not None:
            arrays[f"{i}/points"] = p.points
        for name, depth in p.predictions_m.items():
            arrays[f"{i}/model/{name}"] = to_millimetres(depth)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())


def load_pictures(path: str | Path) -> list[Picture]:
    """Pictures as save_pictures kept them.

    Raises:
        results.ResultsError: when the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        count = len({key.split("/")[0] for key in arrays})
        return [_picture(arrays, i) for i in range(count)]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ResultsError(f"{path}: not the pictures of a results file ({error})") from None


def pictures_path(json_path: str | Path) -> Path:
    """Where the pictures of a results file lie."""
    return Path(json_path).with_suffix(".npz")


def rectified_truth(sample: Any) -> np.ndarray | None:
    """The truth in the geometry of the prediction; see `rectified`."""
    return None if sample.truth_m is None else rectified(sample.truth_m, sample)


def rectified(values: np.ndarray, sample: Any, what: str = "truth") -> np.ndarray:
    """A map (H, W) of a sample's image without its lens distortion, by the nearest pixel.

    Raises:
        results.EvaluationError: when it is of another size than the image.
    """
    camera = sample.frame.camera
    if values.shape != (camera.height, camera.width):
        raise EvaluationError(
            f"{sample.name}: its image is {camera.width}x{camera.height} but its {what} is"
            f" {values.shape[1]}x{values.shape[0]}"
        )
    return undistort_depth(values, camera) if camera.is_distorted else values


def _picture(arrays: Mapping[str, np.ndarray], i: int) -> Picture:
    title, name = map(str, arrays[f"{i}/text"])
    image = arrays[f"{i}/image"]
    camera = Camera(image.shape[1], image.shape[0], arrays[f"{i}/K"])
    truth = arrays.get(f"{i}/truth")
    mark = f"{i}/model/"
    predictions = {
        key[len(mark) :]: value.astype(np.float32) / 1e3
        for key, value in arrays.items()
        if key.startswith(mark)
    }
    truth_m = None if truth is None else truth.astype(np.float32) / 1e3
    return Picture(title, name, image, camera, truth_m, predictions, arrays.get(f"{i}/points"))
