"""What may keep Gestalt from running on this machine, and what to do about it."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from gestalt.errors import GestaltError
from gestalt.runtime import available_cores, choose_device

OK, NOTE, PROBLEM = "ok", "note", "problem"

# The embedded run leaves about one gigabyte of data and cache; the rest is head-room.
ENOUGH_DISK_GIB = 5.0

# `dvc status` hashes what changed; at paper scale that can take long.
STATUS_TIMEOUT_S = 120

EXTRA_FIX = {
    "detectron2": "docs/detectron2.md names the verified commit and how to build it; nothing else needs it",
    "onnx": "pip install -e '.[onnx]'; only `gestalt network export` as ONNX needs it",
    "timm": "pip install -e '.[timm]'; only backbones of DINOv2 and DINOv3 need it",
    "dask": "pip install -e '.[dask]'; only runtime.executor=dask needs it",
    "dev": "pip install -e '.[dev]'; only tests, lint and types need it",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        found: What is there.
        verdict: ``ok``, ``note`` (works without) or ``problem``.
        fix: What to do, or an empty string.
    """

    name: str
    found: str
    verdict: str = OK
    fix: str = ""


def examine(folder: Path) -> list[Finding]:
    """Look at Python, packages, extras, device, disk, configuration, git and DVC.

    Args:
        folder: Root of the repository.
    """
    return [
        Finding("Python", f"{platform.python_version()} at {sys.executable}"),
        *examine_packages(),
        *examine_machine(folder),
        examine_params(folder),
        examine_git(folder),
        examine_dvc(folder),
    ]


def examine_packages(distribution: str = "gestalt") -> list[Finding]:
    """Compare what is installed with what the package asks for; one finding per trouble and per extra."""
    wrong, n_required, extras = [], 0, {name: list[str]() for name in EXTRA_FIX}
    for text in metadata.requires(distribution) or []:
        requirement = Requirement(text)
        extra = next(
            (
                name
                for name in EXTRA_FIX
                if requirement.marker and requirement.marker.evaluate({"extra": name})
            ),
            "",
        )
        required = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if not required and not extra:
            continue
        found = _installed(requirement.name)
        fits = bool(found) and requirement.specifier.contains(found, prereleases=True)
        if not required:
            extras[extra] += [] if fits else [requirement.name]
            continue
        n_required += 1
        if not fits:
            wanted = f"{requirement.name}{requirement.specifier}"
            fix = f"make venv, or pip install '{wanted}'"
            wrong.append(Finding(requirement.name, found or "missing", PROBLEM, fix))
    if importlib.util.find_spec("detectron2") is None:
        extras["detectron2"].append("detectron2")
    torch, torchvision = _installed("torch"), _installed("torchvision")
    summary = Finding(
        "packages", f"{n_required - len(wrong)} of {n_required} fit; torch {torch}, torchvision {torchvision}"
    )
    return [summary, *wrong, *(_extra_finding(name, missing) for name, missing in extras.items())]


def examine_machine(folder: Path) -> list[Finding]:
    """Device, cores and free disk."""
    free = shutil.disk_usage(folder).free / 2**30
    cramped = free < ENOUGH_DISK_GIB
    return [
        Finding("device", _device_name()),
        Finding("cores", str(available_cores())),
        Finding(
            "free disk",
            f"{free:.1f} GiB",
            PROBLEM if cramped else OK,
            f"free up to {ENOUGH_DISK_GIB:.0f} GiB; `dvc gc --workspace` removes old results"
            if cramped
            else "",
        ),
    ]


def examine_params(folder: Path) -> Finding:
    """Whether ``params.yaml`` can be read."""
    from gestalt.config import load_params

    try:
        params = load_params(folder / "params.yaml")
    except GestaltError as error:
        return Finding("params.yaml", "not usable", PROBLEM, str(error))
    return Finding("params.yaml", f"preset {params.preset}, batches {', '.join(params.batches)}")


def examine_git(folder: Path) -> Finding:
    """Commit and uncommitted changes."""
    commit = _ask(["git", "rev-parse", "--short", "HEAD"], folder)
    if commit is None:
        return Finding("git", "no repository with a commit", PROBLEM, "DVC needs one: git init, then commit")
    changes = (_ask(["git", "status", "--porcelain"], folder) or "").splitlines()
    state = f"{len(changes)} uncommitted changes" if changes else "clean"
    return Finding("git", f"{commit}, {state}", NOTE if changes else OK)


def examine_dvc(folder: Path) -> Finding:
    """Whether DVC is set up here, and whether every stage is up to date."""
    if not (folder / ".dvc").is_dir():
        return Finding("DVC", "not initialised here", PROBLEM, "run inside the repository, or `dvc init`")
    if not (folder / "dvc.lock").exists():
        return Finding("DVC", "no stage was run yet", NOTE, "make run")
    # DVC's own entry point beside this interpreter, so that no other installation answers.
    status = _ask([sys.executable, "-m", "dvc", "status"], folder)
    if status is None:
        return Finding("DVC", "`dvc status` fails", PROBLEM, "run it to see why")
    stale = [line.rstrip(":") for line in status.splitlines() if line and not line[0].isspace()]
    if not stale or stale[0].startswith("Data and pipelines are up to date"):
        return Finding("DVC", "every stage is up to date")
    return Finding("DVC", f"{len(stale)} stages are stale: {', '.join(stale[:5])}", NOTE, "make run")


def _extra_finding(name: str, missing: list[str]) -> Finding:
    if not missing:
        return Finding(f"extra {name}", "installed")
    return Finding(f"extra {name}", f"missing {', '.join(missing)}", NOTE, EXTRA_FIX[name])


def _device_name() -> str:
    import torch

    device = choose_device()
    return (
        f"{device} ({torch.cuda.get_device_name(device)})"
        if device.type != "cpu"
        else "cpu, no GPU is visible"
    )


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _ask(command: list[str], folder: Path) -> str | None:
    """Standard output of a command; None when it is missing, fails or takes too long."""
    try:
        answer = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=STATUS_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
