"""What a token is worth to a greedy selection (`tensors.greedy`)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Stop:
    """When enough is chosen of an image (`tensors.covering`).

    Attributes:
        share: of the image that is to be covered, in (0, 1].
        least: how many tokens are chosen in any case.
    """

    share: float
    least: int = 1


@dataclass(frozen=True, kw_only=True)
class Worth:
    """A token's worth is `base + distance * (1 - near) + cover * gain`; what is None does not count.

    `near` is its highest cosine to a chosen token, and at least `floor`. `gain` is how much nearer the image as a whole
    would be if the token were chosen too: the sum over all tokens j of max(0, its cosine to j - near of j).

    Attributes:
        base: (B, N) floating, or None.
        distance: (B, N) floating, a number, or None.
        cover: (B, N) floating, a number, or None.
        first: (B, N) floating, whose highest is chosen first; None for the highest worth.
        lonely: whether the token whose nearest other is the farthest is chosen first.
        floor: of `near`, from -1 to 1.
        averaged: whether base, 1 - near and gain are each divided by their mean over the tokens that are left.
        stop: on the host, when no more need be chosen: not before `covering.enough` has enough. Elsewhere nothing is
            read on the way, so as many are chosen as are asked for.
    """

    base: Tensor | None = None
    distance: Tensor | float | None = None
    cover: Tensor | float | None = None
    first: Tensor | None = None
    lonely: bool = False
    floor: float = -1.0
    averaged: bool = False
    stop: Stop | None = None


@dataclass(frozen=True, kw_only=True)
class Determinant:
    """The chosen tokens are to have a large determinant of `quality_i * cosine_ij * quality_j` (greedy MAP of a DPP).

    A token's worth is the square of its distance from the space that the chosen ones span, with its quality as its
    length, found with one more row of a Cholesky factor for each chosen token (Chen, Zhang and Zhou, arXiv 1709.05135,
    algorithm 1). It is at least a hundred-thousandth of its quality, which is more than rounding leaves: where the
    chosen ones span everything, the highest quality is next.

    Attributes:
        quality: (B, N) floating, from 0 to 1.
    """

    quality: Tensor


Rule = Worth | Determinant


def balanced(relevance: Tensor, cover: float = 1.0, distance: float = 0.5) -> Worth:
    """TOPS (arXiv 2606.27161): relevance, coverage and diversity, each as a multiple of its mean; relevance begins.

    Args:
        relevance: (B, N) floating, not negative.
        cover: its lambda, which it has from 0.5 to 1.
        distance: its alpha.
    """
    return Worth(base=relevance, cover=cover, distance=distance, first=relevance, floor=0.0, averaged=True)
