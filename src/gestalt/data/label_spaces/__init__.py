"""Label spaces of ground truth, and tables from each data set's raw ids; the data files lie beside this."""

from __future__ import annotations

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
SAME_IDS_AS = {"kitti_panoptic": "cityscapes"}


@cache
def load_label_space(name: str) -> LabelSpace:
    """The label space ``cityscapes27``, ``cityscapes19``, ``cityscapes7`` or ``mots2``.

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
        dataset: ``cityscapes``, ``kitti_panoptic``, ``bdd``, ``waymo`` or ``mots``.
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


def _dataset(name: str) -> str:
    known = sorted(path.stem.removeprefix(RAW_IDS) for path in FOLDER.glob(f"{RAW_IDS}*.yaml"))
    dataset = SAME_IDS_AS.get(name, name)
    if dataset not in known:
        raise ConfigError(f"no table of raw ids for {name!r}; known: {', '.join([*known, *SAME_IDS_AS])}")
    return dataset


@cache
def _read(path: Path) -> Any:
    return YAML(typ="safe").load(path)
