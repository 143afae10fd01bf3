"""Models that hear and see nothing: Whisper's encoder and a decoder."""

from __future__ import annotations

from ..shape_parts import Shape

SHAPES: dict[str, Shape] = {
    # Qwen/Qwen2-Audio-7B-Instruct: Whisper large-v3's encoder, the default of transformers' config, and Qwen-7B's sizes
    "qwen2-audio-7b": Shape(
        {
            "model_type": "qwen2_audio",
            "text_config": dict(
                model_type="qwen2", vocab_size=156032, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
                num_attention_heads=32, num_key_value_heads=32,
            ),
        }
    ),
    # mistralai/Voxtral-Mini-3B-2507: the defaults of transformers' config, which name it
    "voxtral-mini-3b": Shape({"model_type": "voxtral", "audio_token_id": 24}),
}  # fmt: skip
