"""What the models of Qwen2.5-VL and Qwen3-VL share in vLLM: images and videos of any size, and their positions.

The encoder hands over as many tokens as stage 1 retains, each with its place in channels of its own. Positions are
stock's of the whole prompt: text keeps its own, a kept token has that of its frame's first place, and the place is
added when the model is called. So nothing has to be numbered again where a prompt comes in parts, from the prefix
cache, or once more after preemption.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal.inputs import PlaceholderRange

from ..families.qwen2_5_vl import scoring_block
from ..tensors.streamed import Softmax, column_sums
from .frames import Grid, Item, compressed, kept_of, widened, without_places
from .model import CompressedModel


class CompressedQwen(CompressedModel, SupportsMRoPE):
    """Stock's, with stage 1 in its encoder and stage 2 in its decoder."""

    def __init__(self, *, vllm_config: Any, prefix: str = ""):
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        # static, so that graphs may be made of what reads them
        size = 3, vllm_config.scheduler_config.max_num_batched_tokens
        self._offsets = torch.zeros(size, dtype=torch.long)
        self._positions = torch.zeros(size, dtype=torch.long)
        self._columns = 0  # how many columns of the offsets are in use

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
        if self._columns:
            self._offsets[:, : self._columns].zero_()
            self._columns = 0
        if self.duet.merges and multimodal_embeddings:
            apart = [without_places(tokens) for tokens in multimodal_embeddings]
            multimodal_embeddings = [tokens for tokens, _ in apart]
            self._columns = len(input_ids)
            # where the mask is on the host, as vLLM's is, nothing waits for the device
            self._offsets[:, : self._columns][:, is_multimodal] = torch.cat([offsets for _, offsets in apart], 1)
        embeddings: Tensor
        embeddings = super().embed_input_ids(input_ids, multimodal_embeddings, is_multimodal=is_multimodal)
        return embeddings

    def _placed(self, positions: Tensor) -> Tensor:
        if not self.duet.merges:
            return positions
        count = positions.shape[1]
        if count > self._offsets.shape[1]:  # rows may be padded beyond the most that are scheduled
            self._offsets = pad(self._offsets, (0, count - self._offsets.shape[1]))
            self._positions = torch.zeros_like(self._offsets)
        return torch.add(positions, self._offsets[:, :count], out=self._positions[:, :count])
