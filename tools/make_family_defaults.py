#!/usr/bin/env python3
"""What transformers makes of short configs: tests/golden/family_defaults.json, for tests/test_family_defaults.c.

Needs: transformers and torch of the versions that the file names.
usage: tools/make_family_defaults.py
"""
import json
import pathlib

import torch
import transformers
from transformers import AutoConfig

BASE = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4, vocab_size=99)
LONGROPE = dict(type="longrope", short_factor=[1.0] * 4, long_factor=[2.0] * 4)
# name, model_type, architecture, keys beside BASE (None: null); "-key" leaves a key out
CASES = [
    ("llama", "llama", "LlamaForCausalLM", {}),
    ("mistral", "mistral", "MistralForCausalLM", {}),
    ("mistral without kv heads", "mistral", "MistralForCausalLM", {"num_attention_heads": 16, "-num_key_value_heads": 0}),
    ("mistral without a window", "mistral", "MistralForCausalLM", dict(sliding_window=None)),
    ("ministral", "ministral", "MinistralForCausalLM", {}),
    ("ministral without a window", "ministral", "MinistralForCausalLM", dict(sliding_window=None)),
    ("ministral3", "ministral3", "Ministral3ForCausalLM", {}),
    ("qwen2", "qwen2", "Qwen2ForCausalLM", {}),
    ("qwen2 sliding", "qwen2", "Qwen2ForCausalLM", dict(use_sliding_window=True, max_window_layers=3, sliding_window=9)),
    ("qwen2 that does not slide", "qwen2", "Qwen2ForCausalLM", dict(use_sliding_window=False, max_window_layers=3, sliding_window=9)),
    ("qwen3", "qwen3", "Qwen3ForCausalLM", {}),
    ("qwen3 sliding", "qwen3", "Qwen3ForCausalLM", dict(use_sliding_window=True, max_window_layers=5)),
    ("gemma", "gemma", "GemmaForCausalLM", dict(hidden_act="gelu")),
    ("gemma in bfloat16", "gemma", "GemmaForCausalLM", dict(hidden_size=3072, torch_dtype="bfloat16")),
    ("gemma2", "gemma2", "Gemma2ForCausalLM", {}),
    ("gemma2 without caps", "gemma2", "Gemma2ForCausalLM", dict(attn_logit_softcapping=None, final_logit_softcapping=None)),
    ("gemma2 in float16", "gemma2", "Gemma2ForCausalLM", dict(hidden_size=4608, torch_dtype="float16")),
    ("gemma3", "gemma3_text", "Gemma3ForCausalLM", {}),
    ("gemma3 of every third layer", "gemma3_text", "Gemma3ForCausalLM", dict(sliding_window_pattern=3, rope_local_base_freq=123.0)),
    ("gemma3 scaled", "gemma3_text", "Gemma3ForCausalLM", dict(rope_scaling=dict(rope_type="linear", factor=8.0), rope_theta=5e5)),
    ("gemma3 of two nested ropes", "gemma3_text", "Gemma3ForCausalLM", dict(rope_theta=5e5, rope_local_base_freq=77.0, rope_parameters=dict(full_attention=dict(rope_type="default"), sliding_attention=dict(rope_type="default")))),
    ("gemma3 wrapped", "gemma3", "Gemma3ForConditionalGeneration", dict(text_config=dict(model_type="gemma3_text", hidden_size=2560, intermediate_size=10240, num_hidden_layers=34, sliding_window=1024, rope_scaling=dict(rope_type="linear", factor=8.0)))),
    ("phi3", "phi3", "Phi3ForCausalLM", {}),
    ("phi3 long", "phi3", "Phi3ForCausalLM", dict(rope_scaling=LONGROPE, max_position_embeddings=8192, original_max_position_embeddings=4096)),
    ("phi3 long of the class's length", "phi3", "Phi3ForCausalLM", dict(rope_scaling=LONGROPE, max_position_embeddings=8192)),
    ("phi3 long by the name of yarn", "phi3", "Phi3ForCausalLM", dict(rope_scaling={**LONGROPE, "type": "yarn"}, max_position_embeddings=8192, original_max_position_embeddings=2048)),
    ("granite", "granite", "GraniteForCausalLM", {}),
    ("smollm3", "smollm3", "SmolLM3ForCausalLM", {}),
    ("smollm3 of pairs", "smollm3", "SmolLM3ForCausalLM", dict(no_rope_layer_interval=2, use_sliding_window=True, sliding_window=9)),
    ("seed_oss", "seed_oss", "SeedOssForCausalLM", {}),
    ("arcee", "arcee", "ArceeForCausalLM", {}),
    ("exaone4", "exaone4", "Exaone4ForCausalLM", {}),
    ("exaone4 of every third layer", "exaone4", "Exaone4ForCausalLM", dict(sliding_window_pattern=3, sliding_window=9)),
    ("helium", "helium", "HeliumForCausalLM", {}),
    ("nemotron", "nemotron", "NemotronForCausalLM", {}),
    ("glm4", "glm4", "Glm4ForCausalLM", {}),
    ("glm4 without kv heads", "glm4", "Glm4ForCausalLM", {"-num_key_value_heads": 0}),
]


def resolve(kind, keys):
    c = AutoConfig.for_model(kind, **keys)
    t = c.get_text_config()
    n, ropes = t.num_hidden_layers, t.rope_parameters
    types = getattr(t, "layer_types", None)
    slides = getattr(t, "use_sliding_window", True)
    width = getattr(t, "sliding_window", None) if slides else None
    windows = [(width or 0) if types is None or types[i] == "sliding_attention" else 0 for i in range(n)]
    none = [0] * n
    if kind == "smollm3":
        none = [int(not r) for r in t.no_rope_layers]
    if kind == "exaone4" and t.sliding_window is not None:
        none = [int(k != "sliding_attention") for k in types]
    nested = [ropes[k] for k in ("full_attention", "sliding_attention")] if "full_attention" in ropes else [ropes]
    want = dict(
        n_heads=t.num_attention_heads, max_positions=t.max_position_embeddings, n_kv_heads=t.num_key_value_heads, vocab=t.vocab_size, eps=t.norm_eps if kind == "nemotron" else t.rms_norm_eps, tied=c.tie_word_embeddings,
        head_dim=getattr(t, "head_dim", None) or t.hidden_size // t.num_attention_heads, windows=windows, no_rope=none,
        activation=getattr(t, "hidden_activation", None) or t.hidden_act, attention_bias=bool(getattr(t, "attention_bias", False)) or kind == "qwen2",
        ropes=[dict(type=r["rope_type"], theta=r["rope_theta"], factor=r.get("factor", 1.0), original=r.get("original_max_position_embeddings")) for r in nested],
        attention_softcap=getattr(t, "attn_logit_softcapping", None) or 0, logit_softcap=getattr(t, "final_logit_softcapping", None) or 0,
        temperature=ropes.get("llama_4_scaling_beta", 0))
    scale = want["head_dim"] ** -0.5
    if hasattr(t, "query_pre_attn_scalar"):
        scale = t.query_pre_attn_scalar ** -0.5
    want["attention_scale"] = getattr(t, "attention_multiplier", scale)
    want["embed_scale"] = getattr(t, "embedding_multiplier", 1.0)
    if kind.startswith("gemma"):
        dtype = getattr(torch, keys.get("torch_dtype", "float32"))
        want["embed_scale"] = torch.tensor(t.hidden_size ** 0.5).to(dtype).item()
    return want


rows = []
for name, kind, architecture, more in CASES:
    keys = dict(more) if "text_config" in more else {**BASE, **more}
    for left_out in [k for k in keys if k.startswith("-")]:
        del keys[left_out], keys[left_out[1:]]
    want = resolve(kind, json.loads(json.dumps(keys)))
    rows.append(dict(name=name, config=dict(architectures=[architecture], model_type=kind, **keys), want=want))
out = dict(made_by="tools/make_family_defaults.py", versions=dict(transformers=transformers.__version__, torch=torch.__version__.split("+")[0]))
lines = ",\n".join("  " + json.dumps(r) for r in rows)
path = pathlib.Path(__file__).parent.parent / "tests/golden/family_defaults.json"
path.write_text(json.dumps(out)[:-1] + ', "cases": [\n' + lines + "\n]}\n")
