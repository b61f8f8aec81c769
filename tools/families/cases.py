"""The table of tools/make_family_goldens.py: one case a family or variant, small and with every feature sized to show.

case(name, model_type, config overrides, shows={feature: config overrides that leave it out}, old=config -> old spelling,
note=..., impl=attention implementation of the reference, gain={end of a tensor's name: size of its products, else 1.4},
double=False where the class cannot compute in float64, old_opens=False where transformers no longer opens the old spelling,
wrapper=True for a text model inside a multimodal one). A feature left out must move the logits far beyond the case's
tolerance; make_family_goldens.py refuses the case otherwise.
"""

SMALL = dict(hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, vocab_size=96,
             num_hidden_layers=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)
GPT = dict(n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=96)
CASES = []
ONE, FOUR = dict(num_hidden_layers=1), dict(num_hidden_layers=4, intermediate_size=32)


def case(name, model_type, config, *, shows=None, old=None, note="", **rest):
    CASES.append(dict(name=name, model_type=model_type, config={**SMALL, **config}, shows=shows or {}, old=old, note=note,
                      impl="eager", gain={}, double=True, old_opens=True, wrapper=False))
    CASES[-1].update(rest)


def rope(kind="default", theta=10000.0, **keys):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=theta, **keys))


def plain(theta=10000.0):
    return rope(theta=theta)


# ---------------------------------------------------------------- old spellings of config keys


def old_rope(config, word="rope_type"):
    """transformers before 5: rope_theta and rope_scaling at the top, torch_dtype."""
    config["torch_dtype"] = config.pop("dtype")
    rp = dict(config.pop("rope_parameters"))
    config["rope_theta"] = rp.pop("rope_theta")
    if "partial_rotary_factor" in rp:
        config["partial_rotary_factor"] = rp.pop("partial_rotary_factor")
    kind = rp.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {word: kind, **rp}
    return config


def old_type(config):
    return old_rope(config, "type")


def old_phi3(config):
    config = old_rope(config, "type")
    config["rope_scaling"].pop("original_max_position_embeddings")  # the key at the top speaks
    return config


def old_phi3_su(config):
    config = old_rope(config, "type")
    config["rope_scaling"]["type"] = "su"
    return config


def old_neox(config):
    config["torch_dtype"] = config.pop("dtype")
    rp = config.pop("rope_parameters")
    config["rotary_pct"], config["rotary_emb_base"] = rp["partial_rotary_factor"], rp["rope_theta"]
    return config


def old_gemma3(config):
    config["torch_dtype"] = config.pop("dtype")
    rp = config.pop("rope_parameters")
    full, local = rp["full_attention"], rp["sliding_attention"]
    config["rope_theta"], config["rope_local_base_freq"] = full["rope_theta"], local["rope_theta"]
    config["rope_scaling"] = {"rope_type": full["rope_type"], "factor": full["factor"]}
    config.pop("layer_types")
    config["sliding_window_pattern"] = 6
    return config


def renamed(**names):
    def change(config):
        if "dtype" in config:
            config["torch_dtype"] = config.pop("dtype")
        for new, old in names.items():
            config[old] = config.pop(new)
        return config
    return change


def old_falcon(model_type):
    """The first published Falcon configs: RWForCausalLM, n_head, n_layer, n_head_kv; two norms in the larger ones."""
    def change(config):
        renamed(num_attention_heads="n_head", num_hidden_layers="n_layer")(config)
        config.update(architectures=["RWForCausalLM"], model_type=model_type)
        kv = config.pop("num_kv_heads")
        if model_type == "RefinedWeb":
            config["n_head_kv"] = kv
        for key in ("rope_parameters", "new_decoder_architecture", "num_ln_in_parallel_attn", "ffn_hidden_size", "activation",
                    "max_position_embeddings"):
            config.pop(key, None)
        return config
    return change


def old_qwen3_moe(config):
    config = old_rope(config)
    config["num_experts"] = config.pop("num_local_experts")
    return config


# ---------------------------------------------------------------- Llama and what is spelled like it

case("llama", "llama", {**plain(), "rms_norm_eps": 1e-5}, old=old_rope,
     shows={"rope theta": plain(300.0), "rms_norm_eps": dict(rms_norm_eps=1e-1)})
case("llama-mha-tied", "llama", {**plain(), "num_hidden_layers": 1, "num_key_value_heads": None, "tie_word_embeddings": True})
case("llama-head-dim", "llama", {**plain(), "num_hidden_layers": 1, "head_dim": 16})
case("llama-bias", "llama", {**plain(), "num_hidden_layers": 1, "attention_bias": True, "mlp_bias": True})
case("llama-linear", "llama", {**rope("linear", factor=2.5), **ONE}, shows={"linear": plain()}, old=old_type)
case("llama-dynamic", "llama", {**rope("dynamic", factor=2.0), **ONE, "max_position_embeddings": 32}, old=old_type,
     shows={"dynamic": plain()}, note="The frequencies belong to the longest sequence seen: 64 tokens at once give base "
     "10000 * 3^(8/6); a decoder that caches rotated keys token by token gives other logits, as transformers itself does.")
case("llama-yarn", "llama", {**rope("yarn", factor=4.0, original_max_position_embeddings=16), **ONE}, old=old_type,
     shows={"yarn": plain(), "attention factor": rope("yarn", factor=4.0, original_max_position_embeddings=16,
                                                      attention_factor=1.0)})
BETAS = dict(theta=100.0, factor=4.0, original_max_position_embeddings=16, beta_fast=1.0, beta_slow=0.2)
case("llama-yarn-attention-factor", "llama", {**rope("yarn", attention_factor=0.8, truncate=False, **BETAS), **ONE},
     shows={"attention factor": rope("yarn", truncate=False, **BETAS), "truncate": rope("yarn", attention_factor=0.8, **BETAS)})
LONG = dict(short_factor=[1.0, 1.3, 1.7, 2.1], long_factor=[1.5, 2.0, 3.0, 5.0])
case("llama-longrope", "llama", {**rope("longrope", original_max_position_embeddings=16, factor=4.0, **LONG), **ONE},
     shows={"longrope": plain(), "long, not short": rope("longrope", original_max_position_embeddings=16, factor=4.0,
                                                         short_factor=LONG["short_factor"], long_factor=LONG["short_factor"])})
LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=128)
case("llama-llama3", "llama", {**rope("llama3", **LLAMA3), **ONE}, shows={"llama3": plain()}, old=old_rope)
case("llama4", "llama4_text", {**rope(theta=500000.0), "head_dim": 8, "intermediate_size": 32, "intermediate_size_mlp": 32,
     "num_local_experts": 4, "interleave_moe_layer_step": 2, "num_hidden_layers": 4, "attention_chunk_size": 16,
     "floor_scale": 8}, shows={"chunks": dict(attention_chunk_size=64), "temperature": dict(attn_temperature_tuning=False),
                               "qk norm": dict(use_qk_norm=False)})
case("llama4-scout", "llama4_text", {**rope(theta=500000.0), "head_dim": 8, "intermediate_size": 16, "intermediate_size_mlp": 32,
     "num_local_experts": 4, "interleave_moe_layer_step": 2, "num_hidden_layers": 4},
     shows={"qk norm": dict(use_qk_norm=False), "no rope": dict(no_rope_layers=[1, 1, 1, 1])})
case("mistral", "mistral", {**plain(), **ONE, "head_dim": 16, "sliding_window": None})
case("mistral-window", "mistral", {**plain(), **ONE, "head_dim": 8, "sliding_window": 9},
     shows={"window": dict(sliding_window=None)})
case("ministral", "ministral", {**plain(), "head_dim": 8, "sliding_window": 9,
     "layer_types": ["full_attention", "sliding_attention"]}, shows={"window": dict(sliding_window=64)})
M3 = dict(factor=4.0, original_max_position_embeddings=16, mscale=1.0, mscale_all_dim=1.0, beta_fast=32.0, beta_slow=1.0)
case("ministral3", "ministral3", {**rope("yarn", **M3, llama_4_scaling_beta=0.4), "head_dim": 8},
     shows={"query scale": rope("yarn", **M3, llama_4_scaling_beta=0.0), "yarn": rope(llama_4_scaling_beta=0.4,
                                                                                 original_max_position_embeddings=16)})
case("qwen2", "qwen2", plain(), old=old_rope)
case("qwen2-window", "qwen2", {**plain(), "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
     shows={"window": dict(use_sliding_window=False, sliding_window=None, layer_types=["full_attention"] * 2),
            "first layers full": dict(max_window_layers=0)}, note="Layers from max_window_layers on slide; the first are full.")
case("qwen3", "qwen3", {**plain(), "head_dim": 16})
MOE = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)
case("qwen2-moe", "qwen2_moe", {**plain(), **MOE, "shared_expert_intermediate_size": 64, "mlp_only_layers": [0],
     "num_hidden_layers": 2, "norm_topk_prob": False}, shows={"no top-k norm": dict(norm_topk_prob=True)})
case("qwen2-moe-sparse", "qwen2_moe", {**plain(), **MOE, **ONE, "shared_expert_intermediate_size": 64,
     "norm_topk_prob": False}, shows={"no top-k norm": dict(norm_topk_prob=True)})
case("qwen2-moe-window", "qwen2_moe", {**plain(), **MOE, "shared_expert_intermediate_size": 32, "use_sliding_window": True,
     "sliding_window": 9, "max_window_layers": 2, "norm_topk_prob": True},
     shows={"window": dict(use_sliding_window=False, sliding_window=None, layer_types=["full_attention"] * 2),
            "top-k norm": dict(norm_topk_prob=False)}, note="Layer i slides iff (i + 1) % 2 and i < max_window_layers.")
case("qwen3-moe", "qwen3_moe", {**plain(), **MOE, "head_dim": 8, "norm_topk_prob": True}, old=old_qwen3_moe,
     shows={"top-k norm": dict(norm_topk_prob=False)})
case("qwen3-moe-sparse-step", "qwen3_moe", {**plain(), **MOE, "head_dim": 8, "norm_topk_prob": False,
     "decoder_sparse_step": 2, "num_hidden_layers": 2}, shows={"no top-k norm": dict(norm_topk_prob=True)},
     note="Only layer 1 has experts.")
case("mixtral", "mixtral", {**rope(theta=1e6), "intermediate_size": 32, "num_local_experts": 4, "num_experts_per_tok": 2,
     "sliding_window": None})
case("smollm3", "smollm3", {**plain(), **FOUR}, shows={"NoPE": dict(no_rope_layers=[1, 1, 1, 1])}, old=old_rope)
case("seed-oss", "seed_oss", {**plain(), "head_dim": 16})
case("arcee", "arcee", plain(), shows={"relu squared": dict(hidden_act="relu")})
case("helium", "helium", {**plain(), "head_dim": 8})
case("exaone4", "exaone4", {**plain(), **FOUR, "sliding_window": 9, "sliding_window_pattern": 4},
     shows={"window": dict(sliding_window=64)}, note="Three windowed layers with rope, one full layer without.")
case("exaone4-full", "exaone4", {**plain(), **ONE, "sliding_window": None, "layer_types": ["full_attention"]},
     note="Without a window the full layer has rope.")
case("apertus", "apertus", plain())
case("nemotron", "nemotron", {**rope(partial_rotary_factor=0.5), "head_dim": 8},
     shows={"partial": rope(partial_rotary_factor=1.0), "relu squared": dict(hidden_act="relu")})
case("glm4", "glm4", {**rope(partial_rotary_factor=0.5), "head_dim": 16, "attention_bias": True},
     shows={"partial": rope(partial_rotary_factor=1.0)})

# ---------------------------------------------------------------- the GPT line

case("opt", "opt", dict(ffn_dim=64, hidden_size=32, word_embed_proj_dim=32),
     shows={"relu": dict(activation_function="gelu")})
case("opt-350m", "opt", dict(ffn_dim=64, word_embed_proj_dim=16, do_layer_norm_before=False),
     note="Norms after the residual, none before the head, project_in and project_out (word_embed_proj_dim 16).")
case("opt-galactica", "opt", dict(**ONE, ffn_dim=64, word_embed_proj_dim=32, enable_bias=False,
     layer_norm_elementwise_affine=False, activation_function="gelu"), shows={"erf GELU": dict(activation_function="gelu_new")},
     note="No biases, no norm weights.")
case("opt-no-final-norm", "opt", dict(**ONE, ffn_dim=64, word_embed_proj_dim=32, _remove_final_layer_norm=True))
case("bloom", "bloom", dict(n_layer=2, n_head=4), old=renamed(hidden_size="n_embed"))
case("bloom-6-heads", "bloom", dict(hidden_size=48, n_layer=1, n_head=6), note="Slopes of 6 heads; groups of 16 only.")
case("bloom-residual-after-norm", "bloom", dict(n_layer=1, n_head=4, apply_residual_connection_post_layernorm=True),
     shows={"residual after norm": dict(apply_residual_connection_post_layernorm=False)})
case("gpt2", "gpt2", GPT, old=renamed(n_embd="hidden_size", n_layer="num_hidden_layers", n_head="num_attention_heads",
     n_positions="max_position_embeddings"), shows={"tanh GELU": dict(activation_function="gelu")})
case("gpt2-inverse-layer", "gpt2", {**GPT, "n_inner": 64, "scale_attn_by_inverse_layer_idx": True,
     "activation_function": "gelu"}, shows={"inverse layer": dict(scale_attn_by_inverse_layer_idx=False),
                                            "erf GELU": dict(activation_function="gelu_new")})
case("gpt2-no-scale", "gpt2", {**GPT, "n_layer": 1, "n_inner": 64, "scale_attn_weights": False},
     shows={"no scale": dict(scale_attn_weights=True)})
case("openai-gpt", "openai-gpt", {**GPT, "afn": "gelu"}, note="Norms after the residual; afn gelu is the tanh form.")
case("gpt-neox", "gpt_neox", {**rope(partial_rotary_factor=0.25), "num_attention_heads": 2, "tie_word_embeddings": False},
     old=old_neox, shows={"parallel": dict(use_parallel_residual=False), "erf GELU": dict(hidden_act="gelu_new"),
                          "partial": rope(partial_rotary_factor=0.5)})
case("gpt-neox-sequential", "gpt_neox", {**ONE, **rope(partial_rotary_factor=1.0), "use_parallel_residual": False,
     "tie_word_embeddings": False}, shows={"sequential": dict(use_parallel_residual=True)})
case("gpt-neox-no-bias", "gpt_neox", {**ONE, **rope(theta=500.0, partial_rotary_factor=1.0), "attention_bias": False,
     "tie_word_embeddings": False}, note="No biases in attention.")
case("gptj", "gptj", {**GPT, "rotary_dim": 4, "tie_word_embeddings": False}, old=renamed(n_embd="hidden_size",
     n_layer="num_hidden_layers", n_head="num_attention_heads"), shows={"partial": dict(rotary_dim=8)})
case("codegen", "codegen", {**GPT, "n_head": 8, "n_inner": 64, "rotary_dim": 4, "n_ctx": 64,
     "tie_word_embeddings": False})
case("gpt-neo", "gpt_neo", dict(num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=7),
     shows={"window": dict(window_size=64)})
case("gpt-bigcode", "gpt_bigcode", GPT, note="One head of keys and values.")
case("gpt-bigcode-mha", "gpt_bigcode", {**GPT, "n_layer": 1, "n_inner": 64, "multi_query": False})
case("xglm", "xglm", dict(d_model=32, ffn_dim=64, attention_heads=4, num_layers=2), double=False)
case("falcon-7b", "falcon", {**plain(), "num_kv_heads": None, "multi_query": True, "new_decoder_architecture": False},
     shows={"erf GELU": dict(activation="gelu_new")}, old=old_falcon("RefinedWebModel"), old_opens=False,
     note="One head of keys and values, one norm.")
case("falcon-40b", "falcon", {**plain(), "num_kv_heads": 2, "new_decoder_architecture": True},
     old=old_falcon("RefinedWeb"), old_opens=False)
case("falcon2-11b", "falcon", {**ONE, **plain(), "num_kv_heads": 2, "new_decoder_architecture": True,
     "num_ln_in_parallel_attn": 1})
case("falcon-rw", "falcon", dict(multi_query=False, new_decoder_architecture=False, alibi=True, parallel_attn=False,
     bias=True, ffn_hidden_size=64), impl="sdpa", note="Reference is sdpa: eager adds ALiBi twice.")
case("mpt", "mpt", dict(d_model=32, n_heads=4, n_layers=2, max_seq_len=64, attn_config=dict(clip_qkv=1.0)),
     shows={"clip_qkv": dict(attn_config=dict(clip_qkv=None))})
case("mpt-6-heads", "mpt", dict(d_model=48, n_heads=6, n_layers=1, max_seq_len=64, attn_config=dict(clip_qkv=None)),
     note="Slopes of 6 heads; groups of 16 only.")
case("mpt-softmax-scale", "mpt", dict(d_model=32, n_heads=4, n_layers=1, max_seq_len=64, attn_config=dict(softmax_scale=0.6)),
     shows={"softmax_scale": dict(attn_config=dict(softmax_scale=None))})
case("phi", "phi", {**rope(partial_rotary_factor=0.5), "intermediate_size": 128, "num_key_value_heads": None}, old=old_rope,
     shows={"partial": rope(partial_rotary_factor=1.0), "tanh GELU": dict(hidden_act="gelu")})
case("phi-qk-norm", "phi", {**ONE, **rope(partial_rotary_factor=0.5), "qk_layernorm": True})
PHI3 = dict(sliding_window=9, original_max_position_embeddings=16)
case("phi3-long", "phi3", {**rope("longrope", **LONG), **PHI3}, old=old_phi3,
     shows={"window": dict(sliding_window=None), "longrope": plain(),
            "long, not short": rope("longrope", short_factor=LONG["short_factor"], long_factor=LONG["short_factor"])})
case("phi3-short", "phi3", {**ONE, **rope("longrope", **LONG), "sliding_window": None, "original_max_position_embeddings": 512,
     "max_position_embeddings": 2048}, shows={"longrope": plain()}, old=old_phi3_su)
FACTORS = dict(short_factor=[1.0, 1.1, 1.2, 1.4, 1.6, 2.0], long_factor=[1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
case("phi4-mini", "phi3", {**ONE, **rope("longrope", partial_rotary_factor=0.75, **FACTORS), "num_attention_heads": 2,
     "num_key_value_heads": 1, "tie_word_embeddings": True, "original_max_position_embeddings": 16, "sliding_window": None},
     shows={"longrope": rope(partial_rotary_factor=0.75)})
case("phimoe", "phimoe", {**rope("longrope", short_mscale=1.1, long_mscale=1.5 ** 0.5,
     original_max_position_embeddings=16, **LONG),
     "intermediate_size": 32, "num_local_experts": 4, "attention_bias": True, "lm_head_bias": True,
     "router_jitter_noise": 0.01}, shows={"jitter threshold": dict(router_jitter_noise=0.2)},
     note="The long mscale is what the formula of longrope gives.")
case("phimoe-jitter", "phimoe", {**plain(), **ONE, "intermediate_size": 32, "num_local_experts": 4, "router_jitter_noise": 0.1},
     shows={"jitter threshold": dict(router_jitter_noise=0.3)})
case("persimmon", "persimmon", rope(partial_rotary_factor=0.5), shows={"partial": rope(partial_rotary_factor=1.0)})
case("stablelm", "stablelm", {**rope(partial_rotary_factor=0.25), "num_attention_heads": 2, "num_key_value_heads": 2},
     old=old_rope, shows={"partial": rope(partial_rotary_factor=0.5)})
case("stablelm-bias", "stablelm", {**ONE, **rope(partial_rotary_factor=0.5), "use_qkv_bias": True})
case("stablelm-parallel", "stablelm", {**rope(partial_rotary_factor=0.5), "qk_layernorm": True, "use_parallel_residual": True})
case("starcoder2", "starcoder2", {**plain(), "sliding_window": 9, "use_bias": True},
     shows={"window": dict(sliding_window=None), "tanh GELU": dict(hidden_act="gelu")})
case("starcoder2-full", "starcoder2", {**plain(), **ONE, "sliding_window": None, "use_bias": True})

# ---------------------------------------------------------------- Gemma, OLMo, Granite, Cohere

case("gemma", "gemma", {**plain(), "head_dim": 16, "num_key_value_heads": 1, "hidden_act": "gelu"},
     note="hidden_act says gelu and means the tanh form.")
G2 = dict(head_dim=16, sliding_window=9, query_pre_attn_scalar=16, attn_logit_softcapping=2.0, final_logit_softcapping=3.0)
case("gemma2", "gemma2", {**plain(), **G2},
     shows={"window": dict(sliding_window=64), "attention cap": dict(attn_logit_softcapping=None),
            "logit cap": dict(final_logit_softcapping=None),
            "tanh GELU": dict(hidden_activation="gelu")})
case("gemma2-27b", "gemma2", {**plain(), **G2, **ONE, "query_pre_attn_scalar": 40},
     shows={"query_pre_attn_scalar": dict(query_pre_attn_scalar=16)}, note="The scale is not that of the head's size.")
ROPE3 = {"full_attention": dict(rope_type="linear", factor=4.0, rope_theta=1000000.0),
         "sliding_attention": dict(rope_type="default", rope_theta=10000.0)}
G3 = dict(rope_parameters=ROPE3, num_hidden_layers=6, intermediate_size=32, head_dim=8, num_key_value_heads=1,
          sliding_window=9, query_pre_attn_scalar=8)
case("gemma3", "gemma3_text", G3, old=old_gemma3,
     shows={"window": dict(sliding_window=64),
            "scaled rope of full layers": dict(rope_parameters={**ROPE3, "full_attention": dict(rope_type="default",
                                                                                                rope_theta=1e6)}),
            "rope of window layers": dict(rope_parameters={**ROPE3, "sliding_attention": ROPE3["full_attention"]})})
case("olmo", "olmo", {**plain(), "clip_qkv": 1.0}, shows={"clip_qkv": dict(clip_qkv=None)})
case("olmo2", "olmo2", plain())
O3 = {"full_attention": dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16),
      "sliding_attention": dict(rope_type="default", rope_theta=10000.0)}
case("olmo3", "olmo3", {"rope_parameters": O3, **FOUR, "sliding_window": 9},
     shows={"window": dict(sliding_window=64), "yarn of full layers": dict(rope_parameters={**O3, "full_attention":
                                                                                       O3["sliding_attention"]})})
OE = dict(intermediate_size=32, num_experts=4, num_experts_per_tok=2)
case("olmoe", "olmoe", {**plain(), **OE, "num_key_value_heads": 4},
     shows={"no top-k norm": dict(norm_topk_prob=True)})
case("olmoe-clip", "olmoe", {**plain(), **ONE, **OE, "clip_qkv": 1.0}, shows={"clip_qkv": dict(clip_qkv=None)})
GR = dict(embedding_multiplier=5.0, attention_multiplier=0.11, residual_multiplier=0.45, logits_scaling=0.7)
case("granite", "granite", {**plain(), **GR}, old=old_rope,
     shows={key: {key: value} for key, value in dict(embedding_multiplier=1.0, attention_multiplier=8 ** -0.5,
                                                     residual_multiplier=1.0, logits_scaling=1.0).items()})
case("granite-moe", "granitemoe", {**plain(), **GR, "intermediate_size": 32, "num_local_experts": 4, "num_experts_per_tok": 2})
case("granite-moe-shared", "granitemoeshared", {**plain(), **GR, **ONE, "intermediate_size": 32, "shared_intermediate_size": 64,
     "num_local_experts": 4, "num_experts_per_tok": 2})
case("cohere", "cohere", {**plain(), "logit_scale": 0.6}, shows={"logit_scale": dict(logit_scale=1.0)})
case("cohere-qk-norm", "cohere", {**ONE, **plain(), "logit_scale": 0.6, "use_qk_norm": True})
case("cohere2", "cohere2", {**plain(), "head_dim": 8, "logit_scale": 0.6, **FOUR, "sliding_window": 9},
     shows={"window": dict(sliding_window=64)}, note="Three windowed layers with rope, one full layer without.")

# ---------------------------------------------------------------- MLA, sinks, hybrids

DS = dict(moe_intermediate_size=32, n_routed_experts=4, n_shared_experts=2, num_experts_per_tok=2, kv_lora_rank=32,
          qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=8, first_k_dense_replace=1, num_key_value_heads=4,
          routed_scaling_factor=1.5)
YARN = dict(factor=4.0, original_max_position_embeddings=16, beta_fast=32.0, beta_slow=1.0)
case("deepseek-v2-lite", "deepseek_v2", {**DS, **rope("yarn", mscale=0.707, mscale_all_dim=0.707, **YARN), "q_lora_rank": None},
     shows={"yarn": plain(), "routed_scaling_factor": dict(routed_scaling_factor=1.0)})
case("deepseek-v2", "deepseek_v2", {**DS, **rope("yarn", mscale=1.0, mscale_all_dim=0.6, **YARN), "q_lora_rank": 32,
     "n_routed_experts": 8, "moe_intermediate_size": 32, "n_shared_experts": 1, "topk_method": "group_limited_greedy",
     "n_group": 4, "topk_group": 2, "num_experts_per_tok": 3},
     shows={"groups": dict(topk_method="greedy"), "mscale": rope("yarn", mscale=0.6, mscale_all_dim=0.6, **YARN)})
OSS = dict(factor=4.0, original_max_position_embeddings=16, beta_fast=32.0, beta_slow=1.0, truncate=False)
case("deepseek-v2-greedy", "deepseek_v2", {**DS, **ONE, **rope("yarn", mscale=1.0, mscale_all_dim=1.0, **YARN),
     "q_lora_rank": 32, "first_k_dense_replace": 0})
case("gpt-oss", "gpt_oss", {**rope("yarn", 150000.0, **OSS), "intermediate_size": 32, "head_dim": 8, "num_local_experts": 4,
     "num_experts_per_tok": 2, "sliding_window": 9}, gain={"gate_up_proj": 4.0},
     shows={"window": dict(sliding_window=64), "yarn": plain(150000.0), "swiglu_limit": dict(swiglu_limit=9.0)})
NEXT = dict(linear_conv_kernel_dim=4, linear_key_head_dim=16, linear_value_head_dim=16, linear_num_key_heads=2,
            linear_num_value_heads=4, head_dim=16, layer_types=["linear_attention", "full_attention"])
case("qwen3-next", "qwen3_next", {**rope(partial_rotary_factor=0.25), **NEXT, **MOE, "shared_expert_intermediate_size": 32,
     "norm_topk_prob": True}, shows={"partial": rope(partial_rotary_factor=0.5)})
AXES = dict(mrope_section=[1, 1, 0], mrope_interleaved=True)  # of images; text has one position on all three
case("qwen3_5", "qwen3_5_text", {**rope(partial_rotary_factor=0.25, **AXES), **NEXT},
     shows={"partial": rope(partial_rotary_factor=0.5, **AXES)})

# ---------------------------------------------------------------- text models inside multimodal ones

VISION = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
case("gemma3-wrapped", "gemma3", dict(text_config={**SMALL, **G3, "query_pre_attn_scalar": 5,
     "num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}, vision_config=VISION,
     mm_tokens_per_image=4, image_token_index=95,
     boi_token_index=94, eoi_token_index=93), wrapper=True, note="Gemma3ForConditionalGeneration: text_config, vision tensors.")
case("mistral3-wrapped", "mistral3", dict(text_config={**SMALL, **rope("yarn", **M3, llama_4_scaling_beta=0.4), "head_dim": 8,
     "model_type": "ministral3"}, vision_config={**VISION, "model_type": "pixtral", "head_dim": 8}, image_token_index=95),
     wrapper=True, note="Mistral3ForConditionalGeneration around Ministral 3.")
case("qwen3_5-wrapped", "qwen3_5", dict(text_config={**SMALL, **rope(partial_rotary_factor=0.25, **AXES), **NEXT,
     "linear_key_head_dim": 8},
     vision_config=dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, patch_size=2, out_hidden_size=32,
                        num_position_embeddings=16), image_token_id=95, video_token_id=94, vision_start_token_id=93,
     vision_end_token_id=92), wrapper=True, note="Qwen3_5ForConditionalGeneration; text alone, so all three rope axes agree.")
