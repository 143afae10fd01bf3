"""The word-level tokenizer, the chat template and the processor of the demonstration model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duet_vlm.demo.questions import LOCATIONS, PLURALS, question_words
from duet_vlm.demo.scenes import BACKGROUNDS, COLORS, DIGITS, IMAGE_SIZE, PATCH_SIZE, SHAPES

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import LlavaProcessor, PreTrainedTokenizerFast

PAD, BOS, EOS, UNKNOWN, IMAGE, USER, ASSISTANT = SPECIALS = (
    "<pad>", "<s>", "</s>", "<unk>", "<image>", "USER:", "ASSISTANT:",
)  # fmt: skip
WORDS: tuple[str, ...] = (
    *SPECIALS, *COLORS, *SHAPES, *PLURALS, *DIGITS, *BACKGROUNDS, *LOCATIONS, *question_words(),
)  # fmt: skip
IDS = {word: i for i, word in enumerate(WORDS)}
PUNCTUATION = "?.,!:;"
PIXEL_MEAN, PIXEL_STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)

# the format of LLaVA-1.5: "USER: <image>\nquestion ASSISTANT: answer</s>"; the tokenizer adds <s>
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ 'USER: ' if message['role'] == 'user' else 'ASSISTANT: ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{{ ' ' if message['role'] == 'user' else '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """A fast tokenizer: one token per word or punctuation mark, lower-cased, <unk> for words outside the vocabulary."""
    from tokenizers import Tokenizer, models, normalizers

    core = Tokenizer(models.WordLevel(IDS, unk_token=UNKNOWN))
    core.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("colour", "color")])
    return of_words(core)


def of_words(core: Tokenizer) -> PreTrainedTokenizerFast:
    """A fast tokenizer of words and marks around `core`, whose model and normalizer are set; <s> comes first."""
    from tokenizers import AddedToken, Regex, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    marks = Regex(f"[{PUNCTUATION}]")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(marks, "isolated")]
    )
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, core.token_to_id(BOS))]
    )
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (PAD, BOS, EOS, UNKNOWN, IMAGE)])
    core.add_tokens([AddedToken(t, normalized=False) for t in (USER, ASSISTANT)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, bos_token=BOS, eos_token=EOS, unk_token=UNKNOWN,
        extra_special_tokens={"image_token": IMAGE}, padding_side="left", clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )  # fmt: skip


def processor(side: int = IMAGE_SIZE, text: PreTrainedTokenizerFast | None = None) -> LlavaProcessor:
    """Stock LlavaProcessor: a CLIP image processor that resizes to side x side, a tokenizer, and the chat template.

    Args:
        side: of an image, in pixels.
        text: the tokenizer; the one above by default.
    """
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    size = {"height": side, "width": side}
    images = CLIPImageProcessorPil(
        size=size,
        crop_size=size,
        do_center_crop=False,
        resample=4,
        image_mean=list(PIXEL_MEAN),
        image_std=list(PIXEL_STD),
    )
    return LlavaProcessor(
        image_processor=images, tokenizer=text or tokenizer(), patch_size=PATCH_SIZE, image_token=IMAGE,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=CHAT_TEMPLATE,
    )  # fmt: skip


def unknown_words(text: str) -> list[str]:
    """The words of a question that the model has never seen, in order, each once; they become <unk>."""
    for mark in PUNCTUATION:
        text = text.replace(mark, f" {mark} ")
    words = [w for w in text.lower().replace("colour", "color").split() if w not in IDS]
    return list(dict.fromkeys(words))


def encode_question(text: str) -> list[int]:
    """Token ids of a question as the tokenizer gives them (words are separated by spaces here)."""
    return [IDS[w] for w in text.split()]
