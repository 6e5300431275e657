"""Label spaces of ground truth, and tables from each data set's raw ids; the data files lie beside this."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ruamel.yaml import YAML

from gestalt.errors import ConfigError
from gestalt.panoptic import VOID, LabelClass, LabelSpace

FOLDER = Path(__file__).parent
RAW_IDS = "raw_ids_"
# Data sets that use the ids of another one.
SAME_IDS_AS = {"kitti_mots": "mots", "kitti_panoptic": "cityscapes", "muses": "cityscapes"}


@dataclass(frozen=True)
class RawClass:
    """A class as its data set numbers and calls it.

    Attributes:
        raw_id: Its number there.
        name: Its name there.
        is_thing: Whether it is countable in the first of the data set's label spaces that knows it.
        is_void: Whether no label space knows it.
    """

    raw_id: int
    name: str
    is_thing: bool
    is_void: bool


@cache
def load_label_space(name: str) -> LabelSpace:
    """The label space ``cityscapes27``, ``cityscapes19``, ``cityscapes7``, ``kitti_step19``, ``mots3`` or ``mots2``.

    Raises:
        ConfigError: There is no such label space.
    """
    known = sorted(path.stem for path in FOLDER.glob("*.yaml") if not path.stem.startswith(RAW_IDS))
    if name not in known:
        raise ConfigError(f"the label space is {name!r}; known label spaces: {', '.join(known)}")
    content = _read(FOLDER / f"{name}.yaml")
    classes = tuple(
        LabelClass(entry["id"], entry["name"], entry["is_thing"], tuple(entry["colour"]))
        for entry in content["classes"]
    )
    return LabelSpace(content["name"], classes)


@cache
def raw_id_table(dataset: str, space: str) -> npt.NDArray[np.uint8]:
    """Lookup from a data set's raw ids to a label space.

    Args:
        dataset: ``cityscapes``, ``kitti_panoptic``, ``muses``, ``bdd``, ``waymo``, ``mots``, ``kitti_mots`` or
            ``kitti_step``.
        space: A label space that the data set is annotated finely enough for.

    Returns:
        (256,) uint8, read-only: raw id -> id of the space, 255 where void.

    Raises:
        ConfigError: The data set is unknown or has no such label space.
    """
    content = _read(FOLDER / f"{RAW_IDS}{_dataset(dataset)}.yaml")
    if space not in content["spaces"]:
        raise ConfigError(
            f"ground truth of {dataset} has no label space {space!r}; it has: {', '.join(content['spaces'])}"
        )
    table = np.full(256, VOID, np.uint8)
    for entry in content["classes"]:
        table[entry["raw_id"]] = entry.get(space, VOID)
    table.setflags(write=False)
    return table


def raw_ids_by_name(dataset: str) -> dict[str, int]:
    """Raw id of each class of a data set, by the class's name.

    Raises:
        ConfigError: The data set is unknown.
    """
    classes = _read(FOLDER / f"{RAW_IDS}{_dataset(dataset)}.yaml")["classes"]
    return {entry["name"]: entry["raw_id"] for entry in classes}


@cache
def raw_classes(dataset: str) -> tuple[RawClass, ...]:
    """All classes of a data set, in the order of its table.

    Raises:
        ConfigError: The data set is unknown.
    """
    content = _read(FOLDER / f"{RAW_IDS}{_dataset(dataset)}.yaml")
    things = {space: set(load_label_space(space).thing_ids) for space in content["spaces"]}
    classes = []
    for entry in content["classes"]:
        known = [space for space in content["spaces"] if space in entry]
        is_thing = bool(known) and entry[known[0]] in things[known[0]]
        classes.append(RawClass(entry["raw_id"], entry["name"], is_thing, not known))
    return tuple(classes)


def spaces_of(dataset: str) -> tuple[str, ...]:
    """Label spaces that a data set is annotated finely enough for, in the order of its table.

    Raises:
        ConfigError: The data set is unknown.
    """
    return tuple(_read(FOLDER / f"{RAW_IDS}{_dataset(dataset)}.yaml")["spaces"])


def _dataset(name: str) -> str:
    known = sorted(path.stem.removeprefix(RAW_IDS) for path in FOLDER.glob(f"{RAW_IDS}*.yaml"))
    dataset = SAME_IDS_AS.get(name, name)
    if dataset not in known:
        raise ConfigError(f"no table of raw ids for {name!r}; known: {', '.join([*known, *SAME_IDS_AS])}")
    return dataset


@cache
def _read(path: Path) -> Any:
    return YAML(typ="safe").load(path)
