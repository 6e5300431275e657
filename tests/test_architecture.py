"""The house plan is a test: imports between rooms, gatekeepers, names, and what each DVC stage depends on."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "gestalt"

MAY_IMPORT: dict[str, set[str]] = {
    "data": set(),
    "scenes": {"data"},
    "matching": {"data"},
    "motion": {"data", "matching"},
    "features": {"data"},
    "semantics": {"data", "features"},
    "pseudo_labels": {"data"},
    "network": {"data"},
    "training": {"data", "network"},
    "inference": {"data", "network"},
    "evaluation": {"data"},
    "baselines": {"data", "features", "semantics", "pseudo_labels", "network", "training"},
    "audit": {"data", "evaluation"},
    "tracking": set(),
}

# Types and rules of the problem: importable everywhere, so they import no room themselves.
ROOT_VOCABULARY = {"errors", "panoptic", "config", "runtime"}

# Libraries with one door.
GATEKEEPERS = {
    "detectron2": PACKAGE / "network",
    "great_expectations": PACKAGE / "audit",
    "mlflow": PACKAGE / "tracking",
    "hydra": PACKAGE / "config",
    "omegaconf": PACKAGE / "config",
    "prefect": ROOT / "flows",
}

DRAWERS = {"util", "utils", "helper", "helpers", "misc", "common", "tools", "base", "manager", "handler"}

# Not stages: what every stage shares.
SHARED_BY_STAGES = {"__init__", "entry", "inputs", "training"}


def python_files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


CODE = python_files(PACKAGE, ROOT / "stages", ROOT / "flows", ROOT / "benchmarks")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def walk(node: ast.AST, *, types_too: bool) -> Iterator[ast.AST]:
    """All nodes, those of ``if TYPE_CHECKING:`` only when asked for."""
    yield node
    is_guard = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    children = node.orelse if is_guard and not types_too else ast.iter_child_nodes(node)  # type: ignore[attr-defined]
    for child in children:
        yield from walk(child, types_too=types_too)


@cache
def imported_modules(path: Path, *, types_too: bool = True) -> frozenset[str]:
    """Dotted names that a file imports; ``from a import b`` gives ``a.b``, which may be a module or not."""
    names: set[str] = set()
    for node in walk(tree(path), types_too=types_too):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: use absolute imports"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def part_of(name: str) -> str:
    """The room or root module of an import of this package, otherwise nothing."""
    words = name.split(".")
    return words[1] if words[0] == "gestalt" and len(words) > 1 else ""


def files_of(name: str) -> set[Path]:
    """The files of this repository that an import executes."""
    words = name.split(".")
    if words[0] not in ("gestalt", "stages"):
        return set()
    start = ROOT / "src" if words[0] == "gestalt" else ROOT
    found = set()
    for end in range(1, len(words) + 1):
        target = start.joinpath(*words[:end])
        found |= {path for path in (target.with_suffix(".py"), target / "__init__.py") if path.is_file()}
    return found


def rooms_behind(script: Path) -> set[str]:
    """Every room that a script imports, directly or through another file."""
    seen: set[Path] = set()
    waiting = {script}
    while waiting:
        path = waiting.pop()
        seen.add(path)
        reached = {file for name in imported_modules(path, types_too=False) for file in files_of(name)}
        waiting |= reached - seen
    inside = {path.relative_to(PACKAGE).parts[0] for path in seen if path.is_relative_to(PACKAGE)}
    return inside & set(MAY_IMPORT)


def read_yaml(name: str) -> Any:
    return YAML(typ="safe").load((ROOT / name).read_text(encoding="utf-8"))


STAGES: dict[str, Any] = read_yaml("dvc.yaml")["stages"]


def test_rooms_behind_a_script_are_found_through_other_files() -> None:
    assert rooms_behind(ROOT / "stages" / "evaluate.py") == {"data", "evaluation"}
    assert {"inference", "network", "data"} <= rooms_behind(ROOT / "stages" / "predict.py")


def test_every_folder_of_the_package_is_a_room_of_the_plan() -> None:
    folders = {path.parent.relative_to(PACKAGE).parts[0] for path in PACKAGE.glob("*/**/*.py")}
    assert folders - set(MAY_IMPORT) == {"config", "commands"}
    assert set(MAY_IMPORT) <= folders


def test_rooms_import_only_what_the_plan_allows() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {room} must not import {part_of(name)} ({name})"
        for room, allowed in MAY_IMPORT.items()
        for path in python_files(PACKAGE / room)
        for name in sorted(imported_modules(path))
        if part_of(name) and part_of(name) not in allowed | {room} | ROOT_VOCABULARY
    ]
    assert not broken, "\n".join(broken)


def test_the_root_vocabulary_imports_no_room() -> None:
    files = [PACKAGE / "errors.py", PACKAGE / "panoptic.py", PACKAGE / "runtime.py"]
    broken = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in [*files, *python_files(PACKAGE / "config")]
        for name in imported_modules(path)
        if part_of(name) in MAY_IMPORT
    ]
    assert not broken, "\n".join(broken)


def test_flows_import_no_room() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in python_files(ROOT / "flows")
        for name in imported_modules(path)
        if part_of(name) in MAY_IMPORT
    ]
    assert not broken, "\n".join(broken)


def test_heavy_libraries_have_one_door() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: only {door.relative_to(ROOT)} may import {library}"
        for path in CODE
        for library in sorted({name.split(".")[0] for name in imported_modules(path)})
        if (door := GATEKEEPERS.get(library)) is not None and not path.is_relative_to(door)
    ]
    assert not broken, "\n".join(broken)


def test_dvc_is_a_command_and_never_imported() -> None:
    broken = [str(path) for path in CODE for name in imported_modules(path) if name.split(".")[0] == "dvc"]
    assert not broken, "\n".join(broken)


def test_there_are_no_drawers() -> None:
    found = [
        path.relative_to(ROOT)
        for path in [*CODE, *python_files(ROOT / "tests")]
        for name in (path.stem, *path.relative_to(ROOT).parts[:-1])
        if name.lower() in DRAWERS
    ]
    assert not found


def test_devices_are_named_in_one_place() -> None:
    broken = []
    for path in CODE:
        if path == PACKAGE / "runtime.py":
            continue
        for node in ast.walk(tree(path)):
            is_name = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_name and re.fullmatch(r"cuda(:\d+)?", node.value):  # type: ignore[attr-defined]
                broken.append(f'{path.relative_to(ROOT)}: literal "cuda"; use gestalt.runtime.choose_device')
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "cuda"
            ):
                broken.append(f"{path.relative_to(ROOT)}: .cuda(); use gestalt.runtime.choose_device")
    assert not broken, "\n".join(broken)


def test_the_lock_file_holds_no_address() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if "://" in line] == []
    assert any("--hash=sha256:" in line for line in lines)


def test_stages_scripts_and_the_graph_have_the_same_names() -> None:
    scripts = {path.stem for path in (ROOT / "stages").glob("*.py")} - SHARED_BY_STAGES
    assert scripts == set(STAGES)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_runs_its_script_and_depends_on_it(name: str) -> None:
    stage = STAGES[name]
    assert re.fullmatch(rf"python -m stages\.{name}( --(batch|benchmark) \S+)?", stage["cmd"])
    assert f"stages/{name}.py" in stage["deps"]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_every_room_behind_its_script(name: str) -> None:
    listed = {dep.removeprefix("src/gestalt/").split("/")[0] for dep in STAGES[name]["deps"] if "src/" in dep}
    needed = rooms_behind(ROOT / "stages" / f"{name}.py")
    assert needed <= listed, f"dvc.yaml: {name} must depend on {sorted(needed - listed)}"


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_what_all_rooms_share(name: str) -> None:
    # Seeds and label conventions: other values of these are other results.
    assert {"src/gestalt/panoptic.py", "src/gestalt/runtime.py"} <= set(STAGES[name]["deps"])


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_code_that_exists(name: str) -> None:
    code = [dep for dep in STAGES[name]["deps"] if dep.startswith(("src/", "stages/"))]
    assert [dep for dep in code if not (ROOT / dep).exists()] == []


def test_stages_that_fit_depend_on_every_batch_they_are_fitted_on() -> None:
    n_batches = len(read_yaml("params.yaml")["fit_batches"])
    for name in ("features", "semantics"):
        deps = STAGES[name]["deps"]
        for artefact in ("data/raw/{}", "data/manifests/{}.parquet"):
            expected = {artefact.format(f"${{fit_batches[{index}]}}") for index in range(n_batches)}
            assert expected <= set(deps), f"dvc.yaml: {name} needs a line per entry of fit_batches"


def test_results_of_every_stage_can_be_taken_from_the_cache() -> None:
    # DVC keeps no run whose outputs are uncached, metrics and plots apart; ablations would render everything anew.
    for name, stage in STAGES.items():
        assert all(isinstance(out, str) for out in stage.get("outs", ())), name


def test_no_stage_depends_on_where_it_runs() -> None:
    for name, stage in STAGES.items():
        assert not [key for key in stage.get("params", ()) if str(key).startswith("runtime")], name
