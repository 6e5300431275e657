"""What ``dvc.yaml`` promises: truth is read by evaluation alone, and every fit batch is a dependency."""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gestalt.config.presets import PRESETS, compose_params

ROOT = Path(__file__).parents[2]
STAGES: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]

# The only readers of what people, or the renderer, know about the images.
MAY_READ_TRUTH = {"label_quality", "predict", "evaluate"}


def paths(stage: str, kind: str) -> list[str]:
    entries = STAGES[stage].get(kind, [])
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


@pytest.mark.parametrize("stage", sorted(set(STAGES) - MAY_READ_TRUTH))
def test_no_other_stage_reads_truth(stage: str) -> None:
    assert not [path for path in paths(stage, "deps") if re.match(r"data/(truth|benchmarks)", path)]


@pytest.mark.parametrize("stage", ["features", "semantics"])
@pytest.mark.parametrize("preset", sorted(path.stem for path in (PRESETS / "preset").glob("*.yaml")))
def test_every_fit_batch_is_a_dependency(stage: str, preset: str) -> None:
    listed = {
        int(index) for path in paths(stage, "deps") for index in re.findall(r"fit_batches\[(\d+)\]", path)
    }
    assert listed == set(range(len(compose_params([f"preset={preset}"]).fit_batches)))


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_stage_name_is_the_script_and_a_section(stage: str) -> None:
    assert (ROOT / "stages" / f"{stage}.py").exists()
    assert f"stages/{stage}.py" in paths(stage, "deps")
    assert hasattr(compose_params(), stage)
    assert STAGES[stage]["cmd"].startswith(f"python -m stages.{stage}")


def test_where_the_work_runs_never_makes_a_stage_stale() -> None:
    assert not [stage for stage in STAGES if "runtime" in " ".join(map(str, STAGES[stage].get("params", [])))]
