"""The scan that a level 2-D LiDAR near the camera would see, cut out of dense depth."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mde_ros.datasets import Dataset, DatasetError, Sample
from mde_ros.frame import Camera
from mde_ros.geometry import undistort_depth, undistort_maps

SAME_SURFACE = 0.1  # neighbouring pixels whose depths differ by a larger share are an outline


@dataclass(frozen=True)
class VirtualScan:
    """A level LiDAR straight below the camera.

    Attributes:
        height: metres below the camera; negative is above.
        pitch: degrees that the camera looks down.
        beams: number of beams over 360 degrees; one looks straight ahead.
        noise: standard deviation of a range, metres.
        seed: of the noise.

    Raises:
        DatasetError: on a value that no scan has.
    """

    height: float
    pitch: float = 0.0
    beams: int = 720
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        numbers = (self.height, self.pitch, self.noise)
        if not all(map(math.isfinite, numbers)) or self.beams < 1 or self.noise < 0:
            raise DatasetError(f"virtual scan: expected finite values and beams > 0, got {self}")
        if not abs(self.pitch) < 90:
            raise DatasetError(
                f"virtual scan: expected a pitch between -90 and 90 degrees, got {self.pitch:g}"
            )

    @classmethod
    def parse(cls, text: str) -> VirtualScan:
        """ "height=0.4,pitch=10" → VirtualScan; whatever is left out has its default.

        Raises:
            DatasetError: on a text that is none, with the keys that there are.
        """
        kinds = {f.name: int if f.name in ("beams", "seed") else float for f in _FIELDS}
        values: dict[str, float] = {}
        for part in text.split(","):
            key, _, value = part.partition("=")
            try:
                values[key] = kinds[key](value)
            except (KeyError, ValueError):
                raise DatasetError(
                    "virtual scan: expected height=METRES and perhaps"
                    f" {', '.join(k for k in kinds if k != 'height')}, got {text!r}"
                ) from None
        if "height" not in values:
            raise DatasetError(f"virtual scan: expected height=METRES, got {text!r}")
        return cls(**values)  # type: ignore[arg-type]


_FIELDS = dataclasses.fields(VirtualScan)


def cut(
    depth_m: np.ndarray, camera: Camera, spec: VirtualScan, frame: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """What the LiDAR sees of the surfaces that the camera sees.

    A beam and the camera above it span an upright plane, which the image shows as a straight line.
    The beam ends where the surface along that line passes through the LiDAR's plane, and at the
    nearest such place. A surface goes on between two measured neighbours unless their depths
    differ by more than SAME_SURFACE; at an outline, or without a measurement, there is no return.

    Args:
        depth_m: (H, W) metres, 0 or not finite is no measurement.
        camera: its camera, taken as undistorted.
        spec: where the LiDAR is and how it measures.
        frame: number of the frame, for noise that differs from frame to frame.

    Returns:
        points: (N, 3) float32 metres in the camera's optical frame.
        used: (H, W) bool, the pixels that the points were read from.
    """
    azimuths = np.arange(-(spec.beams // 2), spec.beams - spec.beams // 2) * (math.tau / spec.beams)
    pitch = math.radians(spec.pitch)
    down = np.array([0, math.cos(pitch), math.sin(pitch)])
    ahead = np.array([0, -math.sin(pitch), math.cos(pitch)])
    fx, fy, cx, cy = camera.K[[0, 1, 0, 1], [0, 1, 2, 2]]

    # The line of every beam: at image row v it lies at column u, and its rays have these slopes.
    y = (np.arange(camera.height) - cy) / fy
    forward, below = ahead[2] + y * ahead[1], down[2] + y * down[1]  # per metre of z
    u = cx + fx * np.tan(azimuths)[:, None] * forward
    faces = np.cos(azimuths)[:, None] * forward > 0
    shown = faces & (u >= 0) & (u <= camera.width - 1)
    beams = shown.any(1)
    azimuths, u, shown = azimuths[beams], u[beams], shown[beams]

    # Along a line over a plane in space, 1/z is linear, and so is whether the plane is below.
    inverse, left, right = _sample(depth_m, np.where(shown, u, 0))
    inverse[~shown] = np.nan
    beneath = below - spec.height * inverse
    upper, lower = beneath[:, :-1], beneath[:, 1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        crosses = (upper <= 0) != (lower <= 0)
        crosses &= np.isfinite(upper) & np.isfinite(lower)
        crosses &= _same_surface(inverse[:, :-1], inverse[:, 1:])
        share = np.where(crosses, upper / (upper - lower), 0)
        z = 1 / (inverse[:, :-1] + share * np.diff(inverse, axis=1))
        ranges = z * (forward[:-1] + share * np.diff(forward)) / np.cos(azimuths)[:, None]
    ranges = np.where(crosses, ranges, np.inf)
    row = ranges.argmin(1) if ranges.size else np.zeros(len(ranges), int)
    beam = np.arange(len(ranges))
    hit = np.isfinite(ranges[beam, row])
    beam, row = beam[hit], row[hit]

    used = np.zeros(depth_m.shape, bool)
    for rows in (row, row + 1):
        for cols in (left, right):
            used[rows, cols[beam, rows]] = True
    distance, azimuth = ranges[beam, row], azimuths[beam]
    if spec.noise:
        noise = np.random.default_rng((spec.seed, frame)).normal(0, spec.noise, distance.size)
        distance = np.maximum(distance + noise, 0)
    points = np.outer(distance * np.cos(azimuth), ahead) + spec.height * down
    points[:, 0] += distance * np.sin(azimuth)
    return points.astype(np.float32), used


def _sample(depth_m: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """1/z at columns u (beams, H) of every row, NaN = none, and the two columns it comes from.

    Between two pixels of a surface it is interpolated; at an outline the nearer column counts.
    """
    rows = np.arange(depth_m.shape[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(np.isfinite(depth_m) & (depth_m > 0), 1 / depth_m, np.nan)
    left = np.floor(u).astype(int)
    right = np.minimum(left + 1, depth_m.shape[1] - 1)
    share = u - left
    a, b = inverse[rows, left], inverse[rows, right]
    smooth = _same_surface(a, b)
    left = np.where(smooth | (share < 0.5), left, right)
    right = np.where(smooth | (share >= 0.5), right, left)
    return np.where(smooth, a + share * (b - a), inverse[rows, left]), left, right


def _same_surface(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether two inverse depths may belong to one surface; false where either is NaN."""
    with np.errstate(invalid="ignore"):
        return np.maximum(a, b) <= (1 + SAME_SURFACE) * np.minimum(a, b)


class WithScan:
    """A data set whose frames have the points of a virtual scan, and no truth where they are.

    Images of a distorted lens are rectified, and their truth with them.

    Args:
        dataset: the data set.
        spec: the scan.
    """

    def __init__(self, dataset: Dataset, spec: VirtualScan) -> None:
        self.dataset, self.spec = dataset, spec
        self.name = dataset.name

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Sample]:
        return (self._cut(i, sample) for i, sample in enumerate(self.dataset))

    def __getitem__(self, index: int) -> Sample:
        return self._cut(index, self.dataset[index])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "dataset": copy.copy(self.dataset)}  # what it has open stays

    def notes(self) -> list[str]:
        """What the data set has to say, if anything."""
        return getattr(self.dataset, "notes", list)()

    def _cut(self, index: int, sample: Sample) -> Sample:
        frame, camera = sample.frame, sample.frame.camera
        truth_m, moving = sample.truth_m, sample.moving
        if truth_m is None or truth_m.shape != frame.image.shape[:2]:
            return sample  # whoever asks for the truth will tell
        if camera.is_distorted:
            image = cv2.remap(frame.image, *undistort_maps(camera), cv2.INTER_LINEAR)
            truth_m = undistort_depth(truth_m, camera)
            if moving is not None:
                moving = undistort_depth(moving.astype(np.uint8), camera) > 0
            frame = dataclasses.replace(frame, image=image, camera=camera.undistorted())
        points, used = cut(truth_m, frame.camera, self.spec, index)
        frame = dataclasses.replace(frame, points=points)
        truth_m = np.where(used, np.float32(0), truth_m)
        return dataclasses.replace(sample, frame=frame, truth_m=truth_m, moving=moving)
