"""The folders of ``gestalt/conf``: which groups there are (presets, ablations, sections), with which options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

PRESETS = Path(__file__).parents[1] / "conf"
# What a composition starts from when nobody says otherwise; conf/params.yaml names it too.
DEFAULT_PRESET = "embedded"
# The ablation that takes back what all others changed.
NO_ABLATION = "none"


def group_names() -> list[str]:
    """Names of all groups, such as ``preset`` and ``motion``."""
    return sorted(folder.name for folder in PRESETS.iterdir() if folder.is_dir())


def option_names(group: str) -> list[str]:
    """Names of the options of a group, such as ``kitti`` of the group ``preset``."""
    return sorted(path.stem for path in (PRESETS / group).glob("*.yaml"))


def option_values(group: str, option: str) -> dict[str, Any]:
    """What the file of an option says, without what it takes from others."""
    values: Any = OmegaConf.to_container(OmegaConf.load(PRESETS / group / f"{option}.yaml"))
    return {str(key): value for key, value in values.items()}
