import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.pipeline import order_stages, outputs_of, remove_outputs, stage_needs

NEEDS = {
    "report": {"evaluate@kitti", "evaluate@bdd"},
    "evaluate@kitti": {"train"},
    "evaluate@bdd": {"train"},
    "train": {"labels@monday", "labels@tuesday"},
    "labels@monday": set[str](),
    "labels@tuesday": set[str](),
    "apart": set[str](),
}


def test_each_stage_comes_after_all_it_needs() -> None:
    order = order_stages(NEEDS)
    assert sorted(order) == sorted(NEEDS)
    assert all(order.index(need) < order.index(stage) for stage, needs in NEEDS.items() for need in needs)


def test_a_target_brings_what_it_needs_and_nothing_else() -> None:
    assert order_stages(NEEDS, ["train"]) == ["labels@monday", "labels@tuesday", "train"]


def test_a_group_stands_for_all_its_items() -> None:
    assert order_stages(NEEDS, ["labels"]) == ["labels@monday", "labels@tuesday"]


def test_an_unknown_target_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'trian' is no stage of dvc\.yaml; known: report"):
        order_stages(NEEDS, ["trian"])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_any_graph_is_ordered_the_same_way_every_time(edges: list[tuple[int, int]]) -> None:
    needs: dict[str, set[str]] = {str(number): set() for number in range(10)}
    for one, other in edges:
        if one != other:
            needs[str(max(one, other))].add(str(min(one, other)))
    order = order_stages(needs)
    assert sorted(order) == sorted(needs)
    assert all(order.index(need) < order.index(stage) for stage in needs for need in needs[stage])
    assert order == order_stages(needs)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(
        """
stages:
  join:
    cmd: ls data > all.txt
    deps: [data]
    outs: [all.txt]
  make:
    matrix: {batch: "${batches}"}
    cmd: mkdir -p data/${item.batch} && echo 1 > data/${item.batch}/x
    outs: ['data/${item.batch}']
"""
    )
    (tmp_path / "params.yaml").write_text("batches: [b, a]\n")
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "-q"], check=True)
    return tmp_path


def test_stages_order_and_outputs_are_read_from_dvc(repository: Path) -> None:
    needs = stage_needs()
    assert needs == {"join": {"make@a", "make@b"}, "make@b": set(), "make@a": set()}
    assert order_stages(needs)[-1] == "join"
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], check=True)
    assert outputs_of("a") == [Path("data/a")]
    remove_outputs(outputs_of("a"))
    assert not Path("data/a").exists()
    assert Path("data/b").exists()
    shutil.rmtree(repository / ".dvc")


def test_rendered_video_is_no_output_of_a_batch(tmp_path: Path) -> None:
    pipeline = tmp_path / "dvc.yaml"
    pipeline.write_text(
        """
stages:
  scenes:
    matrix: {batch: "${rendered_batches}"}
    outs: ['data/raw/${item.batch}']
  motion:
    matrix: {batch: "${batches}"}
    outs:
      - data/motion/${item.batch}: {persist: true}
  guided:
    outs: [models/guided]
"""
    )
    assert outputs_of("tuesday", pipeline) == [Path("data/motion/tuesday")]
