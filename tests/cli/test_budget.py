"""`duet budget`: the costs of a schedule against arithmetic written out here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from saved import LAYERS, PATCHES, config, processor
from typer.testing import CliRunner

from duet_vlm import Drop, DuetConfig
from duet_vlm.cli.main import app
from duet_vlm.families.image_shape import ImageShape
from duet_vlm.inputs import shapes


def duet(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["budget", *(str(a) for a in arguments)])


def test_llava_7b_at_192() -> None:
    """LLaVA-1.5-7B: 4096 wide, 11008 inside, 32 layers; 300 + 7 tokens, 153 from layer 16 on, none from layer 24 on."""
    result = duet("--shape", "llava-1.5-7b", "--tokens", 192, "--json", "-")
    report = json.loads(result.stdout)
    counts = [307] * 16 + [153] * 8 + [0] * 8
    assert [row["visual_tokens"] for row in report["layers"]] == counts
    assert report["average_tokens"] == sum(counts) / 32 and report["last_layer_tokens"] == 0

    def layer(tokens: int) -> int:
        return 2 * tokens * (4 * 4096 * 4096 + 3 * 4096 * 11008) + 2 * tokens * tokens * 4096

    logits = 2 * 4096 * 32064
    before, after = 32 * layer(640) + logits, sum(layer(n + 64) for n in counts) + logits
    assert (report["flops_before"], report["flops"]) == (before, after)
    assert report["flops_ratio"] == before / after == pytest.approx(2.52, abs=0.01)
    assert report["kv_bytes_before"] == 32 * 640 * 2 * 4096 * 2
    assert report["kv_bytes"] == sum(n + 64 for n in counts) * 2 * 4096 * 2
    assert [row["kv_bytes"] for row in report["layers"]] == [(n + 64) * 2 * 4096 * 2 for n in counts]
    assert [row["flops"] for row in report["layers"]] == [layer(n + 64) for n in counts]


def test_the_table_and_the_file_say_what_enters_and_stays(tmp_path: Path) -> None:
    result = duet("--shape", "llava-1.5-7b", "--tokens", 64, "--json", tmp_path / "budget.json")
    assert result.exit_code == 0, result.output
    assert "llava-1.5-7b, duet: 63.8 of 576" in result.stdout and "0 to 15" in result.stdout
    assert json.loads((tmp_path / "budget.json").read_text())["tokens_in"] == 102


def test_linear_layers_of_a_hybrid_decoder_have_a_row_of_their_own() -> None:
    result = duet("--shape", "qwen3.5-9b", "--grid", "44x80", "--keep", 0.33)  # 1280 x 720 pixels
    rows = [line.strip("│ ").split("│") for line in result.stdout.splitlines() if " to " in line and "│" in line]
    kinds = [(row[0].strip(), row[4].strip()) for row in rows]
    # 944 tokens before: keys and values of 4 heads of 256 in half precision
    assert kinds == [
        (f"{layers}, {kind}", held)
        for layers in ("0 to 15", "16 to 23", "24 to 31")
        for kind, held in (("linear", "0 B"), ("others", "3.7 MiB"))
    ]
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("method", ["visionzip", "pyramiddrop", "fastv"])
def test_methods_meet_the_budget(method: str) -> None:
    report = json.loads(duet("--shape", "llava-1.5-13b", "--method", method, "--keep", 0.4, "--json", "-").stdout)
    assert abs(report["average_tokens"] - 0.4 * 576) <= 0.5 and len(report["layers"]) == 40


def test_a_folder_is_read_without_its_weights(tmp_path: Path) -> None:
    config().save_pretrained(tmp_path)  # no weights there
    report = json.loads(duet("--model", tmp_path, "--tokens", 60, "--text-tokens", 10, "--json", "-").stdout)
    assert report["visual_tokens"] == PATCHES and len(report["layers"]) == LAYERS
    # one key-value head of 8, in half precision
    assert report["kv_bytes_before"] == LAYERS * (PATCHES + 10) * 2 * 8 * 2


def test_anyres_counts_the_largest_grid() -> None:
    """Two crops and the base, a row end after each of 14 rows of 28 tokens; stage 1 takes the row ends away."""
    shape = ImageShape.of(config("llava_next"))
    assert (shape.visual_tokens, shape.crops) == (196 + 14 * (28 + 1), 3)
    made = processor("llava_next")
    ids = made(images=Image.new("RGB", (224, 112)), text="<image>", return_tensors="pt")["input_ids"]
    assert int((ids == made.tokenizer.convert_tokens_to_ids("<image>")).sum()) == shape.visual_tokens
    merged = shape.tokens_per_layer(DuetConfig(20, 4, drops=[Drop(2, 0.5)]), LAYERS)
    assert merged == [72, 72, 36, 36]
    dropped = shape.tokens_per_layer(DuetConfig(drops=[Drop(1, 0.1)]), LAYERS)
    assert dropped == [shape.visual_tokens] + [shape.visual_tokens // 10] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tokens", 192], "give one of --model, a folder or hub id, and --shape"),
        (["--shape", "tiny", "--model", "x", "--tokens", 192], "give one of --model, a folder or hub id, and --shape"),
        (
            ["--shape", "llava-9"],
            "shape 'llava-9' is unknown: choose one of llava-1.5-7b, llava-1.5-13b, llava-next-7b,",
        ),
        (["--shape", "tiny"], "there is no budget: give --tokens, an average per layer, or --keep, a fraction."),
        (["--shape", "tiny", "--tokens", 900], "cannot meet a budget of 900 tokens here"),
        (["--model", "./nowhere", "--tokens", 10], "model './nowhere' is no folder"),
    ],
)
def test_budget_refuses_in_one_line_what_no_schedule_meets(options: list[Any], message: str) -> None:
    result = duet(*options)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("duet: ") and message in result.stderr


# the transformers that serving engines pin lacks the newest model
NEWEST = "minicpm-v-4.7-1b"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.engine) if n == NEWEST else n for n in shapes.SHAPES]
)
def test_shapes_have_a_row_of_whole_heads(name: str) -> None:
    text = shapes.shape_config(name).get_text_config()
    # where heads have a size of their own, it need not divide the width (GLM-4.5V)
    assert text.hidden_size % text.num_attention_heads == 0 or text.head_dim


@pytest.mark.parametrize("model", ["--shape=llava-1.5-7b", "--model=demo"])
def test_tables_fit_80_columns_and_show_the_reports_figures(model: str) -> None:
    report = json.loads(duet(model, "--keep", 0.3, "--json", "-").stdout)
    lines = duet(model, "--keep", 0.3).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert rows[-1][0] == "before / after" and rows[-2][0] == "all, and logits"
    for row, name in ((rows[-2][2], "flops_before"), (rows[-2][3], "flops")):
        number, unit = row.split()
        assert float(number) * {"G": 1e9, "M": 1e6}[unit] == pytest.approx(report[name], rel=0.005)
    layers = [row for row in rows[:-2] if row[0][0].isdigit()]
    assert [int(row[1]) for row in layers] == sorted({row["visual_tokens"] for row in report["layers"]}, reverse=True)
