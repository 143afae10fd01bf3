"""Only a family's file knows a model: no other room of the package names a model type or a model's modules."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import zoo

import duet_vlm
from duet_vlm.families import FAMILIES, family_of
from duet_vlm.families.llava import Llava

ROOT = Path(duet_vlm.__file__).parent
# the demonstration model is a LLaVA of ours; the host is what transformers calls things; shapes are those of published
# models, also as folders for vLLM; the plug-in for vLLM has families of its own
EXCEPT = ("families", "demo", "host", "shapes.py", "shape_parts.py", "published", "shape_folder.py", "vllm")
OTHERS = [p for p in sorted(ROOT.rglob("*.py")) if not {*p.relative_to(ROOT).parts} & {*EXCEPT}]
# names of modules that mean other things elsewhere
WORDS = {"visual", "merger", "connector", "projector", "downsample"}
MODULES = {name for family in FAMILIES.values() for name in (*family.towers, *family.projectors)} - WORDS
ARGUMENT = re.compile(
    r"(pixel_values|pixel_attention|target_sizes)\w*|\w+_(grid_thw|merge_sizes|pixel_values)|image_sizes|spatial_shapes"
    r"|video_compression_mask|(image|video)_position_ids|num_frames_per_video|num_local_patches"
)  # what holds pixels, or tells of them


def named(source: str) -> Iterator[str]:
    """What a source names of models: types and arguments in constants that are no docstrings, modules, keywords."""
    tree = ast.parse(source)
    bodies = [n.body for n in ast.walk(tree) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
    texts = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            words = re.findall(r"[\w.-]+", node.value)
            yield from (word for word in words if word in FAMILIES or word in MODULES or ARGUMENT.match(word))
        elif isinstance(node, ast.Attribute) and (node.attr in MODULES or ARGUMENT.fullmatch(node.attr)):
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg is not None and ARGUMENT.fullmatch(node.arg):
            yield node.arg


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_room_names_a_model(path: Path) -> None:
    assert list(named(path.read_text(encoding="utf-8"))) == []


def test_what_names_a_model_is_found() -> None:
    source = (
        'def f(config, core):\n    """Of a llava."""\n    core.vision_tower\n    return config.model_type == "llava"\n'
    )
    assert sorted(named(source)) == ["llava", "vision_tower"]
    source = 'if "image_grid_thw" in inputs:\n    encode(pixel_values=inputs.pixel_values_videos)\n'
    assert sorted(named(source)) == ["image_grid_thw", "pixel_values", "pixel_values_videos"]
    assert list(named('example = "--model llava-hf/llava-1.5-7b-hf"')) == []


def test_every_argument_of_pixels_is_looked_for() -> None:
    names = {name for family in FAMILIES.values() for listed in family.pixel_arguments.values() for name in listed}
    names |= {name for family in FAMILIES.values() for name in family.pixel_masks}
    for row in zoo.SEEING:
        names |= zoo.inputs(row, ((5, "i", 9),)).keys() - {
            "input_ids",
            "attention_mask",
            "token_type_ids",
            "mm_token_type_ids",
            "position_ids",
        }
    assert [name for name in sorted(names) if not ARGUMENT.fullmatch(name)] == []


def test_every_family_has_a_row_in_the_zoo() -> None:
    assert set(FAMILIES) <= {zoo.build(name).config.model_type for name in (*zoo.FAMILIES, *zoo.STAGE_2_ALONE)}


def test_a_family_of_ones_own_needs_nothing_but_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model type that the package does not know, in the class of a user."""
    model = zoo.build("llava")
    monkeypatch.setattr(type(model.config), "model_type", "mine")
    with pytest.raises(duet_vlm.DuetError, match="'mine' are not supported"):
        duet_vlm.apply(model, duet_vlm.DuetConfig(7, 3))
    try:

        class Mine(Llava, model_types=("mine",)):
            """Late drops are cautious."""

            late = (0.75, 0.5)

        assert isinstance(family_of(model.config), Mine)
        batch = zoo.inputs("llava", ((5, "i", 9),))
        with duet_vlm.apply(model, duet_vlm.DuetConfig(7, 3)) as handle:
            model(**batch)
            assert handle.trace is not None
            assert handle.trace.samples[0].tokens_per_layer[0] == 10
    finally:
        del FAMILIES["mine"]
