"""Settings and synthetic scenes that the tests of this room share."""

from __future__ import annotations

import pytest

from gestalt.config.motion import MotionSettings
from gestalt.config.presets import default_settings


@pytest.fixture(scope="session")
def settings() -> MotionSettings:
    loaded = default_settings("motion")
    assert isinstance(loaded, MotionSettings)
    return loaded
