"""What Qwen2.5-VL and Qwen3-VL share in vLLM: images and videos of any size, and the positions of what is kept.

Placeholders are cut to what stage 1 retains, which the grid says (`frames.kept_of`). The encoder hands over that many
tokens, each with its place in channels of its own. Positions are stock's of the whole prompt: text keeps its own, a
kept token has that of its frame's first place, and the place is added when the model is called. So nothing has to be
numbered again where a prompt comes in parts, from the prefix cache, or once more after preemption.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from vllm.model_executor.models.interfaces import SupportsMRoPE, SupportsMultiModal
from vllm.model_executor.models.qwen2_vl import Qwen2VLProcessingInfo
from vllm.multimodal.inputs import PlaceholderRange
from vllm.multimodal.processing import BaseMultiModalProcessor, PromptReplacement
from vllm.multimodal.processing.processor import PromptUpdateDetails

from ..config.settings import Settings
from ..errors import DuetError
from ..families.qwen2_5_vl import scoring_block
from ..tensors.streamed import Softmax, column_sums
from .frames import Item, compressed, kept_of, shortened, widened, without_places
from .model import decoder_of
from .settings import read

POSITIONS = 4  # vLLM's table of rotary embeddings goes so many times as far as the longest prompt of a model


@dataclass(frozen=True)
class Grid:
    """The visual tokens of an image or video before stage 1: `frames` of `rows` by `columns`."""

    frames: int
    rows: int
    columns: int

    @classmethod
    def of(cls, thw: Sequence[int], side: int) -> Grid:
        """Of (frames, rows, columns) in patches, `side` of which a visual token is high and wide."""
        frames, rows, columns = (int(n) for n in thw)
        return cls(frames, rows // side, columns // side)

    @property
    def tokens(self) -> int:
        """Of one frame."""
        return self.rows * self.columns


class CompressedInfo(Qwen2VLProcessingInfo):
    """Stock's, with the counts of stage 1: for the encoder's budget and for profiling."""

    @cached_property
    def duet(self) -> Settings:
        return read(self.get_hf_config()).config

    def _get_vision_info(self, **kwargs: Any) -> tuple[Any, int]:
        size, tokens = super()._get_vision_info(**kwargs)
        vision = self.get_hf_config().vision_config
        patches = size.height // vision.patch_size, size.width // vision.patch_size
        frame = Grid.of((1, *patches), vision.spatial_merge_size).tokens
        return size, tokens // frame * kept_of(self.duet, frame)


class CompressedProcessor(BaseMultiModalProcessor):
    """Stock's, with as many placeholders as stage 1 retains."""

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, Any], out_mm_kwargs: Any
    ) -> Sequence[PromptReplacement]:
        stock: Sequence[PromptReplacement]
        stock = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)
        if not self.info.duet.merges:
            return stock
        side = self.info.get_hf_config().vision_config.spatial_merge_size

        def shorter(update: PromptReplacement) -> PromptReplacement:
            kind, whole = update.modality, update.replacement

            def ids(number: int) -> Any:
                thw = out_mm_kwargs[kind][number][f"{kind}_grid_thw"].data.tolist()
                return self._shorter(whole(number), kind, Grid.of(thw, side))

            return replace(update, replacement=ids)

        return [shorter(update) for update in stock]

    def _shorter(self, ids: Any, kind: str, grid: Grid) -> Any:
        """What stands for an image or video of a prompt, after stage 1."""
        config, kept = self.info.get_hf_config(), kept_of(self.info.duet, grid.tokens)
        length, side = self.info.ctx.model_config.max_model_len, max(grid.rows, grid.columns)
        reach = POSITIONS * config.get_text_config().max_position_embeddings
        if side * length > reach * (kept + 2):  # so many such images in a prompt, with what marks them
            raise DuetError(
                f"an {kind} of {grid.rows} x {grid.columns} visual tokens has {kept} after stage 1, and many of them "
                f"would have positions beyond the {reach} that vLLM has: lower --max-model-len, which is {length}, or "
                "keep more tokens."
            )
        token = getattr(config, f"{kind}_token_id")
        if isinstance(ids, list):
            return shortened(ids, token, grid.tokens, kept)
        return PromptUpdateDetails.select_token_id(shortened(ids.full, token, grid.tokens, kept), token)


class CompressedModel(nn.Module, SupportsMultiModal, SupportsMRoPE):
    """Stock's, with stage 1 in its encoder and stage 2 in its decoder."""

    def __init__(self, *, vllm_config: Any, prefix: str = ""):
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        served = read(self.config)
        self.duet = served.config
        self.duet_decoder = decoder_of(served, self.language_model.model, vllm_config)
        # static, so that graphs may be made of what reads them
        size = 3, vllm_config.scheduler_config.max_num_batched_tokens
        self._offsets = torch.zeros(size, dtype=torch.long)
        self._positions = torch.zeros(size, dtype=torch.long)
        self._placed = 0  # how many columns of the offsets are in use

    # ---- the encoder ----

    def _process_image_input(self, image_input: Any) -> Sequence[Tensor]:
        return self._compressed(super()._process_image_input, image_input, "image")

    def _process_video_input(self, video_input: Any) -> Sequence[Tensor]:
        return self._compressed(super()._process_video_input, video_input, "video")

    def _compressed(self, encode: Callable[[Any], Sequence[Tensor]], inputs: Any, kind: str) -> Sequence[Tensor]:
        if not self.duet.merges:
            return encode(inputs)
        with self._watched() as seen:
            encoded = encode(inputs)
        (query, key), start, found = seen[0], 0, []
        width, side = self.config.vision_config.out_hidden_size, self.visual.spatial_merge_size
        for tokens, thw in zip(encoded, inputs[f"{kind}_grid_thw"].tolist(), strict=True):
            grid = Grid.of(thw, side)
            patches = slice(start, start + len(tokens) * side**2)
            start = patches.stop
            scores, keys = self._scored(query[patches], key[patches], thw)
            framed = tokens.unflatten(0, (grid.frames, grid.tokens))
            features, others = framed[..., :width], framed[..., width:]
            found.append(compressed(self.duet, scores, keys, features, (grid.rows, grid.columns), others))
        return found

    @contextlib.contextmanager
    def _watched(self) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Inside, (patches, heads, d) queries and keys of the scoring block, rotated, in the tower's order."""
        seen: list[tuple[Tensor, Tensor]] = []
        attention = self.visual.blocks[scoring_block(self.config)].attn.attn

        def note(_: Any, args: Any, kwargs: dict[str, Tensor]) -> None:
            seen.append((kwargs["query"][0], kwargs["key"][0]))

        hook = attention.register_forward_pre_hook(note, with_kwargs=True)
        try:
            yield seen
        finally:
            hook.remove()

    def _scored(self, query: Tensor, key: Tensor, thw: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(T, N) the attention that each visual token receives in its frame and (T, N, d) its key, in raster order."""
        query, key = (x.unflatten(0, (thw[0], -1)).transpose(1, 2) for x in (query, key))
        sums = column_sums(query, key, Softmax(query.shape[-1] ** -0.5))
        patches = self.visual.spatial_merge_size**2
        scores, keys = (x.unflatten(1, (-1, patches)).mean(2) for x in (sums, key.float().mean(1)))
        order = self._raster(thw)
        if order is None:
            return scores, keys
        order = order.to(scores.device)
        return scores.flatten()[order].view_as(scores), keys.flatten(0, 1)[order].view_as(keys)

    def _raster(self, thw: Sequence[int]) -> Tensor | None:
        """(T * N,) where each visual token of an image or video stands in the tower; None where it stands in order."""
        return None

    # ---- the prompt ----

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        if not self.duet.merges:
            stock: tuple[Tensor, int] = super().get_mrope_input_positions(input_tokens, mm_features)
            return stock
        features = sorted(mm_features, key=lambda feature: feature.mm_position.offset)
        full, places, spans = widened(input_tokens, [self._item(feature) for feature in features])
        moved = [
            replace(feature, mm_position=PlaceholderRange(offset=offset, length=length))
            for feature, (offset, length) in zip(features, spans, strict=True)
        ]
        positions, delta = super().get_mrope_input_positions(full, moved)
        return positions[:, places], delta + len(full) - len(input_tokens)

    def _item(self, feature: Any) -> Item:
        kind, where = feature.modality, feature.mm_position
        grid = Grid.of(feature.data[f"{kind}_grid_thw"].data.tolist(), self.config.vision_config.spatial_merge_size)
        token = getattr(self.config, f"{kind}_token_id")
        return Item(where.offset, where.length, token, grid.tokens, kept_of(self.duet, grid.tokens))

    def embed_input_ids(
        self, input_ids: Tensor, multimodal_embeddings: Any = None, *, is_multimodal: Tensor | None = None
    ) -> Tensor:
        if self._placed:
            self._offsets[:, : self._placed].zero_()
            self._placed = 0
        if self.duet.merges and multimodal_embeddings:
            apart = [without_places(tokens) for tokens in multimodal_embeddings]
            multimodal_embeddings = [tokens for tokens, _ in apart]
            self._placed = len(input_ids)
            # where the mask is on the host, as vLLM's is, nothing waits for the device
            self._offsets[:, : self._placed][:, is_multimodal] = torch.cat([offsets for _, offsets in apart], 1)
        embeddings: Tensor
        embeddings = super().embed_input_ids(input_ids, multimodal_embeddings, is_multimodal=is_multimodal)
        return embeddings

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if self.duet.merges:
            positions = self._placed_positions(positions)
        if self.duet_decoder is not None:
            hidden = self.duet_decoder.forward(input_ids, positions, inputs_embeds, self._adds(positions.shape[1]))
            if hidden is not None:
                return hidden
        return super().forward(input_ids, positions, intermediate_tensors, inputs_embeds, **kwargs)

    def _placed_positions(self, positions: Tensor) -> Tensor:
        """(3, n) positions with the places of the visual tokens among them."""
        count = positions.shape[1]
        if count > self._offsets.shape[1]:  # rows may be padded beyond the most that are scheduled
            self._offsets = pad(self._offsets, (0, count - self._offsets.shape[1]))
            self._positions = torch.zeros_like(self._offsets)
        return torch.add(positions, self._offsets[:, :count], out=self._positions[:, :count])

    def _adds(self, count: int) -> Sequence[Tensor]:
        """(count, D) each, what is added to the hidden states after the first layers."""
        return ()
