"""The frames of a video, merged one by one or together."""

from __future__ import annotations

from torch import Tensor

from ..config.settings import Settings
from ..stage1 import Encoded, merge, shown_together
from .encoding import EncoderCall
from .placing import merged_in_place


def merged_frames(config: Settings, call: EncoderCall, video: Encoded) -> list[tuple[Tensor, Tensor]]:
    """Merge an image, or a video frame by frame or whole, as the config's method looks at it, and note the decisions.

    Args:
        video: (1, T N) its tokens; a small image or frame lowers the counts.

    Returns:
        Tokens (n, D) in place, zeros where one was removed, and sizes (n,), whose n sum to T N.
    """
    done = []
    for part in shown_together(config, video):
        decided = merge(config, part, dynamic=True)
        call.decisions.append(decided)
        tokens, sizes = merged_in_place(config, decided, part.features)
        done.append((tokens[0], sizes[0]))
    return done
