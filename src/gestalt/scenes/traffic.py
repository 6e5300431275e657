"""Vehicles, cyclists and people: where they are and how they move."""

from __future__ import annotations

import numpy as np

from gestalt.config.scenes import TrafficSettings
from gestalt.scenes import people, vehicles
from gestalt.scenes.motion import SceneObject
from gestalt.scenes.primitives import Sketch
from gestalt.scenes.raw_ids import RawId
from gestalt.scenes.road import KERB_M, PARKING_STRIP_M, Road, SideStreet

# Objects farther than this at time 0 are left out; detail falls with distance.
VISIBLE_M = 95.0
DETAIL_M = (24.0, 55.0)
FREE_AHEAD_M = 9.0


class Traffic:
    """Puts vehicles and people into a sketch and keeps the list of objects."""

    def __init__(
        self,
        sketch: Sketch,
        road: Road,
        settings: TrafficSettings,
        *,
        camera_position: tuple[float, float],
        camera_speed: float,
    ) -> None:
        self.sketch, self.road, self.settings = sketch, road, settings
        self.camera_position, self.camera_speed = camera_position, camera_speed
        self.objects: list[SceneObject] = [SceneObject(RawId.ROAD, (0.0, 0.0, 0.0), 0.0)]
        self.camera_lateral = float(
            road.locate(np.array(camera_position[0]), np.array(camera_position[1]))[1]
        )

    def park(self) -> None:
        """Vehicles along the kerbs."""
        rng = self.sketch.rng
        for sign in (-1, 1):
            if not self.road.side(sign).parking:
                continue
            lateral = sign * (self.road.edge(sign) - PARKING_STRIP_M / 2)
            s = rng.uniform(-4, 2)
            while s < 80:
                free = self.road.near_side_street(s + 2.5, 4.0)
                if not free and rng.random() < self.settings.parking_occupancy:
                    along = sign > 0 or rng.random() < 0.15
                    length = self._vehicle(s + 2.5, lateral + rng.normal(0, 0.08), along, 0.0, parked=True)
                    s += length + rng.uniform(0.7, 1.8)
                else:
                    s += rng.uniform(5, 7)

    def drive(self) -> None:
        """Vehicles in the lanes and on side streets, and cyclists."""
        rng, road = self.sketch.rng, self.road
        crossing = []
        for street in road.side_streets:
            if rng.random() < self.settings.crossing_share:
                self._cross(street)
                crossing.append(street)
        for sign in (-1, 1):
            for lane in range(road.side(sign).lanes):
                self._fill_lane(sign, sign * (lane + 0.5) * road.lane_width, crossing)
        for _ in range(int(rng.poisson(self.settings.cyclists))):
            sign = int(rng.choice([-1, 1]))
            edge = road.edge(sign) - (PARKING_STRIP_M if road.side(sign).parking else 0)
            s = rng.uniform(5, 40)
            if any(abs(s - street.s) < street.reach for street in crossing):
                continue
            self._cyclist(s, sign * (edge - 0.55), sign > 0, rng.uniform(3, 6.5))

    def walk(self) -> None:
        """People on the sidewalks and on the road, and bicycles that lean at the wall."""
        rng, road = self.sketch.rng, self.road
        for sign in (-1, 1):
            side = road.side(sign)
            for _ in range(int(rng.poisson(self.settings.people_per_100m * 0.6))):
                s = rng.uniform(3, 60)
                distance = road.edge(sign) + side.verge + rng.uniform(0.3, max(side.sidewalk - 0.3, 0.5))
                group = 1 + int(rng.random() < 0.25)
                direction, moves = bool(rng.random() < 0.5), rng.random() < 0.78
                speed = rng.uniform(0.9, 1.8) if moves else 0.0
                for member in range(group):
                    lateral = sign * (distance + 0.6 * member)
                    self._person(s + rng.normal(0, 0.3) * member, lateral, 0.0 if direction else np.pi, speed)
            for _ in range(int(rng.poisson(0.35))):
                s = rng.uniform(4, 35)
                for member in range(int(rng.integers(1, 4))):
                    lateral = sign * (road.outer(sign) - 0.5)
                    self._bicycle(s + 0.7 * member, lateral, rng.normal(0, 0.2) + np.pi / 2)
        for street in road.side_streets:
            if street.zebra and rng.random() < 0.6:
                for _ in range(int(rng.integers(1, 4))):
                    s = street.s - street.half_width - rng.uniform(0.8, 2.2)
                    self._pedestrian_crossing(s)
        if rng.random() < 0.2:
            self._pedestrian_crossing(rng.uniform(11, 30))

    def _fill_lane(self, sign: int, lateral: float, crossing: list[SideStreet]) -> None:
        rng = self.sketch.rng
        own = sign > 0 and abs(lateral - self.camera_lateral) < 0.6 * self.road.lane_width
        s = FREE_AHEAD_M + rng.exponential(26) if own else rng.uniform(0, 26)
        pace = max(self.camera_speed, 2.0) if sign > 0 else rng.uniform(5, 12)
        # A waiting camera mostly waits behind others.
        queue = sign > 0 and self.camera_speed == 0 and rng.random() < 0.6
        while s < VISIBLE_M:
            speed = 0.0 if queue else max(pace + rng.normal(0, 1.8), 1.5)
            if not any(abs(s - street.s) < street.half_width + 5 for street in crossing):
                s += self._vehicle(s + 2.5, lateral + rng.normal(0, 0.15), sign > 0, speed)
            else:
                s += 5
            s += (
                rng.uniform(1.5, 3) if queue else 4 + rng.exponential(max(self.settings.vehicle_gap_m - 4, 1))
            )

    def _cross(self, street: SideStreet) -> None:
        rng = self.sketch.rng
        sign = int(rng.choice([-1, 1]))
        # Traffic keeps right: what goes to the right (+x) uses the near half of the side street.
        s = street.s - sign * street.half_width / 2
        lateral = rng.uniform(-11, 11)
        x, z, heading = self.road.place(s, lateral)
        yaw = heading + sign * np.pi / 2
        self._draw_vehicle((x, z), yaw, rng.uniform(3, 9), 0.0, parked=False)

    def _pedestrian_crossing(self, s: float) -> None:
        rng = self.sketch.rng
        sign = float(rng.choice([-1, 1]))
        lateral = rng.uniform(-self.road.edge(-1) + 0.3, self.road.edge(1) - 0.3)
        self._person(s, lateral, sign * np.pi / 2, rng.uniform(0.9, 2.0))

    def _vehicle(self, s: float, lateral: float, along: bool, speed: float, *, parked: bool = False) -> float:
        x, z, heading = self.road.place(s, lateral)
        rng = self.sketch.rng
        yaw = heading + (0.0 if along else np.pi) + rng.normal(0, 0.015)
        curvature = self.road.curvature / (1 - lateral * self.road.curvature)
        yaw_rate = speed * curvature * (1 if along else -1)
        return self._draw_vehicle((x, z), yaw, speed, yaw_rate, parked=parked)

    def _draw_vehicle(
        self, position: tuple[float, float], yaw: float, speed: float, yaw_rate: float, *, parked: bool
    ) -> float:
        rng = self.sketch.rng
        shares = (0.97, 0.03, 0.0) if parked else (0.92, 0.055, 0.025)
        kind = int(rng.choice(3, p=shares))
        raw_id = (RawId.CAR, RawId.TRUCK, RawId.BUS)[kind]
        draw = (vehicles.draw_car, vehicles.draw_truck, vehicles.draw_bus)[kind]
        detail = self._begin(raw_id, (position[0], 0.0, position[1]), yaw, speed, yaw_rate)
        return draw(self.sketch, detail)

    def _cyclist(self, s: float, lateral: float, along: bool, speed: float) -> None:
        x, z, heading = self.road.place(s, lateral)
        yaw = heading + (0.0 if along else np.pi)
        yaw_rate = speed * self.road.curvature / (1 - lateral * self.road.curvature) * (1 if along else -1)
        people.draw_rider(self.sketch, self._begin(RawId.RIDER, (x, 0.0, z), yaw, speed, yaw_rate))
        vehicles.draw_bicycle(self.sketch, self._begin(RawId.BICYCLE, (x, 0.0, z), yaw, speed, yaw_rate))

    def _bicycle(self, s: float, lateral: float, turned: float) -> None:
        x, z, heading = self.road.place(s, lateral)
        height = self._ground(s, lateral)
        detail = self._begin(RawId.BICYCLE, (x, height, z), heading + turned, 0.0, 0.0)
        vehicles.draw_bicycle(self.sketch, detail)

    def _person(self, s: float, lateral: float, direction: float, speed: float) -> None:
        rng = self.sketch.rng
        x, z, heading = self.road.place(s, lateral)
        yaw = heading + direction + rng.normal(0, 0.15 if speed else 1.0)
        detail = self._begin(RawId.PERSON, (x, self._ground(s, lateral), z), yaw, speed, 0.0)
        stride = rng.uniform(0.10, 0.30) if speed else rng.uniform(0.0, 0.06)
        people.draw_person(self.sketch, stride=stride, detail=detail)

    def _ground(self, s: float, lateral: float) -> float:
        return -KERB_M if bool(self.road.is_raised(np.array(s), np.array(lateral))) else 0.0

    def _begin(
        self, raw_id: RawId, position: tuple[float, float, float], yaw: float, speed: float, yaw_rate: float
    ) -> int:
        """Start a new object; what is drawn next belongs to it. Returns its level of detail."""
        self.objects.append(SceneObject(raw_id, position, float(yaw), float(speed), float(yaw_rate)))
        self.sketch.object_index = len(self.objects) - 1
        distance = np.hypot(position[0] - self.camera_position[0], position[2] - self.camera_position[1])
        return 2 - sum(bool(distance > limit) for limit in DETAIL_M)
