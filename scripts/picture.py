"""The README's picture: `python scripts/picture.py RESULTS.npz MODEL OUT.jpg [FRAME …]`.

One row per frame kept beside a results.json: image, measured depth, predicted depth, error, cloud.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from mde_ros.evaluation.pictures import Picture, load_pictures
from mde_ros.evaluation.render import cloud_pictures, depth_picture, error_picture
from mde_ros.metrics import is_measured

SIZE = (320, 240)


def row(picture: Picture, model: str) -> np.ndarray:
    """(240, 1600, 3) uint8 RGB."""
    depth_m, truth_m = picture.predictions_m[model], picture.truth_m
    assert truth_m is not None
    near, middle, far = np.percentile(truth_m[is_measured(truth_m)], [2, 50, 98])
    cloud, _ = cloud_pictures(depth_m, picture.image, picture.camera, (middle, far), SIZE)
    opacity = cloud[..., 3:] / 255
    cells = [
        picture.image,
        depth_picture(truth_m, near, far),
        depth_picture(depth_m, near, far),
        error_picture(depth_m, truth_m),
        (cloud[..., :3] * opacity + 255 * (1 - opacity)).astype(np.uint8),
    ]
    return np.hstack([cv2.resize(c, SIZE, interpolation=cv2.INTER_AREA) for c in cells])


def main(npz: str, model: str, out: str, *frames: str) -> None:
    """Write the picture of the named frames, or of all."""
    pictures = {p.name: p for p in load_pictures(npz)}
    chosen = [pictures[f] for f in frames] if frames else list(pictures.values())
    sheet = np.vstack([row(p, model) for p in chosen])
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(out, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
