import os
import sys
import time
from pathlib import Path

import pytest

from flows.processes import CommandFailed, read_command, run_command


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_lines_arrive_while_the_command_runs() -> None:
    code = "import time\nfor n in range(3):\n    print(n)\n    time.sleep(0.3)"
    arrived: list[tuple[str, float]] = []
    tail = run_command(python(code), what="count", log=lambda line: arrived.append((line, time.monotonic())))
    assert tail == [line for line, _ in arrived] == ["0", "1", "2"]
    assert arrived[2][1] - arrived[0][1] > 0.4


def test_a_failure_holds_the_code_and_the_last_lines_of_both_streams() -> None:
    code = (
        "import sys\nprint('gate: closed by monday')\nsys.stderr.write('coverage too small\\n')\nsys.exit(3)"
    )
    with pytest.raises(CommandFailed) as caught:
        run_command(python(code), what="gate")
    assert "gate: exit 3" in str(caught.value)
    assert "closed by monday" in str(caught.value)
    assert "coverage too small" in str(caught.value)


def test_a_failed_question_shows_the_answer() -> None:
    with pytest.raises(CommandFailed, match="ask: exit 1\nno such thing"):
        read_command(python("import sys; sys.exit('no such thing')"), what="ask")


def test_cancelling_ends_the_command_and_its_children(tmp_path: Path) -> None:
    note = tmp_path / "child"
    child = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "print('started'); time.sleep(60)"
    )

    def cancel(line: str) -> None:
        while not (note.exists() and note.read_text()):
            time.sleep(0.05)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_command(python(code), what="long", log=cancel)
    pid, patience = int(note.read_text()), 50
    while patience and _is_alive(pid):
        time.sleep(0.1)
        patience -= 1
    assert not _is_alive(pid)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A killed orphan may stay a zombie until the container's first process collects it.
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
