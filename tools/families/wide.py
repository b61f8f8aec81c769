"""Checkpoints of the cases of tests/golden/families, four times as wide, so that every linear fits the GPTQ layout. Needs what
tools/make_family_goldens.py needs."""
import json

import make_family_goldens as goldens  # first: it makes transformers quiet
import transformers
from families import remote
from safetensors.torch import save_file

WIDER = 4
SIZES = ("hidden_size intermediate_size intermediate_size_mlp head_dim n_embd n_inner ffn_dim word_embed_proj_dim d_model "
         "ffn_hidden_size moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size kv_lora_rank q_lora_rank "
         "qk_rope_head_dim qk_nope_head_dim v_head_dim rotary_dim out_hidden_size").split()


def wider(config):
    """config.json of a golden with heads of four times the width; the delta rule has more heads instead, one row each."""
    if not isinstance(config, dict):
        return config
    out = {}
    for key, value in config.items():
        if key == "vision_config":
            out[key] = {**value, **({"out_hidden_size": value["out_hidden_size"] * WIDER} if "out_hidden_size" in value else {})}
        elif key in SIZES and isinstance(value, int):
            out[key] = value * WIDER
        elif key in ("linear_num_key_heads", "linear_num_value_heads"):
            out[key] = value * 8
        elif key in ("short_factor", "long_factor"):
            out[key] = [f for f in value for _ in range(WIDER)]
        elif key == "query_pre_attn_scalar" and value == config.get("head_dim"):
            out[key] = value * WIDER
        elif key == "mrope_section":
            out[key] = [n * WIDER for n in value]
        else:
            out[key] = wider(value)
    return out


def make_checkpoint(entry, folder):
    """The wide form of a golden's case; FP8 is taken as it lies."""
    name, golden = entry["name"], goldens.OUT / entry["name"]
    remote.H, remote.I = 32 * WIDER, 64 * WIDER
    folder.mkdir()
    config = json.loads((golden / "config.json").read_text())
    if "quantization_config" not in config:
        config = wider(config)
        (folder / "config.json").write_text(json.dumps(config))
        if name in remote.FORWARDS:
            save_file(remote.fill(name, config), folder / "model.safetensors", metadata={"format": "pt"})
        else:
            case = goldens.case_of(name)
            model = goldens.auto_class(case).from_config(transformers.AutoConfig.from_pretrained(folder))
            goldens.fill(model, case)
            model.save_pretrained(folder)
    else:
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "model.safetensors").write_bytes((golden / "model.safetensors").read_bytes())
