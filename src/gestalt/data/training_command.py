"""What the commands that train without the pipeline share: their options, and how they end."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from gestalt.errors import GestaltError

# Exit codes: something is wrong; stopped by a signal (128 + SIGINT), and the same command goes on.
FAILED, INTERRUPTED = 1, 130


def training_parser(
    module: str, description: str | None, *, settings: Path, example: str
) -> argparse.ArgumentParser:
    """Options of a training: where its result goes, its settings, seed, device and time.

    Args:
        module: The command is ``python -m`` this.
        description: For the help.
        settings: File of the section where none is named.
        example: Overrides, such as ``steps=1000 crop.height=160``.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the result, its curve and its state"
    )
    parser.add_argument("--settings", type=Path, default=settings, help="YAML or JSON (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--max-seconds", type=float, default=0.0, help="save and stop after this time; 0 never stops"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=f"settings, such as {example}")
    return parser


def run_training(name: str, work: Callable[[], None]) -> None:
    """Do the work of a command; errors become a line and an exit code, and a termination an interruption.

    Args:
        name: Of the command, before every line.
        work: Trains; raises ``GestaltError`` for what a user can mend.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        work()
    except GestaltError as error:
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(FAILED)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; run the same command again and it goes on", file=sys.stderr)  # noqa: T201
        sys.exit(INTERRUPTED)
