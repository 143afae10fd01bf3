"""What attention is told of each stage, and that nothing is read from the device to know it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from vllm.forward_context import override_forward_context
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.vllm.decoder import Decoder
from duet_vlm.vllm.metadata import Stages
from duet_vlm.vllm.state import Prompt

DROPS = (Drop(1, 0.5), Drop(2, 0.0))
BLOCK, WIDTH, HEADS = 4, 8, 2


class Projection(nn.Module):
    def forward(self, hidden: Tensor) -> tuple[Tensor, None]:
        return hidden, None


class Rotary(nn.Module):
    """Keeps the positions that it is handed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, positions: Tensor, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append(positions.clone())
        return query, key


class Attention(nn.Module):
    """As much of vLLM's layer as stage 2 looks at."""

    def __init__(self, layer: int):
        super().__init__()
        self.qkv_proj, self.attn, self.rotary_emb = Projection(), nn.Identity(), Rotary()
        self.attn.layer_name, self.attn.head_size = f"layers.{layer}", WIDTH // HEADS  # type: ignore[assignment]
        self.attn.attn_backend = CPUAttentionBackend  # type: ignore[assignment]
        self.attn.impl = SimpleNamespace(scale=1.0)  # type: ignore[assignment]

    def forward(self, positions: Tensor, hidden_states: Tensor) -> Tensor:
        projected, _ = self.qkv_proj(hidden_states)
        self.rotary_emb(positions, projected, projected)
        return self.attn(projected) if isinstance(self.attn, nn.Identity) else self.attn(*[projected] * 3)


class Layer(nn.Module):
    def __init__(self, layer: int):
        super().__init__()
        self.self_attn = Attention(layer)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, positions: Tensor, hidden: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        assert self.self_attn(positions=positions, hidden_states=hidden).shape == hidden.shape
        self.seen.append((tuple(positions.shape), len(hidden)))
        return hidden, hidden if residual is None else residual


class Norm(nn.Module):
    def forward(self, hidden: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return hidden, residual


def made(device: str) -> Any:
    with torch.device(device):
        model = nn.Module()
        model.layers = nn.ModuleList(map(Layer, range(4)))
        model.norm = Norm()
        return Decoder(DuetConfig(drops=DROPS, query="last"), model, renumbers=True, longest=64)


@pytest.fixture
def decoder() -> Any:
    return made("cpu")


def step(decoder: Any, rows: list[tuple[Prompt, int, int]], device: str) -> CommonAttentionMetadata:
    """A step of requests: a prompt, how many of its tokens are computed, and how many come."""
    requests = {str(i): SimpleNamespace() for i in range(len(rows))}
    decoder.stages.requests.follow(SimpleNamespace(requests=requests, input_batch=SimpleNamespace(req_ids=[*requests])))
    decoder.stages.requests._known = {str(i): (requests[str(i)], row[0]) for i, row in enumerate(rows)}
    starts = torch.tensor([0, *(row[2] for row in rows)], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    lengths = torch.tensor([computed + scheduled for _, computed, scheduled in rows], dtype=torch.int32)
    table = torch.arange(len(rows) * 8, dtype=torch.int32).view(len(rows), 8) + 1
    return CommonAttentionMetadata(
        query_start_loc=starts.to(device),
        query_start_loc_cpu=starts,
        seq_lens=lengths.to(device),
        num_reqs=len(rows),
        num_actual_tokens=int(starts[-1]),
        max_query_len=int(starts.diff().max()),
        max_seq_len=int(lengths.max()),
        block_table_tensor=table.to(device),
        slot_mapping=torch.zeros(int(starts[-1]), dtype=torch.int64, device=device),
        seq_lens_cpu_upper_bound=lengths,
    )


def prompt(length: int, *spans: tuple[int, int]) -> Prompt:
    return Prompt.of(length, list(range(length)), [[span] for span in spans], DROPS)


IMAGE, TEXT = prompt(12, (2, 8)), prompt(5)


def test_a_stage_is_told_of_what_is_left(decoder: Any) -> None:
    common = step(decoder, [(IMAGE, 0, 12), (TEXT, 0, 5), (IMAGE, 13, 1)], "cpu")
    assert decoder.stages.common(0, common, BLOCK, []) is common
    told = decoder.stages.common(1, common, BLOCK, ["layers.1"])
    assert told.query_start_loc.tolist() == told.query_start_loc_cpu.tolist() == [0, 9, 14, 15]
    assert told.seq_lens.tolist() == told.seq_lens_cpu_upper_bound.tolist() == [9, 5, 11]
    assert (told.num_actual_tokens, told.max_query_len, told.max_seq_len) == (15, 9, 11)
    places = [*range(9), *range(5), 10]
    tables = [0] * 9 + [1] * 5 + [2]
    blocks = [int(common.block_table_tensor[row, place // BLOCK]) for row, place in zip(tables, places, strict=True)]
    assert told.slot_mapping.tolist() == [b * BLOCK + p % BLOCK for b, p in zip(blocks, places, strict=True)]
    assert told.positions.tolist() == places
    last = decoder.stages.common(2, common, BLOCK, ["layers.2", "layers.3"])
    assert last.seq_lens.tolist() == [6, 5, 8]
    assert [names for names, _ in decoder.stages.step.slots] == [["layers.1"], ["layers.2", "layers.3"]]


def test_text_alone_is_told_what_vllm_tells(decoder: Any) -> None:
    common = step(decoder, [(TEXT, 0, 5), (TEXT, 8, 1)], "cpu")
    assert decoder.stages.common(1, common, BLOCK, []) is decoder.stages.common(2, common, BLOCK, []) is common


@pytest.mark.parametrize(("computed", "scheduled"), [(0, 7), (7, 5), (4, 8)])
def test_parts_of_a_prompt_are_refused(decoder: Any, computed: int, scheduled: int) -> None:
    common = step(decoder, [(IMAGE, computed, scheduled)], "cpu")
    with pytest.raises(DuetError, match="--no-enable-chunked-prefill --no-enable-prefix-caching"):
        decoder.stages.common(1, common, BLOCK, [])


def ran(decoder: Any, rows: list[tuple[Prompt, int, int]], device: str) -> tuple[Tensor | None, Any]:
    """What the decoder makes of a step, and the forward context of it."""
    common = step(decoder, rows, device)
    for stage, names in enumerate([["layers.0"], ["layers.1"], ["layers.2", "layers.3"]]):
        decoder.stages.common(stage, common, BLOCK, names)
    tokens = common.num_actual_tokens
    positions = torch.cat([torch.arange(computed, computed + count) for _, computed, count in rows]).to(device)
    context = SimpleNamespace(attn_metadata={"layers.0": None}, slot_mapping={"layers.0": common.slot_mapping})
    with override_forward_context(context):
        return decoder.forward(None, positions, torch.empty(tokens, WIDTH, device=device)), context


ANSWERS = [(IMAGE, 14, 1), (TEXT, 9, 1), (IMAGE, 13, 1)]


@pytest.mark.parametrize("entering", [False, True])
def test_nothing_is_read_from_the_device(entering: bool) -> None:
    # a tensor on this device has no values: whatever reads one raises
    decoder = made("meta")
    out, context = ran(decoder, [*ANSWERS, *([(IMAGE, 0, 12), (TEXT, 0, 5)] if entering else [])], "meta")
    left = [20, 17, 14] if entering else [3, 3, 3]
    if entering:
        assert out is not None and out.device.type == "meta" and out.shape == (20, WIDTH)
        assert [decoder.layers[i].seen[-1] for i in (0, 1, 3)] == [((n,), n) for n in left]
    else:
        assert out is None  # vLLM's own forward runs it
    assert {name: len(slots) for name, slots in context.slot_mapping.items()} == {
        f"layers.{i}": left[min(i, 2)] for i in range(4)
    }


@pytest.mark.parametrize(
    ("rows", "places"),
    [
        (ANSWERS, [[14, 9, 13], [11, 9, 10], [8, 9, 7], [8, 9, 7]]),
        ([(TEXT, 9, 1), (TEXT, 3, 1)], [[9, 3]] * 4),
    ],
)
def test_forward_of_vllm_finds_the_places_of_every_stage(
    decoder: Any, rows: list[tuple[Prompt, int, int]], places: list[list[int]]
) -> None:
    assert ran(decoder, rows, "cpu")[0] is None
    positions, hidden = torch.zeros(len(rows), dtype=torch.long), torch.zeros(len(rows), WIDTH)
    for layer in decoder._model[0].layers:
        layer(positions, hidden, None)
    found = [layer.self_attn.rotary_emb.stock.seen[-1].tolist() for layer in decoder._model[0].layers]
    assert found == places


def test_one_token_alone_is_not_what_a_compiler_sees_first(decoder: Any) -> None:
    asked = [[(IMAGE, 14, 1)], [(IMAGE, 0, 12)], [(TEXT, 9, 1)], ANSWERS, [(IMAGE, 14, 1)]]
    skipped = [getattr(ran(decoder, rows, "cpu")[1], "skip_compiled", None) for rows in asked]
    assert skipped == [True, None, True, False, False]


def test_layers_of_a_stage_share_a_backend() -> None:
    attentions, backend = [Attention(i).attn for i in range(4)], CPUAttentionBackend
    Stages(DROPS, (), attentions)
    names = [attention.attn_backend.full_cls_name() for attention in attentions]
    assert names[2] == names[3] and len(set(names)) == 3
    assert all(issubclass(attention.attn_backend, backend) for attention in attentions)
    assert backend.full_cls_name() not in names
