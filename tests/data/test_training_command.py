"""What training commands share: options, and exit codes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from gestalt.data.training_command import run_training, training_parser
from gestalt.errors import DataError


def test_options_of_a_training_are_read() -> None:
    parser = training_parser("gestalt.some", "Train.", settings=Path("own.yaml"), example="steps=1")
    parsed = parser.parse_args(["--out", "x", "--seed", "3", "steps=2", "a.b=c"])
    assert (parsed.out, parsed.settings, parsed.seed, parsed.device) == (
        Path("x"),
        Path("own.yaml"),
        3,
        "auto",
    )
    assert parsed.overrides == ["steps=2", "a.b=c"]
    assert parsed.max_seconds == 0
    assert "python -m gestalt.some" in parser.format_help()


def test_errors_are_a_line_and_a_code(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise DataError("no such thing")

    with pytest.raises(SystemExit) as stopped:
        run_training("some", fail)
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "some: no such thing\n"


def test_a_termination_is_an_interruption_that_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as stopped:
            run_training("some", lambda: os.kill(os.getpid(), signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped.value.code == 130
    assert "run the same command again" in capsys.readouterr().err


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):  # a mistake of ours: its traceback is what helps
        run_training("some", lambda: divmod(1, 0))
