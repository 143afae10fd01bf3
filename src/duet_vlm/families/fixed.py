"""Encoders that give every image, tile or frame the same number of patches, merged behind the projector.

docs/method.md, 1.7, encoders without CLS: a retained token stays at its place, an anchor's place holds its contextual
token. Attention statistics are made when the projector is done and for one image at a time, from what the scoring
attention was given: that of a long video would be as large as the video's hidden states.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..config.budget import stage1_counts
from ..config.settings import Settings
from ..host.attention import received
from ..stage1 import Encoded, Merge, merge
from .encoding import EncoderCall, Stage1
from .family import Family
from .features import check_feature_layer, feature_layer
from .placing import merged_in_place
from .taps import Tap

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class FixedStage1(Stage1):
    """A family says what its projector makes of patches.

    Attributes:
        dynamic: whether an image may be too small for the counts, which are then lowered.
    """

    dynamic = False

    @property
    def attention(self) -> Any:
        """The attention that scores, of the layer whose output the model uses as features."""
        return feature_layer(self.core.config, self.tower.encoder.layers).self_attn

    def score(self, call: EncoderCall, image: int) -> tuple[Tensor, Tensor]:
        """Score one image's patches by the attention each receives: (1, patches), and keys (1, patches, d)."""
        return received(self.attention, call.hidden[image : image + 1])[0]

    def pool(self, x: Tensor) -> Tensor:
        """Average over the patches that make one visual token: (B, patches, C) -> (B, n, C)."""
        raise NotImplementedError

    def taps(self) -> list[Any]:
        return [*self.tower_taps(), self.projector.register_forward_hook(self.after_projector)]

    def tower_taps(self) -> list[Any]:
        return Tap(self).hook(self.tower, self.attention)

    def after_projector(self, projector: nn.Module, args: Any, output: Tensor) -> None:
        call = self.call()
        if call is not None:
            self.merge_images(call, output)

    def merge_images(self, call: EncoderCall, tokens: Tensor) -> None:
        """Merge the (B, n, D) tokens of images or frames, as many at a time as are shown together."""
        side, frames = math.isqrt(tokens.shape[1]), self.together(call)
        parts = []
        for first, features in enumerate(tokens.split(frames)):
            images = range(first * frames, first * frames + frames)
            statistics = torch.cat([self.pool(self.statistics(call, image)) for image in images], dim=1)
            parts.append(self.merged(call, statistics, features.flatten(0, 1)[None], (side, side), frames))
        call.features, call.sizes = (torch.cat([part[i].flatten(0, 1) for part in parts]) for i in (0, 1))

    def together(self, call: EncoderCall) -> int:
        """How many frames the method is shown at a time: all of a video, where it looks at whole ones, or one."""
        return 1

    def statistics(self, call: EncoderCall, image: int) -> Tensor:
        """Return the score and the key of every patch of one image: (1, patches, 1 + d)."""
        scores, keys = self.score(call, image)
        return torch.cat([scores[..., None].to(keys), keys], dim=2)

    def merged(
        self, call: EncoderCall, statistics: Tensor, features: Tensor, grid: tuple[int, int] | None, frames: int = 1,
        length: int | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Merge features (1, n, D) by statistics (1, n, 1 + d): tokens in place (1, n, D), and sizes (1, n).

        `length` is their number in the prompt, where that is not n.
        """
        statistics = statistics.to(features.device)  # tower and projector may live on different ones
        # the trace keeps the scores; a view would keep the keys with them
        encoded = Encoded(statistics[..., 0].clone(), statistics[..., 1:], features, grid, frames)
        settings = self.settings_for(call, encoded, length=length)
        decided: Merge = merge(settings, encoded, dynamic=self.dynamic)
        call.decisions.append(decided)
        return merged_in_place(self.config, decided, features)


class Fixed(Family):
    """A family whose images, tiles or frames all have `visual_tokens`."""

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        if duet.merges:
            check_feature_layer(config)
            stage1_counts(duet, self.visual_tokens(config))

    def is_whole(self, config: PreTrainedConfig, tokens: int) -> bool:
        return tokens % self.visual_tokens(config) == 0  # some hand over all tiles of a sample at once


def mean_of_groups(x: Tensor, channels: int) -> Tensor:
    """(B, n, patches * channels), as pixel shuffles lay out the patches of one token -> (B, n, channels)."""
    patches: Tensor = x.unflatten(2, (-1, channels))
    return patches.mean(2)
