"""A ``params.yaml`` of one's own."""

from pathlib import Path

import pytest

from gestalt.config.presets import compose_params
from gestalt.config.writing import render_params


@pytest.fixture(scope="session")
def embedded_text() -> str:
    return render_params(compose_params())


@pytest.fixture
def params_file(tmp_path: Path, embedded_text: str) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(embedded_text, encoding="utf-8")
    return path
