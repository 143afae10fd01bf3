"""VidCom2: frames that differ from the video get more places, tokens that differ from both take them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config.registry import Stage1Method
from ..tensors.streamed import wide
from .common import Encoded, Merge, directions, selected
from .videos import few_frames, framed

VARIANCES = (0.125, 0.25, 0.5, 1.0, 2.0)  # of the Gaussians whose sum is a similarity
TEMPERATURE = 0.01

METHOD = Stage1Method(
    name="vidcom2", paper="2505.14454", needs=("features",), whole_videos=True, discards=True, order=21
)


def vidcom2(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """VidCom2 (arXiv 2505.14454): the least typical tokens, more of them in frames that stand out. Scores do not count.

    Tokens are compared as unit vectors over that half of the channels whose variance over the video is the lowest. A
    token is as typical as it is similar, by a sum of Gaussians of the distance, to the mean of its frame and to the
    mean of the video. A frame stands out by how little similar its tokens are, on average, to the mean of the video: a
    softmax of that over the frames, p_t, gives frame t a budget of (K1 + K2) / T x (1 + p_t - 1 / T), rounded, at least
    one token and at most all. The least typical tokens of every frame fill its budget; where the budgets do not add up
    to K1 + K2, the most typical tokens of the video go, or the least typical ones of the others come.

    An image is a video of one frame. Constants are those of the authors' code, as vLLM has them.
    """
    video, count = framed(encoded.features, encoded), dominant + contextual
    _, frames, tokens, _ = video.shape
    parts, channels = few_frames(video), _steady(video)

    def units(part: slice) -> Tensor:
        return directions(video[:, part].take_along_dim(channels[:, None, None], dim=-1))

    centres = torch.cat([units(part).mean(2) for part in parts], dim=1)
    middle = centres.mean(1)[:, None, None]
    to_frame = torch.cat([_similarity(units(part), centres[:, part, None]) for part in parts], dim=1)
    to_video = torch.cat([_similarity(units(part), middle) for part in parts], dim=1)
    share = (-to_video.mean(2) / TEMPERATURE).softmax(1)
    budgets = (count / frames * (1 + share - 1 / frames)).round().clamp(1, tokens)
    typical = to_frame + to_video
    rank = typical.argsort(dim=2, stable=True).argsort(dim=2)
    within = (rank < budgets[..., None]).flatten(1)
    order = typical.flatten(1).argsort(dim=1, stable=True)
    # stable twice: what is beyond the budget of its frame comes last, the least typical of it first
    order = order.gather(1, (~within.gather(1, order)).long().argsort(dim=1, stable=True))
    return selected(encoded, order[:, :count])


def _steady(video: Tensor) -> Tensor:
    """(B, T, n, D) -> (B, D / 2) long: the channels whose variance over all tokens is the lowest, in order."""
    parts, tokens = few_frames(video), video.shape[1] * video.shape[2]
    sums = torch.stack([wide(video[:, part]).sum((1, 2)) for part in parts]).sum(0)
    mean = (sums / tokens)[:, None, None]
    variance = torch.stack([(wide(video[:, part]) - mean).square().sum((1, 2)) for part in parts]).sum(0)
    half = variance.argsort(dim=1, stable=True)[:, : max(1, video.shape[3] // 2)]
    return half.sort(dim=1).values


def _similarity(x: Tensor, centre: Tensor) -> Tensor:
    """(B, t, n, C) and a centre for each, broadcast -> (B, t, n)."""
    distance = (x - centre).square().sum(-1)
    return torch.stack([(distance / (-2 * variance)).exp() for variance in VARIANCES]).sum(0)
