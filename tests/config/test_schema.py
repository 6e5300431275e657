"""Sections from plain values, where nothing composes them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from gestalt.config.network import NetworkSettings
from gestalt.config.presets import default_settings
from gestalt.config.schema import fill
from gestalt.errors import ConfigError


def values() -> dict[str, Any]:
    return dataclasses.asdict(default_settings("network", "small"))


def test_plain_values_become_the_same_section() -> None:
    assert fill(NetworkSettings, values(), "network") == default_settings("network", "small")


def test_a_whole_number_may_stand_for_a_float_and_nothing_else_is_converted() -> None:
    plain = dataclasses.asdict(default_settings("optical_flow"))
    from gestalt.config.optical_flow import OpticalFlowSettings

    plain["clip_norm"] = 1
    assert fill(OpticalFlowSettings, plain).clip_norm == 1.0
    for key, value in (
        ("steps", 2.0),
        ("steps", True),
        ("keep_in_memory", 1),
        ("variant", 3),
        ("clip_norm", "1"),
    ):
        with pytest.raises(ConfigError, match=rf"{key} must be .*Got: {value!r}"):
            fill(OpticalFlowSettings, {**plain, key: value})


def test_mistakes_are_named_with_the_full_key() -> None:
    wrong = values()
    wrong["instances"] = 3
    with pytest.raises(ConfigError, match=r"network\.instances is a section"):
        fill(NetworkSettings, wrong, "network")
    missing = values()
    del missing["proposals"]["anchor_sizes_px"]
    with pytest.raises(ConfigError, match=r"network\.proposals needs .*missing: anchor_sizes_px"):
        fill(NetworkSettings, missing, "network")


def test_sections_need_no_configuration_library() -> None:
    script = (
        "import sys\nimport gestalt.config.optical_flow\n"
        "assert not {'omegaconf', 'hydra'} & set(sys.modules)\n"
        "from gestalt.config import Params, load_params, load_section\n"
        "assert Params and load_params and load_section and 'omegaconf' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
