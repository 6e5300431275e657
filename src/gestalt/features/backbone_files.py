"""Files of weights that others wrote, as named tensors; no code that a file may hold is run.

Read are safetensors, what ``torch.save`` writes (a state dict or a training checkpoint that holds one), and pickled
arrays as detectron2 keeps its models.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gestalt.errors import DataError

# Where training scripts put the weights in a file that holds more; the averaged network before the trained one.
NESTED = ("teacher", "model_ema", "student", "state_dict", "model_state_dict", "model", "backbone")
# Wrappers that a network was in when it was saved; each puts its name before every tensor's.
WRAPPERS = ("module.", "_orig_mod.", "backbone.", "bottom_up.", "network.", "model.", "encoder.")
# First words of tensors that are no part of a backbone: projection heads, classifiers, detection.
HEADS = (
    "head", "head_drop", "fc", "fc_norm", "classifier", "dino_head", "ibot_head", "mlp", "projection_head",
    "prototypes", "predictor", "last_layer", "local_cls_norm", "proposal_generator", "roi_heads", "sem_seg_head",
    "pixel_mean", "pixel_std",
)  # fmt: skip
# The feature pyramid that detectron2 keeps beside the trunk.
PYRAMID = ("fpn_lateral", "fpn_output")
# Entries of a file without weights that a message names.
SHOWN = 8
# torch.save begins with this number where it does not write a zip archive.
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
# What NumPy called its innermost package before version 2, and since.
CORES = ("core", "_core")
# Everything that a pickle of names and numeric arrays needs; nothing here calls anything else.
HARMLESS = {
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *((f"numpy.{core}.multiarray", name) for core in CORES for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in CORES),
}
# What readers raise on damaged content; a pickle can ask for anything that does not exist.
UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, ImportError, TypeError
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class BackboneFile:
    """Weights out of a file.

    Attributes:
        tensors: Bare names (no wrapper's before them) and float32 tensors on the CPU.
        dropped: Names of tensors that belong to heads, as they stand in the file.
        part: Entry of the file that held the weights, such as ``teacher``; "" where the file is a state dict.
        sha256: Of the whole file.
    """

    tensors: dict[str, Tensor]
    dropped: tuple[str, ...]
    part: str
    sha256: str


def read_backbone_file(path: Path) -> BackboneFile:
    """The backbone's tensors in a file, whatever wrote it.

    Args:
        path: ``.pth``, ``.pt``, ``.pkl`` or ``.safetensors``; told apart by content.

    Raises:
        DataError: The file is missing, truncated, holds code or no weights, has one weight twice, or one that is not
            finite.
    """
    if not path.is_file():
        raise DataError(
            f"{path} does not exist (seen from {Path.cwd()}); `gestalt weights list` names what can be fetched"
        )
    content, part = _enter(_read_content(path), path)
    named = {str(name): found for name, value in content.items() if (found := _to_tensor(value)) is not None}
    if not named:
        entries = ", ".join(map(str, list(content)[:SHOWN])) or "nothing"
        raise DataError(f"{path} must hold names and tensors. Got: {entries}")
    tensors, dropped = _strip(named, path)
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise DataError(
                f"{path}: {name} must be finite. Got: infinite or NaN values; the file is damaged"
            )
    return BackboneFile(tensors, dropped, part, hash_file(path))


def hash_file(path: Path) -> str:
    """SHA-256 of a file of any size, in hexadecimal."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


class HarmlessUnpickler(pickle.Unpickler):
    """Reads numbers, strings, containers and NumPy arrays; refuses every other class or function by name."""

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle may name."""
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which weights do not need")
        return super().find_class(module, name)


def _read_content(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(16)
    # Eight bytes of length, then a header in JSON.
    if start[8:9] == b"{":
        return _read_safetensors(path)
    try:
        if (is_zip := zipfile.is_zipfile(path)) or _is_old_torch(path):
            # DINO's checkpoints keep their options in a namespace: data, no code. A mapped file is read only where
            # it is used: a training checkpoint is several times its teacher.
            with torch.serialization.safe_globals([argparse.Namespace]):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        return HarmlessUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except UNREADABLE as error:
        raise DataError(_refusal(path, error)) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise DataError(_refusal(path, error)) from error
    return tensors


def _refusal(path: Path, error: Exception) -> str:
    reason = (str(error) or repr(error)).strip().splitlines()[0]
    return (
        f"{path} cannot be read as weights: {reason}. Expected: a whole file of safetensors, torch.save or pickled "
        "arrays, with tensors only (code is never run); fetch it again if it is cut short"
    )


def _is_old_torch(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            return bool(HarmlessUnpickler(file).load() == TORCH_MAGIC)
        except UNREADABLE:
            return False


def _enter(content: Any, path: Path) -> tuple[Mapping[Any, Any], str]:
    parts: list[str] = []
    while isinstance(content, Mapping):
        name = next((name for name in NESTED if isinstance(content.get(name), Mapping)), None)
        if name is None:
            return content, ".".join(parts)
        parts.append(name)
        content = content[name]
    raise DataError(f"{path} must hold a state dict (names and tensors). Got: {type(content).__name__}")


def _to_tensor(value: Any) -> Tensor | None:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        value = torch.from_numpy(value.astype(value.dtype.newbyteorder("="), copy=True))
    if not isinstance(value, Tensor):
        return None
    return value.float() if value.is_floating_point() else value


def _strip(named: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    tensors: dict[str, Tensor] = {}
    dropped = []
    for name, tensor in named.items():
        bare = name
        while prefix := next((prefix for prefix in WRAPPERS if bare.startswith(prefix)), ""):
            bare = bare.removeprefix(prefix)
        first = bare.split(".")[0]
        if first in HEADS or first.startswith(PYRAMID):
            dropped.append(name)
        elif bare in tensors:
            raise DataError(f"{path} must hold one network. Got: {bare} twice, once as {name}")
        else:
            tensors[bare] = tensor
    return tensors, tuple(dropped)
