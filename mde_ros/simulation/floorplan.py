"""Which parts of a floor are taken: an occupancy grid for placing furniture and planning paths."""

import cv2
import numpy as np

CELL_M = 0.05
Corner = tuple[float, float] | np.ndarray  # (x, y) metres


class FloorPlan:
    """An occupancy grid over a rectangle of the world; everything is taken until `clear`ed.

    Args:
        low, high: corners (x, y) of the rectangle, metres.
    """

    def __init__(self, low: tuple[float, float], high: tuple[float, float]):
        self.low = np.array(low, float)
        columns, rows = np.ceil((np.array(high) - self.low) / CELL_M).astype(int)
        self.taken = np.ones((rows, columns), np.uint8)

    def clear(self, low: Corner, high: Corner) -> None:
        """Make a rectangle free floor."""
        (left, top), (right, bottom) = self.cells(np.array([low, high], float))
        self.taken[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 0

    def fits(self, T: np.ndarray, half_size: tuple[float, float], margin: float = 0.0) -> bool:
        """Whether the rectangle of a piece at pose T (4, 4), grown by `margin`, is all free."""
        corners = self.corners(T, half_size, margin)
        shape = self.taken.shape
        if corners.min() < 0 or (corners >= (shape[1], shape[0])).any():
            return False
        low, high = corners.min(0), corners.max(0) + 1
        mask = np.zeros(high[::-1] - low[::-1], np.uint8)
        cv2.fillConvexPoly(mask, corners - low, 1)
        return not (self.taken[low[1] : high[1], low[0] : high[0]] & mask).any()

    def take(self, T: np.ndarray, half_size: tuple[float, float]) -> None:
        cv2.fillConvexPoly(self.taken, self.corners(T, half_size), 1)

    def corners(self, T: np.ndarray, half_size, margin: float = 0.0) -> np.ndarray:
        """Grid coordinates (4, 2) int32 of a piece's rectangle."""
        x, y = half_size[0] + margin, half_size[1] + margin
        local = np.array([[x, y], [-x, y], [-x, -y], [x, -y]])
        return self.cells(local @ T[:2, :2].T + T[:2, 3]).astype(np.int32)

    def cells(self, points: np.ndarray) -> np.ndarray:
        """Grid coordinates (column, row) of points (..., 2) in metres."""
        return np.floor((points - self.low) / CELL_M).astype(int)

    def clearance(self) -> np.ndarray:
        """Metres from every cell to the nearest taken one, (rows, columns) float32."""
        free = np.pad(1 - self.taken, 1)
        return cv2.distanceTransform(free, cv2.DIST_L2, 5)[1:-1, 1:-1] * CELL_M

    def lookup(self, clearance: np.ndarray, points: np.ndarray) -> np.ndarray:
        """The clearance at points (..., 2) in metres; 0 outside the plan."""
        cells = self.cells(np.asarray(points, float))
        column, row = cells[..., 0], cells[..., 1]
        inside = (column >= 0) & (row >= 0)
        inside &= (row < clearance.shape[0]) & (column < clearance.shape[1])
        return np.where(inside, clearance[row * inside, column * inside], 0.0)

    def free_point(self, rng: np.random.Generator, clearance: np.ndarray, least: float):
        """A random point (2,) with at least that clearance, or None when there is none."""
        rows, columns = np.nonzero(clearance >= least)
        if not len(rows):
            return None
        pick = int(rng.integers(len(rows)))
        return self.low + (np.array([columns[pick], rows[pick]]) + 0.5) * CELL_M
