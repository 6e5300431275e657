import numpy as np
import pytest

from gestalt.scenes.raw_ids import RawId
from gestalt.scenes.road import Road, RoadSide, SideStreet

SIDE = RoadSide(lanes=1, parking=True, verge=1.0, sidewalk=2.0, green=True)


@pytest.mark.parametrize("curvature", [0.0, 1 / 150, -1 / 90])
def test_locate_undoes_place(curvature: float) -> None:
    road = Road(curvature, 3.2, SIDE, SIDE, ())
    for s, lateral in ((0.0, 0.0), (40.0, -6.0), (-8.0, 12.0), (120.0, 3.0)):
        x, z, _ = road.place(s, lateral)
        found_s, found_lateral = road.locate(np.array(x), np.array(z))
        assert float(found_s) == pytest.approx(s, abs=1e-6)
        assert float(found_lateral) == pytest.approx(lateral, abs=1e-6)


def test_a_right_bend_goes_to_the_right() -> None:
    x, _, heading = Road(1 / 100, 3.2, SIDE, SIDE, ()).place(30.0, 0.0)
    assert x > 4
    assert heading > 0


def test_the_ground_is_road_verge_sidewalk_terrain_from_the_centre_outwards() -> None:
    road = Road(0.0, 3.2, SIDE, SIDE, ())
    edge = road.edge(1)
    lateral = np.array([0.0, edge - 0.1, edge + 0.5, edge + 2.0, edge + 3.5])
    s = np.zeros(5)
    raised = road.is_raised(s, lateral)
    assert raised.tolist() == [False, False, True, True, True]
    wanted = [RawId.ROAD, RawId.ROAD, RawId.TERRAIN, RawId.SIDEWALK, RawId.TERRAIN]
    assert road.ground_ids(s, lateral, raised).tolist() == wanted
    np.testing.assert_array_equal(road.is_raised(s, -lateral), raised)


def test_a_side_street_is_road_as_far_as_one_sees_and_has_paved_banks() -> None:
    road = Road(0.0, 3.2, SIDE, SIDE, (SideStreet(20.0, 3.0, zebra=True),))
    s, lateral = np.array([20.0, 24.0, 30.0]), np.full(3, 25.0)
    raised = road.is_raised(s, lateral)
    assert raised.tolist() == [False, True, True]
    assert road.ground_ids(s, lateral, raised).tolist() == [RawId.ROAD, RawId.SIDEWALK, RawId.TERRAIN]
