"""What Qwen2.5-VL and Qwen3-VL share in vLLM: stage 1 of images and videos of any size, and its positions.

Placeholders are cut to what stage 1 retains, which the grid says (`frames.kept_of`). The encoder hands over that many
tokens, each with its place in channels of its own. Positions are stock's of the whole prompt: text keeps its own, a
kept token has that of its frame's first place, and the place is added when the model is called. So nothing has to be
numbered again when a prompt comes in parts, from the prefix cache, or once more after preemption.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from vllm.multimodal.inputs import PlaceholderRange
from vllm.multimodal.processing import PromptReplacement
from vllm.multimodal.processing.processor import PromptUpdateDetails

from ..config.settings import Settings
from ..errors import DuetError
from ..families import family_of
from ..families.qwen2_5_vl import scoring_block
from ..tensors.streamed import Softmax, column_sums
from .frames import Item, compressed, kept_of, shortened, widened, without_places


def settings_of(config: Any) -> Settings:
    found = getattr(config, "duet", None)
    return Settings.from_dict(found) if found else Settings()


def check(vllm_config: Any, settings: Settings) -> None:
    """Refuse what stage 1 cannot be done with.

    Raises:
        DuetError: before the model is made.
    """
    model, media = vllm_config.model_config, vllm_config.model_config.multimodal_config
    family_of(model.hf_config).check(model.hf_config, settings)
    if not settings.merges or media is None:
        return
    for name, wrong, why in (
        ("video_pruning_rate", bool(media.video_pruning_rate), "prunes videos by a rule of its own"),
        ("mm_encoder_tp_mode", media.mm_encoder_tp_mode == "data", "'data' hides what the tower attends to"),
        ("enable_mm_embeds", bool(media.enable_mm_embeds), "brings images that are encoded already"),
    ):
        if wrong:
            flag = "--" + name.replace("_", "-")
            raise DuetError(f"{flag} {why}, and stage 1 merges inside the encoder: leave it out, or dominant.")
    compilation = vllm_config.compilation_config
    for name in ("compile_mm_encoder", "cudagraph_mm_encoder"):
        if getattr(compilation, name, False):
            raise DuetError(
                f"{name} makes a graph of the encoder, in which stage 1 sees nothing: leave it out of "
                "--compilation-config, or dominant out of the settings."
            )


@dataclass(frozen=True)
class Grid:
    """The visual tokens of an image or video before stage 1: `frames` of `rows` by `columns`."""

    frames: int
    rows: int
    columns: int

    @classmethod
    def of(cls, thw: Sequence[int], side: int) -> Grid:
        """Of (frames, rows, columns) in patches, `side` of which a visual token is wide and high."""
        frames, rows, columns = (int(n) for n in thw)
        return cls(frames, rows // side, columns // side)

    @property
    def tokens(self) -> int:
        """Of one frame."""
        return self.rows * self.columns


class CompressedInfo:
    """A family's processing info with the counts of stage 1: for the encoder's budget and for profiling."""

    @cached_property
    def duet(self) -> Settings:
        return settings_of(self.get_hf_config())

    def _get_vision_info(self, **kwargs: Any) -> tuple[Any, int]:
        size, tokens = super()._get_vision_info(**kwargs)
        vision = self.get_hf_config().vision_config
        grid = Grid.of((1, size.height // vision.patch_size, size.width // vision.patch_size), vision.spatial_merge_size)
        return size, tokens // grid.tokens * kept_of(self.duet, grid.tokens)


class CompressedProcessor:
    """A family's processor with as many placeholders as stage 1 retains."""

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, Any], out_mm_kwargs: Any
    ) -> Sequence[PromptReplacement]:
        stock = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)
        if not self.info.duet.merges:
            return stock
        config = self.info.get_hf_config()

        def shorter(update: PromptReplacement) -> PromptReplacement:
            kind = update.modality
            token = getattr(config, f"{kind}_token_id")

            def ids(number: int) -> Any:
                whole = update.replacement(number)
                thw = out_mm_kwargs[kind][number][f"{kind}_grid_thw"].data.tolist()
                grid = Grid.of(thw, config.vision_config.spatial_merge_size)
                counts = grid.tokens, kept_of(self.info.duet, grid.tokens)
                if isinstance(whole, list):
                    return shortened(whole, token, *counts)
                return PromptUpdateDetails.select_token_id(shortened(whole.full, token, *counts), token)

            return replace(update, replacement=ids)

        return [shorter(update) for update in stock]


class CompressedModel:
    """A family's model whose encoder does stage 1."""

    def __init__(self, *, vllm_config: Any, prefix: str = ""):
        self_settings = settings_of(vllm_config.model_config.hf_config)
        check(vllm_config, self_settings)
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.duet = self_settings
        if self.duet.merges:
            self._make_buffers(vllm_config.scheduler_config.max_num_batched_tokens)

    # ---- the encoder ----

    def _process_image_input(self, image_input: Any) -> tuple[Tensor, ...]:
        return self._compressed(super()._process_image_input, image_input, "image")

    def _process_video_input(self, video_input: Any) -> tuple[Tensor, ...]:
        return self._compressed(super()._process_video_input, video_input, "video")

    def _compressed(self, encode: Any, inputs: Any, kind: str) -> tuple[Tensor, ...]:
        if not self.duet.merges:
            return encode(inputs)
        with self._watched() as seen:
            encoded = encode(inputs)
        (query, key), start, found = seen[0], 0, []
        width, side = self.config.vision_config.out_hidden_size, self.visual.spatial_merge_size
        for tokens, thw in zip(encoded, inputs[f"{kind}_grid_thw"].tolist(), strict=True):
            grid = Grid.of(thw, side)
            patches = slice(start, start + grid.frames * grid.tokens * side**2)
            start = patches.stop
            scores, keys = self._scored(query[patches], key[patches], grid, thw)
            framed = tokens.unflatten(0, (grid.frames, grid.tokens))
            features, others = framed[..., :width], framed[..., width:]
            found.append(compressed(self.duet, scores, keys, features, (grid.rows, grid.columns), others))
        return tuple(found)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Inside, (patches, heads, d) queries and keys of the scoring block, rotated, in the tower's order."""
        seen: list[tuple[Tensor, Tensor]] = []
        attention = self.visual.blocks[scoring_block(self.config)].attn.attn

        def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            seen.append((kwargs["query"][0], kwargs["key"][0]))

        hook = attention.register_forward_pre_hook(note, with_kwargs=True)
        try:
            yield seen
        finally:
            hook.remove()

    def _scored(self, query: Tensor, key: Tensor, grid: Grid, thw: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(T, N) the attention that each visual token receives in its frame and (T, N, d) its key, in raster order."""
        query, key = (x.unflatten(0, (grid.frames, -1)).transpose(1, 2) for x in (query, key))
        sums = column_sums(query, key, Softmax(query.shape[-1] ** -0.5))
        unit = self.visual.spatial_merge_size**2
        scores, keys = sums.unflatten(1, (-1, unit)).mean(2), key.float().mean(1).unflatten(1, (-1, unit)).mean(2)
        order = self._raster(thw)
        if order is None:
            return scores, keys
        order = order.to(scores.device)
        return (x.flatten(0, 1)[order].view_as(x) for x in (scores, keys))

    def _raster(self, thw: Sequence[int]) -> Tensor | None:
        """(T * N,) where each visual token of an image or video stands in the tower; None where it stands in order."""
        return None

    # ---- the prompt ----

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        if not self.duet.merges:
            return super().get_mrope_input_positions(input_tokens, mm_features)
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

    def _make_buffers(self, tokens: int) -> None:
        """Static, so that graphs may be made of what reads them."""
        self._offsets = torch.zeros(3, tokens, dtype=torch.long)
        self._positions = torch.zeros(3, tokens, dtype=torch.long)
        self._placed = 0  # how many columns of the offsets are in use

    def embed_input_ids(
        self, input_ids: Tensor, multimodal_embeddings: Any = None, *, is_multimodal: Tensor | None = None
    ) -> Tensor:
        if not self.duet.merges:
            return super().embed_input_ids(input_ids, multimodal_embeddings, is_multimodal=is_multimodal)
        if self._placed:
            self._offsets[:, : self._placed].zero_()
            self._placed = 0
        if multimodal_embeddings is not None and len(multimodal_embeddings):
            apart = [without_places(tokens) for tokens in multimodal_embeddings]
            multimodal_embeddings = [tokens for tokens, _, _ in apart]
            self._placed = len(input_ids)
            here = self._offsets[:, : self._placed]
            # on the CPU the mask costs no synchronisation
            here[:, is_multimodal] = torch.cat([offsets for _, offsets, _ in apart], 1)
        return super().embed_input_ids(input_ids, multimodal_embeddings, is_multimodal=is_multimodal)

    def forward(self, input_ids: Any, positions: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.duet.merges:
            count = positions.shape[1]
            if count > self._positions.shape[1]:  # rows may be padded beyond the most that are scheduled
                self._offsets = pad(self._offsets, (0, count - self._offsets.shape[1]))
                self._positions = torch.zeros_like(self._offsets)
            positions = torch.add(positions, self._offsets[:, :count], out=self._positions[:, :count])
        return super().forward(input_ids, positions, *args, **kwargs)
