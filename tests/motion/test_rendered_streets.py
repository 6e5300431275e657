"""Rendered streets with exact measurements: what moves and can be measured is found, and nothing where all stands."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import numpy as np
import pytest

from benchmarks.motion_quality import Judgement, Trial, judge, measure, search
from benchmarks.rendered_streets import Place, Street, render_street
from gestalt.config.presets import default_settings
from gestalt.motion.rigid_objects import NO_OBJECT, RigidObjects
from gestalt.panoptic import INSTANCES_PER_CLASS

SCENES = default_settings("scenes", antialiasing="none")
TRIAL = Trial(
    "exact", default_settings("motion", "exact"), "cpu", with_images=False, cache_dir=Path("unused")
)
PLACES = [Place(2, "town", index, SCENES) for index in range(5)]
# Of smaller ones a handful of grid cells is seen.
LARGE_PX = 256


def found_in(place: Place, street: Street) -> RigidObjects:
    return search(street, street.measurement(), TRIAL, place)


@pytest.fixture(scope="module")
def judged() -> list[Judgement]:
    streets = [(place, render_street(place)) for place in PLACES]
    return [judge(place.frame_id, street, found_in(place, street)) for place, street in streets]


def test_large_measurable_objects_are_found(judged: list[Judgement]) -> None:
    large = [
        item for one in judged for item in one.objects if item.is_measurable and item.area_px >= LARGE_PX
    ]
    assert len(large) >= 20
    missed = [item for item in large if not item.is_hit]
    assert len(missed) <= 1, missed
    assert statistics.fmean(item.iou for item in large) > 0.8


def test_most_small_measurable_objects_are_found_too(judged: list[Judgement]) -> None:
    measurable = [item.is_hit for one in judged for item in one.objects if item.is_measurable]
    assert statistics.fmean(measurable) > 0.85


def test_hardly_a_mask_is_wrong(judged: list[Judgement]) -> None:
    n_hits = sum(item.is_hit and item.is_measurable for one in judged for item in one.objects)
    wrong = [mask for one in judged for mask in one.false_masks["measurable"]]
    assert n_hits >= 20
    assert len(wrong) <= 2, wrong


@pytest.mark.parametrize(
    ("place", "drives"), [(PLACES[0], True), (PLACES[1], False)], ids=["drives", "waits"]
)
def test_the_same_street_with_everything_at_rest_has_no_proposal(place: Place, drives: bool) -> None:
    street = render_street(place, standing=True)
    on_objects = street.exact["instance_values"] >= INSTANCES_PER_CLASS
    assert on_objects.sum() > 1000
    # To a camera that drives, what stands moves, too.
    assert (np.nanmax(np.abs(street.exact["optical_flow_forward"][:, on_objects])) > 1) == drives
    assert len(street.moving) == 0
    found = found_in(place, street)
    assert found.reason == NO_OBJECT
    assert not found.instance_map.any()


def test_one_camera_finds_fewer_and_is_seldom_wrong() -> None:
    motion = dataclasses.replace(default_settings("motion"), source="monocular")
    trial = dataclasses.replace(TRIAL, motion=motion, with_images=True)
    judged = []
    for place in PLACES:
        street = render_street(place)
        found = search(street, measure(street, trial), trial, place)
        assert {proposal.source for proposal in found.proposals} <= {"monocular"}
        judged.append(judge(place.frame_id, street, found))
    n_hits = sum(item.is_hit and item.is_counted for one in judged for item in one.objects)
    wrong = [mask for one in judged for mask in one.false_masks["moving"]]
    assert n_hits >= 10
    assert len(wrong) <= 3, wrong
