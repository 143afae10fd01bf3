"""EVS: what has changed since the frame before."""

from __future__ import annotations

import torch

from ..config.registry import Stage1Method
from .cells import cells
from .common import Encoded, Merge, directions, selected
from .videos import few_frames, framed

METHOD = Stage1Method(
    name="evs", paper="2510.14624", needs=("features", "grid"), whole_videos=True, discards=True, order=20
)


def evs(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """Efficient Video Sampling (arXiv 2510.14624): the first frame whole, and of the others what changes the most.

    How much a token changes is one minus the cosine between its features and those of the token at the same place one
    frame before; the K1 + K2 places that the first frame leaves go to the largest changes of the whole video. Ties take
    the earlier token. The paper measures the L1 distance of pixels before the encoder; vLLM measures as here.

    A budget below a whole frame keeps the middle tokens of even cells of the first frame, as `uniform` does, and so
    does that of an image, which is a video of one frame.
    """
    video, count = framed(encoded.features, encoded), dominant + contextual
    batch, _, tokens, _ = video.shape
    if count <= tokens:
        middles = torch.tensor(cells(tokens, encoded.grid, count)[0], device=video.device)
        return selected(encoded, middles.long().expand(batch, -1))
    alike = [
        (directions(video[:, part]) * directions(video[:, part.start - 1 : part.stop - 1])).sum(-1)
        for part in few_frames(video, first=1)
    ]
    order = torch.cat(alike, dim=1).flatten(1).argsort(dim=1, stable=True)
    first = torch.arange(tokens, device=video.device).expand(batch, -1)
    return selected(encoded, torch.cat([first, order[:, : count - tokens] + tokens], dim=1))
