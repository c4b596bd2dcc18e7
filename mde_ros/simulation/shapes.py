"""The records of a scene and the triangle meshes of its parts (numpy only).

World frame: x, y horizontal, z up, metres. `T_a_b` maps points of b into a.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np

Vector = Sequence[float] | np.ndarray

LARGEST_QUAD_M = 0.5  # light is computed at vertices, so that large faces need some of their own


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    Args:
        colour: RGB 0..1, multiplied with the texture.
        texture: name and variant of a texture, or None for a plain colour.
        tile_m: metres that one copy of the texture covers; 0 stretches one copy over each face.
        gloss: strength of highlights, 0..1.
        emission: light that the surface itself gives off, 0..1.
        lets_sun_in: a pane: it is seen and scanned, but throws no shadow.
    """

    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    texture: tuple[str, int] | None = None
    tile_m: float = 1.0
    gloss: float = 0.0
    emission: float = 0.0
    lets_sun_in: bool = False


@dataclass(frozen=True)
class Part:
    """One solid: 'box', 'cylinder' (along z), 'sphere' or 'cone' (cut at half its radius).

    A cone of negative half height stands on its narrow end.
    """

    shape: str
    half_size: tuple[float, float, float]
    pose: np.ndarray  # (4, 4), part into object
    material: Material
    top: tuple[float, float] = (1.0, 1.0)  # a box's upper face in x and y, as a share of its lower


@dataclass(frozen=True)
class Patrol:
    """To and fro between two points at constant speed, facing the way it goes."""

    start: np.ndarray  # (3,) metres
    end: np.ndarray  # (3,) metres
    speed: float  # m/s
    phase: float = 0.0  # metres travelled at time 0
    rolling_radius: float = 0.0  # metres; 0 does not roll

    def pose(self, time_s: float) -> np.ndarray:
        """The object's pose in the world, (4, 4)."""
        way = self.end - self.start
        length = float(np.linalg.norm(way))
        travelled = (self.phase + self.speed * time_s) % (2 * length)
        forth = travelled <= length
        along = travelled if forth else 2 * length - travelled
        heading = np.arctan2(way[1], way[0]) + (0 if forth else np.pi)
        T = pose_at(self.start + way * along / length, heading)
        if self.rolling_radius:
            angle = travelled / self.rolling_radius
            roll = np.eye(4)
            c, s = np.cos(angle), np.sin(angle)
            roll[0, 0], roll[0, 2], roll[2, 0], roll[2, 2] = c, s, -s, c
            lift = np.eye(4)
            lift[2, 3] = self.rolling_radius
            T = T @ lift @ roll @ np.linalg.inv(lift)
        return T


@dataclass
class SceneObject:
    """One instance. Parts of a static object are in world coordinates, a mover's in its own."""

    name: str
    parts: list[Part] = field(default_factory=list)
    motion: Patrol | None = None

    def pose(self, time_s: float) -> np.ndarray:
        return np.eye(4) if self.motion is None else self.motion.pose(time_s)

    def moved(self, T: np.ndarray) -> "SceneObject":
        """The same object with every part mapped by T (4, 4)."""
        parts = [replace(part, pose=T @ part.pose) for part in self.parts]
        return SceneObject(self.name, parts, self.motion)

    def box(
        self, centre, half_size, material: Material, yaw: float = 0.0, top=(1.0, 1.0)
    ) -> "SceneObject":
        self.parts.append(Part("box", tuple(half_size), pose_at(centre, yaw), material, top))
        return self

    def cylinder(self, centre, radius: float, half_height: float, material) -> "SceneObject":
        size = (radius, radius, half_height)
        self.parts.append(Part("cylinder", size, pose_at(centre), material))
        return self

    def cone(self, centre, radius: float, half_height: float, material) -> "SceneObject":
        size = (radius, radius, half_height)
        self.parts.append(Part("cone", size, pose_at(centre), material))
        return self

    def sphere(self, centre, radius, material) -> "SceneObject":
        size = (radius,) * 3 if np.isscalar(radius) else tuple(radius)
        self.parts.append(Part("sphere", size, pose_at(centre), material))
        return self

    def rod(self, start, end, radius: float, material) -> "SceneObject":
        """A cylinder from one point to another."""
        start, end = np.asarray(start, float), np.asarray(end, float)
        length = float(np.linalg.norm(end - start))
        pose = np.eye(4)
        pose[:3, :3] = rotation_of_z_to((end - start) / length)
        pose[:3, 3] = (start + end) / 2
        self.parts.append(Part("cylinder", (radius, radius, length / 2), pose, material))
        return self


@dataclass
class Piece:
    """Objects that are placed together, and the half size (x, y) of the floor they need."""

    objects: list[SceneObject]
    half_size: tuple[float, float]

    def moved(self, T: np.ndarray) -> list[SceneObject]:
        return [each.moved(T) for each in self.objects]


@dataclass(frozen=True)
class Light:
    """A lamp at `position` shining along `direction`; a sun has no position and never fades."""

    colour: tuple[float, float, float]
    direction: tuple[float, float, float] = (0.0, 0.0, -1.0)
    position: tuple[float, float, float] | None = None
    shadow: bool = False
    cutoff_deg: float = 85.0
    exponent: float = 0.0  # how fast the light fades off its direction


@dataclass
class Scene:
    """Everything there is to render: objects (instance id = index + 1), lights and sky.

    Objects named 'floor' or 'rug' lie at z = 0 and are left out of the floor's mirror picture.
    """

    kind: str
    objects: list[SceneObject]
    lights: list[Light]
    ambient: float
    sky: tuple[float, float, float] = (0.6, 0.75, 0.95)
    clouds: float = 0.0  # 0 a clear sky, 1 full of them
    floor_reflection: float = 0.0  # 0 dull, 1 a mirror
    far_m: float = 40.0
    coarse: bool = False  # meshes of few faces, for large scenes
    sun_reach_m: float = 8.0  # half the width around the camera in which the sun throws shadows


def pose_at(point: Vector, yaw: float = 0.0) -> np.ndarray:
    """(4, 4): turned by `yaw` about z, then moved to `point` (3,)."""
    return yaw_pose(point[0], point[1], point[2], yaw)


def yaw_pose(x: float, y: float, z: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    """(4, 4): turned by `yaw` about z, then moved to (x, y, z)."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, z], [0, 0, 0, 1]], float)


def rotation_of_z_to(direction: np.ndarray) -> np.ndarray:
    """A rotation (3, 3) whose third column is the unit vector `direction`."""
    helper = np.array([1.0, 0, 0]) if abs(direction[2]) > 0.9 else np.array([0, 0, 1.0])
    x = np.cross(helper, direction)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(direction, x), direction], axis=1)


class Mesh(NamedTuple):
    vertices: np.ndarray  # (V, 3) metres
    faces: np.ndarray  # (F, 3) int
    normals: np.ndarray  # (V, 3) unit
    uv: np.ndarray  # (V, 2) texture coordinates, v upwards


def part_mesh(part: Part, coarse: bool = False) -> Mesh:
    """The mesh of a part in its object's frame; `coarse` for large scenes in sunlight."""
    size = np.array(part.half_size, float)
    if part.shape == "box":
        quad_m = 10 * LARGEST_QUAD_M if coarse else LARGEST_QUAD_M
        counts = np.clip(np.ceil(2 * size / quad_m), 1, 24).astype(int)
        unit, faces, normals, axes = unit_box(*counts.tolist())
        vertices = unit * size
        if part.top != (1.0, 1.0):
            vertices, normals = tapered(unit, size, normals, np.array(part.top))
        flat = vertices if part.material.tile_m else (unit + 1) / 2
        uv = np.take_along_axis(flat, axes, axis=1)
    else:
        fine = 8 if max(abs(size[:2])) < 0.04 else 14 if max(abs(size)) < 0.25 or coarse else 22
        unit, faces, unit_normals, around = unit_revolution(part.shape, fine)
        vertices = unit * size
        normals = unit_normals / size
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        uv = np.stack([around * size[0], vertices[:, 2]], axis=1)
        cap = np.abs(unit_normals[:, 2]) > 0.99 if part.shape != "sphere" else around < -1
        uv[cap] = vertices[cap, :2]
        if not part.material.tile_m:
            uv = uv / (2 * np.pi * size[0], 2 * size[2]) + 0.5
    if part.material.tile_m:
        uv = uv / part.material.tile_m
    if size.min() < 0:  # a part turned upside down
        faces = faces[:, ::-1]
    rotation, offset = part.pose[:3, :3], part.pose[:3, 3]
    return Mesh(vertices @ rotation.T + offset, faces, normals @ rotation.T, uv)


def tapered(unit, size, normals, top) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and normals of a box whose upper face is smaller than its lower."""
    share = 1 - (1 - top) * (unit[:, 2:] + 1) / 2
    vertices = unit * size
    vertices[:, :2] *= share
    slope = size[:2] * (1 - top) / (2 * size[2])
    leaning = normals.copy()
    leaning[:, 2] += np.abs(normals[:, :2]) @ slope
    return vertices, leaning / np.linalg.norm(leaning, axis=1, keepdims=True)


def merged(meshes: list[Mesh]) -> Mesh:
    """Many meshes as one."""
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
    faces = np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts)])
    vertices, normals, uv = (
        np.concatenate([getattr(mesh, name) for mesh in meshes])
        for name in ("vertices", "normals", "uv")
    )
    return Mesh(vertices, faces, normals, uv)


@lru_cache(maxsize=4096)
def unit_box(nx: int, ny: int, nz: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The cube -1..1, its faces cut into a grid: vertices, faces, normals, texture axes (V, 2)."""
    counts = (nx, ny, nz)
    vertices, faces, normals, axes = [], [], [], []
    total = 0
    for axis in range(3):
        across, up = [(1, 2), (0, 2), (0, 1)][axis]
        columns, rows = counts[across], counts[up]
        a, b = np.meshgrid(np.linspace(-1, 1, columns + 1), np.linspace(-1, 1, rows + 1))
        corner = (np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)).ravel()
        for side in (-1, 1):
            points = np.empty((a.size, 3))
            points[:, axis], points[:, across], points[:, up] = side, a.ravel(), b.ravel()
            normal = np.zeros(3)
            normal[axis] = side
            lower = np.stack([corner, corner + 1, corner + columns + 2], axis=1)
            upper = np.stack([corner, corner + columns + 2, corner + columns + 1], axis=1)
            triangles = np.concatenate([lower, upper])
            if (side > 0) == (axis == 1):  # keep every triangle counter-clockwise from outside
                triangles = triangles[:, ::-1]
            vertices.append(points)
            faces.append(triangles + total)
            normals.append(np.broadcast_to(normal, points.shape))
            axes.append(np.broadcast_to((across, up), (a.size, 2)))
            total += a.size
    joined = [np.concatenate(each) for each in (vertices, faces, normals, axes)]
    return joined[0], joined[1], joined[2], joined[3]


@cache
def unit_revolution(
    shape: str, segments: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A unit cylinder, cone or sphere: vertices, faces, normals, angle around z (V,)."""
    if shape == "sphere":
        latitude = np.linspace(-np.pi / 2, np.pi / 2, segments // 2 + 2)
        rings = [(np.cos(t), np.sin(t), np.cos(t), np.sin(t)) for t in latitude]
        strips = list(itertools.pairwise(rings))
    elif shape in ("cylinder", "cone"):
        top = 1.0 if shape == "cylinder" else 0.5
        slope = (1.0, 0.0) if shape == "cylinder" else (0.97, 0.24)
        strips = [
            ((1, -1, *slope), (top, 1, *slope)),
            ((top, 1, 0, 1), (0, 1, 0, 1)),
            ((0, -1, 0, -1), (1, -1, 0, -1)),
        ]
    else:
        raise ValueError(f"unknown shape {shape!r}; there are box, cylinder, cone and sphere")
    angles = np.linspace(0, 2 * np.pi, segments + 1)
    vertices: list[tuple] = []
    faces, normals, around = [], [], []
    for lower, upper in strips:
        start = len(vertices)
        for angle in angles:
            c, s = np.cos(angle), np.sin(angle)
            for radius, height, normal_r, normal_z in (lower, upper):
                vertices.append((radius * c, radius * s, height))
                normals.append((normal_r * c, normal_r * s, normal_z))
                around.append(angle)
        for k in range(segments):
            j = start + 2 * k
            if lower[0] > 1e-9:
                faces.append((j, j + 2, j + 1))
            if upper[0] > 1e-9:
                faces.append((j + 1, j + 2, j + 3))
    return np.array(vertices, float), np.array(faces), np.array(normals, float), np.array(around)
