"""What a config means on one model: every check, and what a forward pass asks at each layer. Immutable."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import nn

from .. import host
from ..config.audio import AudioSchedule
from ..config.drops import Drop, check_lending, ranked_with_attention
from ..config.layer_shape import lending_layers
from ..config.settings import Settings
from ..errors import DuetError
from ..families import Family, family_of, visual_token_ids
from ..families.refusals import check_downsampling, check_pruning, check_whole_videos, refuse_renumbering
from ..stage2.words import check_language
from .merge_sizes import check_adds_mask

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

AUDIO = "audio"  # the modality


@dataclass(frozen=True, eq=False)
class Plan:
    """A config that fits a model.

    Attributes:
        config: the settings.
        tokenizer: finds the words of a question; None where none are needed.
        family: what the model's family does differently.
        model_config: the model's.
        rotary: the language model's rotary embedding.
        renumbers: whether positions close the gaps.
        scales: whether the decoder's attention scales queries by positions, so that its layers are told them.
        drops_by_layer: decoder layer -> what is dropped before it.
        ranking_layers: decoder layers that rank.
        layers: how many decoder layers there are.
        linear_layers: those of them that have linear attention.
        lending_layers: those whose keys and values the borrowing layers use, all layers behind the last of them.
        audio: how much of a sound is kept where; None where sound is text.
    """

    config: Settings
    tokenizer: Any
    family: Family
    model_config: PreTrainedConfig
    rotary: nn.Module
    renumbers: bool
    scales: bool
    drops_by_layer: dict[int, Drop]
    ranking_layers: frozenset[int]
    layers: int
    linear_layers: frozenset[int]
    lending_layers: frozenset[int]
    audio: AudioSchedule | None = None

    @property
    def storing_layers(self) -> int:
        """How many decoder layers store something in a cache."""
        return max(self.lending_layers) + 1 if self.lending_layers else self.layers

    @property
    def compresses(self) -> bool:
        """Whether anything is merged or dropped."""
        return self.config.merges or bool(self.drops_by_layer) or self.audio is not None

    @cached_property
    def arguments(self) -> dict[str, tuple[str, ...]]:
        """Modality -> the names under which a call brings what is to be encoded and compressed."""
        audio = {} if self.audio is None else {AUDIO: self.family.audio_arguments}
        return {**self.family.pixel_arguments, **audio}

    @cached_property
    def tokens(self) -> dict[str, int]:
        """Modality -> the id of its placeholder in prompts, sound last."""
        audio = {} if self.audio is None else {AUDIO: self.family.audio_token(self.model_config)}
        return {**visual_token_ids(self.model_config), **audio}

    def ranks(self, drop: Drop) -> bool:
        """Whether a drop chooses: of visual tokens it may keep none, of sound it always keeps some."""
        return drop.keep > 0 or self.audio is not None

    @classmethod
    def of(cls, model: Any, config: Settings, tokenizer: Any) -> Plan:
        """Work out what `config` means on `model`.

        Raises:
            DuetError: settings that do not fit it; nothing was touched.
        """
        family = check_plan(model, config, tokenizer)
        decoder = host.decoder_of(model)
        linear, layers = host.linear_layers_of(decoder), len(decoder.layers)
        ranked = ranked_with_attention(config.drops, linear, layers)
        drops = {drop.layer: drop for drop in ranked if drop.keep < 1}
        audio = AudioSchedule.of(config, layers)
        return cls(
            config=config,
            tokenizer=tokenizer,
            family=family,
            model_config=model.config,
            rotary=decoder.rotary_emb,
            renumbers=renumbers(family, decoder, config),
            scales=host.scales_by_positions(decoder),
            drops_by_layer=drops,
            ranking_layers=frozenset(drop.ranking_layer for drop in drops.values() if drop.keep > 0 or audio),
            layers=layers,
            linear_layers=linear,
            lending_layers=lending_layers(model.config),
            audio=audio,
        )


def renumbers(family: Family, decoder: Any, config: Settings) -> bool:
    """Whether positions close the gaps: as the settings say, or as suits the family, its decoder and the method."""
    suited = family.positions if host.renumbers(decoder) and config.pixelprune is None else "keep"
    return (suited if config.positions == "auto" else config.positions) == "renumber"


def check_plan(model: Any, config: Settings, tokenizer: Any) -> Family:
    """Refuse what cannot work, before anything is touched; returns the model's family."""
    host.check_host()
    family = family_of(model.config)
    host.check_decoder(model)
    if config.downsample is not None:
        check_downsampling(family, model.config)
    if config.pixelprune is not None:
        check_pruning(family, model.config)
    if config.dominant is not None:
        check_whole_videos(family, model.config, config.stage1_method)
    family.check(model.config, config)
    family.check_audio(model.config, config)
    if not host.renumbers(host.decoder_of(model)):
        refuse_renumbering(model.config.get_text_config(), config, "its layers have rotary embeddings of their own")
    host.check_attention(host.decoder_of(model), renumbers(family, host.decoder_of(model), config))
    if config.proportional:
        check_adds_mask(host.decoder_of(model))
    layers = len(host.decoder_of(model).layers)
    for drop in config.drops:
        if drop.layer >= layers:
            raise DuetError(
                f"drop layer {drop.layer} is not possible: this model has {layers} decoder layers, "
                f"so choose 1 to {layers - 1}."
            )
    check_lending(config.drops, lending_layers(model.config), layers)
    if config.ranks and config.query == "salient":
        if tokenizer is None:
            raise DuetError(
                "query 'salient' needs the words of the question: pass tokenizer= (or the processor) to apply, "
                "or choose query 'all' or 'last'."
            )
        check_language(config.language)
    return family
