#!/usr/bin/env python3
"""Trains a small LoRA adapter beside a frozen base and saves it as PEFT does: the first step of fine-tuned in NF4 -> merged -> GPTQ.

Needs (in a virtual environment): peft 0.21.2, torch 2.15.0 (CPU), transformers 5.24.0.

  bench quantize MODEL -m nf4 -o MODEL-nf4
  bench convert MODEL-nf4 --to f16 -o MODEL-nf4-dense     # the values that bitsandbytes' kernels multiply with
  OMP_NUM_THREADS=1 train_adapter.py MODEL-nf4-dense TEXT ADAPTER [--steps 60] [--minutes 15] [--base NAME]

The base is frozen, so training beside its dequantized weights in float32 is training beside NF4; no GPU and no bitsandbytes are
needed; on a busy machine one thread trains faster than two that wait for each other. Windows of the text are taken at seeded places, the learning rate falls linearly, and --minutes ends the run early. The
losses are printed; the same machine, threads and steps give the same adapter.
"""
import argparse
import json
import os
import pathlib
import time
import warnings

warnings.filterwarnings("ignore")
os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1")

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model")
parser.add_argument("text")
parser.add_argument("out")
parser.add_argument("--base", help="what adapter_config.json calls the base")
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--minutes", type=float, default=15)
parser.add_argument("--tokens", type=int, default=256, help="of a window")
parser.add_argument("--windows", type=int, default=2, help="of a step")
parser.add_argument("--rank", type=int, default=8)
parser.add_argument("--rate", type=float, default=2e-3)
args = parser.parse_args()

torch.manual_seed(0)
ids = AutoTokenizer.from_pretrained(args.model)(pathlib.Path(args.text).read_text(), return_tensors="pt").input_ids[0]
model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=args.rank, lora_alpha=2 * args.rank, target_modules="all-linear"))
weights = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(weights, lr=args.rate, weight_decay=0.0)
model.train()
started = time.monotonic()
for step in range(args.steps):
    spent = (time.monotonic() - started) / 60
    if spent > args.minutes:
        break
    rate = args.rate * min(1 - step / args.steps, max(0.05, 1 - spent / args.minutes), (step + 1) / 5)
    for group in optimizer.param_groups:
        group["lr"] = rate
    at = torch.randint(0, len(ids) - args.tokens, (args.windows,)).tolist()
    batch = torch.stack([ids[i : i + args.tokens] for i in at])
    loss = model(input_ids=batch, labels=batch, use_cache=False).loss
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    print(f"step {step + 1}: loss {loss.item():.4f}, {(time.monotonic() - started) / 60:.1f} min", flush=True)
model.save_pretrained(args.out)
out = pathlib.Path(args.out)
(out / "README.md").unlink(missing_ok=True)
config = json.loads((out / "adapter_config.json").read_text())
config["base_model_name_or_path"] = args.base or pathlib.Path(args.model).name
(out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
