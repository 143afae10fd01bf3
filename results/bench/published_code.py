"""Times of the published DUET-VLM code (github.com/AMD-AGI/DUET-VLM, commit cd69e489) at LLaVA-1.5-7B's shapes.

    python results/bench/published_code.py --code DIR --out results/bench/published-code.json

DIR is a checkout of it; transformers 4.37.2, which it builds on. Weights are random, and nothing of it is copied here:
  uncompressed       llava_llama.LlavaLlamaForCausalLM, what its builder loads without --layer_list.
  uncompressed-pdrop llava_llama_pdrop.LlavaLlamaForCausalLM_PDrop that drops nothing.
  192, 128, 64       visionzip(model, dominant, contextual, cluster_width=4) and LlavaLlamaForCausalLM_PDrop with
                     drops at L/2 (keep 0.5) and 3L/4 (keep 0), as its model_vqa_loader.py has them.
tower is encode_images: tower, stage 1, projector. prefill is prepare_inputs_labels_for_multimodal on encoded images,
then one forward with what its generate makes: inputs_embeds, a mask of ones, position_ids, a cache; arg max of the
last logits.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rounds", type=int, default=5, help="timed rounds after one warm-up round")
parser.add_argument("--layers", type=int, default=8)
parser.add_argument("--text-tokens", type=int, default=64)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--dtype", default="bfloat16")
parser.add_argument(
    "--settings",
    default="uncompressed,uncompressed-pdrop,192,128,64",
    help="also: uncompressed-eager (LlavaLlamaForCausalLM with attn_implementation='eager')",
)
parser.add_argument("--all-text", action="store_true", help="use_salient_tokens=False, its default: all text asks")
parser.add_argument("--generate", action="store_true", help="time generate(max_new_tokens=1) as well (a whole call)")
parser.add_argument("--tiny", action="store_true", help="almost no width: only to try the script")
parser.add_argument("--no-warm-up", action="store_true")
parser.add_argument("--out", type=Path, default=None)
parser.add_argument("--code", type=Path, required=True, help="a checkout of the published code")
args = parser.parse_args()
sys.path.insert(0, str(args.code))

import torch  # noqa: E402
import transformers  # noqa: E402
from llava.constants import IMAGE_TOKEN_INDEX  # noqa: E402
from llava.model.language_model import llava_llama, llava_llama_pdrop  # noqa: E402
from llava.model.llava_arch import LlavaMetaForCausalLM  # noqa: E402
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower  # noqa: E402
from llava.utils import disable_torch_init  # noqa: E402
from transformers import CLIPVisionConfig, CLIPVisionModel  # noqa: E402
from transformers.modeling_utils import no_init_weights  # noqa: E402
from transformers.models.clip.modeling_clip import CLIPAttention, CLIPEncoderLayer  # noqa: E402
from visionzip import visionzip  # noqa: E402

torch.set_num_threads(args.threads)
dtype = getattr(torch, args.dtype)
BUDGETS = {"192": (300, 7), "128": (170, 35), "64": (85, 17)}  # dominant (CLS among them), contextual
names = [n for n in args.settings.split(",") if n]
drops = [args.layers // 2, args.layers * 3 // 4]

# --- models
tower_config = CLIPVisionConfig(
    **(
        dict(hidden_size=32, intermediate_size=64, num_attention_heads=2)
        if args.tiny
        else dict(hidden_size=1024, intermediate_size=4096, num_attention_heads=16)
    ),
    num_hidden_layers=24,
    image_size=336,
    patch_size=14,
    projection_dim=768,
)
tower_folder = Path(tempfile.mkdtemp())
tower_config.save_pretrained(tower_folder)  # its tower reads a config by path; weights are made below

shape = (
    dict(hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=4, vocab_size=1000)
    if args.tiny
    else dict(
        hidden_size=4096, intermediate_size=11008, num_attention_heads=32, num_key_value_heads=32, vocab_size=32000
    )
)
common = dict(
    **shape,
    num_hidden_layers=args.layers,
    max_position_embeddings=4096,
    rms_norm_eps=1e-5,
    pad_token_id=0,
    use_cache=True,
    mm_vision_tower=str(tower_folder),
    mm_vision_select_layer=-2,
    mm_vision_select_feature="patch",
    mm_projector_type="mlp2x_gelu",
    mm_hidden_size=tower_config.hidden_size,
    mm_patch_merge_type="flat",
    tokenizer_padding_side="right",
    tokenizer_model_max_length=2048,
)


def build(module, class_name, **extra):
    """What its builder's from_pretrained does, without reading weights."""
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights():
            attention = extra.pop("attn_implementation", None)
            config = module.LlavaConfig(**common, **extra)
            if attention:
                config._attn_implementation = attention
            model = getattr(module, class_name)(config)
            tower = model.get_vision_tower()
            tower.vision_tower = CLIPVisionModel(tower_config)
            tower.vision_tower.requires_grad_(False)
            tower.is_loaded = True
    finally:
        torch.set_default_dtype(torch.float32)
    return model.eval()


@torch.no_grad()
def fill(model):
    pool = (torch.randn(1 << 24, generator=torch.Generator().manual_seed(1)) * 0.02).to(dtype)
    at = 0
    for name, p in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            p.fill_(1)
            continue
        flat, done = p.view(-1), 0
        while done < flat.numel():
            n = min(flat.numel() - done, pool.numel() - at)
            flat[done : done + n] = pool[at : at + n]
            done, at = done + n, (at + n) % (pool.numel() - 7)


disable_torch_init()  # as its eval scripts do
plain = build(llava_llama, "LlavaLlamaForCausalLM")
fill(plain)
weights = plain.state_dict()


def shared(model):
    model.load_state_dict(weights, strict=True, assign=True)
    return model.requires_grad_(False)


plain.requires_grad_(False)
pdrop = shared(build(llava_llama_pdrop, "LlavaLlamaForCausalLM_PDrop", use_salient_tokens=not args.all_text))
models = {"uncompressed": plain, "uncompressed-pdrop": pdrop, **{n: pdrop for n in BUDGETS}}
if "uncompressed-eager" in names:
    models["uncompressed-eager"] = shared(build(llava_llama, "LlavaLlamaForCausalLM", attn_implementation="eager"))

# --- visionzip() replaces methods of classes: keep both sets, and switch between them outside the timed part
patched = {
    CLIPEncoderLayer: ["forward"],
    CLIPAttention: ["forward"],
    CLIPVisionTower: ["forward"],
    LlavaMetaForCausalLM: ["prepare_inputs_labels_for_multimodal", "encode_images"],
}


def methods():
    return {(c, n): c.__dict__[n] for c, ns in patched.items() for n in ns}


original = methods()
visionzip(pdrop, dominant=300, contextual=7, cluster_width=4)
pdrop.__dict__.pop("encode_images", None)  # its second binding of the same function
zipped = methods()
assert all(original[k] is not zipped[k] for k in original)


def select(name):
    for (c, n), f in (zipped if name in BUDGETS else original).items():
        setattr(c, n, f)
    if models[name] is pdrop:
        pdrop.model.layer_list = drops if name in BUDGETS else []
        pdrop.model.image_token_ratio_list = [1.0, 0.5, 0.0] if name in BUDGETS else [1.0]
    if name in BUDGETS:
        dominant, contextual = BUDGETS[name]
        pdrop.get_vision_tower().vision_tower._info.update(
            dominant=dominant - 1, contextual=contextual, cluster_width=4
        )
    for model in set(models.values()):
        model.__dict__.pop("encode_images", None)
    return models[name]


# --- the workload: as duet_vlm.measuring.workload.Workload draws it
generator = torch.Generator().manual_seed(0)
pixels = torch.randn((1, 3, 336, 336), generator=generator).to(dtype)
words = torch.randint(3, shape["vocab_size"], (1, args.text_tokens), generator=generator)
before = min(5, args.text_tokens // 4)
ids = torch.cat([words[:, :before], torch.tensor([[IMAGE_TOKEN_INDEX]]), words[:, before:]], dim=1)
# Every third id stands for a noun; places count the image as one; the last token always asks.
salient = [i for i in range(before + 1, ids.shape[1]) if int(ids[0, i]) % 3 == 0]
salient += [ids.shape[1] - 1] * (ids.shape[1] - 1 not in salient)

# --- timing
parts: dict[str, float] = {}


def watch(module, key):
    start = [0.0]
    module.register_forward_pre_hook(lambda *_: start.__setitem__(0, time.perf_counter()))
    module.register_forward_hook(
        lambda *_: parts.__setitem__(key, parts.get(key, 0.0) + time.perf_counter() - start[0])
    )


for model in set(models.values()):
    watch(model.lm_head, "lm_head")
    for layer in model.model.layers:
        watch(layer, "layers")
rank = pdrop.model.pdrop_rank_drop


def timed_rank(*a, **k):
    start = time.perf_counter()
    result = rank(*a, **k)
    parts["ranking"] = parts.get("ranking", 0.0) + time.perf_counter() - start
    return result


pdrop.model.pdrop_rank_drop = timed_rank


def encode(model):
    return LlavaMetaForCausalLM.encode_images(model, pixels)


def prefill(model, features):
    is_pdrop = model is pdrop
    model.__dict__["encode_images"] = lambda images: features
    prepare = (
        model.prepare_inputs_labels_for_multimodal_pdrop if is_pdrop else model.prepare_inputs_labels_for_multimodal
    )
    _, positions, mask, _, embeds, _ = prepare(ids, None, None, None, None, pixels, image_sizes=[(336, 336)])
    assert positions is None and mask is None
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)  # generate(): _prepare_attention_mask_for_generation
    inputs = model.prepare_inputs_for_generation(
        torch.ones((1, 0), dtype=torch.long), inputs_embeds=embeds, attention_mask=mask, use_cache=True
    )
    extra = {"idxs": salient} if is_pdrop else {}  # its utils.py adds idxs to the inputs of each step
    out = model(**inputs, **extra, return_dict=True, output_attentions=False, output_hidden_states=False)
    out.logits[:, -1, :].argmax(-1)
    return out


def once(name):
    model, row = select(name), {}
    with torch.inference_mode():
        start, cpu = time.perf_counter(), time.process_time()
        features = encode(model)
        row["tower_ms"] = (time.perf_counter() - start) * 1e3
        row["tower_cpu_ms"] = (time.process_time() - cpu) * 1e3  # all threads
        parts.clear()
        start, cpu = time.perf_counter(), time.process_time()
        out = prefill(model, features)
        row["prefill_ms"] = (time.perf_counter() - start) * 1e3
        row["prefill_cpu_ms"] = (time.process_time() - cpu) * 1e3
        for key in ("layers", "lm_head", "ranking"):
            row[f"of_prefill_{key}_ms"] = parts.get(key, 0.0) * 1e3
        row["total_ms"] = row["tower_ms"] + row["prefill_ms"]
        fact = {
            "visual_tokens_in": features.shape[1],
            "cache_tokens_per_layer": [k.shape[2] for k, _ in out.past_key_values],
            "logits": [*out.logits.shape, str(out.logits.dtype)],
            "finite": bool(out.logits.isfinite().all()),
            "language_attention": type(model.model.layers[0].self_attn).__name__,
            "language_model": f"{type(model).__module__}.{type(model).__name__}",
        }
        del out, features
        if args.generate:
            model = select(name)  # encode_images of the class again
            start = time.perf_counter()
            model.generate(
                ids, images=pixels, image_sizes=[(336, 336)], do_sample=False, max_new_tokens=1, use_cache=True
            )
            row["generate_1_token_ms"] = (time.perf_counter() - start) * 1e3
    return row, fact


rows: dict[str, list] = {n: [] for n in names}
facts: dict[str, dict] = {}
began = time.time()
for r in range(-(not args.no_warm_up), args.rounds):
    for name in names if r % 2 == 0 else names[::-1]:
        row, facts[name] = once(name)
        if r >= 0:
            rows[name].append(row)
        print(
            f"round {r + 1 if r >= 0 else 'warm-up'} {name}: " + " ".join(f"{k} {v:.0f}" for k, v in row.items()),
            file=sys.stderr,
        )

base = next((n for n in names if n.startswith("uncompressed")), names[0])
median = {n: {k: statistics.median(x[k] for x in rs) for k in rs[0]} for n, rs in rows.items()}
report = {
    "what": "published DUET-VLM code, random weights" + (", TINY width" if args.tiny else ", LLaVA-1.5-7B shapes"),
    "batch": 1,
    "dtype": args.dtype,
    "layers": args.layers,
    "drop_layers": drops,
    "text_tokens": args.text_tokens,
    "query_tokens": len(salient) if not args.all_text else args.text_tokens - before,
    "query_mode": "all text after the image (use_salient_tokens=False)"
    if args.all_text
    else "stand-in salient (use_salient_tokens=True)",
    "threads": torch.get_num_threads(),
    "rounds": args.rounds,
    "minutes": round((time.time() - began) / 60, 2),
    "versions": {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    },
    "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    "load_average": os.getloadavg(),
    "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    "vision_attention": {
        "uncompressed": "transformers 4.37 CLIPAttention (eager bmm)",
        "budgets": "visionzip CLIPAttention_forward (eager bmm, output_attentions=True in all 24 layers)",
    },
    "settings": {
        n: {
            "median": median[n],
            "min": {k: min(x[k] for x in rows[n]) for k in median[n]},
            "max": {k: max(x[k] for x in rows[n]) for k in median[n]},
            "speedup_over": base,
            "prefill_speedup": median[base]["prefill_ms"] / median[n]["prefill_ms"],
            "tower_prefill_speedup": median[base]["total_ms"] / median[n]["total_ms"],
            **facts[n],
        }
        for n in names
    },
    "raw": rows,
}
print(
    f"{report['what']}; torch {torch.__version__}, transformers {transformers.__version__}, {args.threads} threads, "
    f"{args.dtype}, {args.layers} layers, {args.rounds} rounds, {report['minutes']} min, "
    f"peak {report['peak_rss_gib']} GiB"
)
print(
    f"{'setting':20}{'tower ms':>10}{'prefill ms':>12}{'total ms':>10}{'layers':>9}{'lm_head':>9}{'ranking':>9}"
    f"{'prefill x':>11}{'total x':>9}  tokens per layer, attention"
)
for n, s in report["settings"].items():
    m = s["median"]
    print(
        f"{n:20}{m['tower_ms']:10.0f}{m['prefill_ms']:12.0f}{m['total_ms']:10.0f}{m['of_prefill_layers_ms']:9.0f}"
        f"{m['of_prefill_lm_head_ms']:9.0f}{m['of_prefill_ranking_ms']:9.0f}{s['prefill_speedup']:11.2f}"
        f"{s['tower_prefill_speedup']:9.2f}  {s['cache_tokens_per_layer']}, {s['language_attention']}"
    )
if args.out:
    args.out.write_text(json.dumps(report, indent=1) + "\n")
