"""Write the table of what a budget saves into docs/families.md: python docs/make_savings.py. A test holds it to that.

From the configs of published shapes alone, as `duet budget --shape NAME --image 1280x720 --keep 0.33` counts them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from duet_vlm import DuetConfig
from duet_vlm.inputs.image_sizes import Layout, layout
from duet_vlm.inputs.shapes import SHAPES, shape_config
from duet_vlm.measuring.costs import cost_report

PAGE = Path(__file__).with_name("families.md")
PLACE = re.compile(r"(?<=<!-- docs/make_savings.py -->\n).*?(?=<!-- end -->)", re.S)
IMAGE = (1280, 720)
TEXT = 64
KEEP = (0.33, 0.11)
# of those whose processors need torchvision: 4 x 2 tiles and a thumbnail; 4 x 3 and a thumbnail; one tile of 512 x 512
LAID = {
    "command-a-vision-112b": Layout(tiles=9), "llama-4-scout": Layout(tiles=13), "lfm2-vl-1.6b": Layout(grid=(32, 32)),
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
    reports: list[dict[str, Any]] = []
    for keep in KEEP:
        duet = DuetConfig.preset("duet", model=config, keep=keep, grid=laid.grid)
        reports.append(cost_report(config, duet, TEXT, grid=laid.grid, tiles=laid.tiles, size=laid.size))
    whole = reports[0]
    flops, values = (
        ", ".join(f"{1 - report[of] / report[f'{of}_before']:.0%}" for report in reports)
        for of in ("flops", "kv_bytes")
    )
    return (
        f"| `{kind}` | `{name}` | {whole['visual_tokens']} | {whole['flops_before'] / 1e12:.1f} TFLOP "
        f"| {whole['kv_bytes_before'] / 2**20:.0f} MiB | {flops} | {values} |\n"
    )


def page() -> str:
    """The page with the table as it is now."""
    written = PAGE.read_text(encoding="utf-8")
    assert PLACE.search(written), "the page has lost the marks between which the table stands"
    return PLACE.sub(lambda _: table(), written)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
