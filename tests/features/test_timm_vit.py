"""Features of timm's networks against timm itself, and which architecture bare weights are."""

import sys
from pathlib import Path

import pytest
import torch

from gestalt.errors import ConfigError, MissingDependencyError
from gestalt.features.dense import normalise, save_features
from gestalt.features.loading import load_features
from gestalt.features.timm_vit import TimmFeatures, build_timm, convert_for_timm, name_timm_architecture

timm = pytest.importorskip("timm", reason="timm is not installed")
WITH_REGISTERS, ROTARY = "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3_qkvb"


@pytest.fixture(scope="module", params=[WITH_REGISTERS, ROTARY])
def features(request: pytest.FixtureRequest) -> TimmFeatures:
    torch.manual_seed(0)
    made = TimmFeatures(request.param)
    # Fresh weights hardly change anything: scaled residuals begin near zero.
    for parameter in made.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    return made


def explicit_last_attention(made: TimmFeatures, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys (B, heads, N, d) and attention (B, heads, N, N) of the last block, from its input and its weights."""
    from timm.layers import apply_rot_embed_cat

    seen = {}
    block = made.network.blocks[-1]
    hook = block.attn.register_forward_pre_hook(
        lambda module, given, named: seen.update(tokens=given[0], **named), with_kwargs=True
    )
    made.network.forward_features(normalise(images))
    hook.remove()
    biases = block.attn.qkv.bias
    if biases is None:
        biases = torch.cat([block.attn.q_bias, torch.zeros(384), block.attn.v_bias])
    joint = seen["tokens"] @ block.attn.qkv.weight.T + biases
    queries, keys, _ = joint.reshape(len(images), -1, 3, 6, 64).permute(2, 0, 3, 1, 4).unbind(0)
    rotation = seen.get("rope")
    if rotation is not None:
        n_before = made.network.num_prefix_tokens
        half = block.attn.rotate_half
        queries, keys = (
            torch.cat(
                [part[:, :, :n_before], apply_rot_embed_cat(part[:, :, n_before:], rotation, half=half)], 2
            )
            for part in (queries, keys)
        )
    return keys, (queries @ keys.transpose(2, 3) / 8).softmax(-1)


def test_tokens_are_those_of_timm_without_registers(features: TimmFeatures) -> None:
    images = torch.rand(2, 3, 3 * features.stride, 5 * features.stride)
    grid = features.extract(images)
    with torch.no_grad():
        expected = features.network.forward_features(normalise(images))
    assert expected.shape[1] == 5 + 15
    torch.testing.assert_close(grid.cls, expected[:, 0])
    torch.testing.assert_close(grid.tokens.flatten(2).transpose(1, 2), expected[:, 5:])
    assert grid.tokens.shape == (2, 384, 3, 5)


def test_keys_enter_attention_as_they_are_given(features: TimmFeatures) -> None:
    images = torch.rand(1, 3, 2 * features.stride, 4 * features.stride)
    grid = features.extract(images)
    with torch.no_grad():
        keys, attention = explicit_last_attention(features, images)
    expected = keys[:, :, 5:].transpose(2, 3).reshape(1, 384, 2, 4)
    torch.testing.assert_close(grid.keys, expected, atol=1e-4, rtol=1e-4)
    looked_at = attention[:, :, 0, 5:].reshape(1, 6, 2, 4)
    torch.testing.assert_close(grid.cls_attention, looked_at, atol=1e-5, rtol=1e-4)
    sums = grid.cls_attention.sum((2, 3)) + attention[:, :, 0, :5].sum(-1)
    torch.testing.assert_close(sums, torch.ones(1, 6))


def test_images_of_any_size_and_padded_batches(features: TimmFeatures) -> None:
    images = torch.rand(2, 3, 70, 45)
    together = features.extract(images, torch.tensor([[70, 45], [30, 45]]))
    alone = features.extract(images[1:, :, :30])
    rows = alone.tokens.shape[2]
    torch.testing.assert_close(together.tokens[1, :, :rows], alone.tokens[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.cls[1], alone.cls[0], atol=1e-5, rtol=1e-5)
    assert not together.valid[1, rows:].any()


def test_saved_equals_loaded(tmp_path: Path, features: TimmFeatures) -> None:
    save_features(features, tmp_path)
    loaded, images = load_features(tmp_path, facet="keys"), torch.rand(1, 3, 32, 32)
    assert torch.equal(loaded(images), features.extract(images).keys)


def test_bare_weights_name_their_architecture(features: TimmFeatures) -> None:
    assert name_timm_architecture(features.network.state_dict()) == features.architecture


def test_the_authors_names_of_dinov2_become_those_of_timm() -> None:
    network = build_timm(WITH_REGISTERS)
    torch.nn.init.normal_(network.pos_embed)
    own = network.state_dict()
    position = torch.randn(1, 1, 384)
    theirs = {name: value for name, value in own.items() if name not in ("reg_token", "pos_embed")}
    # The authors add a position to CLS, none to the registers, and keep the token of hidden patches.
    theirs |= {
        "register_tokens": own["reg_token"],
        "pos_embed": torch.cat([position, own["pos_embed"]], 1),
        "cls_token": own["cls_token"] - position,
        "mask_token": torch.zeros(1, 384),
    }
    assert name_timm_architecture(theirs) == WITH_REGISTERS
    converted = convert_for_timm(network, theirs)
    assert set(converted) == set(own)
    for name, value in own.items():
        torch.testing.assert_close(converted[name], value, atol=1e-6, rtol=1e-6)


def test_the_authors_names_of_dinov3_become_those_of_timm() -> None:
    network = build_timm(ROTARY)
    own = network.state_dict()
    theirs = {}
    for name, value in own.items():
        renamed = name.replace("reg_token", "storage_tokens")
        renamed = renamed.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
        if name.endswith("q_bias"):
            joint = torch.cat([value, torch.zeros(384), own[name.replace("q_bias", "v_bias")]])
            theirs[name.replace("q_bias", "qkv.bias")] = joint
        elif not name.endswith("v_bias"):
            theirs[renamed] = value
    theirs["rope_embed.periods"] = torch.ones(16)
    assert name_timm_architecture(theirs) == ROTARY
    converted = convert_for_timm(network, theirs)
    assert set(converted) == set(own)
    assert all(torch.equal(converted[name], value) for name, value in own.items())


def test_plain_networks_are_not_of_this_kind() -> None:
    plain = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, depth=1)
    assert name_timm_architecture(plain.state_dict()) is None
    assert name_timm_architecture({"conv1.weight": torch.zeros(1)}) is None


def test_sizes_that_no_architecture_has_name_the_candidates() -> None:
    strange = {
        "patch_embed.proj.weight": torch.zeros(512, 3, 14, 14),
        "pos_embed": torch.zeros(1, 10, 512),
        "blocks.0.ls1.gamma": torch.zeros(512),
    }
    with pytest.raises(ConfigError, match=r"512 wide, patch 14, 0 registers.*vit_small_patch14_dinov2"):
        name_timm_architecture(strange)


def test_unknown_names_and_other_networks_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"has no 'vit_none_dinov2'.*vit_base_patch14_dinov2"):
        build_timm("vit_none_dinov2")
    with pytest.raises(ConfigError, match="no ViT"):
        build_timm("resnet18")


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match=r"pip install -e '.\[timm\]'"):
        TimmFeatures(WITH_REGISTERS)
