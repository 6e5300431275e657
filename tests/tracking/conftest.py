import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database with its schema: making one takes seconds, copying it does not."""
    from gestalt.tracking.store import open_store

    root = tmp_path_factory.mktemp("store")
    open_store(root)
    return root


@pytest.fixture
def root(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an empty store."""
    for name in ("DVC_ROOT", "DVC_EXP_NAME", "PIPELINE_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store / "mlruns" / "mlflow.db", tmp_path / "mlruns" / "mlflow.db")
    _move_artifacts(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _move_artifacts(root: Path) -> None:
    """The location of artefacts is stored as an absolute address."""
    import sqlite3

    with sqlite3.connect(root / "mlruns" / "mlflow.db") as database:
        database.execute(
            "update experiments set artifact_location = ? where name = 'gestalt'",
            ((root / "mlruns" / "artifacts").as_uri(),),
        )
    database.close()
