"""A real local server: request bodies with nulls are answered, and a schedule yields a run."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.serve import deployments

PATIENCE_S = 120.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    environment = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log = tmp_path_factory.mktemp("log") / "server.txt"
    with (
        log.open("w") as file,
        subprocess.Popen(command, env=environment, stdout=file, stderr=file) as server,
    ):
        address = f"http://127.0.0.1:{port}/api"
        deadline = time.monotonic() + PATIENCE_S
        while not is_up(address):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
        yield address
        server.terminate()
        server.wait(30)


def is_up(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def post(address: str, body: object) -> object:
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


@pytest.mark.slow
def test_bodies_with_nulls_are_answered(api: str) -> None:
    assert post(f"{api}/deployments/filter", {"flows": None, "deployments": None, "limit": 5}) == []


@pytest.mark.slow
def test_a_served_schedule_yields_a_scheduled_run_and_one_retrain_at_a_time(
    api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.chdir(Path(__file__).parents[2])
    with temporary_settings({PREFECT_API_URL: api}):
        made = deployments(
            cron="0 3 * * *",
            time_zone="UTC",
            poll_seconds=300,
            settle_seconds=1,
            adapter="folder",
            commit=False,
        )
        retrain_id, _ = asyncio.run(apply(made))
    stored = post(f"{api}/deployments/filter", {"deployments": None})
    assert isinstance(stored, list)
    limits = {entry["name"]: entry["concurrency_options"]["collision_strategy"] for entry in stored}
    assert limits == {"new-video": "CANCEL_NEW", "poll": "CANCEL_NEW"}
    deadline = time.monotonic() + PATIENCE_S
    wanted = {
        "deployments": {"id": {"any_": [retrain_id]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    while not post(f"{api}/flow_runs/filter", wanted):
        assert time.monotonic() < deadline, "the scheduler made no run"
        time.sleep(1)


async def apply(made: list[object]) -> list[str]:
    return [str(await deployment.aapply()) for deployment in made]  # type: ignore[attr-defined]
