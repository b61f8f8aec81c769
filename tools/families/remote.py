"""Reference forwards of the families whose code is not in transformers: InternLM2 and Baichuan, in plain torch.

Written from descriptions of the published checkpoints, not from their code: fused and grouped qkv rows, rope by halves, ALiBi
in Baichuan's 13B form, and the second Baichuan's head with rows of length one. Config keys are those of the published files.
"""
import json
import math
import zlib

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

V, H, I, A, LAYERS = 96, 32, 64, 4, 2
COMMON = dict(vocab_size=V, hidden_size=H, intermediate_size=I, num_hidden_layers=LAYERS, num_attention_heads=A,
              hidden_act="silu", rms_norm_eps=1e-6, tie_word_embeddings=False, use_cache=True, bos_token_id=1, eos_token_id=2,
              pad_token_id=0, initializer_range=0.02, torch_dtype="float32")


def internlm2(**keys):
    return {"architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", **COMMON, "num_key_value_heads": 2,
            "bias": False, "max_position_embeddings": 64, "rope_theta": 10000.0, "rope_scaling": None, **keys}


def baichuan(**keys):
    return {"architectures": ["BaichuanForCausalLM"], "model_type": "baichuan", **COMMON, "model_max_length": 64, **keys}


CONFIGS = {
    "internlm2": (internlm2(), ""),
    "internlm2-dynamic": (internlm2(rope_scaling=dict(type="dynamic", factor=2.0), max_position_embeddings=32),
                          "Dynamic base of all 64 tokens at once."),
    "baichuan-7b": (baichuan(max_position_embeddings=64), "Rope: the 7B configs have max_position_embeddings."),
    "baichuan-13b": (baichuan(), "ALiBi: the 13B configs have model_max_length alone."),
    "baichuan2-7b": (baichuan(max_position_embeddings=64, z_loss_weight=0),
                     "Rows of lm_head are divided by their length; Baichuan 2 configs have z_loss_weight."),
}
FORWARDS = CONFIGS


# ---------------------------------------------------------------- steps


def rms(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rope_base(config):
    theta, scaling, d = config.get("rope_theta", 10000.0), config.get("rope_scaling"), H // A
    if not scaling:
        return theta
    length, factor, trained = 64, scaling["factor"], config["max_position_embeddings"]
    return theta * (factor * length / trained - (factor - 1)) ** (d / (d - 2)) if length > trained else theta


def rotate(x, theta):
    """x [T, heads, D]; pairs (k, k + D/2)."""
    d = x.shape[-1]
    angle = torch.arange(x.shape[0], dtype=x.dtype)[:, None] * theta ** (-torch.arange(0, d, 2, dtype=x.dtype) / d)
    c, s = angle.cos()[:, None], angle.sin()[:, None]
    a, b = x[..., : d // 2], x[..., d // 2:]
    return torch.cat((a * c - b * s, b * c + a * s), -1)


def slopes(n, dtype):
    c = 2 ** math.floor(math.log2(n))
    first = [2 ** (-8 * i / c) for i in range(1, c + 1)]
    return torch.tensor(first + [2 ** (-4 * (2 * j - 1) / c) for j in range(1, n - c + 1)], dtype=dtype)


def attend(q, k, v, alibi):
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = torch.einsum("iad,jad->aij", q, k) * q.shape[-1] ** -0.5
    at = torch.arange(len(q))
    if alibi:
        scores = scores + slopes(q.shape[1], q.dtype)[:, None, None] * (at[None, :] - at[:, None])
    scores = scores.masked_fill(at[None, :] > at[:, None], -torch.inf)
    return torch.einsum("aij,jad->iad", scores.softmax(-1), v).flatten(1)


def gated(x, gate, up, down):
    return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T


# ---------------------------------------------------------------- families


def forward_internlm2(w, config, ids):
    x, kv, d, theta, eps = w["model.tok_embeddings.weight"][ids], config["num_key_value_heads"], H // A, rope_base(config), 1e-6
    for layer in range(LAYERS):
        b = f"model.layers.{layer}."
        rows = rms(x, w[b + "attention_norm.weight"], eps) @ w[b + "attention.wqkv.weight"].T
        rows = rows.view(len(ids), kv, A // kv + 2, d)
        q, k, v = rows[:, :, :-2].reshape(len(ids), A, d), rows[:, :, -2], rows[:, :, -1]
        x = x + attend(rotate(q, theta), rotate(k, theta), v, False) @ w[b + "attention.wo.weight"].T
        x = x + gated(rms(x, w[b + "ffn_norm.weight"], eps), *[w[b + f"feed_forward.w{n}.weight"] for n in (1, 3, 2)])
    return rms(x, w["model.norm.weight"], eps) @ w["output.weight"].T


def forward_baichuan(w, config, ids):
    x, alibi, eps = w["model.embed_tokens.weight"][ids], "max_position_embeddings" not in config, 1e-6
    for layer in range(LAYERS):
        b = f"model.layers.{layer}."
        rows = rms(x, w[b + "input_layernorm.weight"], eps) @ w[b + "self_attn.W_pack.weight"].T
        q, k, v = rows.view(len(ids), 3, A, H // A).unbind(1)
        if not alibi:
            q, k = rotate(q, rope_base(config)), rotate(k, rope_base(config))
        x = x + attend(q, k, v, alibi) @ w[b + "self_attn.o_proj.weight"].T
        x = x + gated(rms(x, w[b + "post_attention_layernorm.weight"], eps),
                      *[w[b + f"mlp.{n}_proj.weight"] for n in ("gate", "up", "down")])
    head = w["lm_head.weight"]
    if "z_loss_weight" in config:
        head = F.normalize(head)
    return rms(x, w["model.norm.weight"], eps) @ head.T


def shapes_of(config):
    block, d = {}, H // A
    if config["model_type"] == "internlm2":
        block = {"attention.wqkv": ((A + 2 * config["num_key_value_heads"]) * d, H), "attention.wo": (H, H),
                 "feed_forward.w1": (I, H), "feed_forward.w2": (H, I), "feed_forward.w3": (I, H), "attention_norm": (H,),
                 "ffn_norm": (H,)}
        top = {"model.tok_embeddings": (V, H), "model.norm": (H,), "output": (V, H)}
    else:
        block = {"self_attn.W_pack": (3 * H, H), "self_attn.o_proj": (H, H), "mlp.gate_proj": (I, H), "mlp.up_proj": (I, H),
                 "mlp.down_proj": (H, I), "input_layernorm": (H,), "post_attention_layernorm": (H,)}
        top = {"model.embed_tokens": (V, H), "model.norm": (H,), "lm_head": (V, H)}
    blocks = {f"model.layers.{layer}.{name}": shape for layer in range(LAYERS) for name, shape in block.items()}
    return {name + ".weight": shape for name, shape in {**top, **blocks}.items()}


def fill(name, config):
    random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    tensors = {}
    for key, shape in sorted(shapes_of(config).items()):
        value = torch.randn(shape, generator=random)
        if len(shape) == 1:
            value = 1 + value * 0.3
        elif "embed" not in key:
            value = value * 1.4 * shape[1] ** -0.5
        tensors[key] = torch.round(value * 256) / 256
    return tensors


def forward(name, folder, ids, dtype):
    config = json.loads((folder / "config.json").read_text())
    weights = {key: value.to(dtype) for key, value in load_file(folder / "model.safetensors").items()}
    run = forward_internlm2 if config["model_type"] == "internlm2" else forward_baichuan
    return run(weights, config, torch.tensor(ids)).double()


def make(name, folder, ids, store, measure):
    config, note = CONFIGS[name]
    folder.mkdir(parents=True, exist_ok=True)
    tensors = fill(name, config)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    logits = forward(name, folder, ids, torch.float32)
    store(folder, logits)
    entry = dict(name=name, family=config["model_type"], architecture=config["architectures"][0], vocab_size=V, group=32,
                 n_params=sum(t.numel() for t in tensors.values()), reference="tools/families/remote.py")
    entry.update(measure(name, logits, forward(name, folder, ids, torch.float64)))
    return {**entry, "note": note} if note else entry
