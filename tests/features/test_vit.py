"""The vision transformer against an explicit reference, timm's network, and what masks and sizes must keep."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from gestalt.errors import ConfigError, ShapeError
from gestalt.features.vit import PUBLISHED_OFFSET, Block, VisionTransformer, VitLayout, cells_within

TINY = VitLayout(patch_size=4, width=24, depth=3, heads=3, grid=5)


def network(layout: VitLayout = TINY, **values: float) -> VisionTransformer:
    """Random weights of a size at which every part matters."""
    torch.manual_seed(0)
    made = VisionTransformer(layout, **values).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.ndim == 1))
    return made


def explicit_tokens(made: VisionTransformer, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens after the final norm (B, 1 + N, D), and the attention matrix of the last block, in float64."""
    state = {name: value.double() for name, value in made.state_dict().items()}
    layout = made.layout
    side, heads = layout.patch_size, layout.heads
    batch, _, height, width = images.shape
    patches = images.double().reshape(batch, 3, height // side, side, width // side, side)
    patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, 3 * side * side)
    cells = patches @ state["patch_embed.proj.weight"].flatten(1).T + state["patch_embed.proj.bias"]
    tokens = torch.cat([state["cls_token"].expand(batch, -1, -1), cells], 1) + state["pos_embed"]

    def norm(values: torch.Tensor, name: str) -> torch.Tensor:
        centred = values - values.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(values: torch.Tensor, name: str) -> torch.Tensor:
        return values @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    for number in range(layout.depth):
        block = f"blocks.{number}"
        joint = linear(norm(tokens, f"{block}.norm1"), f"{block}.attn.qkv")
        queries, keys, values = (
            part.reshape(batch, -1, heads, layout.width // heads).transpose(1, 2)
            for part in joint.split(layout.width, -1)
        )
        attention = (queries @ keys.transpose(2, 3) / math.sqrt(layout.width // heads)).softmax(-1)
        mixed = (attention @ values).transpose(1, 2).flatten(2)
        tokens = tokens + linear(mixed, f"{block}.attn.proj")
        hidden = linear(norm(tokens, f"{block}.norm2"), f"{block}.mlp.fc1")
        hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        tokens = tokens + linear(hidden, f"{block}.mlp.fc2")
    return norm(tokens, "norm"), attention


def test_tokens_keys_and_attention_are_those_of_the_formulas() -> None:
    made, images = network(), torch.randn(2, 3, 20, 20)
    expected, attention = explicit_tokens(made, images)
    with torch.no_grad():
        output = made(images, attention=True)
    torch.testing.assert_close(output.cls, expected[:, 0].float(), atol=1e-4, rtol=1e-4)
    cells = expected[:, 1:].transpose(1, 2).reshape(2, 24, 5, 5)
    torch.testing.assert_close(output.tokens, cells.float(), atol=1e-4, rtol=1e-4)
    looked_at = attention[:, :, 0, 1:].reshape(2, 3, 5, 5)
    torch.testing.assert_close(output.cls_attention, looked_at.float(), atol=1e-5, rtol=1e-4)
    own = attention[:, :, 0, 0].float()
    torch.testing.assert_close(output.cls_attention.sum((2, 3)) + own, torch.ones(2, 3))


def test_keys_are_the_middle_third_of_the_joint_projection() -> None:
    made, images = network(), torch.randn(1, 3, 8, 16)
    seen = []
    made.blocks[-1].attn.qkv.register_forward_hook(lambda module, given, out: seen.append(out))
    with torch.no_grad():
        keys = made(images, attention=True).keys
    torch.testing.assert_close(keys.flatten(2).transpose(1, 2), seen[0][:, 1:, 24:48], atol=1e-5, rtol=1e-5)


def test_nothing_is_said_of_attention_unless_asked() -> None:
    output = network()(torch.randn(1, 3, 8, 8))
    assert output.keys is None
    assert output.cls_attention is None


def cubic(distance: np.ndarray) -> np.ndarray:
    """The kernel of bicubic interpolation with a = -0.75 (Keys, 1981)."""
    a, x = -0.75, np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def weights_along(stored: int, wanted: int, offset: float) -> np.ndarray:
    """(wanted, stored) matrix: what each new cell takes of the stored ones."""
    matrix = np.zeros((wanted, stored))
    for place in range(wanted):
        centre = (place + 0.5) * stored / (wanted + offset) - 0.5
        for neighbour in range(math.floor(centre) - 1, math.floor(centre) + 3):
            matrix[place, min(max(neighbour, 0), stored - 1)] += cubic(np.array(centre - neighbour))
    return matrix


@pytest.mark.parametrize("offset", [0.0, PUBLISHED_OFFSET])
@pytest.mark.parametrize("size", [(3, 7), (5, 9), (12, 4)])
def test_positions_are_interpolated_by_the_cubic_kernel(offset: float, size: tuple[int, int]) -> None:
    made = network(VitLayout(4, 24, 1, 3, grid=5, position_offset=offset))
    stored = made.pos_embed[0, 1:].detach().reshape(5, 5, 24).double().numpy()
    rows, columns = (weights_along(5, wanted, offset) for wanted in size)
    expected = np.einsum("ia,jb,abd->ijd", rows, columns, stored).reshape(1, -1, 24)
    found = made.positions(*size).detach().double().numpy()
    assert np.abs(found - expected).max() < 1e-5


def test_positions_of_the_stored_size_are_the_stored_ones() -> None:
    made = network(VitLayout(4, 24, 1, 3, grid=5, position_offset=PUBLISHED_OFFSET))
    assert torch.equal(made.positions(5, 5), made.pos_embed[:, 1:])


@pytest.mark.parametrize("offset", [0.0, PUBLISHED_OFFSET])
def test_cells_without_image_change_nothing(offset: float) -> None:
    made = network(VitLayout(4, 24, 3, 3, grid=5, position_offset=offset))
    sizes = torch.tensor([[6, 9], [3, 4], [6, 2]])
    images = torch.randn(3, 3, 24, 36)
    with torch.no_grad():
        together = made(images, sizes, attention=True)
        for number, (rows, columns) in enumerate(sizes.tolist()):
            alone = made(images[number : number + 1, :, : rows * 4, : columns * 4], attention=True)
            torch.testing.assert_close(together.cls[number], alone.cls[0], atol=2e-5, rtol=1e-5)
            for name in ("tokens", "keys", "cls_attention"):
                whole, part = getattr(together, name)[number], getattr(alone, name)[0]
                torch.testing.assert_close(whole[:, :rows, :columns], part, atol=2e-5, rtol=1e-5)
                assert not whole[:, rows:].any()
                assert not whole[:, :, columns:].any()


def test_a_mask_of_nothing_is_no_mask() -> None:
    made, images = network(), torch.randn(2, 3, 20, 12)
    with torch.no_grad():
        masked = made(images, torch.tensor([[5, 3], [5, 3]])).tokens
        torch.testing.assert_close(masked, made(images).tokens, atol=1e-5, rtol=1e-5)


def test_cells_within_are_the_upper_left() -> None:
    expected = [[[1, 1, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]]]
    assert cells_within(torch.tensor([[1, 2], [2, 3]]), 2, 3).int().tolist() == expected


@pytest.mark.parametrize("patch", [16, 8])
def test_small_network_equals_that_of_timm_at_its_size(patch: int) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(1)
    twin = timm.create_model(f"vit_small_patch{patch}_224", pretrained=False, num_classes=0, depth=3)
    twin.eval()
    made = VisionTransformer(VitLayout(patch, 384, 3, 6, grid=224 // patch)).eval()
    made.load_state_dict(twin.state_dict())
    seen = []
    twin.blocks[-1].attn.qkv.register_forward_hook(lambda module, given, out: seen.append(out))
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        expected, output = twin.forward_features(images), made(images, attention=True)
    torch.testing.assert_close(output.cls, expected[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        output.tokens.flatten(2).transpose(1, 2), expected[:, 1:], atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        output.keys.flatten(2).transpose(1, 2), seen[0][:, 1:, 384:768], atol=1e-5, rtol=1e-5
    )


def test_names_are_those_of_the_published_checkpoints() -> None:
    names = set(network(VitLayout(4, 24, 1, 3, grid=5)).state_dict())
    in_block = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    modules = ("patch_embed.proj", "norm", *(f"blocks.0.{name}" for name in in_block))
    expected = {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}
    assert names == expected | {"cls_token", "pos_embed"}


@pytest.mark.parametrize(
    ("layout", "million"),
    [
        (VitLayout(16, 384, 12, 6, grid=14), 21.67),
        (VitLayout(8, 384, 12, 6, grid=28), 21.67),
        (VitLayout(16, 768, 12, 12, grid=14), 85.80),
        (VitLayout(8, 768, 12, 12, grid=28), 85.81),
        (VitLayout(8, 192, 6, 3, grid=28), 2.86),
    ],
)
def test_numbers_of_weights_are_the_published_ones(layout: VitLayout, million: float) -> None:
    with torch.device("meta"):
        n_weights = sum(parameter.numel() for parameter in VisionTransformer(layout).parameters())
    assert n_weights / 1e6 == pytest.approx(million, abs=0.006)


def test_stochastic_depth_grows_with_depth_and_keeps_the_expectation() -> None:
    made = network(drop_path=0.4)
    assert [block.drop_path for block in made.blocks] == pytest.approx([0.0, 0.2, 0.4])
    block = Block(TINY, 0.5).train()
    torch.manual_seed(0)
    change = block._keep_some(torch.ones(4000, 2, 3))
    assert set(change.unique().tolist()) == {0.0, 2.0}
    # An image is kept or dropped as a whole, half of them each way.
    assert torch.equal(change.amin((1, 2)), change.amax((1, 2)))
    assert float(change.mean()) == pytest.approx(1.0, abs=0.06)
    assert torch.equal(block.eval()._keep_some(torch.ones(2, 2, 3)), torch.ones(2, 2, 3))


def test_every_weight_learns() -> None:
    made = network(drop_path=0.0).train()
    output = made(torch.randn(2, 3, 12, 8))
    (output.cls.square().mean() + output.tokens.square().mean()).backward()
    silent = [name for name, weight in made.named_parameters() if weight.grad is None]
    assert silent == []
    # A bias of all keys moves every score of a row alike, so attention does not feel it.
    gradient = made.blocks[0].attn.qkv.bias.grad
    assert float(gradient[24:48].abs().max()) < 1e-4 * float(gradient[48:].abs().max())


def test_autocast_stays_close() -> None:
    made, images = network(), torch.randn(1, 3, 20, 20)
    with torch.inference_mode():
        expected = made(images, attention=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = made(images, attention=True)
    similarity = functional.cosine_similarity(found.tokens.float(), expected.tokens, dim=1)
    assert float(similarity.min()) > 0.99
    assert found.cls_attention.dtype == torch.float32


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"multiples of 4. Got: \(1, 3, 8, 10\)"):
        network()(torch.rand(1, 3, 8, 10))
    for wrong in ({"heads": 5}, {"depth": 0}, {"patch_size": -4}, {"position_offset": -1.0}):
        with pytest.raises(ConfigError, match="heads divide width"):
            VitLayout(**{"patch_size": 4, "width": 24, "depth": 1, "heads": 3, **wrong})
