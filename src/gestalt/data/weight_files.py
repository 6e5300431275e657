"""Files of weights that others wrote, as names and tensors; no code that a file may hold is run.

Read are safetensors, what ``torch.save`` writes (a state dict or a training checkpoint that holds one), and pickled
arrays as detectron2 keeps its models.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gestalt.data.weight_pickles import HarmlessUnpickler, InertUnpickler, read_archive
from gestalt.errors import DataError

# Entries of a file without weights that a message names.
SHOWN = 8
# torch.save begins with this number where it does not write a zip archive.
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
# What readers raise on damaged content; a pickle can ask for anything that does not exist, and for any room.
UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, ImportError, TypeError,
    MemoryError, OverflowError, zipfile.BadZipFile,
)  # fmt: skip


def hash_file(path: Path) -> str:
    """SHA-256 of a file of any size, in hexadecimal."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def read_content(path: Path) -> Any:
    """What a file of weights holds, its kind told by content; a file that names a class of other code is refused.

    Args:
        path: safetensors, a file of ``torch.save`` (either format), or a pickle of arrays.

    Returns:
        Containers, numbers, strings, tensors on the CPU (those of an archive lie in the mapped file) and arrays.

    Raises:
        DataError: The file is damaged, is of no such kind, or would run code.
    """
    if _is_safetensors(path):
        return _read_safetensors(path)
    try:
        if (is_zip := zipfile.is_zipfile(path)) or _is_old_torch(path):
            return _load_with_torch(path, is_mapped=is_zip)
        return HarmlessUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except UNREADABLE as error:
        raise DataError(_refusal(path, error)) from error


def read_content_without_classes(path: Path) -> tuple[Any, tuple[str, ...]]:
    """As ``read_content``, with objects of other code left out instead of refused.

    Training frameworks keep their options and callbacks beside the weights, as objects of classes that are not here.
    An inert placeholder takes the place of each; nothing of them is imported or called.

    Args:
        path: As for ``read_content``. In the format that ``torch.save`` had before 2020 other code is still refused.

    Returns:
        The content, and the classes and functions that were left out, sorted.

    Raises:
        DataError: The file is damaged or of no known kind.
    """
    if _is_safetensors(path):
        return _read_safetensors(path), ()
    try:
        if zipfile.is_zipfile(path):
            return read_archive(path)
        if _is_old_torch(path):
            return _load_with_torch(path, is_mapped=False), ()
        unpickler = InertUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1")
        return unpickler.load(), unpickler.left_out
    except UNREADABLE as error:
        raise DataError(_refusal(path, error)) from error


def enter_part(content: Any, names: Sequence[str], path: Path) -> tuple[Mapping[Any, Any], str]:
    """Go down through mappings that hold the weights under a usual name.

    Args:
        content: What a file holds.
        names: Where weights may be, the first that is there wins, again and again.
        path: The file, for messages.

    Returns:
        The innermost mapping and the dotted names on the way; "" where the file is a state dict.

    Raises:
        DataError: There is no mapping.
    """
    parts: list[str] = []
    while isinstance(content, Mapping):
        name = next((name for name in names if isinstance(content.get(name), Mapping)), None)
        if name is None:
            return content, ".".join(parts)
        parts.append(name)
        content = content[name]
    raise DataError(f"{path} must hold a state dict (names and tensors). Got: {type(content).__name__}")


def select_tensors(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """The tensors of a mapping by name; arrays become tensors, floating-point values float32.

    Raises:
        DataError: There is no tensor.
    """
    found = {
        str(name): tensor for name, value in content.items() if (tensor := _to_tensor(value)) is not None
    }
    if not found:
        entries = ", ".join(map(str, list(content)[:SHOWN])) or "nothing"
        raise DataError(f"{path} must hold names and tensors. Got: {entries}")
    return found


def bare_name(name: str, wrappers: Sequence[str]) -> str:
    """The name of a tensor without those of the wrappers (each with its dot) that its network was saved in."""
    while prefix := next((prefix for prefix in wrappers if name.startswith(prefix)), ""):
        name = name.removeprefix(prefix)
    return name


def strip_wrappers(tensors: Mapping[str, Tensor], wrappers: Sequence[str], path: Path) -> dict[str, Tensor]:
    """Tensors under their bare names.

    Args:
        tensors: By the names in the file.
        wrappers: See ``bare_name``.
        path: The file, for messages.

    Raises:
        DataError: Two tensors have one bare name.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        bare = bare_name(name, wrappers)
        if bare in found:
            raise DataError(f"{path} must hold one network. Got: {bare} twice, once as {name}")
        found[bare] = tensor
    return found


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that are infinite or no numbers.

    Raises:
        DataError: There are some; the first tensor is named.
    """
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise DataError(
                f"{path}: {name} must be finite. Got: infinite or NaN values; the file is damaged"
            )


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        # Eight bytes of length, then a header in JSON.
        return file.read(16)[8:9] == b"{"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise DataError(_refusal(path, error)) from error
    return tensors


def _load_with_torch(path: Path, *, is_mapped: bool) -> Any:
    # DINO's checkpoints keep their options in a namespace: data, no code. A mapped file is read only where it is used:
    # a training checkpoint is several times its teacher.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)


def _is_old_torch(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            return bool(HarmlessUnpickler(file).load() == TORCH_MAGIC)
        except UNREADABLE:
            return False


def _refusal(path: Path, error: Exception) -> str:
    reason = (str(error) or repr(error)).strip().splitlines()[0]
    return (
        f"{path} cannot be read as weights: {reason}. Expected: a whole file of safetensors, torch.save or pickled "
        "arrays, with tensors only (code is never run); fetch it again if it is cut short"
    )


def _to_tensor(value: Any) -> Tensor | None:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        value = torch.from_numpy(value.astype(value.dtype.newbyteorder("="), copy=True))
    if not isinstance(value, Tensor):
        return None
    return value.float() if value.is_floating_point() else value
