"""The command ``gestalt``: use a trained network, bring own data, change the configuration, look at results.

The commands lie in ``gestalt.commands``, a module per topic; here they are put together. Every import of a room
happens inside its command, so that ``gestalt --help`` answers at once.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

import typer

from gestalt.commands import data, network, show, weights
from gestalt.commands.arguments import EXIT_ERROR
from gestalt.commands.compare import compare
from gestalt.commands.evaluate import evaluate
from gestalt.commands.finetune import finetune
from gestalt.commands.pipeline import configure, doctor, export
from gestalt.commands.predict import predict
from gestalt.errors import GestaltError

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143

app = typer.Typer(
    name="gestalt",
    help="Stereo video in, panoptic network out, with no human label. `make run` runs the whole pipeline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (predict, evaluate, compare, finetune, configure, export, doctor):
    app.command()(command)
for name, topic in {"data": data, "network": network, "show": show, "weights": weights}.items():
    app.add_typer(topic.app, name=name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what a user can mend is one line on standard error and exit code 1."""
    # Leave as on an error, so that what is written aside is taken away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    try:
        app(args=arguments)
    except GestaltError as error:
        print(f"gestalt: {error}", file=sys.stderr)
        sys.exit(EXIT_ERROR)
    except PermissionError as error:
        print(f"gestalt: {error.filename}: {error.strerror}; look at its owner and rights", file=sys.stderr)
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
