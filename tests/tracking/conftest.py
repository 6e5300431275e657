import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database with its schema: making one takes seconds, copying it does not."""
    from gestalt.tracking.store import open_store

    root = tmp_path_factory.mktemp("store")
    open_store(root)
    return root


@pytest.fixture(scope="session")
def start_in(empty_store: Path) -> Callable[[Path, pytest.MonkeyPatch], Path]:
    """Makes a folder the working directory, with an empty store."""

    def start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        for name in ("DVC_ROOT", "DVC_EXP_NAME", "PIPELINE_KEY"):
            monkeypatch.delenv(name, raising=False)
        (folder / "mlruns").mkdir()
        shutil.copy(empty_store / "mlruns" / "mlflow.db", folder / "mlruns" / "mlflow.db")
        _move_artifacts(folder)
        monkeypatch.chdir(folder)
        return folder

    return start


@pytest.fixture
def root(
    start_in: Callable[[Path, pytest.MonkeyPatch], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A working directory with an empty store."""
    return start_in(tmp_path, monkeypatch)


def _move_artifacts(root: Path) -> None:
    """The location of artefacts is stored as an absolute address."""
    import sqlite3

    with sqlite3.connect(root / "mlruns" / "mlflow.db") as database:
        database.execute(
            "update experiments set artifact_location = ? where name = 'gestalt'",
            ((root / "mlruns" / "artifacts").as_uri(),),
        )
    database.close()
