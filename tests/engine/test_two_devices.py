"""A decoder split over two devices, as device_map="auto" splits it: simulated on a CPU, every family.

Every storage gets a home: the first device for weights and inputs, the second for the layers from the third on and what
they make. A layer's forward moves what it is given, as accelerate's hook does; everything else must ask for the move.
An operation on tensors of two homes would stop on two GPUs.
"""

from __future__ import annotations

import contextlib
import traceback
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import tiny
import torch
import zoo
from exactness import close, generate
from matrix import apply, family, rows_of
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

FIRST, SECOND = torch.device("cpu", 0), torch.device("cpu", 1)
THROUGH = ("__call__", "around_generate", "around_encoder")  # ours only call stock
FREE = {"aten.detach.default", "aten.alias.default", "aten._local_scalar_dense.default"}


class Homes(TorchDispatchMode):
    """Notes operations whose tensors have different homes; results live where their inputs do."""

    def __init__(self) -> None:
        super().__init__()
        self.homes: WeakKeyDictionary[Any, torch.device] = WeakKeyDictionary()
        self.mixed: list[str] = []

    def home(self, x: Tensor) -> torch.device | None:
        try:
            return self.homes.get(x.untyped_storage())
        except NotImplementedError:  # inside vmap, which transformers makes masks by
            return None

    def settle(self, x: Tensor, home: torch.device) -> None:
        with contextlib.suppress(NotImplementedError):
            self.homes[x.untyped_storage()] = SECOND if home == SECOND else FIRST

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor) and x.numel()]
        # numbers as tensors go everywhere
        there = {home for x in inputs if x.ndim and (home := self.home(x)) is not None}
        if len(there) > 1 and str(func) not in FREE:
            here = [f for f in traceback.extract_stack() if "duet_vlm" in f.filename and f.name not in THROUGH]
            self.mixed.append(f"{func} at {here[-1].filename}:{here[-1].lineno}" if here else f"{func} in stock")
        result = func(*args, **(kwargs or {}))
        for x in tree_flatten(result)[0]:
            if isinstance(x, Tensor) and there and self.home(x) is None:
                self.settle(x, max(there, key=str))
        return result


class Moves(TorchFunctionMode):
    """`x.device` says where x is at home, and `x.to(device)` moves it there."""

    def __init__(self, homes: Homes):
        super().__init__()
        self.homes = homes

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == Tensor.device.__get__:
            return self.homes.home(args[0]) or FIRST
        if func is Tensor.to and isinstance(args[0], Tensor):
            asked = [x for x in (*args[1:], *kwargs.values()) if isinstance(x, (torch.device, Tensor))]
            where = None
            for x in asked:
                where = x if isinstance(x, torch.device) else self.homes.home(x)
            others = [x.dtype if isinstance(x, Tensor) else x for x in args[1:] if not isinstance(x, torch.device)]
            named = {k: x for k, x in kwargs.items() if k != "device"}
            result = func(args[0], *others, **named) if others or named else args[0]
            if where is not None and where != (self.homes.home(result) or FIRST):
                result = result.clone()
                self.homes.settle(result, where)
            return result
        device = kwargs.pop("device", None)
        if isinstance(device, str):
            device = torch.device(device)
        result = func(*args, **kwargs)
        if device is not None and isinstance(result, Tensor):
            self.homes.settle(result, device)
        return result


def split(model: Any, homes: Homes, first: int = 2) -> None:
    """The decoder's layers from `first` on, its norm and its head live on the second device."""
    for parameter in (*model.parameters(), *model.buffers()):
        homes.settle(parameter, FIRST)
    decoder = zoo.decoder(model)
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    norm = decoder.embedding_norm if hasattr(decoder, "embedding_norm") else decoder.norm  # LFM2's name of it
    later = [*decoder.layers[first:], norm, *([] if tied else [model.lm_head])]

    def moved(x: Any) -> Any:
        return x.to(SECOND) if isinstance(x, Tensor) else x

    for module in later:
        for parameter in (*module.parameters(), *module.buffers()):
            homes.settle(parameter, SECOND)

        def forward(*args: Any, stock: Any = module.forward, **kwargs: Any) -> Any:
            return stock(*tree_map(moved, args), **tree_map(moved, kwargs))

        module.forward = forward
    if tied:
        norm.register_forward_hook(lambda m, a, out: out.to(FIRST))


@family
@pytest.mark.parametrize(
    "name", ["both stages", *(pytest.param(one, marks=pytest.mark.long) for one in ("stage 2 alone", "proportional"))]
)
@torch.no_grad()
def test_a_decoder_split_over_two_devices_mixes_no_tensors(family: str, name: str) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, rows_of(family))
    with apply(model, family, name):
        expected = torch.stack(generate(model, batch, 3).logits)
    homes = Homes()
    split(model, homes)
    with Moves(homes), homes:
        generate(model, batch, 3)
    stock = sorted(set(homes.mixed))
    homes.mixed.clear()
    with apply(model, family, name), Moves(homes), homes:
        logits = torch.stack(generate(model, batch, 3).logits)
    assert sorted(set(homes.mixed) - set(stock)) == []
    close(logits, expected)


@torch.no_grad()
def test_what_is_mixed_is_found() -> None:
    model, batch, homes = tiny.build(), tiny.inputs(), Homes()
    split(model, homes)
    model.model.language_model.layers[3].register_forward_pre_hook(
        lambda m, args: (args[0] + model.get_input_embeddings().weight[0],)
    )
    with Moves(homes), homes:
        model(**batch)
    assert any("aten.add" in line for line in homes.mixed)
