"""VideoLLaMA 3: images and videos of any size, a frame at a time; the patches of one visual token follow each other.

How many there are comes with the pixels (`image_merge_sizes`, `video_merge_sizes`): one in images, 2 x 2 in videos.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import DuetError
from ..host.attention import received
from ..stage1 import Encoded
from .encoding import ATTRIBUTE, EncoderCall, Stage1
from .family import Family
from .frames import merged_frames
from .pixel_inputs import Make
from .taps import Tap

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SIDE = 24  # rows and columns of visual tokens of the image that is timed, as many as LLaVA-1.5's have


class VideoLlama3Stage1(Stage1):
    """Retained tokens stay at their places in the frame; zeros elsewhere. Scores are made a frame at a time."""

    @property
    def attention(self) -> Any:
        return self.tower.encoder.layers[-1].self_attn

    def taps(self) -> list[Any]:
        hooks = Tap(self).hook(self.tower, self.attention)
        return [*hooks, self.projector.register_forward_hook(self.after_projector)]

    def videos(self, call: EncoderCall) -> list[tuple[int, int, int, int]]:
        """Frames of every image or video, rows and columns of visual tokens of each, and the patches of a token."""
        grids, sizes = call.tower_kwargs["grid_thw"].tolist(), call.tower_kwargs["merge_sizes"].tolist()
        return [(t, h // side, w // side, side**2) for (t, h, w), side in zip(grids, sizes, strict=True)]

    def before_attention(self, call: EncoderCall, attention: Any, hidden: Tensor, others: dict[str, Any]) -> None:
        groups = [group for frames, _, _, group in self.videos(call) for _ in range(frames)]
        for group, (scores, keys) in zip(groups, received(attention, hidden, **others), strict=True):
            call.scores.append(self.pool(scores[..., None], group)[..., 0])
            call.keys.append(self.pool(keys, group))

    def pool(self, x: Tensor, group: int) -> Tensor:
        """Average over the patches that make one visual token: (1, patches, C) -> (1, n, C)."""
        patches: Tensor = x.unflatten(1, (-1, group))
        return patches.mean(2)

    def after_projector(self, projector: nn.Module, args: Any, output: Tensor) -> None:
        call = self.call()
        if call is None:
            return
        start, parts = 0, []
        scores, keys = (torch.cat(found, dim=1).to(output.device) for found in (call.scores, call.keys))
        for frames, rows, columns, _ in self.videos(call):
            part = slice(start, start + frames * rows * columns)
            video = Encoded(scores[:, part], keys[:, part], output[None, part], (rows, columns), frames)
            parts += merged_frames(self.settings_for(call, video), call, video)
            start = part.stop
        call.features, call.sizes = (torch.cat([part[i] for part in parts]) for i in (0, 1))


class VideoLlama3(Family, model_types=("video_llama_3",)):
    """All frames of a video are one span of stage 2, with time stamps between them."""

    dynamic = whole_videos = True
    stage1 = VideoLlama3Stage1
    towers = ("vision_model",)
    projectors = ("projector",)

    def without_removed(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Leave out the tokens of videos that the model's own processor removed, as the stock model does later."""
        mask, outputs = kwargs.get("video_compression_mask"), dict(kwargs["mm_encoder_outputs"])
        output = outputs.get("video")
        if mask is None or output is None:
            return kwargs
        if not bool(mask.all()):
            if getattr(output, ATTRIBUTE, None) is not None:
                raise DuetError(
                    "the processor has removed tokens of this video already, and stage 1 merges whole frames: process "
                    "it with use_token_compression=False, or use stage 2 alone (dominant=None)."
                )
            output = copy.copy(output)
            left = mask.split([len(features) for features in output.pooler_output])
            output.pooler_output = [
                features[there.to(features.device)] for features, there in zip(output.pooler_output, left, strict=True)
            ]
        return kwargs | {"mm_encoder_outputs": outputs | {"video": output}, "video_compression_mask": None}

    def tokens_of_grid(self, config: PreTrainedConfig, grid: tuple[int, ...]) -> int:
        """Count an image, whose patches are its visual tokens, or frames, where four are one."""
        frames, rows, columns = (1, *grid)[-3:]
        return rows * columns if frames == 1 else frames * rows * columns // 4

    def grid_of(self, config: PreTrainedConfig, inputs: Mapping[str, Any]) -> tuple[int, ...] | None:
        grids = inputs.get("image_grid_thw", inputs.get("video_grid_thw"))
        return None if grids is None else (1, *grids[0].tolist()[1:])

    def token_grid(self, config: PreTrainedConfig, inputs: Any, tokens: int | None = None) -> tuple[int, int]:
        grid = self.grid_of(config, inputs)
        if grid is None:
            raise DuetError("there is no picture in this prompt: give inputs with image_grid_thw.")
        sizes = inputs.get("image_merge_sizes", inputs.get("video_merge_sizes"))
        side = 1 if sizes is None else int(sizes[0])
        return grid[1] // side, grid[2] // side

    def usual_grid(self, config: PreTrainedConfig) -> tuple[int, int]:
        return SIDE, SIDE

    def pixels(
        self, config: PreTrainedConfig, make: Make, count: int = 1, *,
        grid: tuple[int, ...] | None = None, tiles: int = 1, size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Flat patches of all images, one after the other."""
        vision, (rows, columns) = config.vision_config, (grid or self.usual_grid(config))[-2:]
        patches = make((count * rows * columns, vision.num_channels * vision.patch_size**2))
        sizes = torch.ones(count, dtype=torch.long)
        return {
            "pixel_values": patches, "image_grid_thw": torch.tensor([[1, rows, columns]] * count),
            "image_merge_sizes": sizes,
        }  # fmt: skip

    def blank_image(self, config: PreTrainedConfig) -> dict[str, Tensor]:
        return self.pixels(config, torch.ones, grid=(4, 4))
