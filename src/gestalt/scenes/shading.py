"""The colour of every hit: textures, sun and shadow, sky, road markings, haze."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gestalt.scenes.casting import GROUND, SKY, Hits, PlacedPrimitives, Rays
from gestalt.scenes.painting import NEUTRAL
from gestalt.scenes.primitives import FloatArray, Shape
from gestalt.scenes.raw_ids import RawId
from gestalt.scenes.road import PARKING_STRIP_M, Road
from gestalt.scenes.shadows import ShadowMap
from gestalt.scenes.textures import ASPHALT, BLOTCH, CLOUD, GRASS, PAVER, atlas
from gestalt.scenes.world import World

# Fraction of the light from the sky that reaches the ground below a vehicle.
UNDERSIDE = 0.22
GROUND_DENSITY = 40.0
BLOTCH_DENSITY = 18.0
ROAD_GREY, PAVING_GREY, GRASS_GREEN = (0.36, 0.36, 0.37), (0.56, 0.53, 0.50), (0.30, 0.36, 0.15)


def shade(world: World, placed: PlacedPrimitives, rays: Rays, hits: Hits, shadows: ShadowMap) -> FloatArray:
    """Linear colours of all hits.

    Returns:
        (H, W, 3) float32 RGB, about 0..1, before exposure.
    """
    directions = tuple(axis.ravel() for axis in rays.directions())
    surface, depth = hits.surface.ravel(), hits.depth.ravel()
    colours = np.empty((len(surface), 3), np.float32)
    sky = np.nonzero(surface == SKY)[0]
    ground = np.nonzero(surface == GROUND)[0]
    solid = np.nonzero(surface >= 0)[0]
    if len(sky):
        colours[sky] = _shade_sky(world, tuple(axis[sky] for axis in directions))
    if len(ground):
        points = _points(rays, directions, depth, ground)
        raised = hits.raised.ravel()[ground]
        colours[ground] = _shade_ground(world, points, depth[ground], raised, rays, shadows)
    if len(solid):
        points = _points(rays, directions, depth, solid)
        colours[solid] = _shade_solid(
            world,
            placed,
            surface[solid],
            points,
            depth[solid],
            tuple(axis[solid] for axis in directions),
            rays,
            shadows,
        )
    haze = np.exp(-np.minimum(depth, 1e4) / np.float32(world.weather.fog_m))[:, None]
    haze[sky] = 1
    air = (0.9 * world.weather.sky[1]).astype(np.float32)
    colours = np.asarray(colours * haze + air * (1 - haze), np.float32)
    return colours.reshape(*hits.surface.shape, 3)


def _points(
    rays: Rays, directions: tuple[FloatArray, ...], depth: FloatArray, chosen: npt.NDArray[np.int64]
) -> tuple[FloatArray, ...]:
    t = depth[chosen]
    return tuple(np.float32(o) + axis[chosen] * t for o, axis in zip(rays.origin, directions))


def _shade_sky(world: World, directions: tuple[FloatArray, ...]) -> FloatArray:
    x, y, z = directions
    weather = world.weather
    length = np.sqrt(x * x + y * y + z * z)
    rise = np.clip(-y / length, 0, 1)
    zenith, horizon = (colour.astype(np.float32) for colour in weather.sky)
    base = horizon + (zenith - horizon) * np.sqrt(rise)[:, None]
    # Clouds lie on a plane overhead, so they shrink towards the horizon.
    stretch = 120 / np.maximum(rise + 0.12, 0.05)
    start = np.float32(97 * world.camera.height_m)
    zero = np.zeros(len(x), np.float32)
    cloud = atlas().sample(CLOUD, x / length * stretch + start, z / length * stretch, zero)[:, :1] / NEUTRAL
    cover = np.clip((cloud - 1.35 + 0.7 * np.float32(weather.clouds)) * 1.6, 0, 1) * 0.75
    white = np.array([0.95, 0.95, 0.96], np.float32) * np.clip(0.75 + 0.25 * cloud, 0, 1.1)
    return np.asarray(base * (1 - cover) + white * cover, np.float32)


def _shade_ground(
    world: World,
    points: tuple[FloatArray, ...],
    depth: FloatArray,
    raised: npt.NDArray[np.bool_],
    rays: Rays,
    shadows: ShadowMap,
) -> FloatArray:
    x, y, z = points
    s, lateral = world.road.locate(x, z)
    ids = world.road.ground_ids(s, lateral, raised)
    texture = np.full(len(x), ASPHALT, np.int32)
    texture[ids == RawId.SIDEWALK], texture[ids == RawId.TERRAIN] = PAVER, GRASS
    base = np.empty((len(x), 3), np.float32)
    wear = np.float32(0.85 + 0.3 * (world.camera.height_m * 7 % 1))
    base[:] = np.array(ROAD_GREY) * wear
    base[ids == RawId.SIDEWALK], base[ids == RawId.TERRAIN] = PAVING_GREY, GRASS_GREEN
    # The ground is seen at a slant: between its footprint along and across the view.
    height = np.float32(-rays.origin[1])
    footprint = depth * np.float32(rays.spacing) * np.sqrt(np.maximum(depth / height, 1))
    level = np.log2(np.maximum(footprint * GROUND_DENSITY, 1))
    u, v = lateral.astype(np.float32), s.astype(np.float32)
    detail = atlas().sample(texture, u * GROUND_DENSITY, v * GROUND_DENSITY, level)[:, :3] / NEUTRAL
    blotch = (
        atlas().sample(BLOTCH, u * BLOTCH_DENSITY, v * (0.6 * BLOTCH_DENSITY), level - 1)[:, :1] / NEUTRAL
    )
    base *= detail * (0.70 + 0.30 * blotch)
    paint = _markings(world.road, s, lateral, footprint, ids == RawId.ROAD)[:, None]
    base = base * (1 - paint) + np.float32(0.74) * paint * (0.6 + 0.4 * detail)
    sun, sky = shadows.blocked(x, z)
    weather = world.weather
    light = weather.ambient * (1 - (1 - UNDERSIDE) * sky) + 1.25 * weather.sun_strength * (1 - sun)
    kerb = raised & (y > -0.11)
    light = np.where(kerb, light * 1.12, light)
    return np.asarray(base * light[:, None], np.float32)


def _markings(
    road: Road, s: FloatArray, lateral: FloatArray, footprint: FloatArray, on_road: npt.NDArray[np.bool_]
) -> FloatArray:
    """Share of every ground sample that is painted white, faded to its average where lines get thin."""
    paint = np.zeros(len(s), np.float32)
    clear = on_road.copy()
    for street in road.side_streets:
        clear &= np.abs(s - street.s) > street.half_width + 1.2
    lines = [(0.0, 0.07, 3.0 if road.left.lanes == 1 else 0.0)]
    for sign in (-1, 1):
        side = road.side(sign)
        lines += [(sign * k * road.lane_width, 0.06, 3.0) for k in range(1, side.lanes)]
        edge = road.edge(sign) - (PARKING_STRIP_M if side.parking else 0.22)
        lines.append((sign * edge, 0.05, 0.0))
    for centre, half_width, dash in lines:
        across = np.clip((half_width - np.abs(lateral - centre)) / np.maximum(footprint, 0.02) + 0.5, 0, 1)
        # Thinner than its footprint, a line covers only part of it.
        across = across * np.minimum(2 * half_width / np.maximum(footprint, 0.02), 1)
        along = ((s + 100) % (2 * dash) < dash) if dash else True
        paint = np.maximum(paint, np.where(clear & along, across, 0).astype(np.float32))
    for street in road.side_streets:
        if not street.zebra:
            continue
        # Two zebra crossings, and a stop line before the near one.
        for end in (-1, 1):
            inside = np.abs(s - street.s - end * (street.half_width + 1.6)) < 1.2
            stripe = (lateral + 50) % 1.0 < 0.5
            share = np.where(footprint < 0.5, stripe.astype(np.float32), 0.5)
            paint = np.where(on_road & inside, 0.9 * share, paint)
        stop = on_road & (lateral > 0) & (np.abs(s - street.s + street.half_width + 3.6) < 0.2)
        paint = np.where(stop, 0.9, paint)
    return np.asarray(0.85 * paint, np.float32)


def _shade_solid(
    world: World,
    placed: PlacedPrimitives,
    index: npt.NDArray[np.int32],
    points: tuple[FloatArray, ...],
    depth: FloatArray,
    directions: tuple[FloatArray, ...],
    rays: Rays,
    shadows: ShadowMap,
) -> FloatArray:
    primitives = placed.primitives
    c, s = np.cos(placed.yaw)[index], np.sin(placed.yaw)[index]
    centre, half = placed.centre[index], primitives.half[index]
    dx, dy, dz = (axis - centre[:, k] for k, axis in enumerate(points))
    local = np.stack([c * dx - s * dz, dy, s * dx + c * dz])
    normal = _normals(primitives.shape[index], local, half.T, primitives.inset[index].T)
    axis = np.abs(normal).argmax(0)
    u = np.where(axis == 0, local[2], local[0])
    v = np.where(axis == 1, local[2], local[1])
    # Tread, not hub: the outer texels of a wheel's tile belong to its running surface.
    tread = (primitives.shape[index] == Shape.CYLINDER_X) & (axis != 0)
    offset = np.where(tread[:, None], 0, primitives.offset[index])
    u, v = np.where(tread, 0, u), np.where(tread, 0, v)
    world_normal = np.stack([c * normal[0] + s * normal[2], normal[1], c * normal[2] - s * normal[0]])
    length = np.sqrt(directions[0] ** 2 + directions[1] ** 2 + directions[2] ** 2)
    facing = np.abs(sum(n * d for n, d in zip(world_normal, directions))) / length
    density = primitives.density[index]
    level = np.log2(
        np.maximum(depth * np.float32(rays.spacing) * density / np.sqrt(np.maximum(facing, 0.06)), 1)
    )
    texture = primitives.texture[index]
    # Where the tint is zero the texture holds final colours: 255, not NEUTRAL, is one.
    tile = atlas().sample(texture, u * density + offset[:, 0], v * density + offset[:, 1], level) / NEUTRAL
    tint = tile[:, 3:] * np.float32(NEUTRAL / 255)
    own = primitives.colour[index]
    albedo = tile[:, :3] * (own * tint + np.float32(0.5) * (1 - tint))
    weather = world.weather
    sun = weather.sun.astype(np.float32)
    lambert = np.clip(np.tensordot(sun, world_normal, 1), 0, 1)
    # Vehicles and people stand in the shadow that falls on the ground below them; buildings do not.
    small = primitives.object_index[index] > 0
    blocked = np.zeros(len(index), np.float32)
    if weather.sun_strength > 0 and small.any():
        blocked[small] = shadows.blocked_by_static(points[0][small], points[2][small])
    # Surfaces that face the ground see less of the sky.
    ambient = weather.ambient * (0.80 - 0.20 * world_normal[1])
    light = ambient + 1.15 * weather.sun_strength * lambert * (1 - blocked)
    return np.asarray(albedo * light[:, None], np.float32)


def _normals(
    shape: npt.NDArray[np.int32], local: FloatArray, half: FloatArray, inset: FloatArray
) -> FloatArray:
    """(3, N) outward unit normals of primitives at surface points, in their own frames."""
    normal = np.zeros_like(local)
    scaled = local / half
    for kind in Shape:
        chosen = np.nonzero(shape == kind)[0]
        if not len(chosen):
            continue
        q, h = scaled[:, chosen], half[:, chosen]
        if kind == Shape.BOX:
            axis = np.abs(q).argmax(0)
            normal[axis, chosen] = np.sign(q[axis, np.arange(len(chosen))])
        elif kind == Shape.HULL:
            normal[:, chosen] = _hull_normals(local[:, chosen], h, inset[:, chosen])
        else:
            gradient = q / h
            flat = kind - Shape.CYLINDER_X
            if kind != Shape.ELLIPSOID:
                cap = np.abs(q[flat]) > 0.999
                gradient[flat] = 0
                gradient[:, cap] = 0
                gradient[flat, cap] = np.sign(q[flat, cap])
            normal[:, chosen] = gradient / np.maximum(np.sqrt((gradient**2).sum(0)), 1e-9)
    return normal


def _hull_normals(local: FloatArray, half: FloatArray, inset: FloatArray) -> FloatArray:
    """Normal of the side that a point is nearest to."""
    x, y, z = local
    hx, hy, hz = half
    best = hy - np.abs(y)
    zero = np.zeros_like(best)
    normal = np.stack([zero, np.sign(y), zero])
    sides = ((0, -1, x, hx), (0, 1, x, hx), (2, -1, z, hz), (2, 1, z, hz))
    for number, (axis, sign, p, h) in enumerate(sides):
        k = inset[number] / (2 * hy)
        scale = 1 / np.sqrt(1 + k * k)
        distance = np.abs(h - (sign * p + k * (hy - y))) * scale
        nearer = distance < best
        best = np.where(nearer, distance, best)
        side = np.stack([zero, -k * scale, zero])
        side[axis] = sign * scale
        normal = np.where(nearer, side, normal)
    return np.asarray(normal, np.float32)
