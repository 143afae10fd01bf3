"""What is published of checkpoints, and how their processors lay images out: tables that shapes are held to."""

from __future__ import annotations

from duet_vlm.inputs.image_sizes import Layout

# decoder layers, and the parameters that the hub counts in the checkpoint's safetensors
COUNTED = {
    "llava-1.5-7b": (32, 7_063_427_072),
    "llava-1.5-13b": (40, 13_351_494_656),
    "llava-next-7b": (32, 7_063_431_168),  # and the row end
    "llava-onevision-7b": (28, 8_030_348_832),
    "qwen2-vl-7b": (28, 8_291_375_616),
    "qwen2.5-vl-7b": (28, 8_292_166_656),
    "qwen3-vl-8b": (36, 8_767_123_696),
    "qwen3-vl-30b-a3b": (48, 31_070_754_032),
    "internvl3-8b": (28, 7_944_373_760),
    "gemma-3-4b": (34, 4_300_079_472),
    "gemma-4-e4b": (42, 7_632_344_064),  # not the hub's figure, which counts the audio tower
    "smolvlm2": (24, 2_246_784_880),
    "mistral-small-3.1-24b": (40, 24_011_361_280),
}
# not the hub's figures, which were not looked at: decoder layers, and the billions of the checkpoint's name or card
NAMED = {
    "llava-next-video-7b": (32, 7), "vip-llava-7b": (32, 7), "video-llava-7b": (32, 7), "idefics3-8b": (32, 8),
    "aya-vision-8b": (32, 8.6), "command-a-vision-112b": (64, 112), "videollama3-7b": (28, 8), "ovis2-2b": (28, 2.2),
    "qwen2.5-omni-7b": (28, 8.9),  # with the audio encoder, without talker and vocoder
    "glm-4.1v-9b": (40, 10), "glm-4.6v-flash": (40, 10), "glm-4.5v": (46, 108), "glm-ocr": (16, 1.1),
    "deepseek-vl-1.3b": (24, 1.98), "deepseek-vl-7b": (30, 7.34), "janus-pro-1b": (24, 2.09),
    "llama-4-scout": (48, 109), "lfm2-vl-1.6b": (16, 1.6), "paddleocr-vl": (18, 0.9),
    "qwen3-omni-30b-a3b": (48, 31.7),  # the thinker with the audio encoder
    "gemma-4-12b": (48, 11.95),  # with the audio embedder
    "minicpm-v-4.6": (24, 1.3), "minicpm-v-4.7-1b": (24, 1.55), "got-ocr-2": (24, 0.561), "deepseek-ocr-2": (12, 3.39),
    "qwen2-audio-7b": (32, 8.4), "voxtral-mini-3b": (30, 4.68),  # with the audio encoder
    "paligemma-3b": (18, 2.92), "qwen3.5-9b": (32, 9.4), "qwen3.5-35b-a3b": (40, 35),
}  # fmt: skip
LAYERS = {name: layers for name, (layers, _) in (COUNTED | NAMED).items()}
# (shape, width, height) -> the layout, and the visual tokens of the whole image
KNOWN: dict[tuple[str, int, int], tuple[Layout, int]] = {
    ("llava-1.5-7b", 1280, 720): (Layout(), 576),
    ("llava-next-7b", 336, 336): (Layout(size=(336, 336)), 1176),
    ("llava-next-7b", 672, 672): (Layout(size=(672, 672)), 2928),
    ("llava-next-7b", 640, 480): (Layout(size=(480, 640)), 2340),
    ("llava-next-video-7b", 672, 672): (Layout(size=(672, 672)), 2928),
    ("vip-llava-7b", 1280, 720): (Layout(), 576),
    ("paligemma-3b", 1280, 720): (Layout(), 256),
    ("deepseek-vl-1.3b", 1280, 720): (Layout(), 576),
    ("deepseek-vl-7b", 1280, 720): (Layout(), 576),
    ("janus-pro-1b", 1280, 720): (Layout(), 576),
    # 32 pixels a token: 22 x 40
    ("qwen3-omni-30b-a3b", 1280, 704): (Layout(grid=(44, 80)), 22 * 40),
    # 28 pixels a token: 26 x 46
    ("paddleocr-vl", 1288, 728): (Layout(grid=(52, 92)), 26 * 46),
    ("video-llava-7b", 1280, 720): (Layout(), 256),
    # one crop of 27 x 27 patches with 27 row ends, and the base
    ("llava-onevision-7b", 384, 384): (Layout(size=(384, 384)), 27 * 28 + 729),
    # 14 pixels a patch, 2 x 2 patches a token: 26 x 46 tokens
    ("qwen2.5-vl-7b", 1288, 728): (Layout(grid=(52, 92)), 26 * 46),
    ("qwen2.5-vl-7b", 1280, 720): (Layout(grid=(52, 92)), 26 * 46),
    ("qwen2-vl-7b", 1280, 720): (Layout(grid=(52, 92)), 26 * 46),
    ("qwen2.5-omni-7b", 1280, 720): (Layout(grid=(52, 92)), 26 * 46),
    # 16 pixels a patch: 720 / 32 = 22.5 rounds to the even 22
    ("qwen3-vl-8b", 1280, 720): (Layout(grid=(44, 80)), 22 * 40),
    ("qwen3-vl-30b-a3b", 1280, 720): (Layout(grid=(44, 80)), 22 * 40),
    ("glm-4.1v-9b", 1280, 720): (Layout(grid=(52, 92)), 26 * 46),
    ("glm-4.6v-flash", 1280, 720): (Layout(grid=(52, 92)), 26 * 46),
    ("glm-4.5v", 1280, 720): (Layout(grid=(52, 92)), 26 * 46),
    ("glm-ocr", 1280, 720): (Layout(grid=(52, 92)), 26 * 46),
    # the same in patches of 14 pixels, row breaks being text
    ("mistral-small-3.1-24b", 1280, 720): (Layout(grid=(52, 92)), 26 * 46),
    # 720 / 14 and 1280 / 14, to the nearest whole number; images are not merged
    ("videollama3-7b", 1280, 720): (Layout(grid=(51, 91)), 51 * 91),
    ("qwen3.5-9b", 1280, 720): (Layout(grid=(44, 80)), 22 * 40),
    ("qwen3.5-35b-a3b", 1280, 720): (Layout(grid=(44, 80)), 22 * 40),
    # 4 x 2 tiles of 448 pixels and a thumbnail, 256 tokens each
    ("internvl3-8b", 1280, 720): (Layout(tiles=9), 9 * 256),
    ("gemma-3-4b", 1280, 720): (Layout(tiles=1), 256),
    # 280 tokens of 48 x 48 pixels at most: 12 x 22 of them
    ("gemma-4-e4b", 1280, 720): (Layout(grid=(36, 66)), 12 * 22),
    # the crop of the whole image, of 448 x 448 pixels, before its slices: 4 x 4 patches of 14 pixels a token
    ("minicpm-v-4.6", 1280, 720): (Layout(grid=(24, 44)), 6 * 11),
    ("minicpm-v-4.7-1b", 1280, 720): (Layout(grid=(24, 44)), 6 * 11),
    # a page of 1024 pixels, 64 of them a token's side
    ("got-ocr-2", 1280, 720): (Layout(tiles=1), 256),
    # 257 tokens of the whole page, and 144 of each crop of 768 pixels, 2 x 1 of them
    ("deepseek-ocr-2", 1280, 720): (Layout(grid=(1, 2)), 257 + 2 * 144),
    # no tower of images
    ("qwen2-audio-7b", 1280, 720): (Layout(), 0),
    ("voxtral-mini-3b", 1280, 720): (Layout(), 0),
    # 1536 x 864 pixels: 4 x 3 tiles of 384 and the whole, 81 tokens each
    ("smolvlm2", 1280, 720): (Layout(tiles=13), 13 * 81),
    # 1456 x 819 pixels: 4 x 3 tiles of 364 and the whole, 169 tokens each
    ("idefics3-8b", 1280, 720): (Layout(tiles=13), 13 * 169),
    # 4 x 2 tiles of 364 pixels and a thumbnail
    ("aya-vision-8b", 1280, 720): (Layout(tiles=9), 9 * 169),
    # 3 x 2 tiles of 448 pixels cover nine tenths of the image, and the whole; 256 tokens each
    ("ovis2-2b", 1280, 720): (Layout(tiles=7), 7 * 256),
}
# of whose checkpoints no sizes were found that count to what is published, see docs/families.md
WITHOUT_SHAPE = {"granite4_vision"}
HEARING = {"qwen2-audio-7b", "voxtral-mini-3b"}
STAGE_2_ALONE = {"got-ocr-2", "deepseek-ocr-2", "gemma-4-12b"}  # `duet` is refused, for want of scores
TORCHVISION = {
    "gemma-4-12b",
    "command-a-vision-112b",
    "llama-4-scout",
    "lfm2-vl-1.6b",
}  # needed by their image processors
NOT_LAID_OUT = {"llava-1.5-13b", *TORCHVISION}  # the first as llava-1.5-7b
