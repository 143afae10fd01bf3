"""CDPruner: tokens that differ from each other, given the question."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from ..config.registry import Ranking
from ..config.schedule import Schedule
from ..tensors.greedy import greedy
from ..tensors.greedy_rules import Determinant
from ..tensors.streamed import exact, wide
from .ranking import RankingInputs
from .selection import Images, select

RANKING = Ranking(name="cdpruner", paper="2506.10967")
# the paper drops in front of the language model; the first layer has run here, and its input ranks
METHOD = Schedule(
    name="cdpruner", paper="2506.10967", ratios={1: 0.5}, query="all", ranking="cdpruner", rank_before=True
)


def cdpruner(inputs: RankingInputs) -> Tensor:
    """CDPruner (arXiv 2506.10967), sections 3.2 and 3.3: a set by a determinantal point process, given the question.

    A token's relevance is the mean cosine of its hidden state to those of the query tokens, scaled to 0 to 1 within its
    image. The set is the greedy MAP of the kernel `relevance_i * cosine_ij * relevance_j`. The paper asks with the text
    tower of CLIP, whose patches are the less similar to a text the more they show it, so it turns the sign there; the
    hidden states of one language model keep theirs.
    """
    relevance, hidden = _relevance(inputs), inputs.hidden

    def choose(images: Images) -> Tensor:
        quality = images.of(relevance)
        low, high = quality.amin(1, keepdim=True), quality.amax(1, keepdim=True)
        quality = (quality - low) / (high - low).clamp(min=1e-12)
        chosen: Tensor = greedy(Determinant(quality=quality), normalize(wide(images.of(hidden)), dim=-1), images.count)
        return chosen

    return select(inputs, choose)


def _relevance(inputs: RankingInputs) -> Tensor:
    """Average the cosines of every present token to the query tokens: (B, n). The mean of unit vectors does that."""
    there = (inputs.places.queries >= 0)[..., None]
    with exact(there.device):
        asking = normalize(wide(inputs.questions), dim=-1).masked_fill(~there, 0).sum(1, keepdim=True)
        asking = asking / there.sum(1, keepdim=True).clamp(min=1)
        relevance: Tensor = normalize(wide(inputs.hidden), dim=-1) @ asking.transpose(1, 2)
        return relevance[..., 0]
