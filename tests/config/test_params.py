"""The committed ``params.yaml`` is the composed default, and wrong values fail with the key's full path."""

from pathlib import Path

import pytest

from gestalt.config.loading import load_params
from gestalt.config.presets import PRESETS, compose_params, default_settings
from gestalt.config.writing import add_batch, configure, parameter_table, render_params
from gestalt.errors import ConfigError

ROOT = Path(__file__).parents[2]


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def test_committed_file_is_the_composed_default() -> None:
    assert load_params(ROOT / "params.yaml") == compose_params()


def test_committed_file_is_written_as_configure_writes_it() -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert render_params(compose_params()) == text


@pytest.mark.parametrize("preset", sorted(path.stem for path in (PRESETS / "preset").glob("*.yaml")))
def test_every_preset_composes(preset: str) -> None:
    assert compose_params([f"preset={preset}"]).preset == preset


@pytest.mark.parametrize("ablation", sorted(path.stem for path in (PRESETS / "ablation").glob("*.yaml")))
def test_every_ablation_changes_something_but_none(ablation: str) -> None:
    changed = compose_params([f"ablation={ablation}"]) != compose_params()
    assert changed == (ablation != "none")


def test_unknown_key_fails_with_its_full_path(params_file: Path) -> None:
    edit(params_file, "\nruntime:\n", "\nruntime:\n  wrokers: 3\n")
    with pytest.raises(ConfigError, match=r"runtime\.wrokers"):
        load_params(params_file)


def test_wrong_type_fails_with_its_full_path(params_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"runtime\.workers"):
        load_params(params_file, ["runtime.workers=many"])


def test_missing_key_fails_with_its_full_path(params_file: Path) -> None:
    edit(params_file, "  shard_size:", "  # shard_size:")
    with pytest.raises(ConfigError, match=r"missing runtime\.shard_size"):
        load_params(params_file)


def test_value_out_of_range_fails_with_range_and_value(params_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"runtime\.max_failed_share must be at most 1. Got: 2"):
        load_params(params_file, ["runtime.max_failed_share=2"])


def test_unknown_choice_lists_the_known_ones(params_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"runtime\.executor must be one of local, dask. Got: 'ray'"):
        load_params(params_file, ["runtime.executor=ray"])


def test_missing_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gestalt configure"):
        load_params(tmp_path / "params.yaml")


def test_unknown_preset_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        compose_params(["preset=nonsense"])


def test_configure_shows_the_difference_and_keeps_comments(params_file: Path) -> None:
    edit(params_file, "\nruntime:\n", "\n# ours: the night machine\nruntime:\n")
    difference = configure(["runtime.workers=7"], params_file)
    assert "+  workers: 7" in difference
    assert "# ours: the night machine" in params_file.read_text(encoding="utf-8")
    assert load_params(params_file).runtime.workers == 7


def test_comments_of_people_stay_with_their_key_and_meanings_with_theirs(params_file: Path) -> None:
    clean = params_file.read_text(encoding="utf-8")
    # A file from before a key existed: nested last keys are where comments used to go astray.
    lost = [line for line in clean.splitlines() if "hidden_weight" not in line and "max_models" not in line]
    own = [line.replace("workers: 0", "workers: 0  # all of them") for line in lost]
    params_file.write_text("\n".join([*own, "# the end"]) + "\n", encoding="utf-8")
    configure([], params_file)
    after = params_file.read_text(encoding="utf-8")
    assert after == clean.replace("workers: 0", "workers: 0  # all of them") + "# the end\n"


def test_configure_leaves_the_file_alone_when_a_value_is_wrong(params_file: Path) -> None:
    before = params_file.read_bytes()
    with pytest.raises(ConfigError):
        configure(["runtime.workers=-1"], params_file)
    assert params_file.read_bytes() == before


def test_added_batch_is_appended_once(params_file: Path) -> None:
    add_batch("wednesday", params_file)
    assert load_params(params_file).batches[-1] == "wednesday"
    with pytest.raises(ConfigError, match="immutable"):
        add_batch("wednesday", params_file)


def test_parameter_page_is_current() -> None:
    assert (ROOT / "docs" / "params.md").read_text(encoding="utf-8") == parameter_table()


def test_settings_of_one_section_take_values() -> None:
    assert default_settings("runtime", workers=5).workers == 5
