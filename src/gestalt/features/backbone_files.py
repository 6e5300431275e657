"""Backbones in files that others wrote: bare names and tensors, without wrappers and heads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gestalt.data.weight_files import (
    bare_name,
    check_finite,
    enter_part,
    hash_file,
    read_content,
    select_tensors,
    strip_wrappers,
)
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
    content, part = enter_part(read_content(path), NESTED, path)
    named = select_tensors(content, path)
    dropped = tuple(name for name in named if _belongs_to_head(name))
    kept = {name: tensor for name, tensor in named.items() if not _belongs_to_head(name)}
    tensors = strip_wrappers(kept, WRAPPERS, path)
    check_finite(tensors, path)
    return BackboneFile(tensors, dropped, part, hash_file(path))


def _belongs_to_head(name: str) -> bool:
    bare = bare_name(name, WRAPPERS)
    return bare.split(".")[0] in HEADS or bare.startswith(PYRAMID)
