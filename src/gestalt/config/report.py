"""Settings of the section ``report``."""

from __future__ import annotations

from dataclasses import dataclass

from gestalt.config.schema import setting


@dataclass(frozen=True)
class ReportSettings:
    """What the one page shows."""

    frames_per_batch: int = setting("frames of each batch shown with every intermediate", low=0)
    frames_per_benchmark: int = setting("images of each benchmark shown with prediction and truth", low=0)
    picture_width_px: int = setting("width of a picture; smaller images stay as they are", low=64)
    mlflow_port: int = setting("port in the command that opens the MLflow UI", low=1, high=65535)
