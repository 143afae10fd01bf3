"""What a benchmark needs of the machine: a clock, time inside hooks, peak memory, and what the machine is."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..host import hooks_of
from ..host.refs import Around

_OURS = f"{__name__.partition('.')[0]}."  # modules of hooks that are this package's


def median(values: list[float]) -> float:
    return float(statistics.median(values))


class Clock:
    """Wall time in seconds, read when the device has finished what was asked of it."""

    def __init__(self, device: str | torch.device):
        self.device = torch.device(device)

    def now(self) -> float:
        """Seconds, of which only differences mean anything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    def time(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds of one call, and what it returned."""
        start = self.now()
        result = work()
        return self.now() - start, result

    def wrap(self, work: Callable[..., Any], note: Callable[[float, tuple[Any, ...]], None]) -> Callable[..., Any]:
        """`work` that also calls `note(seconds, its positional arguments)` after each call."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = self.now()
            result = work(*args, **kwargs)
            note(self.now() - start, args)
            return result

        return timed


@contextlib.contextmanager
def time_in_hooks(root: nn.Module, clock: Clock) -> Iterator[list[float]]:
    """Collect the seconds of every call of a hook of this package on `root` and the modules below it.

    Methods that this package has wrapped on `root` count as hooks, without what they call of stock.
    """
    seconds: list[float] = []
    replaced: list[tuple[Any, Any, Any]] = []

    def note(spent: float, *_: Any) -> None:
        seconds.append(spent)

    for name, method in list(vars(root).items()):
        if isinstance(method, Around):
            replaced.append((vars(root), name, method))
            vars(root)[name] = _without_stock(method, clock, note)
    for module in root.modules():
        for hooks in hooks_of(module):
            for number, hook in hooks.items():
                if getattr(hook, "__module__", "").startswith(_OURS):
                    replaced.append((hooks, number, hook))
                    hooks[number] = clock.wrap(hook, note)
    try:
        yield seconds
    finally:
        for hooks, number, hook in replaced:
            hooks[number] = hook


def _without_stock(wrapped: Around, clock: Clock, note: Callable[[float], None]) -> Callable[..., Any]:
    """A wrapped method that tells after each call how long it took beside the method inside."""

    def timed(*args: Any, **kwargs: Any) -> Any:
        stock, inside = wrapped.method, list[float]()
        inner = functools.wraps(stock)(clock.wrap(stock, lambda spent, _: inside.append(spent)))
        spent, result = clock.time(lambda: wrapped.around(inner, *args, **kwargs))
        note(spent - sum(inside))
        return result

    return timed


@contextlib.contextmanager
def time_modules(modules: list[nn.Module], clock: Clock) -> Iterator[list[list[float]]]:
    """Collect the seconds of every call of each module, without the hooks that stand on it before."""
    seconds: list[list[float]] = [[] for _ in modules]
    started = [0.0] * len(modules)
    handles = []

    def watch(i: int, module: nn.Module) -> None:
        def before(*_: Any) -> None:
            started[i] = clock.now()

        def after(*_: Any) -> None:
            seconds[i].append(clock.now() - started[i])

        handles.append(module.register_forward_pre_hook(before))
        handles.append(module.register_forward_hook(after, prepend=True))

    for i, module in enumerate(modules):
        watch(i, module)
    try:
        yield seconds
    finally:
        for handle in handles:
            handle.remove()


class PeakMemory:
    """Bytes in use at the peak since `start`, beyond what was in use then; None where the system does not tell.

    CUDA: torch's allocator. CPU: the resident set's high-water mark, which Linux lets a process reset.
    """

    def __init__(self, device: str):
        self.device = torch.device(device)
        self.before: int | None = None

    def start(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
            return
        self.before = None
        if self.device.type == "cpu":
            # elsewhere than on Linux there is no such file, and no figure
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
                self.before = _resident("VmRSS")

    def read(self) -> int | None:
        if self.before is None:
            return None
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else _resident("VmHWM")
        return None if peak is None else max(0, peak - self.before)


def _resident(field: str) -> int | None:
    match = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.M)
    return None if match is None else int(match[1]) * 1024


def hardware(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    facts: dict[str, Any] = {
        "device": device,
        "cpu": platform.processor() or platform.machine(),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    with contextlib.suppress(OSError):
        model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
        facts["cpu"] = facts["cpu"] if model is None else model[1]
        facts["memory_bytes"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if torch.device(device).type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["gpu_memory_bytes"] = torch.cuda.get_device_properties(device).total_memory
    return facts


def versions() -> dict[str, str]:
    """The software that the figures were measured with."""
    import transformers

    from ..version import __version__

    return {
        "duet_vlm": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": sys.version.split()[0],
    }
