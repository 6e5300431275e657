"""People's stereo video on its way to becoming a batch: found, looked at, and described by ``source.yaml``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gestalt.config.frames import FrameSettings
from gestalt.data.adapters import video_adapter
from gestalt.data.frames import frame_geometry
from gestalt.data.images import inspect_image
from gestalt.data.manifest import describe_faults
from gestalt.data.records import FRAME_ID, BrokenFrame, StereoPair
from gestalt.data.source import write_source_file
from gestalt.errors import ConfigError, DataError


def check_batch_name(name: str) -> None:
    """Refuse a name that no file or folder should have.

    Raises:
        ConfigError: The name holds something else than letters, digits, ``_``, ``-`` and ``.``.
    """
    # Batches name files and folders, as frames do.
    if not FRAME_ID.fullmatch(name):
        raise ConfigError(
            "a batch name must start with a letter or digit and hold only letters, digits, '_', '-' and '.'. "
            f"Got: {name!r}"
        )


def find_video(adapter: str, root: Path, options: Mapping[str, Any]) -> list[StereoPair | BrokenFrame]:
    """What an adapter finds under ``root``, which is at least one frame.

    Raises:
        ConfigError: The adapter or an option is unknown.
        DataError: ``root`` is no folder, or holds no video in that layout.
    """
    find_pairs = video_adapter(adapter)
    must_be_folder(root)
    try:
        found = list(find_pairs(root, options))
    except ConfigError as error:
        # Adapters blame the file that options usually stand in; it is not written yet.
        raise ConfigError(str(error).replace("source.yaml: ", "--option: ", 1)) from error
    if not found:
        raise DataError(
            f"no stereo video in the layout of {adapter} under {root}; "
            "docs/data.md shows the tree and the options of each adapter"
        )
    return found


def first_size(found: Iterable[StereoPair | BrokenFrame], root: Path) -> tuple[int, int]:
    """(H, W) of the first pair whose images can all be read.

    Raises:
        DataError: There is none; the message lists why.
    """
    reasons = []
    for pair in found:
        if isinstance(pair, BrokenFrame):
            reasons.append(pair.reason)
            continue
        # Right images first: those are the ones that whole deliveries lack.
        images = (pair.right, pair.right_next, pair.left_next, pair.left)
        try:
            return [inspect_image(path, check_content=False) for path in images if path is not None][-1]
        except DataError as error:
            reasons.append(str(error))
    raise DataError(f"no stereo pair under {root} can be used:\n{describe_faults(reasons)}")


def describe_crop(stored: tuple[int, int], settings: FrameSettings) -> str:
    """Say how much of the stored frames the section ``frames`` keeps.

    Args:
        stored: (H, W) of the files.
        settings: Section ``frames``.

    Returns:
        One line, in stored pixels; empty when nothing is cut off.
    """
    geometry = frame_geometry(*stored, settings)
    shares = [min(own / scaled, 1.0) for own, scaled in zip(geometry.size, geometry.scaled, strict=True)]
    if shares == [1.0, 1.0]:
        return ""
    rows, columns = (round(share * whole) for share, whole in zip(shares, stored, strict=True))
    return (
        f"frames keep {rows} x {columns} of {stored[0]} x {stored[1]} pixels, "
        f"{100 * shares[0] * shares[1]:.0f} %; set frames.scale/height/width"
    )


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """``["camera=2", "grey=true"]`` -> ``{"camera": 2, "grey": True}``: numbers, true and false, else text.

    Raises:
        ConfigError: A pair has no ``=``.
    """
    options = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise ConfigError(f"--option must be KEY=VALUE. Got: {pair!r}")
        options[key] = _parse_value(value)
    return options


def _parse_value(text: str) -> bool | int | float | str:
    """A value as YAML has it where that is a number, true, false or quoted; names such as 0012 stay as they are."""
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError:
        return text
    is_plain = isinstance(value, bool | float | str) or (isinstance(value, int) and str(value) == text)
    return value if is_plain else text


def write_source(folder: Path, adapter: str, root: str, options: dict[str, Any]) -> None:
    """Write ``source.yaml``; a root inside the working directory is stored relative to the file.

    Args:
        folder: Where to write it.
        adapter: Name of the adapter.
        root: Folder of the video; ``${NAME}`` stays as it is, for every machine to expand.
        options: What the adapter is told besides.
    """
    place = Path(os.path.abspath(root))
    if "${" not in root and place.is_relative_to(Path.cwd()):
        root = os.path.relpath(place, folder.absolute())
    elif "${" not in root:
        root = str(place)
    write_source_file(folder, adapter, root, options)


def must_be_folder(path: Path) -> None:
    """Refuse what cannot hold video.

    Raises:
        DataError: ``path`` is missing or a file.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist (seen from {Path.cwd()})")
    if not path.is_dir():
        raise DataError(f"{path} is a file; expected a folder of stereo video")
