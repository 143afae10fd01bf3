"""MiniCPM-V, PaddleOCR-VL and LFM2-VL beside docs/method.md: images of several sizes, patches joined in blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import towers
import transformers
import zoo
import zoo_minicpm
import zoo_siglip
from exactness import close
from matrix import VIDEO_ROWS
from torch import Tensor
from transformers import Lfm2Config
from transformers.models.lfm2.modeling_lfm2 import Lfm2ShortConv

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.checks import prompts
from duet_vlm.engine.trace import _images
from duet_vlm.families import family_of
from duet_vlm.families.minicpmv4 import MiniCPMV46

STAGE_1 = DuetConfig(dominant=3, contextual=2, cluster_width=2)
GRIDS = [(16, 8), (8, 16), (16, 24)]  # rows and columns of patches
SIZES = torch.tensor(GRIDS)
PATCHES = sum(rows * columns for rows, columns in GRIDS)
# family -> the layer that scores, and the module that is given the patches of each visual token side by side
PARTS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "minicpmv4_6": (lambda core: core.vision_tower.encoder.layers[-1], lambda core: core.merger.mlp[0].pre_norm),
    "minicpmv4_7": (lambda core: core.vision_tower.encoder.layers[-1], lambda core: core.merger.mlp[0].pre_norm),
    "paddleocr_vl": (lambda core: core.visual.vision_model.encoder.layers[-1], lambda core: core.projector.linear_1),
    "lfm2_vl": (lambda core: core.vision_tower.encoder.layers[-1], lambda core: core.multi_modal_projector.layer_norm),
}
# MiniCPM-V's tower also without the merger in it, and with the merger behind its last layer
OTHERS = [(family, kind) for family in ("minicpmv4_6", "minicpmv4_7") for kind in ("4x", "late")]
FAMILIES = pytest.mark.parametrize("family", PARTS)


def images(family: str) -> dict[str, Any]:
    """Images of `GRIDS` in one call."""
    generator = torch.Generator().manual_seed(5)
    if family.startswith("minicpm"):
        return {"pixel_values": zoo_minicpm.pixels(GRIDS, generator), "target_sizes": SIZES}
    if family == "paddleocr_vl":
        grids = torch.cat([torch.ones(3, 1, dtype=torch.long), SIZES], 1)
        return {"pixel_values": torch.randn(PATCHES, 3, 4, 4, generator=generator), "image_grid_thw": grids}
    mask = (torch.arange(384) < SIZES.prod(1)[:, None]).long()
    pixels = torch.randn(3, 384, 48, generator=generator) * mask[..., None]
    return {"pixel_values": pixels, "spatial_shapes": SIZES, "pixel_attention_mask": mask}


def seen(module: Any, call: Callable[[], Any]) -> tuple[list[Tensor], Any]:
    """What a module is given in a call, and what the call returns."""
    given: list[Tensor] = []
    hook = module.register_forward_pre_hook(
        lambda m, a, k: given.append(a[0] if a else k["hidden_states"]), with_kwargs=True
    )
    result = call()
    hook.remove()
    return given, result


def attended(
    family: str, core: Any, given: dict[str, Any], grids: list[tuple[int, int]]
) -> list[tuple[Tensor, Tensor]]:
    """(n,) attention received in the scoring layer and (n, d) mean keys of each image alone, by softmax of its own."""
    attention = PARTS[family][0](core).self_attn
    rope: list[Any] = []
    hook = attention.register_forward_pre_hook(
        lambda m, a, k: rope.append(k.get("position_embeddings")), with_kwargs=True
    )
    (hidden,), _ = seen(attention, lambda: core.get_image_features(**given))
    hook.remove()
    flat = hidden.flatten(0, -2)
    out, start = [], 0
    for number, (rows, columns) in enumerate(grids):
        first = number * hidden.shape[1] if family == "lfm2_vl" else start  # images are padded to one length
        part = slice(first, first + rows * columns)
        query, key = (p(flat[part]).unflatten(1, (4, 8)).transpose(0, 1) for p in (attention.q_proj, attention.k_proj))
        if rope[0] is not None:
            cos, sin = (x[part] for x in rope[0])
            query, key = (x * cos + torch.cat([-x[..., 4:], x[..., :4]], -1) * sin for x in (query, key))
        maps = (query @ key.mT / 8**0.5).softmax(-1)
        out.append((maps.mean(0).sum(0), key.mean(0)))
        start = part.stop
    return out


def means(x: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """(rows * columns, C) -> the mean of every square of patches, row by row."""
    rows, columns = grid
    return torch.stack(
        [
            x[[(r + i) * columns + c + j for i in range(side) for j in range(side)]].mean(0)
            for r in range(0, rows, side)
            for c in range(0, columns, side)
        ]
    )


@FAMILIES
@torch.no_grad()
def test_the_projector_joins_squares_row_by_row(family: str) -> None:
    """Patches of random vectors in the place of what the tower returns."""
    core, given = zoo.build(family).model, images(family)
    tower = core.visual if family == "paddleocr_vl" else core.vision_tower
    side = 2 if family.startswith("minicpm") else 1  # joined in the tower
    grids = [(rows // side, columns // side) for rows, columns in GRIDS]
    vectors: list[Tensor] = []

    def replaced(module: Any, args: Any, output: Any) -> Any:
        output.last_hidden_state = torch.randn_like(output.last_hidden_state)
        vectors.append(output.last_hidden_state.flatten(0, -2))
        return output

    hook = tower.register_forward_hook(replaced)
    joined, output = seen(PARTS[family][1](core), lambda: core.get_image_features(**given))
    hook.remove()
    found = torch.cat([x.flatten(0, -2) for x in joined]).unflatten(1, (4, 32)).mean(1)
    start, expected = 0, []
    for number, (rows, columns) in enumerate(grids):
        first = number * 384 if family == "lfm2_vl" else start
        patches = vectors[0][first : first + rows * columns]
        expected.append(
            means(core.projector.pre_norm(patches) if family == "paddleocr_vl" else patches, (rows, columns), 2)
        )
        start += rows * columns
    real = torch.ones(len(found), dtype=torch.bool)
    if len(found) > sum(map(len, expected)):  # some versions project what is padding, too
        real = (torch.arange(96) < (SIZES // 2).prod(1)[:, None]).flatten()
    close(found[real], torch.cat(expected))
    assert [len(entry) for entry in output.pooler_output] == [len(one) for one in expected]


@pytest.mark.parametrize(("family", "kind"), [*((family, "") for family in PARTS), *OTHERS])
@torch.no_grad()
def test_scores_are_attention_received_within_an_image(family: str, kind: str) -> None:
    model = zoo.build(family)
    core, given = model.model, images(family) | ({"downsample_mode": "4x"} if kind == "4x" else {})
    side, joined = 2, 1
    if family.startswith("minicpm"):
        core.vision_tower.config.insert_layer_id = 2 if kind == "late" else 0
        side, joined = (4, 1) if kind == "late" else (2, 1) if kind == "4x" else (2, 2)
    grids = [(rows // joined, columns // joined) for rows, columns in GRIDS]
    stock = core.get_image_features(**given).pooler_output
    statistics = attended(family, core, given, grids)
    with duet_vlm.apply(model, STAGE_1):
        output = core.get_image_features(**given)
    found = [image for merge in output.duet.decisions for image in _images(merge)]
    assert len(found) == len(GRIDS)
    for number, (scores, keys) in enumerate(statistics):
        averaged = means(scores[:, None], grids[number], side)[:, 0], means(keys, grids[number], side)
        decided = towers.agrees(found[number], *averaged, 3, 2, 2)
        close(output.duet.features[number], towers.in_place(stock[number], decided))


@FAMILIES
def test_grids_count_the_tokens_that_the_encoder_hands_over(family: str) -> None:
    model, given = zoo.build(family), images(family)
    of_family = family_of(model.config)
    counts = [len(entry) for entry in model.model.get_image_features(**given).pooler_output]
    assert [of_family.tokens_of_grid(model.config, grid) for grid in GRIDS] == counts
    rows, columns = of_family.token_grid(model.config, given)
    assert rows * columns == counts[0] and of_family.grid_of(model.config, given) == (1, *GRIDS[0])
    made = of_family.pixels(model.config, torch.ones, 2, grid=GRIDS[0])
    assert [len(entry) for entry in model.model.get_image_features(**made).pooler_output] == counts[:1] * 2
    with pytest.raises(DuetError, match="is less than one visual token"):
        of_family.tokens_of_grid(model.config, (1, 1))
    if family.startswith("minicpm"):
        model.config.downsample_mode = "4x"
        assert of_family.tokens_of_grid(model.config, GRIDS[0]) == 4 * counts[0]


@torch.no_grad()
def test_zeroed_holes_in_front_leave_a_short_convolution_as_it_is_but_for_a_bias() -> None:
    """So `apply` refuses a bias; holes among the tokens or behind them would push tokens out of the state."""
    torch.manual_seed(0)
    for bias in (False, True):
        config = Lfm2Config(hidden_size=16, num_hidden_layers=1, layer_types=["conv"], conv_bias=bias)
        layer = Lfm2ShortConv(config, 0)
        for parameter in layer.parameters():
            parameter.normal_()
        tokens, holes = torch.randn(1, 5, 16), torch.randn(1, 4, 16)
        mask = torch.tensor([[0] * 4 + [1] * 5])
        together = layer(torch.cat([holes, tokens], 1), attention_mask=mask)[:, 4:]
        assert torch.allclose(together, layer(tokens), atol=1e-5) != bias
    model = zoo.build("lfm2_vl")
    config = model.config
    config.text_config.conv_bias = True
    biased = transformers.Lfm2VlForConditionalGeneration(config)
    with pytest.raises(DuetError, match=r"Lfm2ShortConv of this model adds a bias .* \(conv_bias=False\)"):
        duet_vlm.apply(biased, DuetConfig(drops=[Drop(2, 0.0)]))


def test_stage_1_is_refused_with_another_tower() -> None:
    config = zoo_siglip.lfm2_vl().config
    config.vision_config = transformers.SiglipVisionConfig(hidden_size=32)
    with pytest.raises(DuetError, match="needs a siglip2_vision_model, and this model has a siglip_vision_model"):
        family_of(config).check(config, STAGE_1)
    family_of(config).check(config, DuetConfig(drops=[Drop(2, 0.5)]))


def test_rows_are_joined_on_the_axis_on_which_patches_follow_each_other() -> None:
    family, rows = "minicpmv4_6", VIDEO_ROWS
    singles = [zoo.inputs(family, (row,), first=i) for i, row in enumerate(rows)]
    found, whole = prompts.together(singles, zoo.PAD, MiniCPMV46.pixels_along), zoo.inputs(family, rows)
    assert found.keys() == whole.keys() and all(torch.equal(found[name], whole[name]) for name in whole)


def test_stock_processors_make_what_the_families_read() -> None:
    """The image processors that need no torchvision, on a picture of 100 x 60."""
    picture = np.random.default_rng(0).integers(0, 255, (60, 100, 3), dtype=np.uint8)
    minicpm = transformers.models.minicpmv4_6.MiniCPMV4_6ImageProcessorPil(scale_resolution=32, patch_size=2)
    paddle = transformers.models.paddleocr_vl.PaddleOCRVLImageProcessorPil(
        patch_size=4, size={"shortest_edge": 1024, "longest_edge": 4096}
    )
    for family, processor in (("minicpmv4_6", minicpm), ("minicpmv4_7", minicpm), ("paddleocr_vl", paddle)):
        model, made = zoo.build(family), processor([picture], return_tensors="pt")
        of_family = family_of(model.config)
        given = {name: made[name] for name in ("pixel_values", "target_sizes", "image_grid_thw") if name in made}
        sizes = given.get("target_sizes", given.get("image_grid_thw")).tolist()
        counts = [len(entry) for entry in model.model.get_image_features(**given).pooler_output]
        assert counts == [of_family.tokens_of_grid(model.config, tuple(size)) for size in sizes]
        rows, columns = of_family.token_grid(model.config, given)
        assert rows * columns == counts[0] and of_family.crops_in(given) is None
