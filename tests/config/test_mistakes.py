"""Every mistake in ``params.yaml`` or on the command line is one line that says what to do."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gestalt.config.loading import load_params
from gestalt.config.presets import compose_params
from gestalt.config.writing import add_batch, configure
from gestalt.errors import ConfigError

Read = Callable[[Path, list[str]], object]


def loading(path: Path, overrides: list[str]) -> object:
    return load_params(path, overrides)


def configuring(path: Path, overrides: list[str]) -> object:
    return configure(overrides, path)


def message_of(read: Read, path: Path, overrides: list[str]) -> str:
    before = path.read_bytes()
    with pytest.raises(ConfigError) as raised:
        read(path, overrides)
    assert path.read_bytes() == before
    message = str(raised.value)
    assert "\n" not in message
    return message


def adding(path: Path, overrides: list[str]) -> object:
    return add_batch("mine", path)


readers = pytest.mark.parametrize("read", [loading, configuring, adding])
everywhere = pytest.mark.parametrize("read", [loading, configuring])


@readers
@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("preset: [a\nseed: 0\n", 2, "expected ',' or ']'"),
        ("preset: a\n\tseed: 0\n", 2, "found character"),
        ("preset: a\nseed: 0\nseed: 1\n", 3, "found duplicate key"),
    ],
)
def test_broken_yaml_says_file_line_and_what_to_do(
    params_file: Path, read: Read, text: str, line: int, problem: str
) -> None:
    params_file.write_text(text, encoding="utf-8")
    message = message_of(read, params_file, [])
    assert message.startswith(f"{params_file}, line {line}: no YAML: ")
    assert problem in message
    assert "mend" in message


@readers
@pytest.mark.parametrize("text", ["- a\n- b\n", "3\n"])
def test_a_file_without_keys_is_refused(params_file: Path, read: Read, text: str) -> None:
    params_file.write_text(text, encoding="utf-8")
    assert "must hold keys" in message_of(read, params_file, [])


@everywhere
@pytest.mark.parametrize(
    "override", ["motion=4", "motion=true", "motion=null", "motion=[4]", "motion=nonsense"]
)
def test_a_section_given_a_value_is_named(params_file: Path, read: Read, override: str) -> None:
    message = message_of(read, params_file, [override])
    assert "motion is a section" in message
    assert "motion.runs=VALUE" in message
    assert ("paper" in message) == (read is not loading)


@everywhere
def test_a_nested_section_given_a_value_is_named(params_file: Path, read: Read) -> None:
    message = message_of(read, params_file, ["motion={raft: 4}"])
    assert "motion.raft is a section" in message
    assert "Got: 4" in message


@pytest.mark.parametrize("text", ["", "batches: monday\n", "batches:\n"])
def test_a_batch_is_added_to_a_list_only(params_file: Path, text: str) -> None:
    params_file.write_text(text, encoding="utf-8")
    assert "batches must be a list of names" in message_of(adding, params_file, [])


def test_of_many_missing_keys_some_are_named(params_file: Path) -> None:
    params_file.write_text("", encoding="utf-8")
    message = message_of(loading, params_file, [])
    assert "missing audit.examples, " in message
    assert "more; `gestalt configure` adds" in message


def test_a_section_given_a_value_in_the_file_is_named(params_file: Path) -> None:
    text = params_file.read_text(encoding="utf-8")
    params_file.write_text(text[: text.index("\nmotion:\n")] + "\nmotion: 4\n", encoding="utf-8")
    assert "motion is a section" in message_of(loading, params_file, [])


@everywhere
@pytest.mark.parametrize(
    ("override", "unknown", "known"),
    [
        ("motion.run=4", "motion.run", "motion.runs"),
        ("+motion.run=4", "motion.run", "motion.runs"),
        ("++motion.run=4", "motion.run", "motion.runs"),
        ("motion={run: 4}", "motion.run", "motion.runs"),
        ("motoin.runs=4", "motoin.runs", "motion.runs"),
        ("cell_share=1", "cell_share", "motion.clustering.cell_share"),
        ("motion.runs.x=4", "motion.runs.x", "motion.runs"),
    ],
)
def test_an_unknown_key_comes_with_the_nearest_ones(
    params_file: Path, read: Read, override: str, unknown: str, known: str
) -> None:
    message = message_of(read, params_file, [override])
    assert f"unknown key {unknown}; did you mean {known}" in message
    assert "append" not in message


@everywhere
def test_an_unknown_key_unlike_all_others_comes_with_the_page_of_all(params_file: Path, read: Read) -> None:
    assert "docs/params.md lists all keys" in message_of(read, params_file, ["zzzzzz=4"])


def test_an_unknown_key_in_the_file_comes_with_the_nearest_ones(params_file: Path) -> None:
    text = params_file.read_text(encoding="utf-8")
    params_file.write_text(text.replace("\nruntime:\n", "\nruntime:\n  wrokers: 3\n"), encoding="utf-8")
    assert "unknown key runtime.wrokers; did you mean runtime.workers" in message_of(loading, params_file, [])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("preset=nonsense", "preset must be one of benchmark, cityscapes, .* Got: 'nonsense'"),
        ("ablation=4", "ablation must be one of .*without_motion.* Got: 4"),
        ("ablaton=without_motion", "unknown key ablaton; did you mean ablation"),
        ("preset@x=kitti", "unknown key preset@x; did you mean preset"),
    ],
)
def test_an_unknown_preset_lists_the_known_ones(params_file: Path, override: str, message: str) -> None:
    assert re.search(message, message_of(configuring, params_file, [override]))


@everywhere
@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("motion.runs", "no KEY=VALUE"),
        ("batches=[a", "no KEY=VALUE"),
        ("motion.runs=1,2", "several values"),
        ("~motion.runs", "cannot be taken out"),
    ],
)
def test_what_cannot_be_read_says_how_to_write_it(
    params_file: Path, read: Read, override: str, problem: str
) -> None:
    message = message_of(read, params_file, [override])
    assert override in message
    assert problem in message
    assert "hydra.cc" not in message


@everywhere
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluate.protocols=[cityscapes19,nope]", "evaluate.protocols must name files in"),
        ("label_quality.protocol=nope", "label_quality.protocol must name files in"),
        ("network.stage_channels=[8,16,32]", "network.stage_channels must have 4 values"),
        ("network.stage_blocks=[1,1,1,1,1]", "network.stage_blocks must have 4 values"),
        (
            "network.proposals.anchor_sizes_px=[8]",
            "network.proposals.anchor_sizes_px must have 4 to 5 values",
        ),
        ("network.instances.cascade_ious=[]", "network.instances.cascade_ious must have 1 to 3 values"),
        ("network.stem_kernel=4", "network.stem_kernel must be odd. Got: 4"),
        ("network.block=bottleneck network.stage_channels=[32,64,96,130]", "must be multiples of 4"),
        (
            "network.semantic_groups=7",
            "network.semantic_channels must be a multiple of network.semantic_groups",
        ),
        ("fit_batches=[monday,sunday]", "fit_batches must be among batches: monday, tuesday. Got: 'sunday'"),
        ("runtime.device=gpu", "runtime.device must be auto, cpu, cuda or cuda:N. Got: 'gpu'"),
        ("runtime.device='cuda:'", "runtime.device must be"),
    ],
)
def test_values_that_cannot_work_are_refused_with_their_full_key(
    params_file: Path, read: Read, override: str, message: str
) -> None:
    assert message in message_of(read, params_file, override.split())


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:13"])
def test_every_device_that_torch_knows_by_that_name_is_allowed(device: str) -> None:
    assert compose_params([f"runtime.device='{device}'"]).runtime.device == device
