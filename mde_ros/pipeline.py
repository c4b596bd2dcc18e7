"""DepthPipeline: one frame in, one prediction out. Node, evaluation and benchmark all call it.

undistort → resize → project points → network (metres) → resize → range check
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from mde_ros.config import PipelineSettings
from mde_ros.defence import disagreement
from mde_ros.domains import DomainSwitch
from mde_ros.frame import Camera, Frame, Prediction
from mde_ros.geometry import network_size, points_to_depth, undistort_maps, undistorted_area
from mde_ros.runtime import Alarm, Runtime, load_defended, load_runtime

# Interpolation that reduces by more than this skips pixels, and fine texture aliases. Larger images
# are halved first, which averages 2 by 2 and is many times faster than INTER_AREA in one step.
REDUCTION = 2.5
MAPS = ("depth", "uncertainty", "saliency")  # what is brought to the image's size


@dataclass(frozen=True, eq=False)
class _Optics:
    """All that depends on the camera alone; made once per camera."""

    source: Camera
    ideal: Camera  # of the image that goes out: source without distortion
    network: Camera  # of the network's input
    maps: tuple[np.ndarray, np.ndarray] | None
    seen: np.ndarray | None  # (H, W) float32, 0 where the lens shows nothing; None: 1 everywhere
    halvings: int  # of the image, before it is interpolated to the network's size


class DepthPipeline:
    """From a camera frame (and LiDAR points) to metric depth at the image's own size.

    Args:
        settings: model, runtime, device and depth range.
        runtime: a loaded network, when the caller has one; otherwise it is loaded from settings.

    New settings may be assigned between two frames: depth range, defence and alarm_threshold then
    count, what else they say does not. The mask is loaded when `defence` first asks for it.

    Raises:
        runtime.ModelError: when the model or its mask cannot be found, read or run as asked; so
            does an assignment, which then changes nothing.
        ConfigError: when it does not have the domain that is asked for.
    """

    def __init__(self, settings: PipelineSettings, runtime: Runtime | None = None) -> None:
        self.runtime = runtime or load_runtime(
            settings.model, settings.runtime, settings.device, settings.threads
        )
        self.defended: Runtime | None = None  # the same with its mask, once it was asked for
        self._domains = DomainSwitch(self.runtime.spec.domains, settings.domain)
        self._optics: _Optics | None = None
        self._rectified: tuple[Frame, np.ndarray] | None = None
        # Once a block of this size was freed, glibc keeps what smaller ones leave. Else a network
        # with uncertainty pays 1 ms a frame for the pages of its two maps.
        np.empty(31 << 20, np.uint8)
        self.settings = settings

    @property
    def settings(self) -> PipelineSettings:
        """The present ones."""
        return self._settings

    @settings.setter
    def settings(self, settings: PipelineSettings) -> None:
        if settings.defence != "off" and self.defended is None:
            self.defended = load_defended(self.runtime, settings.mask, settings.threads)
        self._settings = settings

    @property
    def alarm(self) -> Alarm:
        """Above which disagreement `monitor` warns: as the settings say, else as the mask does."""
        if self.settings.alarm_threshold or self.defended is None:
            return Alarm(self.settings.alarm_threshold)
        return self.defended.spec.alarm

    def __call__(self, frame: Frame) -> Prediction:
        """Predict depth for one frame; see Frame and Prediction for shapes and units."""
        optics = self.optics(frame.camera)
        image, sparse = self.prepare(frame, optics)
        outputs = self.infer(image, optics.network.focal_px, sparse)
        if not self._domains.names:
            return self.finish(outputs, optics)
        distances = outputs["distances"].tolist()
        chosen = self._domains(distances)
        each = {k: v for k, v in outputs.items() if k.endswith("_each")}
        maps = outputs | {k.removesuffix("_each"): v[chosen] for k, v in each.items()}
        return replace(
            self.finish(maps, optics),
            domain=self._domains.names[chosen],
            domain_distance=distances[chosen],
        )

    def infer(
        self, image: np.ndarray, focal_px: float, sparse: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """What the network says of its input: seen whole, through the mask, or (monitor) both.

        Returns the maps of Runtime; of both, "depth" is seen through the mask, and "undefended"
        whole.
        """
        if self.settings.defence == "off" or self.defended is None:
            return self.runtime(image, focal_px, sparse)
        outputs = self.defended(image, focal_px, sparse)
        if self.settings.defence == "monitor":
            whole = self.runtime(image, focal_px, sparse)
            outputs["undefended"] = whole["depth"]
            if "depth_each" in whole:
                outputs["undefended_each"] = whole["depth_each"]
        return outputs

    def warm_up(self) -> Prediction:
        """Predict for a black image: the first time is slow, and weights may be unusable.

        Raises:
            ValueError: when the answer has no finite value at all, as with diverged weights.
        """
        camera = Camera(640, 480, np.array([[525, 0, 319.5], [0, 525, 239.5], [0, 0, 1.0]]))
        optics = self.optics(camera)
        image, sparse = self.prepare(Frame(np.zeros((480, 640, 3), np.uint8), camera), optics)
        outputs = self.infer(image, optics.network.focal_px, sparse)
        if not np.isfinite(outputs["depth"]).any():
            name = self.runtime.path.name
            raise ValueError(f"model: expected depth in metres, {name} answers NaN or inf only")
        return self.finish(outputs, optics)

    def output_camera(self, camera: Camera) -> Camera:
        """The camera that the predicted depth belongs to: same size and K, no distortion."""
        return self.optics(camera).ideal

    def rectify(self, frame: Frame) -> np.ndarray:
        """The frame's image as the depth sees it, lens distortion removed: (H, W, 3) uint8.

        Made once per frame and kept until the next one, so it must not be written to.
        """
        maps = self.optics(frame.camera).maps
        if maps is None:
            return frame.image
        if self._rectified is None or self._rectified[0] is not frame:
            self._rectified = frame, cv2.remap(frame.image, *maps, cv2.INTER_LINEAR)
        return self._rectified[1]

    def optics(self, camera: Camera) -> _Optics:
        """Maps and resized cameras for this camera, kept until another camera comes."""
        if self._optics is None or not self._optics.source.same_as(camera):
            spec = self.runtime.spec
            size = spec.size or network_size(
                camera.width, camera.height, spec.pixels, spec.multiple
            )
            ideal = camera.undistorted()
            maps = undistort_maps(camera) if camera.is_distorted else None
            seen = None if maps is None else undistorted_area(camera, maps)
            if seen is not None:
                seen = None if seen.all() else seen.astype(np.float32)
            reduction = (camera.width * camera.height / (size[0] * size[1])) ** 0.5
            halvings = max(0, math.ceil(math.log2(reduction / REDUCTION)))
            self._optics = _Optics(camera, ideal, ideal.resized(*size), maps, seen, halvings)
        return self._optics

    def prepare(self, frame: Frame, optics: _Optics) -> tuple[np.ndarray, np.ndarray | None]:
        """Network input: (h, w, 3) uint8 and, for completion, sparse depth (h, w) in metres."""
        network, image = optics.network, self.rectify(frame)
        for _ in range(optics.halvings):
            half = (image.shape[1] // 2, image.shape[0] // 2)
            image = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (network.width, network.height), interpolation=cv2.INTER_LINEAR)
        if not self.runtime.spec.takes_points:
            return image, None
        points = np.zeros((0, 3), np.float32) if frame.points is None else frame.points
        return image, points_to_depth(points, network)

    def finish(self, outputs: dict[str, np.ndarray], optics: _Optics) -> Prediction:
        """Network output → the image's size, depth 0 where there is none.

        None is what is not finite, out of the range or beyond what the lens shows.
        """
        size = (optics.ideal.width, optics.ideal.height)
        full = {
            name: cv2.resize(outputs[name], size, interpolation=cv2.INTER_LINEAR)
            for name in MAPS
            if name in outputs
        }
        depth, uncertainty = full.pop("depth"), full.get("uncertainty")
        # What is interpolated lies between its neighbours, so most frames are right as they are.
        low, high = outputs["depth"].min(), outputs["depth"].max()  # NaN if any is
        in_range = self.settings.min_depth <= low and high <= self.settings.max_depth
        if not in_range or optics.seen is not None:
            self._clear(depth, optics.seen)
            if uncertainty is not None:  # 0 there too, copied from depth
                cv2.copyTo(depth, (depth == 0).view(np.uint8), dst=uncertainty)
        apart = None
        if "undefended" in outputs:
            apart = disagreement(outputs["depth"], outputs["undefended"])
        return Prediction(depth, uncertainty, full.get("saliency"), disagreement=apart)

    def _clear(self, depth: np.ndarray, seen: np.ndarray | None) -> None:
        """Set depth to 0 where it is not finite, out of the range or not seen, in place."""
        cv2.patchNaNs(depth, 0.0)  # the thresholds let NaN pass in some versions of OpenCV
        cv2.threshold(depth, self.settings.max_depth, 0, cv2.THRESH_TOZERO_INV, dst=depth)
        below_min = float(np.nextafter(np.float32(self.settings.min_depth), np.float32(-1)))
        cv2.threshold(depth, below_min, 0, cv2.THRESH_TOZERO, dst=depth)  # keeps what is greater
        if seen is not None:
            cv2.multiply(depth, seen, dst=depth)
