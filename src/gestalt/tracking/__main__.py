"""``python -m gestalt.tracking``: promote the candidate, name the champion; answers in JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from gestalt.errors import GestaltError
from gestalt.tracking.registry import (
    CANDIDATE,
    CHAMPION,
    champion_network,
    find_version,
    promote,
    version_metrics,
)
from gestalt.tracking.store import open_store, ui_command


def main() -> None:
    """Run one verb."""
    parser = argparse.ArgumentParser(prog="python -m gestalt.tracking", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    promoting = verbs.add_parser("promote", help="let the candidate become the champion if it is no worse")
    promoting.add_argument(
        "--tolerance", type=float, required=True, help="percentage points of PQ that one benchmark may lose"
    )
    verbs.add_parser("champion", help="the champion and the folder of its network")
    verbs.add_parser("versions", help="candidate and champion with their metrics")
    verbs.add_parser("ui", help="the command that opens the MLflow UI")
    arguments = parser.parse_args()
    if arguments.verb == "ui":
        sys.stdout.write(ui_command() + "\n")
        return
    client, _ = open_store()
    try:
        answer = _answer(client, arguments)
    except GestaltError as error:
        sys.exit(f"{arguments.verb}: {error}")
    sys.stdout.write(json.dumps(answer, indent=2) + "\n")


def _answer(client: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.verb == "promote":
        return dataclasses.asdict(promote(client, tolerance=arguments.tolerance))
    if arguments.verb == "champion":
        return dataclasses.asdict(champion_network(client))
    return _versions(client)


def _versions(client: Any) -> dict[str, Any]:
    found = {alias: find_version(client, alias) for alias in (CANDIDATE, CHAMPION)}
    return {
        alias: {"version": version.version, "tags": dict(version.tags), "metrics": version_metrics(version)}
        for alias, version in found.items()
        if version is not None
    }


if __name__ == "__main__":
    main()
