"""Which engine serves a model, and why."""

from __future__ import annotations

from typing import Any

import pytest
import saved

from duet_vlm import DuetConfig, DuetError
from duet_vlm.serving import engines


@pytest.mark.parametrize(
    ("asked", "installed", "name", "why"),
    [
        ("auto", False, "transformers", "vLLM is not installed here"),
        ("auto", True, "vllm", "vLLM is installed and can serve the model"),
        ("transformers", True, "transformers", "it was asked for"),
        ("vllm", True, "vllm", "it was asked for"),
    ],
)
def test_the_engine(monkeypatch: pytest.MonkeyPatch, asked: str, installed: bool, name: str, why: str) -> None:
    monkeypatch.setattr(engines, "installed", lambda: installed)
    llava, settings = saved.config(), DuetConfig(dominant=40)
    llava.architectures = ["LlavaForConditionalGeneration"]
    assert engines.choose(asked, llava, settings, adapter=False) == engines.Engine(name, why)


@pytest.mark.parametrize(("plugins", "name"), [("", "transformers"), ("other", "transformers"), ("a,duet", "vllm")])
def test_vllm_without_the_plug_in_would_serve_stock(monkeypatch: pytest.MonkeyPatch, plugins: str, name: str) -> None:
    monkeypatch.setattr(engines, "installed", lambda: True)
    monkeypatch.setenv("VLLM_PLUGINS", plugins)
    llava = saved.config()
    llava.architectures = ["LlavaForConditionalGeneration"]
    assert engines.choose("auto", llava, DuetConfig(dominant=40), adapter=False).name == name
    if name == "transformers":
        with pytest.raises(DuetError, match=f"VLLM_PLUGINS={plugins} leaves out 'duet'"):
            engines.choose("vllm", llava, DuetConfig(dominant=40), adapter=False)


@pytest.mark.parametrize(
    ("architecture", "settings", "adapter", "why"),
    [
        ("Gemma3ForConditionalGeneration", {}, False, "vLLM does not serve models of type 'llava' compressed"),
        ("LlavaForConditionalGeneration", {}, True, "vLLM does not serve LoRA adapters compressed"),
        ("LlavaForConditionalGeneration", {"downsample": (7, 7)}, False, "downsample is not possible in vLLM"),
    ],
)
def test_what_vllm_cannot_serve_is_served_by_transformers(
    monkeypatch: pytest.MonkeyPatch, architecture: str, settings: dict[str, Any], adapter: bool, why: str
) -> None:
    monkeypatch.setattr(engines, "installed", lambda: True)
    config = saved.config()
    config.architectures = [architecture]
    found = engines.choose("auto", config, DuetConfig(**settings), adapter)
    assert found.name == "transformers" and found.why.startswith(why)
    with pytest.raises(DuetError, match=why):
        engines.choose("vllm", config, DuetConfig(**settings), adapter)
