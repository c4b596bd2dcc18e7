"""One clip: a scene, a camera's way through it, and the folder it is recorded to."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mde_ros.simulation.floorplan import FloorPlan
from mde_ros.simulation.render import SceneRenderer
from mde_ros.simulation.rooms import random_room
from mde_ros.simulation.streets import random_street
from mde_ros.simulation.textures import SIZE, VARIANTS, texture

Rng = np.random.Generator
KINDS = ("room", "street")
DEPTH_CAP_M = 65.535
ATTEMPTS = 6  # scenes tried until one gives enough frames


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
    laser_height_m: float
    shake: float  # radians
    speed: float  # m/s
    interval_s: float  # between frames


@dataclass(frozen=True)
class Look:
    """What a camera makes of the light: fixed for one clip."""

    exposure: float  # mean brightness of the picture aimed at, 0..1
    white_balance: np.ndarray  # (3,)
    vignette: float
    noise: float
    blur_px: float
    haze_per_m: float
    contrast: float
    bloom: float
    motion_px: float  # smear of a shaking hand


@dataclass
class Recording:
    """The frames of a clip as they are collected; every list has one entry per frame."""

    rgb: list
    depth_m: list
    instance: list
    T_world_camera: list
    T_world_laser: list
    T_world_object: list
    ranges_m: list
    hit_ids: list
    stamp_ns: list


def record_clip(out: Path, seed: int, index: int, kind: str, frames: int, size: tuple[int, int]) -> int:
    """Make clip `index` of a kind and write it to out/KIND_INDEX; the frames written.

    The clip depends on its arguments alone. It is written under a hidden name and renamed when
    complete, so that a folder of the final name is always whole.
    """
    name = f"{kind}_{index:06d}"
    best = None
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([seed, index, KINDS.index(kind), attempt])
        scene, plan = random_room(rng) if kind == "room" else random_street(rng)
        rig = random_rig(rng, kind, size)
        renderer = SceneRenderer(scene, size, rig.focal_px)
        try:
            recording = film(rng, renderer, plan, rig, frames)
        finally:
            renderer.close()
        if best is None or len(recording.rgb) > len(best[0].rgb):
            best = (recording, scene, rig)
        if len(recording.rgb) == frames:
            break
    recording, scene, rig = best
    partial = out / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    write_clip(partial, recording, scene, rig)
    os.replace(partial, out / name)
    return len(recording.rgb)


def random_rig(rng: Rng, kind: str, size: tuple[int, int]) -> Rig:
    """A low robot or a hand-held camera (in streets a vehicle's too), and its lens."""
    robot = rng.random() < 0.5
    height = rng.uniform(0.15, 0.5) if robot else rng.uniform(0.8, 1.8)
    pitch = rng.uniform(-0.1, 0.15) if robot else rng.uniform(-0.1, 0.35)
    speed = rng.uniform(0.3, 1.0)
    if kind == "street" and rng.random() < 0.4:
        height, pitch, speed = rng.uniform(1.2, 1.9), rng.uniform(-0.03, 0.1), rng.uniform(1, 6)
    half_angle = np.radians(rng.uniform(45, 90)) / 2
    laser = rng.uniform(0.1, height - 0.03) if robot else rng.uniform(0.15, 0.7)
    return Rig(
        size, size[0] / 2 / np.tan(half_angle), height, pitch, laser,
        shake=0.0 if robot else rng.uniform(0.0, 0.04), speed=speed,
        interval_s=rng.uniform(0.2, 0.5),
    )  # fmt: skip


def random_look(rng: Rng, outdoors: bool) -> Look:
    return Look(
        exposure=rng.uniform(0.34, 0.62),
        white_balance=1 + rng.uniform(-1, 1) * np.array([0.13, 0, -0.13]) + rng.normal(0, 0.02, 3),
        vignette=max(0.0, rng.normal(0.1, 0.1)),
        noise=rng.uniform(0.002, 0.02),
        blur_px=float(rng.choice([0.0, rng.uniform(0.4, 1.0)])),
        haze_per_m=rng.uniform(0, 0.01) if outdoors else 0.0,
        contrast=rng.uniform(0.85, 1.25),
        bloom=rng.uniform(0, 0.25),
        motion_px=float(rng.choice([0, 0, rng.uniform(0, 4)])),
    )


# ----------------------------------------------------------------------------- filming


def film(rng: Rng, renderer: SceneRenderer, plan: FloorPlan, rig: Rig, frames: int) -> Recording:
    """Drive through the scene and keep the frames that see more than a wall."""
    outdoors = renderer.scene.kind == "street"
    look, laser = random_look(rng, outdoors), Laser()
    noise_rng = np.random.default_rng(rng.integers(2**63))
    recording = Recording(*([] for _ in range(9)))
    for step, (x, y, heading) in enumerate(drive(rng, plan, rig, 3 * frames, outdoors)):
        time_s = step * rig.interval_s
        T_world_camera = camera_pose(rng, rig, x, y, heading)
        T_world_laser = laser_pose(rig, x, y, heading)
        renderer.set(T_world_camera, time_s)
        if not sees_enough(renderer, T_world_camera, outdoors):
            continue
        rgb, depth_m, instance = renderer.render()
        if renderer.scene.floor_reflection:
            mirrored = renderer.render_mirrored(T_world_camera, time_s)
            rgb = polish_floor(rgb, mirrored, instance, renderer, T_world_camera)
        if outdoors:
            rgb = paint_clouds(rgb, instance, renderer, T_world_camera)
        ranges_m, hit_ids = scan(renderer, laser, T_world_laser, noise_rng)
        recording.rgb.append(develop(rgb, depth_m, look, noise_rng))
        recording.depth_m.append(depth_m)
        recording.instance.append(instance)
        recording.T_world_camera.append(T_world_camera)
        recording.T_world_laser.append(T_world_laser)
        recording.T_world_object.append([each.pose(time_s) for each in renderer.scene.objects])
        recording.ranges_m.append(ranges_m)
        recording.hit_ids.append(hit_ids)
        recording.stamp_ns.append(round(time_s * 1e9))
        if len(recording.rgb) == frames:
            break
    return recording


def drive(rng: Rng, plan: FloorPlan, rig: Rig, steps: int, outdoors: bool) -> list:
    """A way through free floor as (x, y, heading): smooth turns, away from what is near."""
    clearance = plan.clearance()
    least = 0.6 if outdoors else 0.32
    point = plan.free_point(rng, clearance, least)
    if point is None:
        return []
    heading = most_open(rng, plan, clearance, point, spread=0.6)
    if outdoors:
        heading = rng.choice([0, np.pi]) + rng.normal(0, 0.25)
    way, turn = [], 0.0
    for _ in range(steps):
        way.append((*point, heading))
        turn = 0.7 * turn + rng.normal(0, 0.02 if outdoors else 0.2)
        heading += turn * rig.interval_s * 2
        ahead = np.array([np.cos(heading), np.sin(heading)])
        stride = rig.speed * rig.interval_s
        probe = point + np.linspace(0.2, 1, 5)[:, None] * max(stride, 0.25) * ahead
        if (plan.lookup(clearance, probe) > least).all():
            point = point + stride * ahead
        else:  # stop and look elsewhere
            target = most_open(rng, plan, clearance, point, spread=0.8)
            error = (target - heading + np.pi) % (2 * np.pi) - np.pi
            heading += np.clip(error, -0.7, 0.7)
            turn = 0.0
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
    yaw, pitch, roll = np.array([heading, rig.pitch, 0.0]) + rig.shake * rng.normal(0, 1, 3)
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


def sees_enough(renderer: SceneRenderer, T_world_camera: np.ndarray, outdoors: bool) -> bool:
    """Whether a view is worth keeping, judged by a few rays: not blocked, not one bare wall."""
    width, height = renderer.size
    u, v = np.meshgrid(np.linspace(0.04, 0.96, 9) * width, np.linspace(0.04, 0.96, 7) * height)
    rays = np.stack([u - width / 2, v - height / 2, np.full_like(u, renderer.focal_px)], axis=-1)
    lengths = np.linalg.norm(rays, axis=-1)
    directions = (rays / lengths[..., None]).reshape(-1, 3) @ T_world_camera[:3, :3].T
    ranges, ids = renderer.cast(T_world_camera[:3, 3], directions, 200.0)
    depth_m = ranges * renderer.focal_px / lengths.ravel()
    if outdoors:
        return np.percentile(depth_m, 10) > 0.8 and np.median(depth_m) > 3 and (ids > 0).mean() > 0.5
    names = [renderer.scene.objects[hit - 1].name for hit in ids if hit]
    bare = max((np.sum(ids == hit) for hit in set(ids.tolist())), default=0)
    return (
        len(names) > 0.9 * len(ids)
        and np.percentile(depth_m, 5) > 0.25
        and np.median(depth_m) > 0.8
        and np.percentile(depth_m, 90) > 1.6
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
    hit = np.isfinite(ranges)
    sigma = laser.noise_m + laser.noise_per_m * np.where(hit, ranges, 0)
    ranges = ranges + sigma * rng.normal(size=len(ranges))
    lost = (ranges < laser.range_min_m) | (rng.random(len(ranges)) < laser.lost)
    return np.where(lost, np.inf, ranges).astype(np.float32), np.where(lost, 0, ids)


def develop(rgb: np.ndarray, depth_m: np.ndarray, look: Look, rng: Rng) -> np.ndarray:
    """What a camera would make of a rendered picture, (H, W, 3) uint8 in and out.

    Darkens corners and contacts (from depth), then haze, exposure, bloom, white balance,
    vignette, lens blur, shot noise and a soft shoulder.
    """
    light = (rgb.astype(np.float32) / 255) ** 2
    far = np.where(depth_m > 0, depth_m, 80.0).astype(np.float32)
    light *= np.where(depth_m > 0, contact_shadow(far), 1.0)[..., None]
    if look.haze_per_m:
        clear = np.exp(-far * look.haze_per_m)[..., None]
        light = light * clear + 0.8 * (1 - clear)
    light *= np.clip(look.exposure / max(float(np.sqrt(light).mean()), 0.03), 0.5, 2.5) ** 2
    if look.bloom:
        glare = cv2.GaussianBlur(np.maximum(light - 0.8, 0), (0, 0), rgb.shape[1] / 40)
        light += look.bloom * glare
    light *= look.white_balance
    height, width = depth_m.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light *= (1 - look.vignette * (x * x + y * y) / 2)[..., None]
    if look.blur_px:
        light = cv2.GaussianBlur(light, (0, 0), look.blur_px)
    if look.motion_px:
        light = cv2.filter2D(light, -1, smear(rng, look.motion_px))
    light = np.maximum(light, 0)
    light += look.noise * rng.standard_normal(light.shape, np.float32) * (0.15 + np.sqrt(light))
    tone = np.sqrt(np.maximum(light, 0)) ** look.contrast
    tone = np.where(tone < 0.8, tone, 0.8 + 0.2 * np.tanh((tone - 0.8) / 0.2))
    return (np.clip(tone, 0, 1) * 255).astype(np.uint8)


def smear(rng: Rng, most_px: float) -> np.ndarray:
    """The kernel of a short straight motion in some direction."""
    reach = rng.uniform(0, most_px) / 2
    angle = rng.uniform(0, np.pi)
    kernel = np.zeros((7, 7), np.float32)
    for along in np.linspace(-reach, reach, 15):
        x, y = 3 + along * np.cos(angle), 3 + along * np.sin(angle)
        kernel[int(round(y)), int(round(x))] += 1
    return kernel / kernel.sum()


def polish_floor(rgb, mirrored, instance, renderer: SceneRenderer, T_world_camera) -> np.ndarray:
    """The floor with a blurred reflection that grows towards grazing angles (Schlick)."""
    names = [each.name for each in renderer.scene.objects]
    floors = [index + 1 for index, name in enumerate(names) if name == "floor"]
    fall = pixel_directions(renderer, T_world_camera)[..., 2]
    gloss = renderer.scene.floor_reflection
    share = gloss * (0.15 + 0.85 * (1 - np.abs(fall)) ** 3) * np.isin(instance, floors)
    share = cv2.GaussianBlur(share.astype(np.float32), (3, 3), 0)[..., None]
    blurred = cv2.GaussianBlur(np.ascontiguousarray(mirrored), (5, 5), 4 * (1 - gloss))
    return (rgb * (1 - share) + blurred * share).astype(np.uint8)


def paint_clouds(rgb, instance, renderer: SceneRenderer, T_world_camera) -> np.ndarray:
    """White and grey clouds on the pixels that see the sky, fixed in the world."""
    directions = pixel_directions(renderer, T_world_camera)
    reach = 1 / (np.maximum(directions[..., 2], 0) + 0.12)
    plane = (directions[..., :2] * reach[..., None] * 60 + 1000).astype(np.float32) % SIZE
    layer = texture("clouds", int(renderer.scene.far_m + 97 * renderer.scene.clouds) % VARIANTS)
    cover = cv2.remap(layer, plane, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)[..., :1]
    cover = np.clip(cover / 255.0 - 1 + renderer.scene.clouds, 0, 1) * (instance == 0)[..., None]
    return (rgb + (np.array([250, 250, 252.0]) - rgb) * cover).astype(np.uint8)


def pixel_directions(renderer: SceneRenderer, T_world_camera: np.ndarray) -> np.ndarray:
    """Unit viewing directions (H, W, 3) in the world."""
    width, height = renderer.size
    u, v = np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2)
    rays = np.stack([u, v, np.full_like(u, renderer.focal_px)], axis=-1)
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True) @ T_world_camera[:3, :3].T


def contact_shadow(depth_m: np.ndarray) -> np.ndarray:
    """A factor (H, W) below 1 where nearby surfaces stand before a pixel.

    Inverse depth is linear in the image on a plane, so that its mean over a square equals its
    middle there; it exceeds the middle in corners and next to what stands in front.
    """
    inverse = 1 / depth_m
    factor = np.ones_like(inverse)
    for radius, strength in ((0.012, 1.0), (0.04, 1.3), (0.1, 1.0)):
        side = 2 * int(radius * depth_m.shape[1]) + 1
        mean = cv2.blur(inverse, (side, side), borderType=cv2.BORDER_REFLECT)
        excess = np.clip((mean - inverse) / inverse, 0, 0.5)
        factor *= 1 - strength * excess * (1 - 2 * excess)
    return factor


# ----------------------------------------------------------------------------- writing


def write_clip(folder: Path, recording: Recording, scene, rig: Rig) -> None:
    """The project's RGB-D folder: rgb, depth, instance, pose, intrinsics.json, scan.npz."""
    for name in ("rgb", "depth", "instance", "pose"):
        (folder / name).mkdir(parents=True)
    frames = zip(recording.rgb, recording.depth_m, recording.instance, recording.T_world_camera)
    for number, (rgb, depth_m, instance, T_world_camera) in enumerate(frames):
        save_image(folder / f"rgb/{number:03d}.jpg", rgb[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, 95)
        depth_mm = np.where(depth_m <= DEPTH_CAP_M, np.rint(depth_m * 1000), 0).astype(np.uint16)
        save_image(folder / f"depth/{number:03d}.png", depth_mm, cv2.IMWRITE_PNG_COMPRESSION, 1)
        save_image(folder / f"instance/{number:03d}.png", instance, cv2.IMWRITE_PNG_COMPRESSION, 1)
        np.savetxt(folder / f"pose/{number:03d}.txt", T_world_camera, fmt="%.9f")
    width, height = rig.size
    intrinsics = {
        "fx": rig.focal_px, "fy": rig.focal_px, "cx": (width - 1) / 2, "cy": (height - 1) / 2,
        "width": width, "height": height, "depth_scale": 0.001, "kind": scene.kind,
    }  # fmt: skip
    (folder / "intrinsics.json").write_text(json.dumps(intrinsics, indent=1) + "\n")
    laser = Laser()
    T_world_camera, T_world_laser = map(
        np.array, (recording.T_world_camera, recording.T_world_laser)
    )
    np.savez_compressed(
        folder / "scan.npz",
        ranges=np.array(recording.ranges_m, np.float32),
        hit_ids=np.array(recording.hit_ids, np.uint16),
        angle_min=laser.angles[0],
        angle_increment=laser.angles[1] - laser.angles[0],
        range_min=laser.range_min_m,
        range_max=laser.range_max_m,
        T_world_laser=T_world_laser,
        T_camera_laser=np.linalg.inv(T_world_camera) @ T_world_laser,
        stamp_ns=np.array(recording.stamp_ns, np.int64),
        object_names=np.array([each.name for each in scene.objects]),
        object_moving=np.array([each.motion is not None for each in scene.objects]),
        T_world_object=np.array(recording.T_world_object, np.float32),
    )


def save_image(path: Path, image: np.ndarray, option: int, value: int) -> None:
    if not cv2.imwrite(str(path), image, [option, value]):
        raise OSError(f"cannot write {path}")
