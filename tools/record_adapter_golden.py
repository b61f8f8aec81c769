#!/usr/bin/env python3
"""Makes tests/golden/adapters: LoRA adapters saved by PEFT for the tiny checkpoints of tests/golden/families, and the logits of
the unmerged models in float32.

Needs (in a virtual environment): peft 0.21.2, torch 2.15.0 (CPU), transformers 5.24.0, safetensors 0.8.0, bitsandbytes 0.50.2.

  record_adapter_golden.py              makes every case again; takes half a minute of one core
  record_adapter_golden.py NAME...      makes these cases again

A case is a directory: adapter_config.json and adapter_model.safetensors as PEFT wrote them (base_model_name_or_path is the name of
the family's directory), logits.bin: float32 [TOKENS, vocabulary]. Every adapter is loaded anew by PeftModel.from_pretrained before
its logits are taken. nf4 is an adapter, its base quantized by bitsandbytes (layer 0 from float16, layer 1 from bfloat16), and the
SHA-256 of the base's linears, dequantized by bitsandbytes, with PEFT's update added in float32 and rounded by torch. Weights are seeded, random, multiples of 2^-6, and large enough that leaving out any tensor of the adapter
moves the logits by 1e-3 at least, which is checked here.
"""
import hashlib
import json
import os
import pathlib
import shutil
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", OMP_NUM_THREADS="1")

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

torch.set_num_threads(1)
ROOT = pathlib.Path(__file__).resolve().parent.parent
FAMILIES = ROOT / "tests/golden/families"
OUT = ROOT / "tests/golden/adapters"
IDS = [7, 40, 3, 5, 81, 12]
CLEAR = 1e-3

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
# name: (family's directory, options of LoraConfig, tokens added before training)
CASES = {
    "plain": ("llama", dict(r=2, lora_alpha=6, target_modules=["q_proj", "v_proj"])),
    "patterns": ("llama", dict(
        r=2, lora_alpha=1, target_modules="all-linear", use_rslora=True,
        rank_pattern={"q_proj": 3, "^model.layers.1.mlp.*_proj": 1, "layers.1.self_attn.v_proj": 4},
        alpha_pattern={"q_proj": 3, "layers.1.self_attn.[vo]_proj": 1, "v_proj": 2})),
    "regex": ("llama", dict(r=2, lora_alpha=3, target_modules=r".*\.layers\.\d\.(self_attn\.[qk]_proj|mlp\.down_proj)",
                            exclude_modules=["layers.0.self_attn.k_proj"])),
    "layers": ("llama", dict(r=2, lora_alpha=4, target_modules=["o_proj", "gate_proj"], layers_to_transform=[1],
                             layers_pattern="layers")),
    "dora": ("llama", dict(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"], use_dora=True)),
    "orthogonal": ("llama", dict(r=2, lora_alpha=4, target_modules=["k_proj"], init_lora_weights="orthogonal")),
    "embedding": ("llama", dict(r=2, lora_alpha=4, target_modules=["embed_tokens", "lm_head"])),
    "embedding-dora": ("llama", dict(r=2, lora_alpha=4, target_modules=["embed_tokens"], use_dora=True)),
    "saved": ("llama", dict(r=2, target_modules=["v_proj"], modules_to_save=["lm_head", "input_layernorm"])),
    "tokens": ("llama", dict(r=2, target_modules=["v_proj"], trainable_token_indices=[40, 3, 7])),
    "tokens-two": ("llama", dict(r=2, target_modules=["v_proj"],
                                 trainable_token_indices={"embed_tokens": [3, 5], "lm_head": [1, 90]})),
    "bias-all": ("llama-bias", dict(r=2, target_modules=["q_proj"], bias="all")),
    "bias-lora-only": ("llama-bias", dict(r=2, target_modules=["q_proj"], bias="lora_only")),
    "lora-bias": ("llama-bias", dict(r=2, lora_alpha=6, target_modules=["q_proj", "down_proj"], lora_bias=True)),
    "tied-embedding": ("llama-mha-tied", dict(r=2, target_modules=["embed_tokens", "q_proj"])),
    "tied-head": ("llama-mha-tied", dict(r=2, target_modules=["lm_head"])),
    "tied-both": ("llama-mha-tied", dict(r=2, target_modules=["embed_tokens", "lm_head"])),
    "tied-both-kept": ("llama-mha-tied", dict(r=2, target_modules=["embed_tokens", "lm_head"], ensure_weight_tying=True)),
    "tied-tokens": ("llama-mha-tied", dict(r=2, target_modules=["q_proj"], trainable_token_indices=[3, 40])),
    "tied-saved": ("llama-mha-tied", dict(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"])),
    "tied-saved-head": ("llama-mha-tied", dict(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])),
    "tied-saved-kept": ("llama-mha-tied", dict(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"],
                                               ensure_weight_tying=True)),
    # Vocabularies that grew before training, as AutoPeftModel loads them: the base is resized first. PEFT saves both tables then.
    "grown": ("llama", dict(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]), 3),
    "grown-auto": ("llama", dict(r=2, target_modules=["q_proj"]), 3),
    "grown-tied": ("llama-mha-tied", dict(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"]), 5),
    "grown-tied-auto": ("llama-mha-tied", dict(r=2, target_modules=["q_proj"]), 5),
    "conv1d": ("gpt2", dict(r=2, lora_alpha=6, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)),
    "conv1d-dora": ("gpt2", dict(r=2, target_modules=["c_fc", "c_attn"], fan_in_fan_out=True, use_dora=True)),
    "conv1d-bias": ("gpt2", dict(r=2, target_modules=["attn.c_proj"], fan_in_fan_out=True, bias="all")),
    "conv1d-lora-bias": ("gpt2", dict(r=2, lora_alpha=3, target_modules=["c_fc"], fan_in_fan_out=True, lora_bias=True)),
    "conv1d-embedding": ("gpt2", dict(r=2, target_modules=["wte", "wpe", "c_fc"], fan_in_fan_out=True)),
    "conv1d-tokens": ("gpt2", dict(r=2, target_modules=["c_fc"], fan_in_fan_out=True, trainable_token_indices={"wte": [3, 81]})),
    "experts": ("mixtral", dict(r=2, lora_alpha=3, target_modules=["q_proj"], target_parameters=EXPERTS,
                                alpha_pattern={"experts.down_proj": 5})),
    "experts-down": ("qwen3-moe", dict(r=2, lora_alpha=3, target_modules=[], target_parameters=EXPERTS[1:])),
    "experts-router": ("mixtral", dict(r=2, lora_alpha=3, target_modules=[], target_parameters=["mlp.gate.weight"])),
    "experts-turned": ("gpt-oss", dict(r=2, lora_alpha=3, target_modules=["o_proj"], target_parameters=EXPERTS)),
    "experts-stacked": ("granite-moe", dict(r=2, lora_alpha=3, target_modules=[], target_parameters=[
        "experts.gate_up_proj", "experts.down_proj"])),
    "experts-swapped": ("llama4", dict(r=2, lora_alpha=3, target_modules=[], target_parameters=[
        "experts.gate_up_proj", "experts.down_proj"])),
}


def base_model(family, grown=0):
    model = AutoModelForCausalLM.from_pretrained(FAMILIES / family, dtype=torch.float32, attn_implementation="eager").eval()
    if grown:
        model.resize_token_embeddings(model.config.vocab_size + grown)
    return model


def is_frozen(name):
    """A wrapper's copy of the base's own weight, or the second copy of what it trains: PEFT saves them with a resized table."""
    return "base_layer.weight" in name or ".original_module." in name or ".modules_to_save." in name


def logits_of(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([IDS]), use_cache=False).logits[0].float().contiguous()


def randomize(path, tied):
    """Weights that every tensor of the adapter matters by; those of a head that stays tied are the embedding's."""
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    for name in sorted(tensors):
        t = tensors[name]
        if is_frozen(name):
            continue
        noise = torch.randn(t.shape) * (0.25 if t.dim() == 2 else 0.5)
        if "magnitude" in name:
            noise = t + noise.abs() * 0.5
        elif "lora_" not in name and t.dim() == 1:
            noise = 1 + noise * 0.5 if "norm" in name else noise
        tensors[name] = (torch.round(noise * 64) / 64).contiguous()
    if tied:
        embed, head = "base_model.model.model.embed_tokens.", "base_model.model.lm_head."
        for to, source in {"lora_A.weight": "lora_embedding_B", "lora_B.weight": "lora_embedding_A", "weight": "weight"}.items():
            if head + to in tensors:
                t = tensors[embed + source]
                tensors[head + to] = (t if to == "weight" else t.T).clone().contiguous()
    for name in tensors:
        if ".modules_to_save." in name:
            tensors[name] = tensors[name.replace(".modules_to_save.", ".")].clone()
    save_file(tensors, file, metadata={"format": "pt"})
    return tensors


def save_adapter(peft, path, base, tied=False):
    peft.save_pretrained(path)
    (path / "README.md").unlink()
    config = json.loads((path / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base
    for key, value in config.items():  # sets become lists in any order
        if isinstance(value, list) and all(isinstance(v, str) for v in value):
            config[key] = sorted(value)
    (path / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return randomize(path, tied)


def load(family, path, grown=0):
    return PeftModel.from_pretrained(base_model(family, grown), path, torch_device="cpu").eval()


def check_matters(family, path, tensors, logits, grown):
    for name in tensors:
        if is_frozen(name):
            continue
        with tempfile.TemporaryDirectory() as t:
            other = dict(tensors)
            other[name] = tensors[name] * 0.5
            copy = name.replace(".weight", ".modules_to_save.weight")
            if copy in other:
                other[copy] = other[name].clone()
            shutil.copy(path / "adapter_config.json", t)
            save_file(other, pathlib.Path(t) / "adapter_model.safetensors", metadata={"format": "pt"})
            moved = (logits_of(load(family, t, grown)) - logits).abs().max().item()
            if moved < CLEAR:
                print(f"  {path.name}: {name} moves the logits by {moved:.2g} only")


def make(name):
    family, options, grown = (*CASES[name], 0)[:3]
    path = OUT / name
    shutil.rmtree(path, ignore_errors=True)
    torch.manual_seed(sum(name.encode()))
    base = base_model(family, grown)
    if not grown:  # PEFT compares a vocabulary with the one of the directory that the base came from
        base.config._name_or_path = base.name_or_path = ""
    peft = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **options))
    tied = options.get("ensure_weight_tying") or name == "grown-tied-auto"
    tensors = save_adapter(peft, path, family, tied)
    logits = logits_of(load(family, path, grown))
    if not tied:
        check_matters(family, path, tensors, logits, grown)
    (path / "logits.bin").write_bytes(logits.numpy().tobytes())
    print(f"{name}: {family}, {len(tensors)} tensors, {sum(f.stat().st_size for f in path.iterdir())} bytes")
    if os.environ.get("SHOW"):
        for n, t in tensors.items():
            print("   ", n, list(t.shape))


def make_nf4():
    import bitsandbytes.functional as functional

    # Rows of whole blocks: on the CPU bitsandbytes 0.50.2 dequantizes shorter rows wrongly.
    width, path = 64, OUT / "nf4"
    shutil.rmtree(path, ignore_errors=True)
    (path / "base").mkdir(parents=True)
    torch.manual_seed(4)
    config = AutoConfig.for_model("llama", hidden_size=width, intermediate_size=width, num_attention_heads=4,
                                  num_key_value_heads=4, num_hidden_layers=2, vocab_size=32, max_position_embeddings=64)
    model = AutoModelForCausalLM.from_config(config).eval()
    peft = get_peft_model(model, LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
    save_adapter(peft, path, "base")
    tensors, merged = {}, {}
    for name, tensor in AutoModelForCausalLM.from_config(config).state_dict().items():
        if not name.endswith("_proj.weight"):
            tensors[name] = tensor.half()
            continue
        dtype = torch.bfloat16 if ".layers.1." in name else torch.float16
        packed, state = functional.quantize_4bit(tensor.to(dtype), blocksize=64, compress_statistics=True, quant_type="nf4")
        tensors[name] = packed
        for key, value in state.as_dict(packed=True).items():
            tensors[f"{name}.{key}"] = value
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_config(config), path, torch_device="cpu")
    for name, tensor in tensors.items():
        if not name.endswith("_proj.weight"):
            continue
        state = functional.QuantState.from_dict(
            {k[len(name) + 1:]: v for k, v in tensors.items() if k.startswith(name + ".")}, torch.device("cpu"))
        result = functional.dequantize_4bit(tensor, state)
        module = peft.get_submodule("base_model.model." + name[: -len(".weight")])
        if hasattr(module, "get_delta_weight"):
            result = (result.float() + module.get_delta_weight("default").detach()).to(result.dtype)
        merged[name] = hashlib.sha256(result.contiguous().view(torch.int16).numpy().tobytes()).hexdigest()
    save_file({n: t.contiguous() for n, t in tensors.items()}, path / "base/model.safetensors", metadata={"format": "pt"})
    config = json.loads(config.to_json_string())
    config.update(architectures=["LlamaForCausalLM"], dtype="float16")
    config["quantization_config"] = {
        "quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": "float16", "bnb_4bit_quant_storage": "uint8"}
    (path / "base/config.json").write_text(json.dumps(config, indent=2) + "\n")
    (path / "merged.json").write_text(json.dumps(merged, indent=1) + "\n")


for case in sys.argv[1:] or CASES:
    make(case)
make_nf4()
