"""Evaluation protocols as data: a YAML file says all that a number depends on besides the prediction.

The name and the hash of its protocol stand beside every metric, so that two numbers are comparable exactly
when both agree.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gestalt.errors import ConfigError
from gestalt.evaluation.matching import LEFT_OVER_RULES, LeftOver
from gestalt.evaluation.panoptic_quality import CONVENTIONS, VOID_NEUTRAL
from gestalt.panoptic import LabelSpace

FOLDER = Path(__file__).parent / "protocols"

# Things with things and stuff with stuff, or everything with everything.
MATCHINGS = ("apart", "joint")

# Thing regions without an instance: one ordinary segment, or a crowd.
GROUP_REGIONS = ("segment", "crowd")

# What the intervals of a number are drawn over.
UNITS = ("image", "sequence")

# Fields that are pairs (height, width).
SIZES = ("image_size", "crop")

HASH_LENGTH = 12


@dataclass(frozen=True)
class Protocol:
    """Everything that a number depends on besides the prediction.

    Attributes:
        name: File name without ending.
        meaning: One line for the report.
        dataset: Adapter of the ground truth.
        split: Which images, in words.
        n_images: How many they are; None where that is not fixed. With fewer, a number is of a part of the benchmark.
        rendered: The images are rendered: never to be put in one column with real ones.
        image_size: Required (height, width) of the ground truth; None takes what comes.
        short_side_px: Both maps are resized, nearest neighbour, so that the short side has this length; None keeps
            their size.
        crop: (height, width) of the central window that counts, after resizing; None counts all.
        label_space: Name of the classes.
        ignored_classes: Names of classes that the data set does not annotate; in no mean.
        matching: ``apart`` or ``joint``, for panoptic quality; semantic quality is always joint.
        left_over: What unmatched pseudo-classes get.
        conventions: First the primary one.
        group_regions: Per convention, ``segment`` or ``crowd``.
        min_object_px: Smaller true objects are void.
        min_stuff_px: Smaller predicted stuff segments are void, per pseudo-class and image.
        unit: ``image`` or ``sequence``, what the intervals of the numbers are drawn over.
    """

    name: str
    meaning: str
    dataset: str
    split: str
    n_images: int | None
    rendered: bool
    image_size: tuple[int, int] | None
    short_side_px: int | None
    crop: tuple[int, int] | None
    label_space: str
    ignored_classes: tuple[str, ...]
    matching: str
    left_over: LeftOver
    conventions: tuple[str, ...]
    group_regions: Mapping[str, str]
    min_object_px: int
    min_stuff_px: int
    unit: str

    def __post_init__(self) -> None:
        where = f"protocol {self.name}"
        _check_choice(f"{where}: matching", self.matching, MATCHINGS)
        _check_choice(f"{where}: left_over", self.left_over, LEFT_OVER_RULES)
        _check_choice(f"{where}: unit", self.unit, UNITS)
        for name, limit in (
            ("n_images", self.n_images),
            ("short_side_px", self.short_side_px),
            ("min_object_px", self.min_object_px),
            ("min_stuff_px", self.min_stuff_px),
        ):
            if limit is not None and (not isinstance(limit, int) or limit < 0):
                raise ConfigError(f"{where}: {name} must be a whole number from 0. Got: {limit!r}")
        if not self.conventions:
            raise ConfigError(f"{where}: conventions is empty; name at least one of {', '.join(CONVENTIONS)}")
        for convention in self.conventions:
            _check_choice(f"{where}: conventions", convention, CONVENTIONS)
            _check_choice(f"{where}: group_regions", self.group_regions.get(convention), GROUP_REGIONS)

    @property
    def primary(self) -> str:
        """The convention that headline numbers follow."""
        return self.conventions[0]

    @property
    def void_is_wrong(self) -> bool:
        """Whether unlabelled pixels are errors in mIoU and accuracy: where no convention forgives them."""
        return VOID_NEUTRAL not in self.conventions

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that change with any field."""
        content = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(content.encode("utf-8")).hexdigest()[:HASH_LENGTH]

    @property
    def label(self) -> str:
        """``name@hash``, as it stands beside metrics."""
        return f"{self.name}@{self.hash}"

    def to_dict(self) -> dict[str, Any]:
        """Every field, for JSON."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            key: list(value)
            if isinstance(value, tuple)
            else dict(value)
            if isinstance(value, Mapping)
            else value
            for key, value in content.items()
        }

    def ignored_ids(self, space: LabelSpace) -> tuple[int, ...]:
        """Ids of the ignored classes.

        Raises:
            ConfigError: A name is not in the label space.
        """
        ids = {entry.name: entry.id for entry in space.classes}
        unknown = sorted(set(self.ignored_classes) - set(ids))
        if unknown:
            raise ConfigError(
                f"protocol {self.name}: ignored_classes {', '.join(unknown)} are not in {space.name}; "
                f"its classes: {', '.join(ids)}"
            )
        return tuple(ids[name] for name in self.ignored_classes)


def known_protocols(folder: Path = FOLDER) -> list[str]:
    """Names of all protocols."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_protocol(name: str, folder: Path = FOLDER) -> Protocol:
    """Read a protocol; one that ``extends`` another states only the differences.

    Args:
        name: Of a protocol in ``folder``, or the path of a YAML file of one's own, which may extend those in
            ``folder``.
        folder: Where the named protocols lie.

    Raises:
        ConfigError: There is no such protocol, or a field is unknown, missing or not allowed.
    """
    values = _read(name, folder)
    name = values["name"]
    fields = {field.name for field in dataclasses.fields(Protocol)}
    if unknown := sorted(set(values) - fields):
        raise ConfigError(
            f"protocol {name}: unknown fields {', '.join(unknown)}; known: {', '.join(sorted(fields))}"
        )
    if missing := sorted(fields - set(values)):
        raise ConfigError(f"protocol {name}: missing fields {', '.join(missing)}")
    return Protocol(
        **{
            **values,
            **{size: _pair(f"protocol {name}: {size}", values[size]) for size in SIZES},
            "ignored_classes": tuple(values["ignored_classes"]),
            "conventions": tuple(values["conventions"]),
        }
    )


def protocol_for(dataset: str, names: Iterable[str], *, key: str = "evaluate.protocols") -> Protocol:
    """The one of ``names`` that is made for a data set.

    Args:
        dataset: Data set of the ground truth, such as ``kitti_panoptic``.
        names: Names of protocols.
        key: Where the names come from, for the message.

    Raises:
        ConfigError: None or several are.
    """
    names = list(names)
    fitting = [protocol for protocol in map(load_protocol, names) if protocol.dataset == dataset]
    if len(fitting) != 1:
        raise ConfigError(
            f"{key} must name exactly one protocol for the data set {dataset!r}. "
            f"Got: {', '.join(protocol.name for protocol in fitting) or 'none'} of {', '.join(names)}; "
            f"known protocols: {', '.join(known_protocols())}"
        )
    return fitting[0]


def _read(name: str, folder: Path) -> dict[str, Any]:
    is_file = name.endswith((".yaml", ".yml"))
    path = Path(name) if is_file else folder / f"{name}.yaml"
    if not path.is_file():
        hint = "there is no such file" if is_file else f"known: {', '.join(known_protocols(folder))}"
        raise ConfigError(f"there is no protocol {name!r}; {hint}")
    try:
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold the fields of a protocol. Got: {values!r}")
    parent = values.pop("extends", None)
    inherited = _read(parent, folder) if parent else {}
    return {**inherited, **values, "name": path.stem}


def _pair(key: str, value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    if (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(side, int) and side > 0 for side in value)
    ):
        return value[0], value[1]
    raise ConfigError(f"{key} must be [height, width] in pixels, or null. Got: {value!r}")


def _check_choice(key: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{key} must be one of {', '.join(choices)}. Got: {value!r}")
