"""GLM-V: a tower for images of any size, and decoders with three axes of positions."""

from __future__ import annotations

from ..shape_parts import Fields, Shape, glm_config

_9B: Fields = dict(
    vocab_size=151552, hidden_size=4096, intermediate_size=13696, num_hidden_layers=40, num_attention_heads=32,
    num_key_value_heads=2,
)  # fmt: skip

SHAPES: dict[str, Shape] = {
    # zai-org/GLM-4.1V-9B-Thinking, by the defaults of transformers' classes for its config and image processor
    "glm-4.1v-9b": Shape(glm_config("glm4v", {}, _9B), {"image_processor_type": "Glm4vImageProcessor"}),
    # zai-org/GLM-4.6V-Flash, of the same sizes, likewise
    "glm-4.6v-flash": Shape(
        glm_config("glm46v", {}, _9B, part="glm4v"), {"image_processor_type": "Glm46VImageProcessor"}
    ),
    # zai-org/GLM-4.5V, by the same defaults; heads are 128 wide as in its text decoder, GLM-4.5-Air
    "glm-4.5v": Shape(
        glm_config(
            "glm4v_moe",
            {},
            dict(
                vocab_size=151552, hidden_size=4096, intermediate_size=10944, moe_intermediate_size=1408,
                n_routed_experts=128, n_shared_experts=1, num_experts_per_tok=8, first_k_dense_replace=1,
                num_hidden_layers=46, num_attention_heads=96, num_key_value_heads=8, head_dim=128, attention_bias=True,
            ),
        ),
        {"image_processor_type": "Glm4vImageProcessor"},
    ),
    # zai-org/GLM-OCR
    "glm-ocr": Shape(
        glm_config(
            "glm_ocr",
            dict(
                hidden_size=1024, depth=24, num_heads=16, intermediate_size=4096, attention_bias=True, patch_size=14,
                image_size=336, out_hidden_size=1536,
            ),
            dict(
                vocab_size=59392, hidden_size=1536, intermediate_size=4608, num_hidden_layers=16,
                num_attention_heads=16, num_key_value_heads=8, head_dim=128, pad_token_id=59246,
            ),
            sections=[16, 24, 24], rotated=1.0,
        ),
        {
            "image_processor_type": "Glm46VImageProcessor", "patch_size": 14, "merge_size": 2,
            "size": {"shortest_edge": 12544, "longest_edge": 9633792},
        },
    ),
}  # fmt: skip
