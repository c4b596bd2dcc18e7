"""One clip: a scene, a camera's way through it, and the folder it is recorded to."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mde_ros.geometry import to_millimetres
from mde_ros.simulation.floorplan import FloorPlan
from mde_ros.simulation.look import Look, develop, paint_clouds, polish_floor, random_look
from mde_ros.simulation.render import SceneRenderer
from mde_ros.simulation.rooms import random_room
from mde_ros.simulation.shapes import Scene
from mde_ros.simulation.streets import random_street
from mde_ros.simulation.traffic import random_drive, ride

Rng = np.random.Generator
KINDS = ("room", "street", "drive", "closeup")
PARTIAL = ".partial"  # the folder in which clips grow
SCENES_TRIED = 20  # until one gives enough frames
STARTS_TRIED = 5  # in each of them


@dataclass(frozen=True)
class SimulationSettings:
    """What to simulate.

    Args:
        rooms, streets: clips of each kind.
        drives: clips of a street as a car sees it in its lane, among others that keep its speed
            or come towards it; 10 frames per second if rate_hz is None.
        closeups: clips of rooms by a camera that looks down on what is near.
        frames: frames of one clip.
        size: (width, height) in pixels.
        seed: the same seed gives the same clips.
        jobs: processes; None for one per core.
        rate_hz: frames per second without gaps; None for 2 to 5, drawn for each clip, where
            frames that see only a wall are left out.
        bag: also write each clip as a rosbag beside its folder.
    """

    rooms: int = 200
    streets: int = 50
    frames: int = 16
    size: tuple[int, int] = (320, 240)
    seed: int = 0
    jobs: int | None = None
    rate_hz: float | None = None
    bag: bool = False
    drives: int = 0
    closeups: int = 0

    def __post_init__(self):
        for name in ("rooms", "streets", "drives", "closeups", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name, value in (("frames", self.frames), ("jobs", self.jobs or 1)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if len(self.size) != 2 or min(self.size) < 16:
            raise ValueError(f"size must be (width, height), both at least 16, got {self.size}")
        if self.rate_hz is not None and not self.rate_hz > 0:
            raise ValueError(f"rate_hz must be positive, got {self.rate_hz}")


@dataclass(frozen=True)
class Laser:
    """A 2-D scanner; its noise grows with distance."""

    beams: int = 360
    field_of_view_deg: float = 270.0
    range_min_m: float = 0.08
    range_max_m: float = 25.0
    noise_m: float = 0.008
    noise_per_m: float = 0.002
    lost: float = 0.01  # share of beams without an answer
    lost_in_glass: float = 0.7  # the same for beams that meet a window

    @property
    def angles(self) -> np.ndarray:
        half = np.radians(self.field_of_view_deg) / 2
        return np.linspace(-half, half, self.beams)


@dataclass(frozen=True)
class Rig:
    """How the camera and the laser are carried. A hand shakes, a robot is rigid."""

    size: tuple[int, int]
    focal_px: float
    height_m: float
    pitch: float  # radians, down is positive
    roll: float  # radians
    laser_height_m: float
    shake: float  # radians
    speed: float  # m/s
    interval_s: float  # between frames
    gapless: bool  # no frame may be left out
    close: bool = False  # what it looks at may be near


@dataclass(frozen=True)
class Moment:
    """Where camera and laser are at one time."""

    time_s: float
    T_world_camera: np.ndarray  # (4, 4), optical frame
    T_world_laser: np.ndarray  # (4, 4), x forward, z up


@dataclass(frozen=True)
class Shot:
    """What was recorded at one moment."""

    moment: Moment
    rgb: np.ndarray  # (H, W, 3) uint8
    depth_m: np.ndarray  # (H, W) float32, 0 = none
    instance: np.ndarray  # (H, W) uint16, 0 = none
    T_world_object: np.ndarray  # (objects, 4, 4) float32
    ranges_m: np.ndarray  # (beams,) float32, inf = none
    hit_ids: np.ndarray  # (beams,) uint16, 0 = none


def clip_name(kind: str, index: int) -> str:
    return f"{kind}_{index:06d}"


def record_clip(out: Path, settings: SimulationSettings, kind: str, index: int) -> None:
    """Make one clip and write it to out/KIND_INDEX.

    It depends on the arguments alone. It is written elsewhere and moved when complete, so that a
    folder of its name is always whole.

    Raises:
        RuntimeError: when no scene drawn for the clip has enough views worth keeping.
    """
    name = clip_name(kind, index)
    for attempt in range(SCENES_TRIED):
        rng = np.random.default_rng([settings.seed, index, KINDS.index(kind), attempt])
        plan = None
        if kind == "drive":
            rig = car_rig(rng, settings)
            scene = random_drive(rng, rig.speed)
        else:
            scene, plan = random_street(rng) if kind == "street" else random_room(rng)
            rig = random_rig(rng, kind, settings)
        renderer = SceneRenderer(scene, rig.size, rig.focal_px)
        try:
            shots = film(rng, renderer, plan, rig, settings.frames)
        finally:
            renderer.close()
        if shots:
            partial = out / PARTIAL / name
            shutil.rmtree(partial, ignore_errors=True)
            write_clip(partial, shots, scene, rig)
            partial.rename(out / name)
            return
    raise RuntimeError(
        f"{name} of seed {settings.seed}: no scene with {settings.frames} views worth keeping"
    )


def random_rig(rng: Rng, kind: str, settings: SimulationSettings) -> Rig:
    """A low robot or a hand-held camera (in streets a vehicle's too), and its lens."""
    robot = rng.random() < 0.5
    height = rng.uniform(0.15, 0.5) if robot else rng.uniform(0.8, 1.8)
    pitch = rng.uniform(-0.1, 0.15) if robot else rng.uniform(-0.1, 0.35)
    if rng.random() < 0.15:  # a camera that watches the floor
        pitch = rng.uniform(0.3, 0.6)
    speed = rng.uniform(0.3, 1.0)
    if kind == "street" and rng.random() < 0.4:
        height, pitch, speed = rng.uniform(1.2, 1.9), rng.uniform(-0.03, 0.1), rng.uniform(1, 6)
    elif kind == "closeup":
        height, pitch, speed = rng.uniform(0.5, 1.6), rng.uniform(0.4, 1.3), 0.5 * speed
    half_angle = np.radians(rng.uniform(45, 90)) / 2
    laser = rng.uniform(0.1, height - 0.03) if robot else rng.uniform(0.15, 0.7)
    roll = rng.normal(0, 0.15 if rng.random() < 0.15 else 0.02)
    shake, interval_s = 0.0 if robot else rng.uniform(0.0, 0.04), rng.uniform(0.2, 0.5)
    if settings.rate_hz is not None:
        shake, interval_s = 0.3 * shake, 1 / settings.rate_hz
    return Rig(
        settings.size, settings.size[0] / 2 / np.tan(half_angle), height, pitch, roll, laser,
        shake, speed, interval_s, settings.rate_hz is not None, kind == "closeup",
    )  # fmt: skip


def car_rig(rng: Rng, settings: SimulationSettings) -> Rig:
    """A camera behind a windscreen."""
    half_angle = np.radians(rng.uniform(60, 75)) / 2
    height, speed = rng.uniform(1.2, 1.7), rng.uniform(4, 8)
    interval_s = 1 / (settings.rate_hz or 10)
    return Rig(
        settings.size, settings.size[0] / 2 / np.tan(half_angle), height, rng.uniform(-0.02, 0.08),
        rng.normal(0, 0.01), rng.uniform(0.3, 0.7), 0.002, speed, interval_s, gapless=True,
    )  # fmt: skip


# ----------------------------------------------------------------------------- filming


def film(
    rng: Rng, renderer: SceneRenderer, plan: FloorPlan | None, rig: Rig, frames: int
) -> list[Shot]:
    """Record `frames` shots on one way through the scene; none when no way has enough views.

    Without a plan it is a drive's.
    """
    outdoors = renderer.scene.kind == "street"
    for _ in range(STARTS_TRIED):
        moments = good_moments(rng, renderer, plan, rig, frames)
        if len(moments) == frames:
            break
    else:
        return []
    look, laser = random_look(rng, outdoors), Laser()
    return [shoot(rng, renderer, moment, look, laser) for moment in moments]


def good_moments(
    rng: Rng, renderer: SceneRenderer, plan: FloorPlan | None, rig: Rig, frames: int
) -> list[Moment]:
    """The first `frames` moments of a drive that see more than a wall, or fewer.

    They follow each other without a gap where the rig asks for that.
    """
    outdoors = renderer.scene.kind == "street"
    moments: list[Moment] = []
    least_m = rng.uniform(0.8, 1.8) * (0.35 if rig.close else 0.5 if rig.gapless else 1.0)
    if plan is None:
        way = ride(rng, rig.speed, rig.interval_s, 2 * frames)
    else:
        way = drive(rng, plan, rig, 2 * frames, outdoors)
    for step, (x, y, heading) in enumerate(way):
        time_s = step * rig.interval_s
        T_world_camera = camera_pose(rng, rig, x, y, heading)
        renderer.set(T_world_camera, time_s)
        if sees_enough(renderer, T_world_camera, outdoors, least_m):
            moments.append(Moment(time_s, T_world_camera, laser_pose(rig, x, y, heading)))
        elif rig.gapless:
            moments.clear()
        if len(moments) == frames:
            break
    return moments


def shoot(rng: Rng, renderer: SceneRenderer, moment: Moment, look: Look, laser: Laser) -> Shot:
    """Render and scan at one moment."""
    scene, T_world_camera = renderer.scene, moment.T_world_camera
    renderer.set(T_world_camera, moment.time_s)
    rgb, depth_m, instance = renderer.render()
    ranges_m, hit_ids = scan(renderer, laser, moment.T_world_laser, rng)
    if scene.clouds:
        rgb = paint_clouds(rgb, instance, renderer, T_world_camera)
    if scene.floor_reflection:
        mirrored = renderer.render_mirrored(T_world_camera, moment.time_s)
        rgb = polish_floor(rgb, mirrored, instance, renderer, T_world_camera)
    T_world_object = np.array([each.pose(moment.time_s) for each in scene.objects], np.float32)
    rgb = develop(rgb, depth_m, look, rng)
    return Shot(moment, rgb, depth_m, instance, T_world_object, ranges_m, hit_ids)


def drive(rng: Rng, plan: FloorPlan, rig: Rig, steps: int, outdoors: bool) -> list:
    """A way through free floor as (x, y, heading): smooth turns, away from what is near."""
    clearance = plan.clearance()
    least_m, sway = (0.6, 0.03) if outdoors else (0.32, 0.3)  # sway in rad/s
    point = plan.free_point(rng, clearance, least_m)
    if point is None:
        return []
    heading = most_open(rng, plan, clearance, point, spread=0.6)
    if outdoors:
        heading = rng.choice([0, np.pi]) + rng.normal(0, 0.25)
    interval_s, stride_m = rig.interval_s, rig.speed * rig.interval_s
    memory = np.exp(-interval_s)  # the turning rate forgets itself within a second
    most_turn = min(0.45, 1.2 * interval_s)
    way, rate, goal = [], 0.0, None
    for _ in range(steps):
        way.append((*point, heading))
        if goal is not None:  # it stands and turns
            error = (goal - heading + np.pi) % (2 * np.pi) - np.pi
            heading += np.clip(error, -most_turn, most_turn)
            goal = goal if abs(error) > most_turn else None
            continue
        rate = memory * rate + np.sqrt(1 - memory**2) * rng.normal(0, sway)
        heading += rate * interval_s
        ahead = np.array([np.cos(heading), np.sin(heading)])
        probe = point + np.linspace(0.2, 1, 5)[:, None] * max(stride_m, 0.5) * ahead
        if (plan.lookup(clearance, probe) > least_m).all():
            point = point + stride_m * ahead
        else:
            goal, rate = most_open(rng, plan, clearance, point, spread=0.8), 0.0
    return way


def most_open(rng: Rng, plan: FloorPlan, clearance: np.ndarray, point, spread: float) -> float:
    """A heading towards much free floor: the longest of many rays, blurred by `spread` radians."""
    angles = rng.uniform(0, 2 * np.pi, 16)
    reach = np.arange(0.1, 8, 0.1)
    rays = point + reach[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    free = plan.lookup(clearance, rays) > 0.1
    lengths = np.where(free.all(0), len(reach), np.argmin(free, axis=0))
    return float(angles[int(np.argmax(lengths))] + rng.normal(0, spread))


def camera_pose(rng: Rng, rig: Rig, x: float, y: float, heading: float) -> np.ndarray:
    """The optical frame (x right, y down, z forward) in the world, (4, 4)."""
    yaw, pitch, roll = np.array([heading, rig.pitch, rig.roll]) + rig.shake * rng.normal(0, 1, 3)
    forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), -np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    down = np.cross(forward, right)
    T = np.eye(4)
    T[:3, 0] = np.cos(roll) * right + np.sin(roll) * down
    T[:3, 1] = np.cos(roll) * down - np.sin(roll) * right
    T[:3, 2] = forward
    T[:3, 3] = x, y, rig.height_m + rig.shake * rng.normal(0, 0.5)
    return T


def laser_pose(rig: Rig, x: float, y: float, heading: float) -> np.ndarray:
    """The laser's frame (x forward, z up) in the world, level, a little ahead of the camera."""
    c, s = np.cos(heading), np.sin(heading)
    T = np.eye(4)
    T[:2, :2] = [[c, -s], [s, c]]
    T[:3, 3] = x + 0.04 * c, y + 0.04 * s, rig.laser_height_m
    return T


def sees_enough(
    renderer: SceneRenderer, T_world_camera: np.ndarray, outdoors: bool, least_m: float
) -> bool:
    """Whether a view is worth keeping, judged by a few rays: not blocked, not one bare wall,
    and half of it farther than `least_m`."""
    width, height = renderer.size
    u, v = np.meshgrid(np.linspace(0.04, 0.96, 9) * width, np.linspace(0.04, 0.96, 7) * height)
    rays = np.stack([u - width / 2, v - height / 2, np.full_like(u, renderer.focal_px)], axis=-1)
    lengths = np.linalg.norm(rays, axis=-1)
    directions = (rays / lengths[..., None]).reshape(-1, 3) @ T_world_camera[:3, :3].T
    ranges, ids = renderer.cast(T_world_camera[:3, 3], directions, 200.0)
    depth_m = ranges * renderer.focal_px / lengths.ravel()
    if outdoors:
        return (
            np.percentile(depth_m, 10) > 0.8 and np.median(depth_m) > 3 and (ids > 0).mean() > 0.5
        )
    names = [renderer.scene.objects[hit - 1].name for hit in ids if hit]
    bare = max(names.count(name) for name in ("wall", "ceiling", "door", "cabinet", "column"))
    median_m = np.median(depth_m)
    return (
        len(names) > 0.9 * len(ids)
        and np.percentile(depth_m, 5) > 0.25
        and median_m > least_m
        and np.percentile(depth_m, 90) > 1.5 * least_m
        and bare < 0.65 * len(ids)
        and len(set(ids.tolist())) >= 5
    )


def scan(renderer: SceneRenderer, laser: Laser, T_world_laser: np.ndarray, rng: Rng):
    """Ranges (N,) float32 metres with noise, inf where nothing answers, and instance ids (N,)."""
    angles = laser.angles
    directions = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=1)
    ranges, ids = renderer.cast(
        T_world_laser[:3, 3], directions @ T_world_laser[:3, :3].T, laser.range_max_m
    )
    panes = [i + 1 for i, each in enumerate(renderer.scene.objects) if each.name == "window"]
    chance = np.where(np.isin(ids, panes), laser.lost_in_glass, laser.lost)
    sigma = laser.noise_m + laser.noise_per_m * np.where(np.isfinite(ranges), ranges, 0)
    ranges = ranges + sigma * rng.normal(size=len(ranges))
    lost = (ranges < laser.range_min_m) | (rng.random(len(ranges)) < chance)
    ranges = np.where(lost, np.inf, ranges).astype(np.float32)
    return ranges, np.where(np.isfinite(ranges), ids, 0).astype(np.uint16)


# ----------------------------------------------------------------------------- writing


def write_clip(folder: Path, shots: list[Shot], scene: Scene, rig: Rig) -> None:
    """The project's RGB-D folder: rgb, depth, instance, pose, intrinsics.json, scan.npz."""
    for name in ("rgb", "depth", "instance", "pose"):
        (folder / name).mkdir(parents=True)
    for number, shot in enumerate(shots):
        save_jpeg(folder / f"rgb/{number:03d}.jpg", shot.rgb)
        save_png(folder / f"depth/{number:03d}.png", to_millimetres(shot.depth_m))
        save_png(folder / f"instance/{number:03d}.png", shot.instance)
        np.savetxt(folder / f"pose/{number:03d}.txt", shot.moment.T_world_camera, fmt="%.9f")
    width, height = rig.size
    intrinsics = {
        "fx": rig.focal_px, "fy": rig.focal_px, "cx": (width - 1) / 2, "cy": (height - 1) / 2,
        "width": width, "height": height, "depth_scale": 0.001, "kind": scene.kind,
    }  # fmt: skip
    (folder / "intrinsics.json").write_text(json.dumps(intrinsics, indent=1) + "\n")
    write_scans(folder / "scan.npz", shots, scene, Laser())


def write_scans(path: Path, shots: list[Shot], scene: Scene, laser: Laser) -> None:
    """Scans, stamps and the poses of laser and objects; an object's id is its index + 1."""
    T_world_camera = np.array([shot.moment.T_world_camera for shot in shots])
    T_world_laser = np.array([shot.moment.T_world_laser for shot in shots])
    np.savez_compressed(
        path,
        ranges=np.array([shot.ranges_m for shot in shots]),
        hit_ids=np.array([shot.hit_ids for shot in shots]),
        angle_min=laser.angles[0],
        angle_increment=laser.angles[1] - laser.angles[0],
        range_min=laser.range_min_m,
        range_max=laser.range_max_m,
        T_world_laser=T_world_laser,
        T_camera_laser=np.linalg.inv(T_world_camera) @ T_world_laser,
        stamp_ns=np.array([round(shot.moment.time_s * 1e9) for shot in shots], np.int64),
        object_names=np.array([each.name for each in scene.objects]),
        object_moving=np.array([each.motion is not None for each in scene.objects]),
        T_world_object=np.array([shot.T_world_object for shot in shots]),
    )


def save_jpeg(path: Path, rgb: np.ndarray) -> None:
    if not cv2.imwrite(str(path), rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95]):
        raise OSError(f"cannot write {path}")


def save_png(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
        raise OSError(f"cannot write {path}")
