"""What commands share: options of one meaning, and checks of what was typed before any work starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gestalt.errors import ConfigError, DataError

if TYPE_CHECKING:
    from gestalt.config.params import Params

# Exit code of a command that could not do all it was asked for.
EXIT_ERROR = 1

NetworkFolder = Annotated[Path, typer.Option(help="Folder of a trained network.")]
OutFolder = Annotated[Path, typer.Option(help="Folder to write.")]
DeviceName = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda or cuda:N.")]


def must_exist(path: Path) -> None:
    """Raise a ``DataError`` where nothing is."""
    if not path.exists():
        raise DataError(f"{path} does not exist (seen from {Path.cwd()})")


def must_be_folder(path: Path, what: str) -> None:
    """Raise a ``DataError`` where no folder is; ``what`` is how the path was given, such as ``--network``."""
    if not path.exists():
        raise DataError(f"{what} {path} does not exist (seen from {Path.cwd()})")
    if not path.is_dir():
        raise DataError(f"{what} must be a folder, such as {path.parent}. Got the file {path}")


def must_not_be_file(out: Path) -> None:
    """Raise a ``DataError`` where ``out``, or a folder above it, is a file."""
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise DataError(f"results go into a folder, but {path} is a file; choose another place")


def parse_size(text: str) -> tuple[int, int]:
    """The numbers of ``HxW``; a ``ConfigError`` where there are none."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ConfigError(f"--size must be HEIGHTxWIDTH, such as 512x1024. Got: {text!r}")
    return int(height), int(width)


def params_of_batches(batch: str) -> tuple[Params, list[str]]:
    """All parameters, and the batch that was named, or every one."""
    from gestalt.config import load_params

    params = load_params()
    if batch and batch not in params.batches:
        raise ConfigError(f"--batch is {batch!r}; the batches of params.yaml: {', '.join(params.batches)}")
    return params, [batch] if batch else list(params.batches)


def own_section(section: str) -> Any:
    """A section of the ``params.yaml`` here, or of the embedded preset where there is none."""
    from gestalt.config import load_section
    from gestalt.config.loading import PARAMS_FILE
    from gestalt.config.presets import default_settings

    return load_section(section) if PARAMS_FILE.exists() else default_settings(section)
