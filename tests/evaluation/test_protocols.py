from __future__ import annotations

import re
from pathlib import Path

import pytest

from gestalt.config.presets import default_settings
from gestalt.data.label_spaces import load_label_space, raw_id_table
from gestalt.errors import ConfigError
from gestalt.evaluation.protocols import FOLDER, Protocol, known_protocols, load_protocol, protocol_for
from gestalt.panoptic import VOID

FIELDS = (FOLDER / "cityscapes19.yaml").read_text(encoding="utf-8")


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", known_protocols())
def test_every_protocol_loads_and_fits_its_label_space(name: str) -> None:
    protocol = load_protocol(name)
    space = load_label_space(protocol.label_space)
    annotated = set(raw_id_table(protocol.dataset, protocol.label_space).tolist()) - {VOID}
    ignored = set(protocol.ignored_ids(space))
    assert annotated | ignored == set(range(len(space.classes)))
    assert not annotated & ignored


@pytest.mark.parametrize("name", known_protocols())
def test_names_say_when_tiny_objects_are_void_and_images_are_rendered(name: str) -> None:
    protocol = load_protocol(name)
    assert name.endswith(f"_min{protocol.min_object_px}") == (protocol.min_object_px > 0)
    assert ("_rendered" in name) == protocol.rendered


def test_hashes_differ_between_protocols_and_are_stable() -> None:
    hashes = {load_protocol(name).hash for name in known_protocols()}
    assert len(hashes) == len(known_protocols())
    assert load_protocol("mots2").hash == load_protocol("mots2").hash
    assert load_protocol("mots2").label == f"mots2@{load_protocol('mots2').hash}"


def test_any_field_changes_the_hash() -> None:
    values = {**load_protocol("cityscapes19").to_dict(), "image_size": (1024, 2048)}
    changed = Protocol(**{**values, "min_object_px": 1})
    assert changed.hash != load_protocol("cityscapes19").hash == Protocol(**values).hash


def test_the_published_protocol_is_void_neutral_with_groups_as_segments() -> None:
    protocol = load_protocol("cityscapes19")
    assert protocol.primary == "void_neutral"
    assert protocol.group_regions == {"void_neutral": "segment", "standard": "crowd"}


@pytest.mark.parametrize(
    ("name", "n_images", "image_size", "crop", "classes", "ignored"),
    [
        ("cityscapes", 500, (1024, 2048), None, (7, 19, 27), ()),
        ("kitti_panoptic", 200, None, (368, 1240), (7, 19, 27), ()),
        ("bdd", 1000, (720, 1280), None, (7, 19, 27), ()),
        ("muses", None, (1080, 1920), None, (7, 19, 27), ()),
        ("waymo", None, (1280, 1920), None, (7, 19), (3, 4, 9)),
        ("mots", 2862, None, None, (2,), ()),
    ],
)
def test_published_protocols_are_those_of_the_paper(
    name: str,
    n_images: int | None,
    image_size: tuple[int, int] | None,
    crop: tuple[int, int] | None,
    classes: tuple[int, ...],
    ignored: tuple[int, ...],
) -> None:
    for n_classes in classes:
        protocol = load_protocol(f"{name}{n_classes}")
        space = load_label_space(protocol.label_space)
        assert len(space.classes) == n_classes
        assert (protocol.dataset, protocol.n_images) == (name, n_images)
        assert (protocol.image_size, protocol.short_side_px, protocol.crop) == (image_size, None, crop)
        assert (protocol.matching, protocol.left_over) == ("apart", "largest")
        assert (protocol.conventions, protocol.void_is_wrong) == (("void_neutral", "standard"), False)
        assert protocol.ignored_ids(space) == (ignored if n_classes == 19 else ())
        assert (protocol.min_object_px, protocol.min_stuff_px, protocol.rendered) == (0, 0, False)


def test_the_published_semantic_protocol_is_joint_over_27_classes_in_small_squares() -> None:
    protocol = load_protocol("cityscapes27_semantic320")
    assert (protocol.short_side_px, protocol.crop, protocol.matching) == (320, (320, 320), "joint")
    assert (protocol.label_space, protocol.image_size) == ("cityscapes27", (1024, 2048))


def test_waymo_leaves_out_what_it_does_not_annotate() -> None:
    protocol = load_protocol("waymo19_rendered_min64")
    assert protocol.ignored_ids(load_label_space("cityscapes19")) == (3, 4, 9)


@pytest.mark.parametrize("variant", ["embedded", "paper"])
def test_presets_name_one_protocol_per_data_set(variant: str) -> None:
    names = default_settings("evaluate", variant).protocols
    for dataset in ("cityscapes", "kitti_panoptic", "bdd", "waymo", "mots"):
        assert protocol_for(dataset, names).dataset == dataset
    assert load_protocol(default_settings("label_quality", variant).protocol).dataset == "cityscapes"


def test_a_missing_data_set_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"evaluate.protocols must name exactly one.*'bdd'.*none of mots2"):
        protocol_for("bdd", ["mots2"])
    with pytest.raises(ConfigError, match="Got: cityscapes19, cityscapes27"):
        protocol_for("cityscapes", ["cityscapes19", "cityscapes27"])


def test_an_unknown_protocol_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no protocol 'coco'; known: bdd19, .*cityscapes19"):
        load_protocol("coco")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("matching: apart", "matching: both", "matching must be one of apart, joint. Got: 'both'"),
        ("left_over: largest", "left_over: all", "left_over must be one of largest, void"),
        ("[void_neutral, standard]", "[official]", "conventions must be one of void_neutral, standard"),
        ("[void_neutral, standard]", "[]", "conventions is empty"),
        ("  standard: crowd\n", "", "group_regions must be one of segment, crowd. Got: None"),
        ("min_object_px: 0", "", "missing fields min_object_px"),
        ("min_object_px: 0", "min_object_px: -1", "min_object_px must be a whole number from 0. Got: -1"),
        ("crop: null", "crop: 320", "crop must be [height, width] in pixels, or null. Got: 320"),
        ("unit: image", "unit: city", "unit must be one of image, sequence"),
        ("min_object_px: 0", "min_object_px: 0\ncolour: red", "unknown fields colour"),
        ("matching: apart", "matching: [", "is not YAML"),
    ],
)
def test_mistakes_in_a_protocol_are_named(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in FIELDS
    write(tmp_path, "mine", FIELDS.replace(before, after))
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_protocol("mine", tmp_path)


def test_a_class_that_is_not_in_the_space_is_named(tmp_path: Path) -> None:
    write(tmp_path, "mine", FIELDS.replace("ignored_classes: []", "ignored_classes: [moon]"))
    with pytest.raises(ConfigError, match="ignored_classes moon are not in cityscapes19"):
        load_protocol("mine", tmp_path).ignored_ids(load_label_space("cityscapes19"))


def test_a_file_of_ones_own_extends_a_known_protocol(tmp_path: Path) -> None:
    write(tmp_path, "mine", "extends: kitti_panoptic19\nmeaning: my images\nn_images: 3\n")
    mine = load_protocol(str(tmp_path / "mine.yaml"))
    assert (mine.name, mine.n_images, mine.crop) == ("mine", 3, (368, 1240))
    with pytest.raises(ConfigError, match="no such file"):
        load_protocol(str(tmp_path / "other.yaml"))


@pytest.mark.parametrize(
    "name", [name for name in known_protocols() if f"{name}_official" in known_protocols()]
)
def test_the_official_protocol_is_strict(name: str) -> None:
    official = load_protocol(f"{name}_official")
    assert official.conventions == ("standard",)
    assert official.group_regions["standard"] == "crowd"
    assert official.left_over == "void"
    assert official.crop is None
    assert official.void_is_wrong
    assert official.dataset == load_protocol(name).dataset
