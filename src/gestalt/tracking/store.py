"""The store behind all runs: ``mlruns/mlflow.db`` and ``mlruns/artifacts``, found from any directory."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

LOGGER = logging.getLogger(__name__)

EXPERIMENT = "gestalt"
FOLDER = Path("mlruns")


def repository_root() -> Path:
    """Where ``mlruns/`` lies: DVC's root (also for experiments in temporary copies), or the cwd."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def store_uri(root: Path | None = None) -> str:
    """Absolute SQLite address, so that processes in other working directories meet in one store."""
    return f"sqlite:///{(root or repository_root()) / FOLDER / 'mlflow.db'}"


def ui_command(port: int = 5000) -> str:
    """The command that opens the MLflow UI from the repository root; works without a network."""
    return f"mlflow ui --backend-store-uri sqlite:///{FOLDER.as_posix()}/mlflow.db --workers 1 --port {port}"


def open_store(root: Path | None = None) -> tuple[MlflowClient, str]:
    """Open the store, making it and its experiment on first use (some seconds, once).

    Args:
        root: Repository root; found by itself when left out.

    Returns:
        The client and the id of the experiment.
    """
    # MLflow reads this once, on import.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    for noisy in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    root = root or repository_root()
    folder = root / FOLDER
    (folder / "artifacts").mkdir(parents=True, exist_ok=True)
    client = MlflowClient(tracking_uri=store_uri(root), registry_uri=store_uri(root))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        return client, str(experiment.experiment_id)
    location = (folder / "artifacts").as_uri()
    return client, str(client.create_experiment(EXPERIMENT, artifact_location=location))


class SideEffect:
    """Runs tracking code whose failure must not break the work that it records.

    Inside the block a store that cannot be opened or written ends the block with one warning that names the
    cause; any other exception travels on.

    Args:
        doing: What is being recorded, for the warning.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self.is_done = False

    def __enter__(self) -> SideEffect:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            self.is_done = True
            return False
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        if not isinstance(error, MlflowException | SQLAlchemyError | OSError):
            return False
        cause = str(error).strip().splitlines() or [type(error).__name__]
        place = store_uri().removeprefix("sqlite:///")
        LOGGER.warning("tracking is off: cannot record %s in %s: %s", self._doing, place, cause[0])
        return True
