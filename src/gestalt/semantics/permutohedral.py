"""The permutohedral lattice: Gaussian filtering of scattered points in a few dimensions, linear in their number.

A point spreads its value over the d + 1 corners of the simplex it lies in (splat), every corner exchanges with its two
neighbours along each of d + 1 axes (blur), and the point reads from the same corners (slice). Corners that no point
touches do not exist; what would reach them is lost, as in the public implementations.

Source: Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Eurographics 2010:
the elevation matrix E on page 5, the scale sqrt(2/3) (d + 1) that makes the filter's standard deviation 1 on page 6,
barycentric weights on page 10. The constant factor of the paper is left out: normalisation takes it away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gestalt.errors import ConfigError, DataError, ShapeError
from gestalt.semantics.row_sums import RowSums, empty, select

# Share of its neighbours that a corner takes along an axis: half of each, all of its own.
OWN, NEIGHBOUR = 1.0, 0.5
# Points whose simplices are searched at once on a CPU, so that the columns stay in the cache.
POINTS_ON_CPU = 1 << 15
# Corners get a whole number as their name; this many names fit, with room for the neighbours.
LAST_NAME = 1 << 62


@dataclass(frozen=True, eq=False)
class Lattice:
    """Corners of B sets of N points in d dimensions; sets share no corner.

    Corner ``n_corners`` stands for all that do not exist.

    Attributes:
        corners: (B * N, d + 1) int32, of the simplex of each point.
        weights: (B * N, d + 1) float32, barycentric: not negative but for rounding, 1 in sum.
        entries: (B * N * (d + 1),) int32, places in ``corners`` read row by row, corner by corner, and for each
            corner in order of points.
        starts: (n_corners + 1,) int32, where each corner begins in ``entries``.
        axes: d + 1 times (n_corners + 1, 3) int32: a corner, the one below and the one above along an axis.
    """

    corners: Tensor
    weights: Tensor
    entries: Tensor
    starts: Tensor
    axes: tuple[Tensor, ...]

    @property
    def n_corners(self) -> int:
        """How many corners some point touches."""
        return self.starts.numel() - 1

    def splat(self, weights: Tensor) -> RowSums:
        """Values of points -> values of corners, with ``weights``, (B * N, d + 1), instead of the barycentric."""
        rows = torch.div(self.entries, self.corners.shape[1], rounding_mode="floor")
        return RowSums(rows, self.starts, select(weights.reshape(-1), self.entries))

    def blurs(self, first_row: int, n_rows: int) -> list[RowSums]:
        """Values of corners -> values of corners, one after the other; two axes at a time save a pass each.

        Args:
            first_row: Where the corners begin in the table that is blurred.
            n_rows: Rows of that table; the last one is zero and stands for corners that do not exist.
        """
        one = torch.tensor([OWN, NEIGHBOUR, NEIGHBOUR], device=self.weights.device)
        pair = torch.outer(one, one).reshape(-1)
        passes = []
        for axis in range(0, len(self.axes), 2):
            near = self.axes[axis]
            near = torch.where(near == self.n_corners, n_rows - 1, near + first_row)
            if axis + 1 == len(self.axes):
                passes.append(RowSums.of_equal_size(near[:-1], one.expand(self.n_corners, -1)))
            else:
                rows = select(near, self.axes[axis + 1][:-1].reshape(-1)).reshape(self.n_corners, -1)
                passes.append(RowSums.of_equal_size(rows, pair.expand(self.n_corners, -1)))
        return passes

    def slice(self) -> RowSums:
        """Values of corners -> values of points."""
        return RowSums.of_equal_size(self.corners, self.weights)

    def filter(self, values: Tensor) -> Tensor:
        """Sums over all points of a set, each weighted by about exp(-|p - q|^2 / 2), times a constant.

        Args:
            values: (B * N, K) float32.

        Returns:
            (B * N, K) float32.
        """
        table = values.new_zeros(self.n_corners + 1, values.shape[1])
        other = torch.zeros_like(table)
        self.splat(self.weights).write(values, table[:-1])
        for blur in self.blurs(0, table.shape[0]):
            blur.write(table, other[:-1])
            table, other = other, table
        result = torch.empty_like(values)
        self.slice().write(table, result)
        return result


def build_lattice(points: Tensor) -> Lattice:
    """The lattice of some sets of points.

    Args:
        points: (B, d, N) float32, divided by the standard deviation of the Gaussian in each dimension.

    Raises:
        ShapeError: ``points`` is not (B, d, N) with at least one set, dimension and point.
        DataError: A coordinate is not finite.
        ConfigError: The points span so many standard deviations that corners cannot be numbered.
    """
    if points.ndim != 3 or not points.numel():
        raise ShapeError(f"points must be (B, d, N), none of them 0. Got: {tuple(points.shape)}")
    if not bool(torch.isfinite(points).all()):
        raise DataError("points of a lattice must be finite. Got: NaN or infinity")
    n_sets, dimension, n_points = points.shape
    low, place = number_corners(points)
    names = empty((dimension + 1, n_sets, n_points), torch.int64, points.device)
    weights = empty((n_sets, n_points, dimension + 1), torch.float32, points.device)
    step = POINTS_ON_CPU if points.device.type == "cpu" else n_points
    for index in range(n_sets):
        for first in range(0, n_points, step):
            some = slice(first, first + step)
            names[:, index, some], barycentric = enclosing_simplices(points[index, :, some], low, place)
            weights[index, some] = barycentric.T
        names[:, index] += index * place[-1]
    return _connect(names.reshape(dimension + 1, -1), weights.reshape(-1, dimension + 1), place)


def elevate(points: Tensor) -> Tensor:
    """(d, n) points -> (d + 1, n) coordinates in the hyperplane of zero sum, scaled for a deviation of 1."""
    dimension = points.shape[0]
    # Multiplied in this order, as others do, so that a point near a border falls to the same side.
    scale = math.sqrt(2 / 3) * (dimension + 1)
    elevated = points.new_empty(dimension + 1, points.shape[1])
    total = torch.zeros_like(points[0])
    for axis in range(dimension, 0, -1):
        scaled = points[axis - 1] * (scale / math.sqrt((axis + 1) * axis))
        elevated[axis] = total - axis * scaled
        total = total + scaled
    elevated[0] = total
    return elevated


def number_corners(points: Tensor) -> tuple[list[int], list[int]]:
    """How corners are named: coordinates as digits of a mixed radix, so that a step along an axis adds a constant.

    Args:
        points: (B, d, N) float.

    Returns:
        The lowest value of the first d coordinates that any corner or its neighbour can have; and what one step
        of each coordinate adds to a name: d numbers, 0 for coordinate d, which the others determine, and last the
        number of names of a set.

    Raises:
        ConfigError: There are too many names.
    """
    dimension = points.shape[1]
    extremes = torch.stack([points.amin(dim=(0, 2)), points.amax(dim=(0, 2))], dim=1).double()
    # A coordinate of E is a sum of terms with one point coordinate each, so its range is that of all mixtures.
    mixtures = torch.cartesian_prod(*extremes) if dimension > 1 else extremes.reshape(2, 1)
    elevated = elevate(mixtures.reshape(-1, dimension).T.contiguous())[:dimension]
    # A corner is at most d + 1 away from its point in each coordinate, and a neighbour d from the corner.
    margin = 2 * (dimension + 1) + 1
    low = [math.floor(value) - margin for value in elevated.amin(1).tolist()]
    high = [math.ceil(value) + margin for value in elevated.amax(1).tolist()]
    place, names = [0] * dimension, 1
    for axis in reversed(range(dimension)):
        place[axis] = names
        names *= high[axis] - low[axis] + 1
    if names * points.shape[0] > LAST_NAME:
        raise ConfigError(
            f"the points of a lattice span {names:.1e} corners in each of {points.shape[0]} sets, more than fit "
            "into 62 bits; use larger standard deviations"
        )
    return low, [*place, 0, names]


def enclosing_simplices(points: Tensor, low: list[int], place: list[int]) -> tuple[Tensor, Tensor]:
    """Corners and barycentric weights of points.

    Args:
        points: (d, n) float32.
        low: From ``number_corners``.
        place: From ``number_corners``.

    Returns:
        (d + 1, n) int64, names of the corners, that of remainder k in row k (all its coordinates leave k when
        divided by d + 1); and (d + 1, n) float32, their weights.
    """
    dimension, n_points = points.shape
    size = dimension + 1
    elevated = elevate(points)
    nearest = (elevated / size).round_()
    surplus = nearest.sum(0)
    nearest *= size
    # Rank 0 has the coordinate that lies farthest above its multiple of d + 1; of equal ones, the last.
    beyond = elevated - nearest
    rank = surplus + torch.arange(size, dtype=points.dtype, device=points.device)[:, None]
    for axis in range(dimension):
        is_below = (beyond[axis] < beyond[axis + 1 :]).to(points.dtype)
        rank[axis] += is_below.sum(0)
        rank[axis + 1 :] -= is_below
    # The nearest multiples need not sum to zero; those rounded the farthest step back.
    step_back = (rank < 0).to(rank.dtype).sub_((rank > dimension).to(rank.dtype)).mul_(size)
    rank += step_back
    nearest += step_back

    by_rank = (dimension - rank).long()
    offsets = torch.empty_like(elevated).scatter_(0, by_rank, (elevated - nearest) / size)
    weights = offsets.clone()
    weights[1:] -= offsets[:-1]
    weights[0] += 1 - offsets[-1]

    origin = sum((nearest[axis].long() - low[axis]) * place[axis] for axis in range(dimension))
    assert isinstance(origin, Tensor)
    steps = torch.tensor(place[:size], device=points.device)
    names = torch.empty(size, n_points, dtype=torch.int64, device=points.device)
    names[0] = origin
    # From one corner to the next all coordinates grow by one but the one of the next rank, which falls by d.
    falling = steps[:, None].expand(-1, n_points)
    names[1:] = torch.empty_like(names).scatter_(0, by_rank, falling)[:-1] * -size + sum(place[:size])
    return names.cumsum_(0), weights


def _connect(names: Tensor, weights: Tensor, place: list[int]) -> Lattice:
    """A lattice from (d + 1, P) names of corners, by remainder, and their (P, d + 1) weights."""
    size, n_points = names.shape
    device = names.device
    # First every remainder by itself: sorting a part is cheaper, and corners of two remainders are never the same.
    sorted_entries = empty((size, n_points), torch.int64, device)
    positions, found, counts = [], [], []
    for remainder in range(size):
        ordered, order = torch.sort(names[remainder], stable=True)
        distinct, position, count = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
        torch.add(remainder, order, alpha=size, out=sorted_entries[remainder])
        positions.append(position)
        found.append(distinct)
        counts.append(count)
    n_touching = torch.cat(counts)
    begins = n_touching.cumsum(0) - n_touching

    # Then together: what is used at one time should lie together. In a plane that is the order of the corners' first
    # points, in more dimensions the order of names was faster; with remainders apart, splats took up to twice as long.
    leading = select(sorted_entries.reshape(-1), begins) if size <= 3 else torch.cat(found)
    order = torch.argsort(leading, stable=True)
    numbers = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=device))
    numbers_found = torch.split(numbers, [distinct.numel() for distinct in found])
    corners = empty((n_points * size,), torch.int32, device)
    for entries, position, number in zip(sorted_entries, positions, numbers_found):
        corners.scatter_(0, entries, select(number.int(), position))

    begins, n_touching = begins[order], n_touching[order]
    starts = torch.cat([n_touching.new_zeros(1), n_touching.cumsum(0)])
    # Corners move with all their entries: steps of one, and a jump where a corner begins.
    moved = empty((size * n_points,), torch.int64, device).fill_(1)
    moved[0] = begins[0]
    moved[starts[1:-1]] = begins[1:] - (begins + n_touching)[:-1] + 1
    torch.cumsum(moved, 0, out=moved)
    steps = [sum(place[:size]) - size * place[axis] for axis in range(size)]
    return Lattice(
        corners.view(n_points, size),
        weights,
        select(sorted_entries.reshape(-1), moved).int(),
        starts.int(),
        tuple(_neighbours(found, numbers_found, step) for step in steps),
    )


def _neighbours(names: list[Tensor], numbers: tuple[Tensor, ...], step: int) -> Tensor:
    """(n_corners + 1, 3) int32: each corner, the one whose name is ``step`` less, and the one with ``step`` more."""
    n_corners = sum(number.numel() for number in numbers)
    table = empty((n_corners + 1, 3), torch.int32, names[0].device).fill_(n_corners)
    table[:, 0] = torch.arange(n_corners + 1, dtype=torch.int32, device=names[0].device)
    for remainder, below in enumerate(names):
        # A step up the axis leads to the next remainder.
        following = (remainder + 1) % len(names)
        above, wanted = names[following], below + step
        place = torch.searchsorted(above, wanted).clamp_(max=above.numel() - 1)
        is_there = torch.nonzero(select(above, place) == wanted)[:, 0]
        lower, upper = (
            select(numbers[remainder], is_there),
            select(numbers[following], select(place, is_there)),
        )
        table[:, 2].index_copy_(0, lower, upper.int())
        table[:, 1].index_copy_(0, upper, lower.int())
    return table
