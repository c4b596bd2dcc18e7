"""What the viewer shows, and how it is laid out."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from mde_ros.evaluation.pictures import Picture
from mde_ros.frame import Camera
from mde_ros.geometry import unproject

APPLICATION, TIME = "mde_view", "time"
CAMERA, TRAJECTORY = "world/camera", "world/trajectory"
LENS, CLOUD, SCAN = f"{CAMERA}/lens", f"{CAMERA}/cloud", f"{CAMERA}/scan"
KINDS = ("prediction", "recorded", "truth")  # the first that there is, is shown as a cloud
CLOUD_POINTS = 40_000  # at most: enough to look at, and a long recording stays light


class ViewError(ValueError):
    """A recording that cannot be shown as asked; the message is one sentence."""


class Scene:
    """Logs to a rerun recording, whose layout grows with what came."""

    def __init__(self, stream: rr.RecordingStream) -> None:
        self.stream = stream
        self.latest: dict[str, rr.AsComponents] = {}  # by the path of its entity
        self.stamp = 0
        self.trail: list[np.ndarray] = []
        self.far_m = 0.0  # far end of the colours, the same for every kind of depth

    def at(self, stamp: int) -> None:
        """The time of all that comes next, nanoseconds."""
        self.stamp = stamp
        self.stream.set_time(TIME, timestamp=np.datetime64(stamp, "ns"))

    def picture(self, picture: Picture, T_world_camera: np.ndarray | None) -> None:
        """A frame with its depth, measured and predicted."""
        if T_world_camera is not None:
            self.pose(T_world_camera)
        self.lens(picture.camera)
        # As it is: an encoded one may not change its size on the way.
        self.log(f"{LENS}/image", rr.Image(picture.image))
        truth = {} if picture.truth_m is None else {"truth": picture.truth_m}
        depths = {**truth, **picture.predictions_m}
        step = int(np.ceil(np.sqrt(picture.image[..., 0].size / CLOUD_POINTS)))
        for kind, depth_m in depths.items():
            self.depth(kind, depth_m)
            points = unproject(depth_m, picture.camera)[::step, ::step]
            has = points[..., 2] > 0
            self.cloud(kind, points[has], picture.image[::step, ::step][has])

    def pose(self, T_world_camera: np.ndarray) -> None:
        """Where the camera is, and the way that it came."""
        R, position = T_world_camera[:3, :3], T_world_camera[:3, 3]
        if not self.trail:
            axis = int(np.argmax(np.abs(R[:, 1])))  # where the image's y, down, points most
            up = f"RIGHT_HAND_{'XYZ'[axis]}_{'UP' if R[axis, 1] < 0 else 'DOWN'}"
            self.stream.log("world", getattr(rr.ViewCoordinates, up), static=True)
        self.trail.append(position)
        self.log(CAMERA, rr.Transform3D(mat3x3=R, translation=position))
        self.log(TRAJECTORY, rr.LineStrips3D([self.trail[-2:]]))

    def lens(self, camera: Camera) -> None:
        """The intrinsics; distortion is taken as removed."""
        pinhole = rr.Pinhole(
            image_from_camera=camera.K,
            width=camera.width,
            height=camera.height,
            camera_xyz=rr.ViewCoordinates.RDF,
            image_plane_distance=0.2,
        )
        self.log(LENS, pinhole)

    def depth(self, kind: str, depth_m: np.ndarray) -> None:
        """(H, W) float32 metres, 0 = none."""
        has = depth_m[depth_m > 0]
        if has.size:
            self.far_m = max(self.far_m, float(np.percentile(has, 98)))
        self.log(f"{LENS}/{kind}", rr.DepthImage(depth_m, meter=1.0, depth_range=(0, self.far_m)))

    def cloud(self, kind: str, points: np.ndarray, colours: np.ndarray | None) -> None:
        """(N, 3) metres in the optical frame, and (N, 3) uint8 RGB."""
        self.log(f"{CLOUD}/{kind}", rr.Points3D(points, colors=colours, radii=0.004 * points[:, 2]))

    def scan(self, points: np.ndarray) -> None:
        """(N, 3) metres in the optical frame."""
        self.log(SCAN, rr.Points3D(points, colors=(255, 40, 40), radii=-3))  # -3: in screen points

    def log(self, path: str, what: rr.AsComponents) -> None:
        """Log, and make room for it when it is the first of its kind."""
        first = path not in self.latest
        self.latest[path] = what
        if first:
            self.stream.send_blueprint(layout(self.latest))
        self.stream.log(path, what)


def layout(paths: Collection[str]) -> rrb.Blueprint:
    """Pictures on the left; on the right all of it in 3-D, from behind the camera."""
    pictures = [f"{LENS}/{name}" for name in ("image", *KINDS) if f"{LENS}/{name}" in paths]
    clouds = [f"{CLOUD}/{kind}" for kind in KINDS if f"{CLOUD}/{kind}" in paths]
    first, now = rrb.TimeRangeBoundary.infinite(), rrb.TimeRangeBoundary.cursor_relative()
    room: dict[str, Any] = {
        # Depth under a lens would be drawn as a cloud once more.
        "contents": ["/world/**", *(f"- /{LENS}/{kind}" for kind in KINDS)],
        "overrides": {
            TRAJECTORY: rrb.VisibleTimeRanges(timeline=TIME, start=first, end=now),
            **{cloud: rrb.EntityBehavior(visible=False) for cloud in clouds[1:]},
        },
        "line_grid": False,
    }
    eye = rrb.EyeControls3D(
        position=(-0.9, -0.9, -1.5), look_target=(0.1, 0.3, 2.5), eye_up=(0, -1, 0)
    )
    views = [rrb.Spatial3DView(origin=CAMERA, name="behind the camera", eye_controls=eye, **room)]
    if TRAJECTORY in paths:
        views.append(rrb.Spatial3DView(origin="world", name="world", **room))
    return rrb.Blueprint(
        rrb.Horizontal(
            rrb.Vertical(
                *(rrb.Spatial2DView(origin=LENS, contents=[p], name=Path(p).name) for p in pictures)
            ),
            rrb.Tabs(*views),
            column_shares=[1, 2],
        ),
        rrb.TimePanel(state="collapsed", timeline=TIME),
        rrb.SelectionPanel(state="hidden"),
        rrb.BlueprintPanel(state="hidden"),
    )
