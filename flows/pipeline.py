"""What DVC knows about the pipeline: its stages and their order. There is no second list."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

from ruamel.yaml import YAML

from flows.processes import DVC, read_command

PIPELINE = Path("dvc.yaml")
EVERY_BATCH = "${batches}"
EDGE = re.compile(r'^"(?P<source>[^"]+)" -> "(?P<target>[^"]+)";$')


def stage_names() -> list[str]:
    """Every stage, with its item (``motion@monday``), as ``dvc.yaml`` lists them."""
    return read_command([*DVC, "stage", "list", "--name-only"], what="dvc stage list").split()


def stage_needs() -> dict[str, set[str]]:
    """The stages that each stage needs directly."""
    names = stage_names()
    needs: dict[str, set[str]] = {name: set() for name in names}
    for line in read_command([*DVC, "dag", "--dot"], what="dvc dag").splitlines():
        if (edge := EDGE.match(line.strip())) and edge["target"] in needs and edge["source"] in needs:
            needs[edge["target"]].add(edge["source"])
    return needs


def order_stages(needs: Mapping[str, Iterable[str]], targets: Iterable[str] = ()) -> list[str]:
    """The stages in an order in which each comes after all it needs.

    Args:
        needs: What ``stage_needs`` returns.
        targets: Stages to reach; ``motion`` stands for ``motion@monday`` and its like. None reaches all.

    Returns:
        The targets and what they need, nothing else; ties in the order of ``needs``.

    Raises:
        ValueError: A target is no stage.
    """
    wanted: set[str] = set()
    open_ends = [stage for target in targets for stage in _expand(needs, target)] or list(needs)
    while open_ends:
        stage = open_ends.pop()
        if stage not in wanted:
            wanted.add(stage)
            open_ends += needs[stage]
    sorter = TopologicalSorter(
        {stage: [need for need in needs[stage] if need in wanted] for stage in needs if stage in wanted}
    )
    sorter.prepare()
    position = {stage: index for index, stage in enumerate(needs)}
    ordered: list[str] = []
    while sorter.is_active():
        for stage in sorted(sorter.get_ready(), key=position.__getitem__):
            ordered.append(stage)
            sorter.done(stage)
    return ordered


def outputs_of(batch: str, pipeline: Path = PIPELINE) -> list[Path]:
    """What the stages that run once per batch write for this one, whether they got that far or not.

    Args:
        batch: Name of the batch.
        pipeline: ``dvc.yaml``; its stages with ``matrix: {<key>: ${batches}}`` count.
    """
    stages = YAML(typ="safe").load(pipeline.read_text(encoding="utf-8"))["stages"]
    found = []
    for stage in stages.values():
        keys = [key for key, values in stage.get("matrix", {}).items() if values == EVERY_BATCH]
        for key in keys:
            outputs = [out if isinstance(out, str) else next(iter(out)) for out in stage.get("outs", [])]
            found += [Path(out.replace(f"${{item.{key}}}", batch)) for out in outputs]
    return found


def remove_outputs(paths: Iterable[Path]) -> None:
    """Remove outputs from the workspace; DVC's cache keeps their bytes."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _expand(needs: Mapping[str, Iterable[str]], target: str) -> list[str]:
    found = [stage for stage in needs if stage == target or stage.split("@")[0] == target]
    if not found:
        raise ValueError(f"{target!r} is no stage of dvc.yaml; known: {', '.join(needs)}")
    return found
