"""Random furnished rooms: offices, living rooms, kitchens, corridors, labs, halls, stores.

A scene is one main room and, behind open doors, some of its neighbours.
"""

from dataclasses import dataclass, field

import numpy as np

from mde_ros.simulation import furniture as fu
from mde_ros.simulation.floorplan import FloorPlan
from mde_ros.simulation.shapes import Light, Material, Patrol, Scene, SceneObject, yaw_pose
from mde_ros.simulation.textures import hsv

Rng = np.random.Generator
WALL_M = 0.12  # thickness
DOOR_M = 0.9  # width of an opening
DOOR_HEIGHT_M = 2.05


@dataclass(frozen=True)
class RoomKind:
    """What one kind of room looks like. Ranges are uniform; pieces are (name, how many)."""

    weight: float
    length_m: tuple[float, float]
    width_m: tuple[float, float]
    height_m: tuple[float, float]
    floors: tuple[str, ...]
    walls: tuple[str, ...]
    along_walls: tuple[str, ...]
    free: tuple[str, ...]
    density: float  # pieces per square metre, at most
    doors: tuple[int, int] = (1, 3)
    windows: float = 0.5  # chance of a window in a place that has room for it


ROOMS: dict[str, RoomKind] = {
    "office": RoomKind(
        0.24, (3.0, 8.0), (2.8, 6.0), (2.4, 3.2), ("carpet", "planks", "terrazzo", "concrete"),
        ("plaster", "plaster", "plaster", "blocks"),
        ("desk", "desk", "bookshelf", "cabinet", "plant", "appliance", "waste_bin", "floor_clutter"),
        ("desk", "table", "office_chair", "stand", "waste_bin", "flip_chart", "floor_clutter"), 0.5,
    ),
    "living": RoomKind(
        0.18, (3.2, 8.0), (3.0, 6.0), (2.3, 3.0), ("planks", "planks", "carpet", "tiles", "wood"),
        ("plaster", "plaster", "wallpaper", "brick"),
        ("sofa", "bookshelf", "cabinet", "plant", "television", "floor_lamp", "desk"),
        ("table", "sofa", "dining_chair", "plant", "floor_lamp", "floor_clutter", "floor_clutter"),
        0.5,
    ),
    "bedroom": RoomKind(
        0.1, (2.8, 5.5), (2.6, 4.5), (2.3, 2.9), ("planks", "carpet", "wood"),
        ("plaster", "plaster", "wallpaper"),
        ("bed", "cabinet", "cabinet", "desk", "bookshelf", "floor_lamp", "plant"),
        ("dining_chair", "floor_clutter", "floor_clutter", "stand"), 0.5,
    ),
    "kitchen": RoomKind(
        0.12, (2.6, 6.0), (2.4, 4.5), (2.3, 3.0), ("tiles", "planks", "terrazzo", "marble"),
        ("plaster", "plaster", "tiles"),
        ("kitchen_counter", "kitchen_counter", "appliance", "cabinet", "bookshelf", "waste_bin"),
        ("table", "table", "dining_chair", "waste_bin", "floor_clutter"), 0.5,
    ),
    "corridor": RoomKind(
        0.14, (6.0, 26.0), (1.2, 3.0), (2.2, 3.0), ("terrazzo", "carpet", "planks", "tiles", "concrete"),
        ("plaster", "plaster", "blocks", "brick", "boards"),
        ("cabinet", "plant", "waste_bin", "dining_chair", "bookshelf", "appliance", "cartons"),
        ("floor_clutter", "waste_bin", "cartons"), 0.2, (2, 6), 0.25,
    ),
    "lab": RoomKind(
        0.1, (4.5, 11.0), (4.0, 8.0), (2.6, 4.0), ("terrazzo", "concrete", "tiles", "planks"),
        ("plaster", "blocks", "concrete", "boards"),
        ("desk", "cabinet", "storage_rack", "appliance", "kitchen_counter", "bookshelf", "cartons"),
        ("desk", "desk", "table", "stand", "cartons", "office_chair", "flip_chart", "column"), 0.4,
    ),
    "hall": RoomKind(
        0.06, (8.0, 18.0), (6.0, 13.0), (3.0, 6.0), ("terrazzo", "concrete", "planks", "marble"),
        ("plaster", "concrete", "brick", "boards"),
        ("plant", "cabinet", "sofa", "bookshelf", "dining_chair", "waste_bin"),
        ("table", "table", "column", "column", "stand", "plant", "sofa", "flip_chart"), 0.16,
    ),
    "store": RoomKind(
        0.06, (6.0, 16.0), (4.0, 10.0), (3.0, 6.0), ("concrete", "concrete", "terrazzo"),
        ("blocks", "concrete", "boards", "plaster"),
        ("storage_rack", "storage_rack", "storage_rack", "cartons", "cartons"),
        ("storage_rack", "storage_rack", "cartons", "cartons", "column", "stand"), 0.3,
        (1, 2), 0.15,
    ),
}  # fmt: skip


TILE_M = {  # metres that one copy of a texture covers, where that is not 1 to 2.4
    "brick": (0.7, 1.1), "blocks": (1.2, 1.8), "boards": (0.6, 2.0), "tiles": (0.5, 2.4),
    "terrazzo": (0.6, 1.2), "planks": (0.6, 1.3), "wallpaper": (0.6, 1.6),
}  # fmt: skip


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
    openings: list[tuple[float, float, float, float]] = field(default_factory=list)  # u0 u1 z0 z1
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def has_room(self, box: tuple[float, float, float, float], margin: float = 0.06) -> bool:
        """Whether (u0, u1, z0, z1) meets nothing else on the wall."""
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

    def new(self, name: str) -> SceneObject:
        self.objects.append(SceneObject(name))
        return self.objects[-1]


def random_room(rng: Rng) -> tuple[Scene, FloorPlan]:
    """A furnished room with its neighbours, and the plan of its free floor."""
    names = list(ROOMS)
    weights = np.array([ROOMS[name].weight for name in names])
    name = str(rng.choice(names, p=weights / weights.sum()))
    kind = ROOMS[name]
    length, width = rng.uniform(*kind.length_m), rng.uniform(*kind.width_m)
    height = rng.uniform(*kind.height_m)
    house = House(rng, FloorPlan((-9.0, -9.0), (length + 9.0, width + 9.0)), random_style(rng, kind))
    walls = build_shell(house, (0.0, 0.0), (length, width), height)
    add_doors(house, kind, walls, height)
    add_windows(house, kind, walls, height)
    for wall in walls:
        raise_wall(house, wall, height)
        hang_things(house, kind, wall, height)
    add_ceiling(house, (0.0, 0.0), (length, width), height, name in ("store", "hall", "lab"))
    furnish(house, kind, walls, (0.0, 0.0), (length, width))
    add_movers(house, (length, width))
    tint = hsv(rng.uniform(0.05, 0.6), rng.uniform(0, 0.08), 1.0)
    add_window_light(house, tint)
    shine = house.style.floor.texture[0] not in ("carpet", "rug") and rng.random() < 0.45
    scene = Scene(
        name, house.objects, house.lights[:6], ambient=rng.uniform(0.2, 0.45),
        floor_reflection=rng.uniform(0.05, 0.6) if shine else 0.0,
    )  # fmt: skip
    return scene, house.plan


def random_style(rng: Rng, kind: RoomKind) -> Style:
    wall_texture = str(rng.choice(kind.walls))
    wall_colour = hsv(rng.uniform(0.04, 0.16), abs(rng.normal(0, 0.06)), rng.uniform(0.7, 1.0))
    if wall_texture == "brick":
        wall_colour = hsv(rng.uniform(0.01, 0.07), rng.uniform(0.2, 0.6), rng.uniform(0.5, 0.9))
    elif rng.random() < 0.15:
        wall_colour = hsv(rng.random(), rng.uniform(0.05, 0.25), rng.uniform(0.6, 0.95))
    wall = covering(rng, wall_texture, wall_colour)
    accent = wall
    if rng.random() < 0.3:
        texture = str(rng.choice(["plaster", "brick", "wallpaper", "boards", "concrete"]))
        accent = covering(rng, texture, fu.muted(rng) * 0.5 + 0.4)
    floor_texture = str(rng.choice(kind.floors))
    if floor_texture in ("planks", "wood"):
        colour = hsv(rng.uniform(0.05, 0.1), rng.uniform(0.15, 0.6), rng.uniform(0.3, 0.9))
    elif floor_texture == "carpet":
        colour = hsv(rng.random(), abs(rng.normal(0, 0.2)), rng.uniform(0.2, 0.7))
    else:
        colour = fu.neutral(rng, 0.35)
    floor = covering(rng, floor_texture, colour, gloss=rng.choice([0.0, 0.1, 0.3]))
    ceiling = Material((0.95, 0.94, 0.92))
    if rng.random() < 0.5:
        ceiling = fu.patterned(rng, "panels", (0.97, 0.96, 0.94), 1.2)
    trim = fu.plain(rng, fu.neutral(rng, 0.5)) if rng.random() < 0.7 else fu.wooden(rng)
    door = fu.wooden(rng) if rng.random() < 0.5 else fu.plain(rng, fu.neutral(rng, 0.4))
    return Style(wall, accent, floor, ceiling, trim, door)


def covering(rng: Rng, texture: str, colour: np.ndarray, **look) -> Material:
    return fu.patterned(rng, texture, colour, rng.uniform(*TILE_M.get(texture, (1.0, 2.4))), **look)


# ------------------------------------------------------------------------------- structure


def build_shell(house: House, low, high, height: float) -> list[Wall]:
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


def add_doors(house: House, kind: RoomKind, walls: list[Wall], height: float) -> None:
    """Closed doors, and open ones with a room behind; at most one open door per wall side."""
    rng = house.rng
    behind = set()
    for _ in range(int(rng.integers(kind.doors[0], kind.doors[1] + 1))):
        index = int(rng.integers(4))
        wall = walls[index]
        if wall.length < DOOR_M + 0.3:
            continue
        start = rng.uniform(0.12, wall.length - DOOR_M - 0.12)
        box = (start, start + DOOR_M, 0.0, min(DOOR_HEIGHT_M, height - 0.1))
        if not wall.has_room(box, margin=0.2):
            continue
        wall.taken.append(box)
        if index not in behind and rng.random() < 0.5:
            behind.add(index)
            wall.openings.append(box)
            leaf = open_door(house, wall, box)
            neighbour(house, wall, box, height)
            if leaf is not None:
                house.plan.take(leaf @ yaw_pose(DOOR_M / 2, 0), (DOOR_M / 2, 0.04))
        else:
            closed_door(house, wall, box)


def door_frame(house: House, wall: Wall, box, depth: float) -> None:
    start, end, _, top = box
    frame = SceneObject("door frame")
    for u in (start - 0.03, end + 0.03):
        frame.box((u, 0, top / 2), (0.035, depth, top / 2), house.style.trim)
    frame.box(((start + end) / 2, 0, top + 0.03), ((end - start) / 2 + 0.06, depth, 0.035), house.style.trim)
    house.objects.append(frame.moved(wall.T))


def closed_door(house: House, wall: Wall, box) -> None:
    start, end, _, top = box
    door = SceneObject("door")
    middle, half = (start + end) / 2, (end - start) / 2
    door.box((middle, 0.01, top / 2), (half, 0.012, top / 2), house.style.door)
    steel = fu.metallic(house.rng)
    if house.rng.random() < 0.3:  # a pane
        pane = Material((0.6, 0.66, 0.68), gloss=0.5, emission=float(house.rng.uniform(0, 0.4)))
        door.box((middle, 0.02, top * 0.68), (half * 0.5, 0.006, top * 0.2), pane)
    door.rod((end - 0.08, 0.06, 1.02), (end - 0.2, 0.06, 1.02), 0.01, steel)
    door.rod((end - 0.08, 0.01, 1.02), (end - 0.08, 0.06, 1.02), 0.01, steel)
    house.objects.append(door.moved(wall.T))
    door_frame(house, wall, box, 0.03)


def open_door(house: House, wall: Wall, box) -> np.ndarray | None:
    """A frame through the wall and, mostly, a leaf open into the room behind; the hinge's pose."""
    start, end, _, top = box
    wide = end - start
    door_frame(house, Wall(wall.T @ yaw_pose(0, -WALL_M / 2), wall.length), box, WALL_M / 2 + 0.02)
    if house.rng.random() < 0.3:
        return None
    leaf, half = SceneObject("door"), (wide / 2, 0.02, top / 2)
    leaf.box((wide / 2, 0, top / 2), half, house.style.door)
    leaf.rod((wide - 0.06, -0.06, 1.02), (wide - 0.18, -0.06, 1.02), 0.01, fu.metallic(house.rng))
    hinge = wall.T @ yaw_pose(start, -WALL_M - 0.01, 0, -house.rng.uniform(0.9, 1.6))
    house.objects.append(leaf.moved(hinge))
    return hinge


def neighbour(house: House, wall: Wall, door, height: float) -> None:
    """A simpler room behind a wall, reached through a door at (u0, u1, ...) of that wall."""
    rng = house.rng
    kind = ROOMS[str(rng.choice(["office", "living", "kitchen", "corridor", "lab"]))]
    left = max(0.0, door[0] - rng.uniform(0.3, 3.0))
    right = min(wall.length, door[1] + rng.uniform(0.3, 3.0))
    depth = rng.uniform(1.8, 6.5)
    corners = [wall.T @ [u, v, 0, 1] for u, v in ((left, -WALL_M), (right, -WALL_M - depth))]
    low, high = np.minimum(*corners)[:2], np.maximum(*corners)[:2]
    own = House(rng, house.plan, random_style(rng, kind) if rng.random() < 0.5 else house.style)
    walls = build_shell(own, low, high, height)
    shared = int(np.argmax([(each.T[:2, 1] @ wall.T[:2, 1]) < -0.9 for each in walls]))
    opened = [(door[0], door[1])]
    threshold = [wall.T @ [u, v, 0, 1] for u, v in ((opened[0][0], 0.1), (opened[0][1], -WALL_M - 0.1))]
    for index, each in enumerate(walls):
        if index != shared:
            add_windows(own, kind, [each], height)
            raise_wall(own, each, height)
            hang_things(own, kind, each, height)
    add_ceiling(own, low, high, height, False)
    swing = wall.T @ yaw_pose((door[0] + door[1]) / 2, -WALL_M - DOOR_M / 2)
    own.plan.take(swing, (DOOR_M / 2, DOOR_M / 2))
    walls.pop(shared)
    furnish(own, kind, walls, low, high, share=0.7)
    own.plan.clear(np.minimum(*threshold)[:2], np.maximum(*threshold)[:2])
    own.plan.clear(*free_rectangle(swing, DOOR_M / 2 - 0.06))
    house.objects += own.objects
    house.lights += own.lights[1:2]


def free_rectangle(T: np.ndarray, half: float) -> tuple[np.ndarray, np.ndarray]:
    return T[:2, 3] - half, T[:2, 3] + half


def add_windows(house: House, kind: RoomKind, walls: list[Wall], height: float) -> None:
    """Bright panes with frames, set into walls that have room for them."""
    rng = house.rng
    walls = [wall for wall in walls if not wall.openings]  # nothing but weather behind
    if not walls:
        return
    outer = walls[int(rng.integers(len(walls)))]  # windows are in one facade, two at most
    sill, top = rng.choice([0.1, 0.85, 1.0], p=[0.15, 0.6, 0.25]), height - rng.uniform(0.15, 0.6)
    for wall in {id(outer): outer, id(walls[0]): walls[0]}.values() if rng.random() < 0.2 else (outer,):
        wide = rng.uniform(0.5, 1.8)
        view = fu.full_picture(rng, "outside", emission=float(rng.uniform(0.5, 1.0)))
        if rng.random() < 0.25:  # blinds down, or night
            view = Material(tuple(hsv(0.6, 0.15, rng.choice([0.1, 0.9]))), emission=0.4)
        for start in np.arange(rng.uniform(0.2, 0.8), wall.length - wide, wide + rng.uniform(0.15, 1.2)):
            box = (start, start + wide, sill, min(top, sill + 2.2))
            if box[3] - box[2] > 0.4 and rng.random() < kind.windows * 1.4 and wall.has_room(box):
                wall.taken.append(box)
                wall.openings.append(box)
                glaze(house, wall, box, view)


def glaze(house: House, wall: Wall, box, view: Material) -> None:
    """A pane at the back of an opening with its frame, sill, and sometimes a radiator, curtains."""
    rng, (start, end, sill, top) = house.rng, box
    middle, half, tall = (start + end) / 2, (end - start) / 2, (top - sill) / 2
    pane = SceneObject("window").box((middle, -0.1, sill + tall), (half, 0.01, tall), view)
    frame = SceneObject("window frame")
    white = house.style.trim
    for u in np.linspace(start, end, 2 + (half > 0.5) * int(rng.integers(1, 3))):
        frame.box((u, -0.06, sill + tall), (0.03, 0.03, tall), white)
    for z in (sill, top):
        frame.box((middle, -0.06, z), (half, 0.03, 0.03), white)
    frame.box((middle, -0.02, sill - 0.015), (half + 0.05, 0.09, 0.015), white)
    things = [pane, frame]
    if sill > 0.6 and rng.random() < 0.5:
        radiator = SceneObject("radiator")
        for u in np.arange(start + 0.05, end - 0.04, 0.07):
            radiator.box((u, 0.07, 0.42), (0.025, 0.035, 0.28), Material((0.9, 0.9, 0.88)))
        things.append(radiator)
        wall.taken.append((start, end, 0.1, 0.75))
        house.plan.take(wall.T @ yaw_pose(middle, 0.05), (half, 0.06))
    if rng.random() < 0.35:
        cloth, curtain = fu.upholstery(rng), SceneObject("curtain")
        for side, edge in ((-1, start), (1, end)):
            for fold in range(4):
                u = edge + side * (0.04 + 0.07 * fold)
                curtain.cylinder((u, 0.08, (top + 0.1) / 2 + 0.03), 0.05, (top + 0.05) / 2, cloth)
        curtain.rod((start - 0.4, 0.08, top + 0.12), (end + 0.4, 0.08, top + 0.12), 0.012, fu.metallic(rng))
        things.append(curtain)
        wall.taken.append((start - 0.35, end + 0.35, 0.0, top + 0.15))
        for edge in (start - 0.15, end + 0.15):
            house.plan.take(wall.T @ yaw_pose(edge, 0.08), (0.17, 0.07))
    house.objects += [each.moved(wall.T) for each in things]


def raise_wall(house: House, wall: Wall, height: float) -> None:
    """The wall as boxes around its openings, with a skirting board along closed stretches."""
    rng = house.rng
    material = house.style.accent if rng.random() < 0.3 else house.style.wall
    body, skirting = SceneObject("wall"), SceneObject("skirting")
    board = rng.choice([0.03, 0.05])
    edges = sorted({0.0, wall.length, *(u for each in wall.openings for u in each[:2])})
    for u0, u1 in zip(edges[:-1], edges[1:]):
        holes = sorted(each[2:] for each in wall.openings if each[0] < (u0 + u1) / 2 < each[1])
        floor = 0.0
        for z0, z1 in [*holes, (height, height)]:
            if z0 - floor > 1e-3:
                body.box(((u0 + u1) / 2, -WALL_M / 2, (floor + z0) / 2),
                         ((u1 - u0) / 2, WALL_M / 2, (z0 - floor) / 2), material)  # fmt: skip
            floor = z1
    doors = [each for each in wall.taken if each[2] == 0.0 and each[3] > 1.8]
    cuts = sorted({0.0, wall.length, *(u for each in doors for u in each[:2])})
    for u0, u1 in zip(cuts[:-1], cuts[1:]):
        if not any(each[0] < (u0 + u1) / 2 < each[1] for each in doors):
            skirting.box(((u0 + u1) / 2, 0.006, board), ((u1 - u0) / 2, 0.007, board), house.style.trim)
    house.objects += [each.moved(wall.T) for each in (body, skirting) if each.parts]


def hang_things(house: House, kind: RoomKind, wall: Wall, height: float) -> None:
    """Pictures, boards, shelves, switches, sockets, clocks, pipes; nothing overlaps."""
    rng = house.rng
    for _ in range(int(rng.integers(1, 4 + wall.length))):
        what = rng.choice(["picture", "board", "switch", "socket", "clock", "shelf", "sign", "duct"],
                          p=[0.32, 0.1, 0.17, 0.16, 0.05, 0.11, 0.04, 0.05])  # fmt: skip
        half = {"picture": (rng.uniform(0.12, 0.5), rng.uniform(0.12, 0.45)), "board": (0.8, 0.5),
                "switch": (0.04, 0.04), "socket": (0.08, 0.04), "clock": (0.15, 0.15),
                "shelf": (0.4, 0.15), "sign": (0.12, 0.15), "duct": (0.04, height / 2)}[str(what)]  # fmt: skip
        middle = {"switch": 1.1, "socket": 0.3, "duct": height / 2, "clock": height - 0.4}.get(
            str(what), rng.uniform(1.35, 1.65)
        )
        u = rng.uniform(0, wall.length)
        box = (u - half[0], u + half[0], middle - half[1], middle + half[1])
        if box[3] > height + 0.01 or not wall.has_room(box):
            continue
        wall.taken.append(box)
        thing = SceneObject(str(what))
        flat = (half[0], 0.012, half[1])
        if what == "picture":
            thing.box((u, 0.01, middle), (half[0], 0.012, half[1]), fu.body_material(rng))
            thing.box((u, 0.02, middle), (half[0] - 0.02, 0.006, half[1] - 0.02), fu.full_picture(rng, "picture"))
        elif what == "board":
            thing.box((u, 0.012, middle), flat, fu.metallic(rng))
            thing.box((u, 0.02, middle), (half[0] - 0.02, 0.008, half[1] - 0.02), fu.full_picture(rng, "whiteboard"))
        elif what == "shelf":
            thing.box((u, 0.1, middle - 0.13), (half[0], 0.1, 0.012), fu.body_material(rng))
            row = SceneObject("books").box((u, 0.09, middle - 0.01), (half[0] * 0.8, 0.08, 0.1), fu.full_picture(rng, "books"))
            house.objects.append(row.moved(wall.T))
        elif what == "clock":
            face = SceneObject("clock").sphere((u, 0.01, middle), (0.15, 0.025, 0.15), fu.plain(rng))
            thing.parts += face.parts
        elif what == "duct":
            thing.rod((u, 0.05, 0), (u, 0.05, height), 0.03, fu.plain(rng, fu.neutral(rng)))
        elif what == "sign":
            thing.box((u, 0.008, middle), (half[0], 0.008, half[1]), fu.plain(rng, fu.vivid(rng)))
        else:
            thing.box((u, 0.005, middle), (half[0], 0.007, half[1]), Material((0.92, 0.92, 0.9)))
        house.objects.append(thing.moved(wall.T))


def add_ceiling(house: House, low, high, height: float, industrial: bool) -> None:
    """Lamps, and the light they give; pipes and beams where the room is industrial."""
    rng = house.rng
    size = np.array(high) - np.array(low)
    colour = hsv(rng.choice([rng.uniform(0.06, 0.12), 0.58]), rng.uniform(0, 0.22), 1.0)
    style = rng.choice(["panel", "tube", "bulb", "pendant"])
    spacing = rng.uniform(2.0, 3.5)
    counts = np.maximum(1, (size / spacing).astype(int))
    glow = Material(tuple(colour), emission=1.0)
    lamps = SceneObject("lamps")
    for column in range(counts[0]):
        for row in range(counts[1]):
            x, y = np.array(low) + size * (np.array([column, row]) + 0.5) / counts
            if style == "panel":
                lamps.box((x, y, height - 0.01), (0.3, 0.3, 0.012), glow)
            elif style == "tube":
                lamps.box((x, y, height - 0.03), (0.65, 0.06, 0.03), glow)
            elif style == "bulb":
                lamps.sphere((x, y, height - 0.04), (0.16, 0.16, 0.07), glow)
            else:
                drop = min(0.9, max(0.3, height - 2.0))
                lamps.rod((x, y, height), (x, y, height - drop), 0.005, Material((0.05,) * 3))
                lamps.cone((x, y, height - drop), 0.18, 0.1, glow)
    house.objects.append(lamps)
    power = rng.uniform(0.2, 0.45)
    places = np.array(low) + size * rng.uniform(0.25, 0.75, (2, 2))
    if rng.random() < 0.2:
        power *= 0.3  # lamps off: daylight and bounced light only
    hard = rng.uniform(0.25, 0.6)  # the share of the light that throws a shadow
    lamp = (*places[0], height - 0.1)
    exponent = rng.uniform(1.0, 3.0)
    house.lights.append(
        Light(tuple(1.4 * hard * power * colour), position=lamp, shadow=True, exponent=exponent)
    )
    for place, share in zip(places, ((1 - hard) * power, 0.6 * power)):
        spot = (*place, height - 0.3)
        house.lights.append(Light(tuple(share * colour), position=spot, cutoff_deg=180.0))
    if industrial and rng.random() < 0.6:
        pipes, material = house.new("pipes"), fu.metallic(rng)
        for y in np.array(low)[1] + size[1] * rng.random(int(rng.integers(1, 4))):
            z = height - rng.uniform(0.1, 0.5)
            pipes.rod((low[0], y, z), (high[0], y, z), rng.uniform(0.02, 0.12), material)


def add_window_light(house: House, tint: np.ndarray) -> None:
    """Soft light without shadow: from the side as a window gives, and up from the floor."""
    rng = house.rng
    angle = rng.uniform(0, 2 * np.pi)
    side = (np.cos(angle), np.sin(angle), -0.35)
    house.lights.insert(3, Light(tuple(tint * rng.uniform(0.05, 0.25)), side))
    house.lights.insert(4, Light(tuple(tint * rng.uniform(0.05, 0.2)), (-side[0], -side[1], 0.7)))


# ------------------------------------------------------------------------------ furnishing


def furnish(house: House, kind: RoomKind, walls: list[Wall], low, high, share: float = 1.0) -> None:
    """Pieces along the walls, then pieces standing free, a rug, and column-like things."""
    rng = house.rng
    area = float(np.prod(np.array(high) - np.array(low)))
    count = min(40, int(area * kind.density * rng.uniform(0.4, 1.6) * share) + 2)
    if rng.random() < 0.4 and kind.floors[0] != "concrete":
        add_rug(house, low, high)
    for index in range(count):
        against = rng.random() < 0.6
        piece = fu.PIECES[str(rng.choice(kind.along_walls if against else kind.free))](rng)
        for _ in range(20):
            T = place_at_wall(rng, walls, piece) if against else place_free(rng, low, high)
            if house.plan.fits(T, piece.half_size, 0.0 if against else 0.08):
                house.plan.take(T, piece.half_size)
                house.objects += piece.moved(T)
                break


def place_at_wall(rng: Rng, walls: list[Wall], piece: fu.Piece) -> np.ndarray:
    lengths = np.array([wall.length for wall in walls])
    wall = walls[int(rng.choice(len(walls), p=lengths / lengths.sum()))]
    u = rng.uniform(0, wall.length)
    tall = max(part.pose[2, 3] for each in piece.objects for part in each.parts)
    box = (u - piece.half_size[0], u + piece.half_size[0], 0.0, min(1.9, tall))
    gap = 0.03 if wall.has_room(box, 0.0) else 20.0  # far outside: does not fit
    return wall.T @ yaw_pose(u, piece.half_size[1] + gap, 0, rng.normal(0, 0.01))


def place_free(rng: Rng, low, high) -> np.ndarray:
    x, y = np.array(low) + (np.array(high) - np.array(low)) * rng.random(2)
    turn = rng.choice([0, np.pi / 2, np.pi, -np.pi / 2]) + rng.normal(0, 0.08)
    return yaw_pose(x, y, 0, turn if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi))


def add_rug(house: House, low, high) -> None:
    rng = house.rng
    size = np.array(high) - np.array(low)
    half = np.minimum(rng.uniform(0.4, 1.4, 2), size / 2 - 0.2)
    x, y = np.array(low) + size / 2 + rng.uniform(-1, 1, 2) * np.maximum(size / 2 - half - 0.1, 0)
    thing = house.new("rug")
    thing.box((x, y, 0.004), (*half, 0.004), fu.patterned(rng, "rug", (1, 1, 1), 0.0))


# ---------------------------------------------------------------------------------- movers


def add_movers(house: House, size: tuple[float, float]) -> None:
    """People, balls and robots that go to and fro along free straight lines."""
    rng = house.rng
    for _ in range(int(rng.integers(0, 4))):
        kind = rng.choice(["person", "person", "ball", "robot"])
        radius = 0.1 if kind == "ball" else 0.28
        way = free_line(rng, house.plan, radius)
        if way is None:
            continue
        start, end = way
        if kind == "person":
            piece, speed = fu.person(rng), rng.uniform(0.3, 1.4)
        elif kind == "robot":
            piece, speed = fu.small_robot(rng), rng.uniform(0.1, 0.8)
        else:
            radius = rng.uniform(0.05, 0.18)
            piece, speed = fu.ball(rng, radius), rng.uniform(0.2, 1.5)
        mover = piece.objects[0]
        mover.motion = Patrol(
            np.array([*start, 0.0]), np.array([*end, 0.0]), speed,
            phase=rng.uniform(0, 10), rolling_radius=radius if kind == "ball" else 0.0,
        )  # fmt: skip
        house.objects.append(mover)
        middle = (start + end) / 2
        way = end - start
        T = yaw_pose(*middle, 0, np.arctan2(way[1], way[0]))
        house.plan.take(T, (np.linalg.norm(way) / 2 + radius, radius))
    for _ in range(int(rng.choice([0, 0, 0, 1, 2]))):  # people who stand
        piece = fu.person(rng, walking=False)
        T = place_free(rng, (0, 0), size)
        if house.plan.fits(T, piece.half_size):
            house.plan.take(T, piece.half_size)
            house.objects += piece.moved(T)


def free_line(rng: Rng, plan: FloorPlan, radius: float):
    """Two points with a free straight lane of that radius between them, or None."""
    clearance = plan.clearance()
    for _ in range(20):
        start = plan.free_point(rng, clearance, radius + 0.05)
        if start is None:
            return None
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 4.0)
        end = start + length * np.array([np.cos(angle), np.sin(angle)])
        points = np.linspace(start, end, 40)
        if (plan.lookup(clearance, points) > radius).all():
            return start, end
    return None
