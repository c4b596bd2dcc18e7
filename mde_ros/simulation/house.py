"""The parts of a building: floors, walls with doors and windows, what hangs on them, ceilings."""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from mde_ros.simulation import materials as ma
from mde_ros.simulation.floorplan import Corner, FloorPlan
from mde_ros.simulation.shapes import Light, Material, SceneObject, yaw_pose
from mde_ros.simulation.textures import hsv

Rng = np.random.Generator
Box = tuple[float, float, float, float]  # on a wall: u0, u1 along it, z0, z1 above the floor

WALL_M = 0.12  # thickness
DOOR_M = 0.9  # width of an opening
DOOR_HEIGHT_M = 2.05


@dataclass
class Style:
    """Materials that the parts of one building share."""

    wall: Material
    accent: Material
    floor: Material
    ceiling: Material
    trim: Material
    door: Material


@dataclass
class Wall:
    """One wall of a room. In its frame x runs along it, y into the room, z up."""

    T: np.ndarray  # (4, 4) wall into world; its origin is the wall's start on the floor
    length: float
    openings: list[Box] = field(default_factory=list)
    taken: list[Box] = field(default_factory=list)

    def has_room(self, box: Box, margin: float = 0.06) -> bool:
        """Whether a box meets nothing else on the wall."""
        u0, u1, z0, z1 = box
        if u0 < 0.1 or u1 > self.length - 0.1:
            return False
        return not any(
            u0 < b + margin and u1 > a - margin and z0 < d + margin and z1 > c - margin
            for a, b, c, d in self.taken
        )


@dataclass
class House:
    """The scene while it is being built."""

    rng: Rng
    plan: FloorPlan
    style: Style
    objects: list[SceneObject] = field(default_factory=list)
    lights: list[Light] = field(default_factory=list)
    windows: list[np.ndarray] = field(default_factory=list)  # directions (3,) into the room

    def new(self, name: str) -> SceneObject:
        self.objects.append(SceneObject(name))
        return self.objects[-1]


def build_shell(house: House, low: Corner, high: Corner, height: float) -> list[Wall]:
    """Floor and ceiling of a rectangle, and its four walls still to be raised."""
    (x0, y0), (x1, y1) = low, high
    centre, half = ((x0 + x1) / 2, (y0 + y1) / 2), ((x1 - x0) / 2, (y1 - y0) / 2)
    house.new("floor").box((*centre, -0.05), (*half, 0.05), house.style.floor)
    house.new("ceiling").box((*centre, height + 0.05), (*half, 0.05), house.style.ceiling)
    house.plan.clear(low, high)
    return [
        Wall(yaw_pose(x0, y0, 0, 0.0), x1 - x0),
        Wall(yaw_pose(x1, y0, 0, np.pi / 2), y1 - y0),
        Wall(yaw_pose(x1, y1, 0, np.pi), x1 - x0),
        Wall(yaw_pose(x0, y1, 0, -np.pi / 2), y1 - y0),
    ]


def raise_wall(house: House, wall: Wall, height: float, thickness: float = WALL_M) -> None:
    """The wall as boxes around its openings, with a skirting board along closed stretches."""
    rng, style = house.rng, house.style
    material = style.accent if rng.random() < 0.3 else style.wall
    body, skirting = SceneObject("wall"), SceneObject("skirting")
    edges = {0.0, wall.length, *(u for each in wall.openings for u in each[:2])}
    for u0, u1 in pairwise(sorted(edges)):
        middle, half = (u0 + u1) / 2, (u1 - u0) / 2
        holes = sorted(each[2:] for each in wall.openings if each[0] < middle < each[1])
        floor = 0.0
        for z0, z1 in [*holes, (height, height)]:
            if z0 - floor > 1e-3:
                centre = (middle, -thickness / 2, (floor + z0) / 2)
                body.box(centre, (half, thickness / 2, (z0 - floor) / 2), material)
            floor = z1
    doors = [each for each in wall.taken if each[2] == 0.0 and each[3] > 1.8]
    tall = rng.choice([0.03, 0.05])
    for u0, u1 in pairwise(sorted({0.0, wall.length, *(u for each in doors for u in each[:2])})):
        middle = (u0 + u1) / 2
        if not any(each[0] < middle < each[1] for each in doors):
            skirting.box((middle, 0.006, tall), ((u1 - u0) / 2, 0.007, tall), style.trim)
    house.objects += [each.moved(wall.T) for each in (body, skirting) if each.parts]


# ---------------------------------------------------------------------------------- doors


def door_place(rng: Rng, wall: Wall, height: float) -> Box | None:
    """A free place for a door, which is then taken; None when a try finds none."""
    if wall.length < DOOR_M + 0.3:
        return None
    start = rng.uniform(0.12, wall.length - DOOR_M - 0.12)
    box = (start, start + DOOR_M, 0.0, min(DOOR_HEIGHT_M, height - 0.1))
    if not wall.has_room(box, margin=0.2):
        return None
    wall.taken.append(box)
    return box


def add_closed_door(house: House, wall: Wall, box: Box) -> None:
    start, end, _, top = box
    middle, half = (start + end) / 2, (end - start) / 2
    door = SceneObject("door")
    door.box((middle, 0.01, top / 2), (half, 0.012, top / 2), house.style.door)
    if house.rng.random() < 0.3:
        pane = Material((0.6, 0.66, 0.68), gloss=0.5, emission=house.rng.uniform(0, 0.4))
        door.box((middle, 0.02, top * 0.68), (half * 0.5, 0.006, top * 0.2), pane)
    steel = ma.metallic(house.rng)
    door.rod((end - 0.08, 0.06, 1.02), (end - 0.2, 0.06, 1.02), 0.01, steel)
    door.rod((end - 0.08, 0.01, 1.02), (end - 0.08, 0.06, 1.02), 0.01, steel)
    house.objects.append(door.moved(wall.T))
    add_door_frame(house, wall.T, box, 0.03)


def add_open_door(house: House, wall: Wall, box: Box) -> np.ndarray | None:
    """A hole with a frame and, mostly, a leaf open into the room behind; the hinge's pose."""
    start, end, _, top = box
    wall.openings.append(box)
    add_door_frame(house, wall.T @ yaw_pose(0, -WALL_M / 2), box, WALL_M / 2 + 0.02)
    if house.rng.random() < 0.3:
        return None
    half = (end - start) / 2
    leaf = SceneObject("door").box((half, 0, top / 2), (half, 0.02, top / 2), house.style.door)
    handle = 2 * half - 0.06
    steel = ma.metallic(house.rng)
    leaf.rod((handle, -0.06, 1.02), (handle - 0.12, -0.06, 1.02), 0.01, steel)
    hinge = wall.T @ yaw_pose(start, -WALL_M - 0.01, 0, -house.rng.uniform(0.9, 1.6))
    house.objects.append(leaf.moved(hinge))
    return hinge


def add_door_frame(house: House, T: np.ndarray, box: Box, depth: float) -> None:
    start, end, _, top = box
    frame, trim = SceneObject("door frame"), house.style.trim
    for u in (start - 0.03, end + 0.03):
        frame.box((u, 0, top / 2), (0.035, depth, top / 2), trim)
    lintel = ((end - start) / 2 + 0.06, depth, 0.035)
    frame.box(((start + end) / 2, 0, top + 0.03), lintel, trim)
    house.objects.append(frame.moved(T))


# -------------------------------------------------------------------------------- windows


def add_windows(house: House, walls: list[Wall], height: float, chance: float) -> None:
    """Windows in one of the walls, sometimes in two; not where a room lies behind."""
    rng = house.rng
    outer = [wall for wall in walls if not wall.openings]
    sill = float(rng.choice([0.1, 0.85, 1.0], p=[0.15, 0.6, 0.25]))
    top = min(height - rng.uniform(0.15, 0.6), sill + 2.2)
    if not outer or top - sill < 0.4:
        return
    for index in rng.permutation(len(outer))[: 2 if rng.random() < 0.2 else 1]:
        wall, wide, gap = outer[index], rng.uniform(0.5, 1.8), rng.uniform(0.15, 1.2)
        view = window_view(rng)
        for start in np.arange(rng.uniform(0.2, 0.8), wall.length - wide, wide + gap):
            box = (start, start + wide, sill, top)
            if rng.random() < chance and wall.has_room(box):
                wall.taken.append(box)
                wall.openings.append(box)
                glaze(house, wall, box, view)


def window_view(rng: Rng) -> Material:
    """A bright view, a closed blind, or night."""
    if rng.random() < 0.75:
        return replace(
            ma.full_picture(rng, "outside", emission=rng.uniform(0.5, 1.0)), lets_sun_in=True
        )
    return Material(tuple(hsv(0.6, 0.15, rng.choice([0.1, 0.9]))), emission=0.4)


def glaze(house: House, wall: Wall, box: Box, view: Material) -> None:
    """The pane at the back of an opening, frame, sill; perhaps a radiator and curtains."""
    rng, trim, (start, end, sill, top) = house.rng, house.style.trim, box
    middle, half, tall = (start + end) / 2, (end - start) / 2, (top - sill) / 2
    pane = SceneObject("window").box((middle, -0.1, sill + tall), (half, 0.01, tall), view)
    frame = SceneObject("window frame")
    bars = 2 + (half > 0.5) * int(rng.integers(1, 3))
    for u in np.linspace(start, end, bars):
        frame.box((u, -0.06, sill + tall), (0.03, 0.03, tall), trim)
    for z in (sill, top):
        frame.box((middle, -0.06, z), (half, 0.03, 0.03), trim)
    frame.box((middle, -0.02, sill - 0.015), (half + 0.05, 0.09, 0.015), trim)
    house.objects += [pane.moved(wall.T), frame.moved(wall.T)]
    if view.lets_sun_in:
        house.windows.append(wall.T[:3, 1])
    if sill > 0.6 and rng.random() < 0.5:
        add_radiator(house, wall, start, end)
    if rng.random() < 0.35:
        add_curtains(house, wall, box)


def add_radiator(house: House, wall: Wall, start: float, end: float) -> None:
    radiator, white = SceneObject("radiator"), Material((0.9, 0.9, 0.88))
    for u in np.arange(start + 0.05, end - 0.04, 0.07):
        radiator.box((u, 0.07, 0.42), (0.025, 0.035, 0.28), white)
    house.objects.append(radiator.moved(wall.T))
    wall.taken.append((start, end, 0.1, 0.75))
    house.plan.take(wall.T @ yaw_pose((start + end) / 2, 0.05), ((end - start) / 2, 0.06))


def add_curtains(house: House, wall: Wall, box: Box) -> None:
    start, end, _, top = box
    cloth, curtain = ma.upholstery(house.rng), SceneObject("curtain")
    for side, edge in ((-1, start), (1, end)):
        for fold in range(4):
            u = edge + side * (0.04 + 0.07 * fold)
            curtain.cylinder((u, 0.08, (top + 0.1) / 2 + 0.03), 0.05, (top + 0.05) / 2, cloth)
        place = wall.T @ yaw_pose(edge + side * 0.15, 0.08)
        house.plan.take(place, (0.17, 0.07))
    rail = top + 0.12
    metal = ma.metallic(house.rng)
    curtain.rod((start - 0.4, 0.08, rail), (end + 0.4, 0.08, rail), 0.012, metal)
    house.objects.append(curtain.moved(wall.T))
    wall.taken.append((start - 0.35, end + 0.35, 0.0, top + 0.15))


# ------------------------------------------------------------------------ what hangs on walls

HANGING = {  # name: (chance, half size along and up, height of its middle), metres
    "picture": (0.32, (0.12, 0.5), (0.12, 0.45), (1.35, 1.65)),
    "board": (0.1, (0.4, 1.0), (0.3, 0.6), (1.35, 1.55)),
    "switch": (0.16, (0.04, 0.04), (0.04, 0.04), (1.05, 1.15)),
    "socket": (0.16, (0.04, 0.12), (0.04, 0.04), (0.25, 0.4)),
    "clock": (0.05, (0.15, 0.15), (0.15, 0.15), (1.8, 2.1)),
    "wall shelf": (0.11, (0.25, 0.6), (0.15, 0.15), (1.3, 1.7)),
    "sign": (0.04, (0.08, 0.16), (0.08, 0.2), (1.4, 1.9)),
    "pipe": (0.06, (0.04, 0.04), (0.0, 0.0), (0.0, 0.0)),
}


def hang_things(house: House, wall: Wall, height: float) -> None:
    """Pictures, boards, shelves, switches, sockets, clocks, pipes; nothing overlaps."""
    rng, names = house.rng, list(HANGING)
    chances = np.array([HANGING[name][0] for name in names])
    for _ in range(int(rng.integers(1, 4 + int(wall.length)))):
        name = str(rng.choice(names, p=chances / chances.sum()))
        wide, tall, middle = (rng.uniform(*each) for each in HANGING[name][1:])
        if name == "pipe":
            tall = middle = height / 2
        u = rng.uniform(0, wall.length)
        box = (u - wide, u + wide, middle - tall, middle + tall)
        if box[3] > height + 0.01 or not wall.has_room(box):
            continue
        wall.taken.append(box)
        things = [hanging(rng, name, (u, middle), (wide, tall))]
        if name == "wall shelf":
            row = SceneObject("books")
            size = (wide * rng.uniform(0.4, 0.9), 0.08, 0.1)
            things.append(row.box((u, 0.09, middle - 0.01), size, ma.full_picture(rng, "books")))
        house.objects += [each.moved(wall.T) for each in things]


def hanging(rng: Rng, name: str, place: tuple[float, float], half: tuple[float, float]):
    """One thing on a wall; place and half size are (along, up) in the wall's frame."""
    (u, z), (wide, tall), thing = place, half, SceneObject(name)
    if name in ("picture", "board"):
        rim = ma.body_material(rng) if name == "picture" else ma.metallic(rng)
        face = ma.full_picture(rng, "picture" if name == "picture" else "whiteboard")
        thing.box((u, 0.01, z), (wide, 0.012, tall), rim)
        return thing.box((u, 0.02, z), (wide - 0.02, 0.006, tall - 0.02), face)
    if name == "wall shelf":
        return thing.box((u, 0.1, z - 0.13), (wide, 0.1, 0.012), ma.body_material(rng))
    if name == "clock":
        return thing.sphere((u, 0.01, z), (wide, 0.025, tall), ma.plain(rng))
    if name == "pipe":
        return thing.rod((u, 0.05, 0), (u, 0.05, 2 * z), 0.03, ma.plain(rng, ma.neutral(rng)))
    colour = ma.vivid(rng) if name == "sign" else np.array([0.92, 0.92, 0.9])
    return thing.box((u, 0.006, z), (wide, 0.008, tall), ma.plain(rng, colour))


# -------------------------------------------------------------------------------- ceilings


def add_lamps(house: House, low: Corner, high: Corner, height: float) -> None:
    """Rows of lamps, and the light they give: one lamp throws shadows, the others fill."""
    rng = house.rng
    low = np.array(low)
    size = np.array(high) - low
    colour = hsv(rng.choice([rng.uniform(0.06, 0.12), 0.58]), rng.uniform(0, 0.22), 1.0)
    style = str(rng.choice(["panel", "tube", "bulb", "pendant"]))
    counts = np.maximum(1, (size / rng.uniform(2.0, 3.5)).astype(int))
    lamps, glow = house.new("lamps"), Material(tuple(colour), emission=1.0)
    for column, row in np.ndindex(*counts):
        place = low + size * (np.array([column, row]) + 0.5) / counts
        add_lamp(lamps, style, (*place, height), glow)
    power = rng.uniform(0.2, 0.45)
    if rng.random() < 0.2:
        power *= 0.3  # lamps off: daylight and bounced light only
    first, second = low + size * rng.uniform(0.25, 0.75, (2, 2))
    hard = rng.uniform(0.25, 0.6)  # the share of the light that throws a shadow
    house.lights.append(
        Light(
            tuple(1.4 * hard * power * colour), position=(*first, height - 0.1), shadow=True,
            exponent=rng.uniform(1.0, 3.0),
        )
    )  # fmt: skip
    for place, share in ((first, 1 - hard), (second, 0.6)):
        spot = (*place, height - 0.3)
        house.lights.append(Light(tuple(share * power * colour), position=spot, cutoff_deg=180.0))


def add_lamp(lamps: SceneObject, style: str, place, glow: Material) -> None:
    x, y, height = place
    if style == "panel":
        lamps.box((x, y, height - 0.01), (0.3, 0.3, 0.012), glow)
    elif style == "tube":
        lamps.box((x, y, height - 0.03), (0.65, 0.06, 0.03), glow)
    elif style == "bulb":
        lamps.sphere((x, y, height - 0.04), (0.16, 0.16, 0.07), glow)
    else:
        hangs_at = height - min(0.9, max(0.3, height - 2.0))
        lamps.rod((x, y, height), (x, y, hangs_at), 0.005, Material((0.05, 0.05, 0.05)))
        lamps.cone((x, y, hangs_at), 0.18, 0.1, glow)


def add_pipes(house: House, low: Corner, high: Corner, height: float) -> None:
    """Pipes and ducts under an industrial ceiling."""
    rng, metal, pipes = house.rng, ma.metallic(house.rng), house.new("pipes")
    for _ in range(int(rng.integers(1, 4))):
        y, z = rng.uniform(low[1], high[1]), height - rng.uniform(0.13, 0.5)
        pipes.rod((low[0], y, z), (high[0], y, z), rng.uniform(0.02, 0.12), metal)


def add_sun(house: House) -> None:
    """Sun through a window: a bright patch inside instead of the lamp's shadow."""
    rng = house.rng
    inwards = house.windows[int(rng.integers(len(house.windows)))]
    across = np.array([-inwards[1], inwards[0], 0.0]) * rng.uniform(-0.9, 0.9)
    direction = inwards + across - [0, 0, rng.uniform(0.25, 0.9)]
    direction /= np.linalg.norm(direction)
    colour = hsv(rng.uniform(0.08, 0.12), rng.uniform(0, 0.25), rng.uniform(0.4, 1.0))
    house.lights = [replace(light, shadow=False) for light in house.lights]
    house.lights.insert(0, Light(tuple(colour), tuple(direction), shadow=True))


def add_daylight(house: House) -> None:
    """Soft light without shadow: from the side as a window gives, and up from the floor."""
    rng = house.rng
    tint = hsv(rng.uniform(0.05, 0.6), rng.uniform(0, 0.08), 1.0)
    angle = rng.uniform(0, 2 * np.pi)
    x, y = np.cos(angle), np.sin(angle)
    house.lights.insert(3, Light(tuple(tint * rng.uniform(0.05, 0.25)), (x, y, -0.35)))
    house.lights.insert(4, Light(tuple(tint * rng.uniform(0.05, 0.2)), (-x, -y, 0.7)))
