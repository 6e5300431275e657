import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from gestalt.config.presets import default_settings
from gestalt.scenes.primitives import STATIC
from gestalt.scenes.raw_ids import RawId
from gestalt.scenes.world import World
from tests.scenes.worlds import batch, world


def fields_equal(first: World, second: World) -> bool:
    pairs = dataclasses.fields(first.primitives)
    arrays = all(
        np.array_equal(getattr(first.primitives, f.name), getattr(second.primitives, f.name)) for f in pairs
    )
    return arrays and first.objects == second.objects and first.road == second.road


def test_a_world_depends_on_its_index_and_on_nothing_built_before() -> None:
    forwards = [batch().world(index) for index in range(3)]
    backwards = [batch().world(index) for index in (2, 1, 0)][::-1]
    for first, second in zip(forwards, backwards):
        assert fields_equal(first, second)
    assert not fields_equal(forwards[0], forwards[1])


def test_batches_and_seeds_show_different_worlds() -> None:
    here = batch()
    for other in (dataclasses.replace(here, name="village"), dataclasses.replace(here, seed=4)):
        assert not fields_equal(here.world(0), other.world(0))


def test_vehicles_keep_their_lane_on_a_bend() -> None:
    found = 0
    for index in range(12):
        scene = world(index)
        for item in scene.objects[1:]:
            if scene.road.curvature and item.raw_id == RawId.CAR and item.speed and item.yaw_rate:
                places = [item.pose(time)[0] for time in (0.0, 1.0)]
                lateral = [float(scene.road.locate(p[0], p[2])[1]) for p in places]
                # They start with a small turn out of the lane's direction.
                assert abs(lateral[1] - lateral[0]) < 0.06 * item.speed
                found += 1
    assert found > 5


def test_everything_that_moves_moves_at_its_speed_along_its_front() -> None:
    scene = world(1)
    for item in scene.objects[1:]:
        (start, yaw), (end, _) = item.pose(0.0), item.pose(1e-3)
        velocity = (end - start) / 1e-3
        wanted = item.speed * np.array([np.sin(yaw), 0, np.cos(yaw)])
        np.testing.assert_allclose(velocity, wanted, atol=0.05)


def test_the_camera_waits_as_often_as_asked() -> None:
    traffic = default_settings("scenes").traffic
    for share, still in ((0.0, False), (1.0, True)):
        settings = dataclasses.replace(traffic, still_camera_share=share)
        camera = batch(traffic=settings).world(0).camera
        assert (camera.speed == 0) == still
        if still:
            np.testing.assert_array_equal(camera.pose(0.0)[0], camera.pose(0.24)[0])


def test_densities_change_what_stands_on_the_street() -> None:
    traffic = default_settings("scenes").traffic

    def count(raw_id: RawId, *, moving: bool, **values: float) -> int:
        settings = dataclasses.replace(traffic, **values)
        objects = [item for i in range(6) for item in batch(traffic=settings).world(i).objects[1:]]
        return sum(item.raw_id == raw_id and item.is_moving == moving for item in objects)

    assert count(RawId.PERSON, moving=True, people_per_100m=30.0) > 2 * count(
        RawId.PERSON, moving=True, people_per_100m=3.0
    )
    parked = {"still_camera_share": 0.0, "parking_occupancy": 1.0}
    assert count(RawId.CAR, moving=False, parking_share=0.0, **parked) == 0
    assert count(RawId.CAR, moving=False, parking_share=1.0, **parked) > 60


def test_a_rider_and_the_bicycle_move_as_one() -> None:
    pairs = 0
    for index in range(12):
        objects = world(index).objects
        for rider, bicycle in pairwise(objects):
            if rider.raw_id == RawId.RIDER:
                assert bicycle.raw_id == RawId.BICYCLE
                assert rider.pose(0.2)[0] == pytest.approx(bicycle.pose(0.2)[0])
                pairs += 1
    assert pairs > 0


def test_every_object_has_primitives_of_its_own_class() -> None:
    scene = world(2)
    for index, item in enumerate(scene.objects):
        if index != STATIC:
            own = scene.primitives.object_index == index
            assert own.any()
            assert (scene.primitives.raw_id[own] == item.raw_id).all()
