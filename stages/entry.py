"""What every stage does around its one call: arguments, parameters, errors, status and metrics files."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gestalt.config import Params, load_params
from gestalt.errors import GestaltError
from gestalt.runtime import available_cores, open_executor, peak_memory_mib, start

CACHE = Path(".cache")
METRICS = Path("reports/metrics")
STATUS = Path("reports/status")

# Exit codes: 1 = the stage says what to do; 130 = stopped by Ctrl-C, a rerun continues.
EXIT_ERROR, EXIT_INTERRUPTED = 1, 130


@dataclass(frozen=True)
class Stage:
    """One run of a stage.

    Attributes:
        name: Stage name.
        item: The batch or benchmark, or an empty string.
        params: The checked ``params.yaml``.
    """

    name: str
    item: str
    params: Params

    @property
    def label(self) -> str:
        """``name`` or ``name-item``; names metrics and status files."""
        return f"{self.name}-{self.item}" if self.item else self.name

    @property
    def cache(self) -> Path:
        """Folder of unfinished work, outside DVC's outputs."""
        return CACHE / self.name / self.item if self.item else CACHE / self.name

    @property
    def threads(self) -> int:
        """Numeric threads of a process that trains alone."""
        return self.params.runtime.threads or available_cores()

    def open_executor(self) -> Executor:
        """The executor of ``runtime``."""
        return open_executor(self.params.runtime.executor, self.params.runtime.workers)


@dataclass(frozen=True)
class Outcome:
    """What a stage reports: ``metrics`` are versioned by DVC and hold no times; ``status`` may."""

    metrics: dict[str, Any]
    status: dict[str, Any]


def run_stage(body: Callable[[Stage], Outcome], *, name: str, item: str = "") -> None:
    """Parse arguments, check parameters, run ``body``, write its metrics and status, set the exit code.

    Args:
        body: The stage.
        name: Stage name.
        item: ``batch`` or ``benchmark`` where the stage runs once per such item; its option's name.
    """
    parser = argparse.ArgumentParser(prog=f"python -m stages.{name}", description=body.__doc__)
    if item:
        parser.add_argument(f"--{item}", required=True, dest="item", help=f"name of the {item}")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="values for this run by hand"
    )
    arguments = parser.parse_args()
    started = time.perf_counter()
    try:
        stage = Stage(name, getattr(arguments, "item", ""), load_params(overrides=arguments.overrides))
        start()
        outcome = body(stage)
    except GestaltError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; finished work is kept, run it again to go on", file=sys.stderr)
        # Worker processes may still hold the pipe; leave without waiting for them.
        os._exit(EXIT_INTERRUPTED)
    # Of several processes that train together, the first one reports.
    if os.environ.get("RANK", "0") != "0":
        return
    status = {
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(_cpu_seconds(), 2),
        "peak_memory_mib": round(peak_memory_mib(), 1),
        **outcome.status,
    }
    write_json(METRICS / f"{stage.label}.json", outcome.metrics)
    write_json(STATUS / f"{stage.label}.json", status)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write aside, then rename, so that no reader meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    aside.rename(path)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
