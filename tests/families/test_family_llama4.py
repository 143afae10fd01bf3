"""Llama 4, beside docs/method.md: the CLS token stands behind the patches, and features wait for the projector."""

from __future__ import annotations

import torch
import towers
import zoo
from exactness import close

import duet_vlm
from duet_vlm import DuetConfig
from duet_vlm.engine.trace import _images

STAGE_1 = DuetConfig(dominant=4, contextual=2, cluster_width=2)


@torch.no_grad()
def test_scores_are_the_cls_row_of_the_last_layer() -> None:
    model = zoo.build("llama4")
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    attention = model.vision_model.model.layers[-1].self_attn
    maps, keys, stock = towers.look(
        model, attention, attention.k_proj, lambda: model.get_image_features(pixel_values=pixels)
    )
    angles = model.vision_model.rotary_embedding.freqs_ci[:, 0]
    rotated = torch.view_as_real(torch.view_as_complex(keys.unflatten(2, (-1, 2)).contiguous()) * angles).flatten(2)
    with duet_vlm.apply(model, STAGE_1):
        output = model.get_image_features(pixel_values=pixels)
    images = [image for merge in output.duet.decisions for image in _images(merge)]
    close(output.last_hidden_state, stock.last_hidden_state)
    for number, image in enumerate(images):
        scores = towers.squares(maps[number, :, -1, :-1].sum(0), 8, 2)
        decided = towers.agrees(image, scores, towers.squares(rotated[number, :-1], 8, 2), 4, 2, 2)
        close(output.duet.features[number], towers.in_place(stock.last_hidden_state[number], decided))


@torch.no_grad()
def test_patches_of_a_token_are_those_that_the_adapter_joins() -> None:
    """A patch that is changed behind the tower's layers changes one token, the one that its square is counted to."""
    adapter, side = zoo.build("llama4").vision_model.vision_adapter, 8
    patches = torch.randn(1, side * side, 32, generator=torch.Generator().manual_seed(3))
    before = adapter(patches)
    for place in range(side * side):
        changed = patches.clone()
        changed[0, place] += 1
        touched = (adapter(changed) != before).any(-1)[0].nonzero()[:, 0].tolist()
        row, column = divmod(place, side)
        assert touched == [row // 2 * (side // 2) + column // 2]
