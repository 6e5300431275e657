"""Commands as child processes: live lines, the tail for the failure message, no orphans on cancel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence

# Lines kept for the message of a failure.
TAIL = 30
# Lines of the tail that a state's message shows.
SHOWN = 12

# The scheduler's PATH may lack the environment, so tools run as modules of this interpreter.
DVC = (sys.executable, "-m", "dvc")
GESTALT = (sys.executable, "-m", "gestalt.cli")
CHECK_PARAMETERS = (
    sys.executable,
    "-c",
    "import sys\n"
    "from gestalt.config import load_params\n"
    "from gestalt.errors import GestaltError\n"
    "try:\n    load_params()\n"
    "except GestaltError as error:\n    sys.exit(str(error))",
)
TRACKING = (sys.executable, "-m", "gestalt.tracking")


class CommandFailed(RuntimeError):
    """A command ended with another code than 0; the message holds its last lines."""


def run_command(
    command: Sequence[str], *, what: str, log: Callable[[str], None] = lambda line: None
) -> list[str]:
    """Run a command to its end and hand each line on as it comes.

    Args:
        command: Program and arguments.
        what: What to call it in messages.
        log: Gets each line of output and errors.

    Returns:
        The last lines.

    Raises:
        CommandFailed: It ended with another code than 0.
    """
    tail: deque[str] = deque(maxlen=TAIL)
    # A group of its own: on cancel the command and all its workers end, not just the first process.
    with subprocess.Popen(
        list(command),
        text=True,
        bufsize=1,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if text := line.rstrip():
                    tail.append(text)
                    log(text)
            code = process.wait()
        except BaseException:
            stop_group(process)
            raise
    if code:
        raise CommandFailed(failure_message(what, code, list(tail)))
    return list(tail)


def read_command(command: Sequence[str], *, what: str) -> str:
    """Standard output of a short command.

    Raises:
        CommandFailed: It ended with another code than 0.
    """
    done = subprocess.run(list(command), capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()
        raise CommandFailed(failure_message(what, done.returncode, lines))
    return done.stdout


def failure_message(what: str, code: int, tail: Sequence[str]) -> str:
    """What failed, how, and the last lines it said."""
    lines = [line for line in tail if line.strip()][-SHOWN:]
    return "\n".join([f"{what}: exit {code}", *lines])


def stop_group(process: subprocess.Popen[str], patience_s: float = 10.0) -> None:
    """Ask a command's whole process group to end, then make it end."""
    for sent in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
        except ProcessLookupError:
            return
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue
        return
