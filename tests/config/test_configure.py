"""``gestalt configure`` goes on from the present file: what people set there stays until they name it."""

from pathlib import Path

import pytest

from gestalt.config.loading import load_params
from gestalt.config.presets import compose_params
from gestalt.config.writing import add_batch, configure
from gestalt.errors import ConfigError


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def test_own_batches_and_earlier_values_survive_an_ablation(params_file: Path) -> None:
    add_batch("mine", params_file)
    configure(["motion.runs=4"], params_file)
    configure(["ablation=without_motion"], params_file)
    params = load_params(params_file)
    assert params.batches == ["monday", "tuesday", "mine"]
    assert params.motion.runs == 4
    assert params.pseudo_labels.components.enabled


def test_the_preset_of_the_file_is_where_a_value_is_changed(params_file: Path) -> None:
    configure(["preset=kitti"], params_file)
    configure(["motion.runs=4"], params_file)
    assert load_params(params_file) == compose_params(["preset=kitti", "motion.runs=4"])


def test_naming_nothing_changes_nothing(params_file: Path) -> None:
    configure(["preset=cityscapes", "ablation=without_depth", "runtime.workers=3"], params_file)
    assert configure([], params_file) == ""


def test_a_value_that_is_named_goes_back_to_the_preset(params_file: Path) -> None:
    before = load_params(params_file)
    configure(["motion.runs=4"], params_file)
    configure([f"motion.runs={before.motion.runs}"], params_file)
    assert load_params(params_file) == before


def test_a_variant_of_a_section_replaces_the_whole_section(params_file: Path) -> None:
    configure(["motion.runs=4", "seed=7"], params_file)
    configure(["motion=paper"], params_file)
    assert load_params(params_file) == compose_params(["motion=paper", "seed=7"])


def test_ablations_add_up_until_none_is_named(params_file: Path) -> None:
    add_batch("mine", params_file)
    configure(["motion.runs=4"], params_file)
    before = load_params(params_file)
    configure(["ablation=without_motion"], params_file)
    configure(["ablation=without_self_training"], params_file)
    both = load_params(params_file)
    assert both.pseudo_labels.components.enabled
    assert both.self_training.steps == 0
    configure(["ablation=none"], params_file)
    assert load_params(params_file) == before


def test_an_ablation_sees_own_batches(params_file: Path) -> None:
    add_batch("mine", params_file)
    configure(["ablation=normalized_cut"], params_file)
    assert load_params(params_file).normalized_cut_batches == ["monday", "tuesday", "mine"]


def test_a_named_preset_composes_afresh_but_for_own_batches(params_file: Path) -> None:
    add_batch("mine", params_file)
    configure(["motion.runs=4"], params_file)
    difference = configure(["preset=kitti"], params_file)
    assert "+batches: [mine]\n" in difference
    assert load_params(params_file) == compose_params(["preset=kitti", "batches=[mine]"])
    configure(["preset=embedded"], params_file)
    assert load_params(params_file) == compose_params(["batches=[monday,tuesday,mine]"])


def test_batches_that_are_named_are_all_there_are(params_file: Path) -> None:
    add_batch("mine", params_file)
    configure(["preset=embedded", "batches=[monday]"], params_file)
    assert load_params(params_file).batches == ["monday"]


def test_a_preset_an_ablation_and_a_seed_are_composed_as_in_a_fresh_worktree(params_file: Path) -> None:
    values = ["preset=embedded", "ablation=without_copy_paste", "seed=2", "runtime.threads=1"]
    configure(["motion.runs=4", "ablation=without_depth"], params_file)
    configure(values, params_file)
    assert load_params(params_file) == compose_params(values)


def test_without_a_file_the_embedded_preset_is_composed(tmp_path: Path) -> None:
    configure(["motion.runs=4"], tmp_path / "params.yaml")
    assert load_params(tmp_path / "params.yaml") == compose_params(["motion.runs=4"])


@pytest.mark.parametrize("name", ["my_streets", "[kitti]"])
def test_a_preset_that_does_not_exist_leaves_embedded_as_the_start(params_file: Path, name: str) -> None:
    edit(params_file, "preset: embedded", f"preset: {name}")
    edit(params_file, "seed: 0", "seed: 5")
    if name == "my_streets":
        configure(["motion.runs=4"], params_file)
        params = load_params(params_file)
        assert (params.preset, params.seed, params.motion.runs) == (name, 5, 4)
    configure(["preset=kitti"], params_file)
    assert load_params(params_file) == compose_params(["preset=kitti"])


def test_a_key_that_no_longer_exists_leaves_with_its_line_in_the_difference(params_file: Path) -> None:
    edit(params_file, "\nruntime:\n", "\nruntime:\n  speed: 3\n")
    assert "-  speed: 3\n" in configure(["seed=1"], params_file)
    assert load_params(params_file).seed == 1


def test_a_wrong_value_in_the_file_is_refused_until_it_is_named(params_file: Path) -> None:
    edit(params_file, "  workers: 0", "  workers: many")
    before = params_file.read_bytes()
    with pytest.raises(ConfigError, match=r"params\.yaml with seed=1: .*runtime\.workers"):
        configure(["seed=1"], params_file)
    assert params_file.read_bytes() == before
    configure(["runtime.workers=2"], params_file)
    assert load_params(params_file).runtime.workers == 2


@pytest.mark.parametrize("overrides", [[], ["motion.runs=4"], ["preset=kitti"]])
def test_a_section_that_is_a_value_in_the_file_is_one_line(params_file: Path, overrides: list[str]) -> None:
    params_file.write_text("preset: embedded\nmotion: 4\n", encoding="utf-8")
    if "preset=kitti" in overrides:
        configure(overrides, params_file)
        return
    with pytest.raises(ConfigError, match=r"params\.yaml: motion is a section; .* Got: 4") as raised:
        configure(overrides, params_file)
    assert "\n" not in str(raised.value)


def test_an_own_batch_that_is_no_list_is_refused(params_file: Path) -> None:
    edit(params_file, "\nbatches: [monday, tuesday]", "\nbatches: mine")
    with pytest.raises(ConfigError, match=r"params\.yaml: batches must be a list of names. Got: 'mine'"):
        configure(["preset=kitti"], params_file)
