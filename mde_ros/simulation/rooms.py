"""Random furnished rooms: offices, living rooms, kitchens, corridors, labs, halls, stores.

A scene is one main room and, behind open doors, some of its neighbours.
"""

from dataclasses import dataclass

import numpy as np

from mde_ros.simulation import materials as ma
from mde_ros.simulation.floorplan import Corner, FloorPlan
from mde_ros.simulation.furniture import PIECES
from mde_ros.simulation.house import (
    DOOR_M,
    WALL_M,
    Box,
    House,
    Style,
    Wall,
    add_closed_door,
    add_daylight,
    add_lamps,
    add_open_door,
    add_pipes,
    add_sun,
    add_windows,
    build_shell,
    door_place,
    hang_things,
    raise_wall,
)
from mde_ros.simulation.movers import ball, person, small_robot
from mde_ros.simulation.shapes import Material, Patrol, Piece, Scene, yaw_pose
from mde_ros.simulation.textures import hsv

Rng = np.random.Generator


@dataclass(frozen=True)
class RoomKind:
    """What one kind of room is like; ranges are uniform.

    Args:
        weight: how often it comes.
        floors, walls: textures to choose from.
        along_walls, free: pieces of furniture to choose from.
        density: pieces per square metre, about.
        doors: how many are tried.
        windows: chance of a window in a place that has room for it.
        industrial: whether pipes may run below its ceiling.
    """

    weight: float
    length_m: tuple[float, float]
    width_m: tuple[float, float]
    height_m: tuple[float, float]
    floors: tuple[str, ...]
    walls: tuple[str, ...]
    along_walls: tuple[str, ...]
    free: tuple[str, ...]
    density: float
    doors: tuple[int, int] = (1, 3)
    windows: float = 0.7
    industrial: bool = False


ROOMS: dict[str, RoomKind] = {
    "office": RoomKind(
        0.24, (3.0, 8.0), (2.8, 6.0), (2.4, 3.2),
        floors=("carpet", "planks", "terrazzo", "concrete"),
        walls=("plaster", "plaster", "plaster", "blocks"),
        along_walls=("desk", "desk", "bookshelf", "cabinet", "plant", "appliance", "waste_bin",
                     "floor_clutter"),
        free=("desk", "table", "office_chair", "stand", "waste_bin", "flip_chart", "partition",
              "floor_clutter"),
        density=0.55,
    ),
    "living": RoomKind(
        0.18, (3.2, 8.0), (3.0, 6.0), (2.3, 3.0),
        floors=("planks", "planks", "carpet", "tiles", "wood"),
        walls=("plaster", "plaster", "wallpaper", "brick"),
        along_walls=("sofa", "bookshelf", "cabinet", "plant", "television", "floor_lamp", "desk"),
        free=("table", "sofa", "dining_chair", "plant", "floor_lamp", "floor_clutter",
              "floor_clutter"),
        density=0.55,
    ),
    "bedroom": RoomKind(
        0.1, (2.8, 5.5), (2.6, 4.5), (2.3, 2.9),
        floors=("planks", "carpet", "wood"),
        walls=("plaster", "plaster", "wallpaper"),
        along_walls=("bed", "cabinet", "cabinet", "desk", "bookshelf", "floor_lamp", "plant"),
        free=("dining_chair", "floor_clutter", "floor_clutter", "stand"),
        density=0.55,
    ),
    "kitchen": RoomKind(
        0.12, (2.6, 6.0), (2.4, 4.5), (2.3, 3.0),
        floors=("tiles", "planks", "terrazzo", "marble"),
        walls=("plaster", "plaster", "tiles"),
        along_walls=("kitchen_counter", "kitchen_counter", "appliance", "cabinet", "bookshelf",
                     "waste_bin"),
        free=("table", "table", "dining_chair", "waste_bin", "floor_clutter"),
        density=0.55,
    ),
    "corridor": RoomKind(
        0.14, (6.0, 26.0), (1.2, 3.0), (2.2, 3.0),
        floors=("terrazzo", "carpet", "planks", "tiles", "concrete"),
        walls=("plaster", "plaster", "blocks", "brick", "boards"),
        along_walls=("cabinet", "plant", "waste_bin", "dining_chair", "bookshelf", "appliance",
                     "cartons", "ladder"),
        free=("floor_clutter", "waste_bin", "cartons", "trolley"),
        density=0.22, doors=(3, 8), windows=0.35,
    ),
    "lab": RoomKind(
        0.1, (4.5, 11.0), (4.0, 8.0), (2.6, 4.0),
        floors=("terrazzo", "concrete", "tiles", "planks"),
        walls=("plaster", "blocks", "concrete", "boards"),
        along_walls=("desk", "cabinet", "storage_rack", "appliance", "kitchen_counter",
                     "bookshelf", "cartons"),
        free=("desk", "desk", "table", "stand", "cartons", "office_chair", "flip_chart",
              "column", "trolley", "partition", "ladder"),
        density=0.42, industrial=True,
    ),
    "hall": RoomKind(
        0.06, (8.0, 18.0), (6.0, 13.0), (3.0, 6.0),
        floors=("terrazzo", "concrete", "planks", "marble"),
        walls=("plaster", "concrete", "brick", "boards"),
        along_walls=("plant", "cabinet", "sofa", "bookshelf", "dining_chair", "waste_bin",
                     "stairs"),
        free=("table", "table", "column", "column", "stand", "plant", "sofa", "flip_chart",
              "partition"),
        density=0.18, industrial=True,
    ),
    "store": RoomKind(
        0.06, (6.0, 16.0), (4.0, 10.0), (3.0, 6.0),
        floors=("concrete", "concrete", "terrazzo"),
        walls=("blocks", "concrete", "boards", "plaster"),
        along_walls=("storage_rack", "storage_rack", "storage_rack", "cartons", "stairs"),
        free=("storage_rack", "storage_rack", "cartons", "cartons", "column", "ladder",
              "trolley"),
        density=0.3, doors=(1, 2), windows=0.2, industrial=True,
    ),
}  # fmt: skip
NEIGHBOURS = ("office", "living", "kitchen", "corridor", "lab")

TILE_M = {  # metres that one copy of a texture covers, where that is not 1 to 2.4
    "brick": (0.7, 1.1), "blocks": (1.2, 1.8), "boards": (0.6, 2.0), "tiles": (0.5, 2.4),
    "terrazzo": (0.6, 1.2), "planks": (0.6, 1.3), "wallpaper": (0.6, 1.6),
}  # fmt: skip


def random_room(rng: Rng) -> tuple[Scene, FloorPlan]:
    """A furnished room with its neighbours, and the plan of its free floor."""
    names = list(ROOMS)
    weights = np.array([ROOMS[name].weight for name in names])
    name = str(rng.choice(names, p=weights / weights.sum()))
    kind = ROOMS[name]
    low = (0.0, 0.0)
    high = (rng.uniform(*kind.length_m), rng.uniform(*kind.width_m))
    height = rng.uniform(*kind.height_m)
    plan = FloorPlan((-9.0, -9.0), (high[0] + 9.0, high[1] + 9.0))
    house = House(rng, plan, random_style(rng, kind))
    walls = build_shell(house, low, high, height)
    add_doors(house, kind, walls, height)
    finish_room(house, kind, walls, low, high, height)
    add_movers(house, high)
    add_daylight(house)
    if house.windows and rng.random() < 0.4:
        add_sun(house)
    dull = house.style.floor.texture is None or house.style.floor.texture[0] == "carpet"
    dull = dull or rng.random() < 0.5
    scene = Scene(
        name, house.objects, house.lights[:7], ambient=rng.uniform(0.2, 0.45),
        floor_reflection=0.0 if dull else rng.uniform(0.05, 0.6),
    )  # fmt: skip
    return scene, plan


def random_style(rng: Rng, kind: RoomKind) -> Style:
    """Materials for a room of that kind: mostly light walls, wooden or neutral floors."""
    wall_texture = str(rng.choice(kind.walls))
    wall_colour = hsv(rng.uniform(0.04, 0.16), abs(rng.normal(0, 0.06)), rng.uniform(0.7, 1.0))
    if wall_texture == "brick":
        wall_colour = hsv(rng.uniform(0.01, 0.07), rng.uniform(0.2, 0.6), rng.uniform(0.5, 0.9))
    elif rng.random() < 0.15:
        wall_colour = hsv(paint_hue(rng), rng.uniform(0.05, 0.25), rng.uniform(0.6, 0.95))
    wall = accent = covering(rng, wall_texture, wall_colour)
    if rng.random() < 0.25:
        texture = str(rng.choice(["plaster", "plaster", "brick", "wallpaper", "boards"]))
        colour = hsv(paint_hue(rng), rng.uniform(0.05, 0.4), rng.uniform(0.4, 0.95))
        accent = covering(rng, texture, colour)
    floor_texture = str(rng.choice(kind.floors))
    floor_colour = ma.neutral(rng, 0.35)
    if floor_texture in ("planks", "wood"):
        floor_colour = hsv(rng.uniform(0.05, 0.1), rng.uniform(0.15, 0.6), rng.uniform(0.3, 0.9))
    elif floor_texture == "carpet":
        floor_colour = hsv(rng.random(), abs(rng.normal(0, 0.2)), rng.uniform(0.2, 0.7))
    ceiling = Material((0.95, 0.94, 0.92))
    if rng.random() < 0.5:
        ceiling = ma.patterned(rng, "panels", (0.97, 0.96, 0.94), 1.2)
    floor = covering(rng, floor_texture, floor_colour, gloss=rng.uniform(0, 0.3))
    trim = ma.plain(rng, ma.neutral(rng, 0.5)) if rng.random() < 0.7 else ma.wooden(rng)
    door = ma.wooden(rng) if rng.random() < 0.5 else ma.plain(rng, ma.neutral(rng, 0.4))
    return Style(wall, accent, floor, ceiling, trim, door)


def paint_hue(rng: Rng) -> float:
    """The hue of a painted wall: mostly warm, often green or blue, seldom anything else."""
    hues = [rng.uniform(0.03, 0.17), rng.uniform(0.25, 0.62), rng.random()]
    return float(rng.choice(hues, p=[0.5, 0.38, 0.12]))


def covering(rng: Rng, texture: str, colour: np.ndarray, gloss: float = 0.0) -> Material:
    tile_m = rng.uniform(*TILE_M.get(texture, (1.0, 2.4)))
    return ma.patterned(rng, texture, colour, tile_m, gloss=gloss)


def finish_room(
    house: House, kind: RoomKind, walls: list[Wall], low: Corner, high: Corner, height: float
) -> None:
    """Windows, walls with what hangs on them, lamps and furniture."""
    add_windows(house, walls, height, kind.windows)
    for wall in walls:
        raise_wall(house, wall, height)
        hang_things(house, wall, height)
    add_lamps(house, low, high, height)
    if kind.industrial and house.rng.random() < 0.6:
        add_pipes(house, low, high, height)
    furnish(house, kind, walls, low, high)


def add_doors(house: House, kind: RoomKind, walls: list[Wall], height: float) -> None:
    """Closed doors, and open ones with a room behind; at most one open door per wall."""
    rng = house.rng
    for _ in range(int(rng.integers(kind.doors[0], kind.doors[1] + 1))):
        wall = walls[int(rng.integers(4))]
        box = door_place(rng, wall, height)
        if box is None:
            continue
        if wall.openings or rng.random() < 0.5:
            add_closed_door(house, wall, box)
            continue
        hinge = add_open_door(house, wall, box)
        add_neighbour(house, wall, box, height)
        if hinge is not None:
            house.plan.take(hinge @ yaw_pose(DOOR_M / 2, 0), (DOOR_M / 2, 0.04))


def add_neighbour(house: House, wall: Wall, door: Box, height: float) -> None:
    """A room behind a wall, reached through a door of that wall."""
    rng = house.rng
    kind = ROOMS[str(rng.choice(NEIGHBOURS))]
    left = max(0.0, door[0] - rng.uniform(0.3, 3.0))
    right = min(wall.length, door[1] + rng.uniform(0.3, 3.0))
    low, high = span(wall, (left, right), (-WALL_M - rng.uniform(1.8, 6.5), -WALL_M))
    style = random_style(rng, kind) if rng.random() < 0.5 else house.style
    room = House(rng, house.plan, style)
    walls = build_shell(room, low, high, height)
    walls.pop(int(np.argmin([each.T[:2, 1] @ wall.T[:2, 1] for each in walls])))
    swing = wall.T @ yaw_pose((door[0] + door[1]) / 2, -WALL_M - DOOR_M / 2)
    room.plan.take(swing, (DOOR_M / 2, DOOR_M / 2))  # no furniture where the door swings
    finish_room(room, kind, walls, low, high, height)
    room.plan.clear(*span(wall, door[:2], (-WALL_M - DOOR_M + 0.06, 0.1)))
    house.objects += room.objects
    house.lights += room.lights[1:2]


def span(wall: Wall, along: tuple[float, float], across: tuple[float, float]):
    """Corners low and high in the world of a rectangle in a wall's frame, each (2,)."""
    corners = np.array([[u, v, 0, 1] for u, v in zip(along, across)]) @ wall.T.T
    return corners[:, :2].min(0), corners[:, :2].max(0)


# ------------------------------------------------------------------------------ furnishing


def furnish(house: House, kind: RoomKind, walls: list[Wall], low: Corner, high: Corner) -> None:
    """A rug, pieces along the walls, and pieces standing free, as far as they fit."""
    rng = house.rng
    low, high = np.array(low), np.array(high)
    if rng.random() < 0.4 and not kind.industrial:
        add_rug(house, low, high)
    area = float(np.prod(high - low))
    for _ in range(min(45, int(area * kind.density * rng.uniform(0.4, 1.6)) + 2)):
        at_wall = rng.random() < 0.6
        piece = PIECES[str(rng.choice(kind.along_walls if at_wall else kind.free))](rng)
        for _ in range(20):
            T = place_at_wall(rng, walls, piece) if at_wall else place_free(rng, low, high)
            if T is not None and house.plan.fits(T, piece.half_size, 0.0 if at_wall else 0.08):
                house.plan.take(T, piece.half_size)
                house.objects += piece.moved(T)
                break


def place_at_wall(rng: Rng, walls: list[Wall], piece: Piece) -> np.ndarray | None:
    """A pose with the back to a wall, or None where a door, a window or a picture is in the way."""
    lengths = np.array([wall.length for wall in walls])
    wall = walls[int(rng.choice(len(walls), p=lengths / lengths.sum()))]
    u, (wide, deep) = rng.uniform(0, wall.length), piece.half_size
    tall = max(part.pose[2, 3] for each in piece.objects for part in each.parts)
    if not wall.has_room((u - wide, u + wide, 0.0, min(1.9, tall)), margin=0.0):
        return None
    return wall.T @ yaw_pose(u, deep + 0.03, 0, rng.normal(0, 0.01))


def place_free(rng: Rng, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    x, y = low + (high - low) * rng.random(2)
    turn = rng.choice([0, np.pi / 2, np.pi, -np.pi / 2]) + rng.normal(0, 0.08)
    return yaw_pose(x, y, 0, turn if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi))


def add_rug(house: House, low: np.ndarray, high: np.ndarray) -> None:
    rng, size = house.rng, high - low
    half = np.minimum(rng.uniform(0.4, 1.4, 2), size / 2 - 0.2)
    x, y = low + size / 2 + rng.uniform(-1, 1, 2) * np.maximum(size / 2 - half - 0.1, 0)
    cloth = ma.patterned(rng, "rug", (1, 1, 1), 0.0)
    house.new("rug").box((x, y, 0.004), (*half, 0.004), cloth)


# ---------------------------------------------------------------------------------- movers


def add_movers(house: House, high: Corner) -> None:
    """People, balls and robots that go to and fro along free lines, and people who stand."""
    rng = house.rng
    for _ in range(int(rng.integers(0, 4))):
        kind = str(rng.choice(["person", "person", "ball", "robot"]))
        radius = rng.uniform(0.05, 0.18) if kind == "ball" else 0.28
        line = free_line(rng, house.plan, radius)
        if line is None:
            continue
        if kind == "person":
            mover, speed = person(rng).objects[0], rng.uniform(0.3, 1.4)
        elif kind == "robot":
            mover, speed = small_robot(rng).objects[0], rng.uniform(0.1, 0.8)
        else:
            mover, speed = ball(rng, radius).objects[0], rng.uniform(0.2, 1.5)
        start, end = line
        mover.motion = Patrol(
            np.array([*start, 0.0]), np.array([*end, 0.0]), speed, phase=rng.uniform(0, 10),
            rolling_radius=radius if kind == "ball" else 0.0,
        )  # fmt: skip
        house.objects.append(mover)
        (x, y), way = (start + end) / 2, end - start
        lane = yaw_pose(x, y, 0.0, np.arctan2(way[1], way[0]))
        house.plan.take(lane, (float(np.linalg.norm(way)) / 2 + radius, radius))
    for _ in range(int(rng.choice([0, 0, 0, 1, 2]))):
        piece, T = person(rng, walking=False), place_free(rng, np.zeros(2), np.array(high))
        if house.plan.fits(T, piece.half_size):
            house.plan.take(T, piece.half_size)
            house.objects += piece.moved(T)


def free_line(rng: Rng, plan: FloorPlan, radius: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Two points (2,) with a free straight lane of that half width between them, or None."""
    clearance = plan.clearance()
    for _ in range(20):
        start = plan.free_point(rng, clearance, radius + 0.05)
        if start is None:
            return None
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 4.0)
        end = start + length * np.array([np.cos(angle), np.sin(angle)])
        if (plan.lookup(clearance, np.linspace(start, end, 40)) > radius).all():
            return start, end
    return None
