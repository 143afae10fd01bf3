"""Write the table of what a budget saves into docs/families.md: python docs/make_savings.py. A test holds it to that.

From the configs of published shapes alone, as `duet budget --shape NAME --image 1280x720 --keep 0.33` counts them; with
`--method none+duet` where stage 1 is refused, and with `--seconds 30 --audio-keep 0.33` for models that only hear.
"""

from __future__ import annotations

from typing import Any

from page_tables import Table

from duet_vlm import DuetConfig
from duet_vlm.errors import DuetError
from duet_vlm.families import family_of
from duet_vlm.families.audio_only import AudioOnly
from duet_vlm.inputs.image_sizes import Layout, layout
from duet_vlm.inputs.shapes import SHAPES, shape_config
from duet_vlm.measuring.costs import cost_report

IMAGE = (1280, 720)
TEXT = 64
SECONDS = 30  # of sound, for models that hear and see nothing
KEEP = (0.33, 0.11)
# of those whose processors need torchvision: tokens of 48 x 48 pixels, as Gemma 4's; 4 x 2 tiles and a thumbnail; 4 x 3
# and a thumbnail; one tile of 512 x 512
LAID = {
    "gemma-4-12b": Layout(grid=(36, 66)), "command-a-vision-112b": Layout(tiles=9), "llama-4-scout": Layout(tiles=13),
    "lfm2-vl-1.6b": Layout(grid=(32, 32)),
}  # fmt: skip
HEAD = """| model type | `--shape` | visual tokens | prefill | keys and values | FLOPs saved at 0.33, 0.11 | KV saved |
|---|---|---|---|---|---|---|
"""


def table() -> str:
    """One row a family, of the first shape that is of it."""
    first: dict[str, str] = {}
    for name in SHAPES:
        first.setdefault(str(shape_config(name).model_type), name)
    return HEAD + "".join(_row(kind, name) for kind, name in first.items())


def _row(kind: str, name: str) -> str:
    config = shape_config(name)
    laid = LAID[name] if name in LAID else layout(config, None, name, IMAGE)
    hears = isinstance(family_of(config), AudioOnly)
    reports: list[dict[str, Any]] = []
    for keep in KEEP:
        more = {"audio_keep": keep} if hears else {}
        duet = _settings(config, model=config, keep=keep, grid=laid.grid, **more)
        seconds = SECONDS if hears else None
        reports.append(
            cost_report(config, duet, TEXT, grid=laid.grid, tiles=laid.tiles, size=laid.size, seconds=seconds)
        )
    whole = reports[0]
    tokens = f"{whole['audio_tokens']} of sound" if hears else whole["visual_tokens"]
    flops, values = (
        ", ".join(f"{1 - report[of] / report[f'{of}_before']:.0%}" for report in reports)
        for of in ("flops", "kv_bytes")
    )
    return (
        f"| `{kind}` | `{name}` | {tokens} | {whole['flops_before'] / 1e12:.1f} TFLOP "
        f"| {whole['kv_bytes_before'] / 2**20:.0f} MiB | {flops} | {values} |\n"
    )


def _settings(config: Any, **asked: Any) -> DuetConfig:
    """Of both stages, or of stage 2 alone where the family refuses stage 1."""
    both = DuetConfig.preset("duet", **asked)
    try:
        family_of(config).check(config, both)
    except DuetError:
        return DuetConfig.preset("none+duet", **asked)
    return both


TABLE = Table(__file__, "families.md", table)

if __name__ == "__main__":
    TABLE.write()
