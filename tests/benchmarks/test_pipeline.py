"""``benchmarks/pipeline.py``: one JSON object from the status files, messages elsewhere."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "pipeline.py"


def measure(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )


def test_times_add_up_and_memory_does_not(tmp_path: Path) -> None:
    status = tmp_path / "reports/status"
    status.mkdir(parents=True)
    numbers = {
        "guided": {"seconds": 10.5, "cpu_seconds": 20.0, "peak_memory_mib": 900.0, "reasons": {}},
        "motion-monday": {"seconds": 2.0, "cpu_seconds": 4.0, "peak_memory_mib": 400.0, "n_frames": 3},
    }
    for name, content in numbers.items():
        (status / f"{name}.json").write_text(json.dumps(content))
    answer = json.loads(measure("--root", str(tmp_path)).stdout)
    assert answer["stages"]["motion-monday"] == {"seconds": 2.0, "cpu_seconds": 4.0, "peak_memory_mib": 400.0}
    assert answer["total"] == {"seconds": 12.5, "cpu_seconds": 24.0, "peak_memory_mib": 900.0}


def test_without_a_run_it_says_what_to_do_and_prints_no_json(tmp_path: Path) -> None:
    answer = measure("--root", str(tmp_path))
    assert answer.returncode == 1
    assert "make run" in answer.stderr
    assert answer.stdout == ""
