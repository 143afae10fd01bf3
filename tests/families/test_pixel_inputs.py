"""What a family reads of a processor's inputs, held against what the row of the zoo puts into them."""

from __future__ import annotations

import inspect

import pytest
import torch
import zoo

from duet_vlm.families import family_of, visual_token_ids
from duet_vlm.families.llava import Llava
from duet_vlm.families.video_llava import VideoLlava


@pytest.mark.parametrize("row", zoo.SEEING)
def test_pixels_are_found_and_nothing_but_pixels_is_taken_out(row: str) -> None:
    model = zoo.build(row)
    family, batch = family_of(model.config), zoo.inputs(row, ((5, "i", 9),))
    pixels = family.pixels_in(batch)
    assert pixels is not None and pixels is family.pixels_in(batch, zoo.FAMILIES[row].modality)
    assert any(pixels is x for x in batch.values()) and pixels.is_floating_point()
    left = family.without_pixels(batch)
    assert family.pixels_in(left) is None and not [x for x in left.values() if x.is_floating_point()]
    assert {"input_ids", "attention_mask"} <= left.keys() and all(left[name] is batch[name] for name in left)
    crops = family.crops_in(batch)
    if pixels.ndim > 3 and (family.cut_by_size or not family.dynamic):  # elsewhere whole pictures, padded to a batch
        assert crops is not None and crops.ndim == 4 and crops.shape[1:] == pixels.shape[-3:]
        assert torch.equal(crops.flatten(), pixels.flatten())
    else:
        assert crops is None


@pytest.mark.parametrize("row", zoo.SEEING)
def test_the_encoders_take_the_pixels_by_the_names_that_the_family_says(row: str) -> None:
    model = zoo.build(row)
    family = family_of(model.config)
    for modality in visual_token_ids(model.config):
        encoder = getattr(model.base_model, f"get_{modality}_features", None)
        if encoder is not None:
            assert {*family.pixel_arguments[modality]} & inspect.signature(encoder).parameters.keys()


@pytest.mark.parametrize("row", zoo.SEEING)
def test_text_alone_has_no_pixels(row: str) -> None:
    family, batch = family_of(zoo.build(row).config), zoo.inputs(row, ((9,),))
    text = {name: batch[name] for name in ("input_ids", "attention_mask")}
    assert family.pixels_in(text) is None and family.crops_in(text) is None and family.packed_sizes(text) is None
    assert family.without_pixels(text) == text


def test_a_family_takes_the_names_that_it_says_and_no_other() -> None:
    pixels = torch.zeros(1, 3, 4, 4)
    assert VideoLlava().pixels_in({"pixel_values_images": pixels}, "image") is pixels
    assert Llava().pixels_in({"pixel_values_images": pixels}) is None
