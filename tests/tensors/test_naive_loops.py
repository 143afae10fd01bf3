"""Stage 1, stage 2 and index arithmetic against naive loops of docs/method.md, on random shapes without ties."""

from __future__ import annotations

import oracle
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import distinct

from duet_vlm import stage1 as merging
from duet_vlm.stage1.duet import duet
from duet_vlm.stage1.visionzip import visionzip
from duet_vlm.stage2 import ranking
from duet_vlm.tensors import tokens
from duet_vlm.tensors.streamed import Places, Softmax

many = settings(max_examples=200, deadline=None)


@many
@given(st.data())
def test_stage_1_equals_the_naive_loop(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 60), "N")
    k1 = data.draw(st.integers(1, n), "K1")
    k2 = data.draw(st.integers(0, n - k1), "K2")
    width = data.draw(st.integers(1, 9), "w")
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6), "seed"))
    scores, metric = distinct(generator, 2, n), torch.randn(2, n, 5, generator=generator)
    x = torch.randn(2, n, 7, generator=generator)
    merge = duet(merging.Encoded(scores, metric, x), k1, k2, width)
    for b in range(2):
        expected = oracle.stage_1(scores[b].tolist(), metric[b].tolist(), k1, k2, width)
        assert merge.dominant[b].tolist() == expected["dominant"]
        assert merge.anchors[b].tolist() == expected["anchors"]
        for number, members in enumerate(expected["clusters"]):
            joined = merge.members[b][merge.joins[b] == number].tolist() if k2 else []
            assert sorted(joined) == sorted(members)
        merged = oracle.contextual(x[b], expected["anchors"], expected["clusters"])
        torch.testing.assert_close(merge.contextual(x)[b], merged, atol=1e-5, rtol=1e-5)
        kept = torch.cat([x[b][expected["dominant"]], merged])
        torch.testing.assert_close(merge.retained(x)[b], kept, atol=1e-5, rtol=1e-5)


@many
@given(st.integers(2, 60), st.integers(1, 20), st.integers(0, 20), st.integers(0, 10**6))
def test_visionzip_pools_everything_in_image_order(n: int, k1: int, k2: int, seed: int) -> None:
    k1 = min(k1, n)
    k2 = min(k2, n - k1)
    generator = torch.Generator().manual_seed(seed)
    scores, metric = distinct(generator, 1, n), torch.randn(1, n, 4, generator=generator)
    merge = visionzip(merging.Encoded(scores, metric, metric), k1, k2, 4)
    rest = sorted(set(range(n)) - set(merge.dominant[0].tolist()))
    step = max(1, len(rest) // k2) if k2 else 1
    anchors = [rest[j * step] for j in range(k2)]
    assert merge.anchors[0].tolist() == anchors
    assert sorted(merge.members[0].tolist()) == ([i for i in rest if i not in anchors] if k2 else [])


@many
@given(st.data())
def test_stage_2_equals_the_naive_loop(data: st.DataObject) -> None:
    rows, n = 2, data.draw(st.integers(3, 24), "n")
    (heads, share), width = data.draw(st.sampled_from([(2, 1), (4, 2), (3, 3)]), "heads"), 6
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6), "seed"))
    query, key = (torch.randn(rows, h, n, width, generator=generator) for h in (heads, heads // share))
    valid = torch.rand(rows, n, generator=generator) > 0.2
    valid[:, -1] = True
    spans = torch.randint(0, 3, (rows, n), generator=generator) * valid
    spans[1] = (spans[1] + 2) * (spans[1] > 0)  # every row has its own images
    asked = [sorted(set(torch.randint(0, n, (4,), generator=generator).tolist()) & set(v.nonzero()[:, 0].tolist()))
             or [n - 1] for v in valid]  # fmt: skip
    places = torch.tensor([a + [-1] * (5 - len(a)) for a in asked])
    seen = torch.arange(n).where(valid, -1)
    packed = torch.stack([query[b][:, places[b].clamp(min=0)] for b in range(rows)])
    scores = ranking.text_to_vision(packed, key, Places(places, seen), Softmax(width**-0.5))
    limits = torch.randint(0, 4, (6,), generator=generator)
    keep = ranking.top_per_span(scores, spans, limits)
    for b in range(rows):
        expected = oracle.stage_2(query[b], key[b], asked[b], valid[b].tolist())
        torch.testing.assert_close(scores[b], torch.tensor(expected), atol=1e-5, rtol=1e-4)
        # ties among unseen tokens are possible, so the choice is checked on the scores themselves
        numbered = {s: int(limits[s]) for s in range(1, 6)}
        chosen = oracle.stage_2_keep(scores[b].tolist(), spans[b].tolist(), numbered)
        assert set(keep[b].nonzero()[:, 0].tolist()) == chosen


@many
@given(st.integers(1, 4), st.integers(1, 20), st.booleans(), st.integers(0, 10**6))
def test_kept_indices(rows: int, length: int, holes_right: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(rows, length, generator=generator) > 0.5
    keep[:, -1] = True
    x = torch.randn(rows, length, 3, generator=generator)
    kept, holes = tokens.pack(keep, holes_right)
    assert holes == bool((kept < 0).any())
    taken, back, slot = tokens.take(x, kept), None, tokens.slots(kept, length)
    back = tokens.fill_back(taken, kept, length)
    assert kept.shape[1] == max(keep.sum(1))
    for b in range(rows):
        places = keep[b].nonzero()[:, 0].tolist()
        assert [i for i in kept[b].tolist() if i >= 0] == places
        assert torch.equal(taken[b][kept[b] >= 0], x[b][keep[b]])
        for i in range(length):
            before = [p for p in places if p <= i]
            assert slot[b, i] == (kept[b].tolist().index(i) if i in places else -1)
            if before:
                assert torch.equal(back[b, i], x[b, before[-1]])


def test_a_zero_row_of_sizes_is_no_span() -> None:
    visual = torch.tensor([[0, 1, 1, 0, 1], [1, 0, 0, 0, 0]]).bool()
    assert tokens.number_spans(visual, [2, 1, 1]).tolist() == [[0, 1, 1, 0, 2], [3, 0, 0, 0, 0]]


def test_half_precision_means_are_summed_wide() -> None:
    x, keys = torch.full((1, 400, 1), 0.01).bfloat16(), torch.ones(1, 400, 2)
    merge = duet(merging.Encoded(torch.arange(400.0)[None], keys, keys), 1, 1, 399)
    expected = 2 * float(x[0, 0])
    assert abs(float(merge.contextual(x)) - expected) < 2**-8 * expected
