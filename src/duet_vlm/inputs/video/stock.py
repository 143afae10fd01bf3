"""A model's stock processor, also where torchvision is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

PILLOW_ONLY = (4, 5)  # PIL.Image.Resampling: BOX and HAMMING, which torchvision cannot resize with


def stock_processor(source: str, config: PreTrainedConfig) -> Any:
    """The stock processor of a model; without torchvision its video processor is this package's.

    Args:
        source: a folder or a hub id.
        config: the model's config.
    """
    import transformers
    from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer, ProcessorMixin
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
    from transformers.utils import is_torchvision_available

    from ...families import FAMILIES

    family = FAMILIES.get(config.model_type)
    frames = None if family is None else family.video_processor
    if is_torchvision_available() or frames is None:
        return processor_of(source)
    settings, _ = ProcessorMixin.get_processor_dict(source)
    # a model type without a processor of its own names another's in its files
    kind = accepting(PROCESSOR_MAPPING.get(type(config), None) or getattr(transformers, settings["processor_class"]))
    readers: dict[str, Any] = {
        "tokenizer": AutoTokenizer.from_pretrained,
        "image_processor": AutoImageProcessor.from_pretrained,
        "feature_extractor": AutoFeatureExtractor.from_pretrained,
        "video_processor": frames.read,
    }
    return kind.from_args_and_dict([readers[part](source) for part in kind.get_attributes()], settings)


def processor_of(source: Any, **options: Any) -> Any:
    """`AutoProcessor.from_pretrained`, reading pictures with Pillow where torchvision lacks the filter they need."""
    from transformers import AutoProcessor
    from transformers.utils import is_torchvision_available

    processor = AutoProcessor.from_pretrained(source, **options)
    filtered = getattr(getattr(processor, "image_processor", None), "resample", None)
    if is_torchvision_available() and filtered in PILLOW_ONLY:
        return AutoProcessor.from_pretrained(source, backend="pil", **options)
    return processor


def accepting(kind: Any) -> Any:
    """A processor class that takes a video processor without looking for its base, which torchvision hides."""

    def check_argument_for_proper_class(self: Any, name: str, argument: Any) -> Any:
        if name == "video_processor":
            return type(argument)
        return kind.check_argument_for_proper_class(self, name, argument)

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check_argument_for_proper_class})
