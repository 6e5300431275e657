"""Cityscapes raw ids of everything that stands in a rendered world, and their ids in other data sets."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt


class RawId(IntEnum):
    """Cityscapes raw id (``id`` of the official label table, not ``trainId``)."""

    ROAD = 7
    SIDEWALK = 8
    BUILDING = 11
    WALL = 12
    FENCE = 13
    POLE = 17
    TRAFFIC_LIGHT = 19
    TRAFFIC_SIGN = 20
    VEGETATION = 21
    TERRAIN = 22
    SKY = 23
    PERSON = 24
    RIDER = 25
    CAR = 26
    TRUCK = 27
    BUS = 28
    BICYCLE = 33


THINGS = (RawId.PERSON, RawId.RIDER, RawId.CAR, RawId.TRUCK, RawId.BUS, RawId.BICYCLE)

# Ids of the same classes in BDD100K panoptic (1..40) and in the Waymo Open Dataset (0..28). Waymo has no
# wall, fence or terrain: the first two belong to building there, the last to "ground" (26).
BDD_IDS = {
    RawId.ROAD: 7,
    RawId.SIDEWALK: 8,
    RawId.BUILDING: 10,
    RawId.WALL: 15,
    RawId.FENCE: 11,
    RawId.POLE: 20,
    RawId.TRAFFIC_LIGHT: 25,
    RawId.TRAFFIC_SIGN: 26,
    RawId.VEGETATION: 29,
    RawId.TERRAIN: 28,
    RawId.SKY: 30,
    RawId.PERSON: 31,
    RawId.RIDER: 32,
    RawId.CAR: 35,
    RawId.TRUCK: 40,
    RawId.BUS: 34,
    RawId.BICYCLE: 33,
}
WAYMO_IDS = {
    RawId.ROAD: 20,
    RawId.SIDEWALK: 23,
    RawId.BUILDING: 19,
    RawId.WALL: 19,
    RawId.FENCE: 19,
    RawId.POLE: 15,
    RawId.TRAFFIC_LIGHT: 18,
    RawId.TRAFFIC_SIGN: 17,
    RawId.VEGETATION: 24,
    RawId.TERRAIN: 26,
    RawId.SKY: 25,
    RawId.PERSON: 9,
    RawId.RIDER: 10,
    RawId.CAR: 2,
    RawId.TRUCK: 3,
    RawId.BUS: 4,
    RawId.BICYCLE: 6,
}


def id_table(ids: dict[RawId, int]) -> npt.NDArray[np.uint8]:
    """(256,) uint8 lookup from Cityscapes raw ids to the ids of another data set; 0 elsewhere."""
    table = np.zeros(256, np.uint8)
    for raw_id, other in ids.items():
        table[raw_id] = other
    return table
