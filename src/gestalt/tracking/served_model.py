"""A network folder as an MLflow model: what `mlflow models serve` and `mlflow.pyfunc.load_model` open.

The model holds the network folder itself (safetensors and JSON, no pickle), how it predicts, and the form of questions
and answers. MLflow imports the module named by ``LOADER`` when it opens one; this room never does.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gestalt.config.network import PredictSettings
from gestalt.errors import GestaltError

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

LOADER = "gestalt.serving"
SETTINGS_FILE = "predict.json"

# Of `params`: the height that the network was trained at.
TRAINED_HEIGHT = -1
EXAMPLE_SIDE_PX = 8


def package_network(network: Path, settings: PredictSettings, out: Path) -> Path:
    """Write an MLflow model of a network, aside first.

    Weights are hard links where the disk allows it: DVC owns them, and they are replaced, never written to.

    Args:
        network: Network folder.
        settings: How the served network predicts where a question does not say otherwise.
        out: Folder to write; an existing one is left as it is, since its name says what it holds.

    Returns:
        ``out``.
    """
    if out.exists():
        return out
    # MLflow reads this once, on import.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow.pyfunc

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as place:
        data = Path(place) / "network"
        data.mkdir()
        content = json.dumps(dataclasses.asdict(settings), indent=2, sort_keys=True)
        (data / SETTINGS_FILE).write_text(content + "\n", encoding="utf-8")
        model = Path(place) / "model"
        mlflow.pyfunc.save_model(
            model,
            loader_module=LOADER,
            data_path=data,
            signature=signature(settings),
            input_example=_example(),
            pip_requirements=[f"gestalt=={metadata.version('gestalt')}"],
        )
        for path in sorted(network.iterdir()):
            _link(path, model / "data" / data.name / path.name)
        model.rename(out)
    return out


def signature(settings: PredictSettings) -> ModelSignature:
    """Columns of questions and answers, and the parameters with their defaults; see ``docs/serving.md``."""
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, ColSpec, Object, Property

    segment = Object(
        [
            Property("id", DataType.long),
            Property("category_id", DataType.long),
            Property("category", DataType.string),
            Property("is_thing", DataType.boolean),
            Property("score", DataType.double),
            Property("area", DataType.long),
            Property("bbox", Array(DataType.long)),
        ]
    )
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(DataType.string, "image", required=False),
                ColSpec(Array(Array(Array(DataType.long))), "pixels", required=False),
            ]
        ),
        outputs=Schema(
            [
                ColSpec(DataType.long, "height"),
                ColSpec(DataType.long, "width"),
                ColSpec(DataType.string, "panoptic_png"),
                ColSpec(Array(segment), "segments"),
            ]
        ),
        params=ParamSchema(
            [
                ParamSpec("score_threshold", DataType.double, settings.merge.score_threshold),
                ParamSpec("height", DataType.long, settings.height_px or TRAINED_HEIGHT),
                ParamSpec("views", DataType.double, list(settings.view_scales), shape=(-1,)),
                ParamSpec("flip", DataType.boolean, settings.view_flip),
            ]
        ),
    )


@contextmanager
def explain_to_client() -> Iterator[None]:
    """Let an error that the asker can mend reach them as status 400 with its message, not as a traceback."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except GestaltError as error:
        raise MlflowException.invalid_parameter_value(str(error)) from error


def _example() -> Any:
    """A question that can be asked as it stands: one small grey picture."""
    import pandas as pd

    return pd.DataFrame({"image": [base64.b64encode(_grey_png(EXAMPLE_SIDE_PX)).decode()]})


def _grey_png(side_px: int) -> bytes:
    """A square grey PNG, written out, since this room reads and writes no images otherwise."""
    # A row starts with its filter, 0; 8 bit, colour type 0 is grey.
    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\x80" * side_px) * side_px)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)
