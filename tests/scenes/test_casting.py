"""The caster against definitions: where points are inside a shape, not how rays meet it."""

import numpy as np
import pytest

from gestalt.scenes.casting import FAR_M, GROUND, SKY, PlacedPrimitives, Rays, cast
from gestalt.scenes.primitives import Shape, Sketch
from gestalt.scenes.road import Road, RoadSide
from tests.scene import BOXES, render_scene
from tests.scenes.worlds import TIMES, views, world

WIDE = RoadSide(lanes=100, parking=False, verge=0.0, sidewalk=1.0, green=True)
PLAIN = Road(0.0, 10.0, WIDE, WIDE, ())


def inside(placed: PlacedPrimitives, index: int, points: np.ndarray, slack: float) -> np.ndarray:
    """Whether world points (N, 3) lie in a primitive that is ``slack`` metres larger."""
    primitives = placed.primitives
    c, s = np.cos(placed.yaw[index]), np.sin(placed.yaw[index])
    x, y, z = (points - placed.centre[index]).T
    x, z = c * x - s * z, s * x + c * z
    hx, hy, hz = primitives.half[index] + slack
    flat = {"x": np.abs(x) <= hx, "y": np.abs(y) <= hy, "z": np.abs(z) <= hz}
    shape = Shape(int(primitives.shape[index]))
    if shape == Shape.BOX:
        return flat["x"] & flat["y"] & flat["z"]
    if shape == Shape.HULL:
        rise = np.clip((primitives.half[index, 1] - y) / (2 * primitives.half[index, 1]), 0, 1)
        left, right, back, front = primitives.inset[index]
        across = (x >= -hx + left * rise) & (x <= hx - right * rise)
        along = (z >= -hz + back * rise) & (z <= hz - front * rise)
        return flat["y"] & across & along
    if shape == Shape.ELLIPSOID:
        return (x / hx) ** 2 + (y / hy) ** 2 + (z / hz) ** 2 <= 1
    parts = {"x": (x / hx) ** 2, "y": (y / hy) ** 2, "z": (z / hz) ** 2}
    axis = shape.name[-1].lower()
    return flat[axis] & (sum(value for name, value in parts.items() if name != axis) <= 1)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_nothing_lies_between_the_camera_and_a_hit_and_the_hit_is_on_its_surface(index: int) -> None:
    view, placed = views(index)[0, "left"], world(index).place(TIMES[0])
    rng = np.random.default_rng(index)
    rows, columns = (rng.integers(0, size, 60) for size in view.hits.surface.shape)
    directions = np.stack([axis[rows, columns] for axis in view.rays.directions()], -1).astype(np.float64)
    depth = np.minimum(view.hits.depth[rows, columns], FAR_M)
    surface = view.hits.surface[rows, columns]
    ends = view.rays.origin + directions * depth[:, None]
    for ray, hit in enumerate(surface):
        if hit >= 0:
            assert inside(placed, hit, ends[ray : ray + 1], 2e-3)[0]
            assert not inside(placed, hit, ends[ray : ray + 1], -2e-3 * min(1, depth[ray]))[0]
    # Points along the rays, up to just before the hit. What the near plane cuts or has holes is left out.
    shares = np.linspace(0.02, 1, 250, endpoint=False)
    steps = view.rays.origin + directions[:, None] * (depth[:, None] * shares)[..., None]
    flat = steps.reshape(-1, 3)
    for candidate in range(len(placed.primitives)):
        reach = np.linalg.norm(placed.primitives.half[candidate]) + 1
        near = np.abs(flat - placed.centre[candidate]).max(1) < reach
        if placed.primitives.holes[candidate] > 0 or not near.any():
            continue
        blocked = np.zeros(len(flat), bool)
        blocked[near] = inside(placed, candidate, flat[near], -5e-3)
        blocked = blocked.reshape(steps.shape[:2])
        assert not blocked.any(), (candidate, np.argwhere(blocked)[:3])


@pytest.mark.parametrize("shape", list(Shape))
def test_one_primitive_is_seen_exactly_where_rays_pass_through_it(shape: Shape) -> None:
    sketch = Sketch(np.random.default_rng(0))
    inset = (0.3, -0.2, 0.1, 0.4) if shape == Shape.HULL else (0.0, 0.0, 0.0, 0.0)
    sketch.add(shape, (0.4, -1.5, 8.0), (1.0, 0.8, 1.3), (1, 1, 1), "plain", yaw=0.5, inset=inset)
    primitives = sketch.pack()
    placed = PlacedPrimitives(primitives, primitives.centre, primitives.yaw)
    axis = np.linspace(-0.297, 0.303, 49, dtype=np.float32)
    rays = Rays(np.array([0.0, -1.5, 0.0]), np.eye(3), axis, axis, 0.0125)
    hits = cast(placed, PLAIN, rays)
    t = np.linspace(5, 11, 700)
    points = rays.origin + np.stack([d.reshape(-1) for d in rays.directions()], -1)[:, None] * t[:, None]
    within = inside(placed, 0, points.reshape(-1, 3), 0.0).reshape(49 * 49, -1)
    seen = hits.surface.ravel() == 0
    # Rays that graze it may pass between two steps, or touch it within rounding.
    assert (seen != within.any(1)).mean() < 0.01
    assert seen.sum() > 200
    both = seen & within.any(1)
    np.testing.assert_allclose(hits.depth.ravel()[both], t[within[both].argmax(1)], atol=0.02)


def test_large_and_small_rectangles_give_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    view, scene = views(1)[0, "left"], world(1)
    placed = scene.place(TIMES[0])
    for limit in (0, 10**9):
        monkeypatch.setattr("gestalt.scenes.casting.LARGE_RECTANGLE", limit)
        hits = cast(placed, scene.road, view.rays)
        same = hits.surface == view.hits.surface
        # Equal depths, as of two boxes that share a plane, may go to either.
        np.testing.assert_allclose(hits.depth[~same], view.hits.depth[~same], rtol=1e-5)
        np.testing.assert_allclose(hits.depth, view.hits.depth, rtol=1e-5)


def test_the_ground_lies_at_camera_height_and_the_kerb_above_it() -> None:
    view, scene = views(0)[0, "left"], world(0)
    ground = view.hits.surface == GROUND
    height = view.rays.origin[1] + view.rays.directions()[1] * view.hits.depth
    assert np.abs(height[ground & ~view.hits.raised]).max() < 1e-3
    raised = height[ground & view.hits.raised]
    assert raised.min() > -0.1201
    assert raised.max() < 1e-3
    assert (np.abs(raised + 0.12) < 1e-3).mean() > 0.8
    assert np.isinf(view.hits.depth[view.hits.surface == SKY]).all()
    assert scene.camera.height_m == -view.rays.origin[1]


def test_an_independent_renderer_sees_the_same_boxes_at_the_same_depth() -> None:
    other = render_scene(camera_moves=False, boxes_move=(False, False))
    sketch = Sketch(np.random.default_rng(0))
    for centre, half, yaw, _, _ in BOXES:
        sketch.box(centre, half, (1, 1, 1), "plain", yaw=yaw)
    primitives = sketch.pack()
    placed = PlacedPrimitives(primitives, primitives.centre, primitives.yaw)
    height, width = other.depth.shape
    k = other.intrinsics
    columns = ((np.arange(width) - k[0, 2]) / k[0, 0]).astype(np.float32)
    rows = ((np.arange(height) - k[1, 2]) / k[1, 1]).astype(np.float32)
    for x, disparity in ((0.0, other.disparity), (other.stereo_baseline, other.disparity_right)):
        rays = Rays(np.array([x, -1.5, 0.0]), np.eye(3), columns, rows, 1 / k[0, 0])
        hits = cast(placed, PLAIN, rays)
        np.testing.assert_allclose(k[0, 0] * other.stereo_baseline / hits.depth, disparity, rtol=1e-4)
