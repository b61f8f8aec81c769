#!/usr/bin/env python3
"""Makes tests/golden/families: a tiny checkpoint of every decoder family and variant, with its reference logits of 64 tokens.

Needs (in a virtual environment): torch 2.15.0 (CPU), transformers 5.24.0, safetensors 0.8.0, numpy 2.4.6; accelerate 1.15.0
for the case in FP8.

  make_family_goldens.py                 makes every case again; takes 25 seconds of one core, 1 GB of memory
  make_family_goldens.py NAME...         makes these cases again, and the manifest
  make_family_goldens.py --check [NAME]  loads what is committed with transformers, computes the logits again and compares;
                                         takes 8 seconds of one core

The cases stand in families/cases.py; the two families whose code is not in transformers have their forward in
families/remote.py. Weights are seeded, random, multiples of 2^-8 (float16 holds them too, git packs them well), and of a size
that keeps the logits from being flat. Every feature that a case names is left out once: the case's tolerance is a tenth of the
least move of the logits, 1e-4 at most. float32 is compared with float64, so that no router sits on a tie.
"""
import argparse
import copy
import json
import os
import pathlib
import shutil
import sys
import tempfile
import warnings
import zlib

warnings.filterwarnings("ignore")
os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", OMP_NUM_THREADS="1")
ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
sys.dont_write_bytecode = True

import numpy as np
import safetensors
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from families import fp8, mxfp4, remote
from families.cases import CASES, SMALL

torch.set_num_threads(1)
OUT = ROOT / "tests/golden/families"
TOKENS = 64
IDS = torch.randint(3, SMALL["vocab_size"], (TOKENS,), generator=torch.Generator().manual_seed(5)).tolist()
TOLERANCE = 1e-4  # of the largest logit: what a float32 forward of anyone may differ by, where no feature is fainter
CLEAR = 10  # a feature left out moves the logits by this many tolerances at least
OFFSET_NORMS = ("gemma", "gemma2", "gemma3_text", "gemma3", "nemotron", "qwen3_next", "qwen3_5_text", "qwen3_5")  # (1 + w)


# ---------------------------------------------------------------- models


def make_config(case, **changes):
    kind = type(AutoConfig.for_model(case["model_type"]))
    if case["wrapper"]:
        return kind(**{k: v for k, v in copy.deepcopy(case["config"]).items() if k not in SMALL})
    names = dict(getattr(kind, "attribute_map", {}))
    known = set(kind().to_dict()) | set(names)
    given = {**case["config"], **changes}
    aliases = {alias for alias, name in names.items() if name in case["config"]}
    small = {k: v for k, v in given.items() if k not in SMALL or (k in known and k not in aliases)}
    return kind(**copy.deepcopy(small))


def auto_class(case):
    return AutoModelForImageTextToText if case["wrapper"] else AutoModelForCausalLM


def is_norm(name):
    return any(word in name for word in ("norm", "ln_", ".ln", "layernorm"))


def fill(model, case):
    """Seeded weights: linears keep the size of what they read, norms and biases are visible."""
    random = torch.Generator().manual_seed(zlib.crc32(case["name"].encode()))
    offset = case["model_type"] in OFFSET_NORMS
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, p in sorted(model.named_parameters()):
        value = torch.randn(p.shape, generator=random)
        inner = name.rsplit(".", 1)[-1]
        if inner == "A_log":
            value = value * 0.5 - 1.5  # a state that is remembered for some tokens
        elif inner in ("alpha_p", "alpha_n"):
            value = value * 0.5
        elif "sinks" in name:
            value = value * 1.5
        elif "conv1d" in name:
            value = value * 0.5
        elif is_norm(name) and inner == "weight":
            gated = "linear_attn.norm" in name  # the gated norm of the delta rule is a plain one
            value = value * 0.3 + (0.0 if offset and not gated else 1.0)
        elif inner.endswith("bias") or p.ndim == 1:
            value = value * 0.2
        elif is_embedding(model, name):
            value = value * (0.25 if tied or "pos" in name or "wpe" in name else 1.0)
        else:
            value = value * (case["gain"].get(inner, 1.4) * fan_in(model, name, p) ** -0.5)
        p.data.copy_(torch.round(value * 256) / 256)


def is_embedding(model, name):
    owner = model.get_submodule(name.rsplit(".", 1)[0])
    return isinstance(owner, torch.nn.Embedding)


def fan_in(model, name, p):
    owner = model.get_submodule(name.rsplit(".", 1)[0])
    transposed = type(owner).__name__ in ("Conv1D", "GptOssExperts", "Llama4TextExperts")
    return p.shape[-2] if transposed else p.shape[-1]


def build(case, **changes):
    config = make_config(case, **changes)
    return auto_class(case).from_config(config, attn_implementation=case["impl"], experts_implementation="eager")


@torch.no_grad()
def logits_of(model, dtype=torch.float32):
    return model.to(dtype).eval()(torch.tensor([IDS]), use_cache=False).logits[0].double()


def load(folder, case):
    return auto_class(case).from_pretrained(folder, attn_implementation=case["impl"], experts_implementation="eager",
                                                dtype=torch.float32, local_files_only=True)


def distance(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def perplexity(logits):
    target = torch.tensor(IDS[1:])
    return torch.nn.functional.cross_entropy(logits[:-1], target).exp().item()


# ---------------------------------------------------------------- one case


def shown(case, model, reference):
    """How far the logits move when a feature is left out, by feature."""
    moved = {}
    for feature, changes in case["shows"].items():
        other = build(case, **changes)
        other.load_state_dict(model.state_dict())
        moved[feature] = float("%.3g" % distance(logits_of(other), reference))
    return moved


def write_old(folder, case, reference):
    """config-old.json: the same model in the older spelling of its keys, opened by transformers to the same logits."""
    config = case["old"](json.loads((folder / "config.json").read_text()))
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    if case["old_opens"]:
        with tempfile.TemporaryDirectory() as other:
            shutil.copy(folder / "model.safetensors", other)
            (pathlib.Path(other) / "config.json").write_text(text)
            moved = distance(logits_of(load(other, case)), reference)
        if moved > 1e-6:
            raise SystemExit(f"{case['name']}: the old spelling gives other logits ({moved:.2g})")
    (folder / "config-old.json").write_text(text)


def rewrite(folder):
    """The file without metadata of its writer's version; config.json with one newline at its end."""
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = (folder / "config.json").read_text().rstrip("\n") + "\n"
    (folder / "config.json").write_text(config)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return json.loads(config), tensors


def group_of(tensors):
    """The largest group size up to 32 that divides the columns of every matrix of a block."""
    group = 32
    for name, t in tensors.items():
        other = is_norm(name) or any(word in name for word in ("conv1d", "vision", "visual"))
        if t.ndim >= 2 and ".weight" in name and any(c.isdigit() for c in name) and not other:
            while min(t.shape[-2:]) > 1 and t.shape[-1] % group:
                group //= 2
    return group


def make(case):
    folder = OUT / case["name"]
    folder.mkdir(parents=True, exist_ok=True)
    for stale in ("config-old.json", "model.gguf"):
        (folder / stale).unlink(missing_ok=True)
    model = build(case)
    fill(model, case)
    model.save_pretrained(folder)
    config, tensors = rewrite(folder)
    loaded = load(folder, case)
    reference = logits_of(loaded)
    entry = dict(name=case["name"], family=case["model_type"], architecture=config["architectures"][0],
                 vocab_size=reference.shape[1], group=group_of(tensors), n_params=sum(t.numel() for t in tensors.values()),
                 reference="transformers")
    entry.update(measure(case, model, reference))
    if case["old"]:
        write_old(folder, case, reference)
        entry["config_old"] = True
    store(folder, reference)
    return entry


def measure(case, model, reference):
    drift = distance(logits_of(model, torch.float64), reference) if case["double"] else 0.0
    model.float()
    moved = shown(case, model, reference)
    tolerance = min(TOLERANCE, *(by / CLEAR for by in moved.values()), 1.0)
    std = reference.std().item()
    if drift > tolerance / 4 or not 0.6 < std < 5:
        raise SystemExit(f"{case['name']}: float32 is {drift:.2g} from float64, logits' std {std:.2g}, features {moved}")
    entry = dict(attention=case["impl"], logits_std=float("%.3g" % std), tolerance=float("%.1g" % tolerance),
                 float64_distance=float("%.2g" % drift) if case["double"] else None,
                 perplexity=float("%.9g" % perplexity(reference)), features=moved)
    if case["note"]:
        entry["note"] = case["note"]
    return entry


def store(folder, logits):
    logits.numpy().astype("<f4").tofile(folder / "logits.bin")


# ---------------------------------------------------------------- all of them


def makers():
    table = {case["name"]: (lambda c=case: make(c)) for case in CASES}
    for name in remote.FORWARDS:
        table[name] = lambda n=name: remote.make(n, OUT / n, IDS, store, measure_remote)
    table["gpt-oss-mxfp4"] = lambda: mxfp4.make(OUT / "gpt-oss", OUT / "gpt-oss-mxfp4", case_of("gpt-oss"), build, logits_of, store,
                                               measure)
    table["qwen3-fp8"] = lambda: fp8.make(OUT / "qwen3", OUT / "qwen3-fp8", case_of("qwen3"), load, logits_of, store, measure)
    return table


def case_of(name):
    return next(c for c in CASES if c["name"] == name)


def measure_remote(name, logits32, logits64):
    drift, std = distance(logits32, logits64), logits64.std().item()
    if drift > TOLERANCE / 4 or not 0.6 < std < 5:
        raise SystemExit(f"{name}: float32 is {drift:.2g} from float64, logits' std {std:.2g}")
    return dict(logits_std=float("%.3g" % std), tolerance=TOLERANCE, float64_distance=float("%.2g" % drift),
                perplexity=float("%.9g" % perplexity(logits32)))


def write_manifest(entries):
    versions = dict(torch=torch.__version__.split("+")[0], transformers=transformers.__version__,
                    safetensors=safetensors.__version__, numpy=np.__version__)
    head = dict(made_by="tools/make_family_goldens.py", versions=versions, ids=IDS)
    lines = ",\n".join("  " + json.dumps(entries[name], ensure_ascii=False) for name in sorted(entries))
    text = "{" + json.dumps(head)[1:-1] + ',\n "cases": [\n' + lines + "\n ]}\n"
    (OUT / "manifest.json").write_text(text)


def read_manifest():
    path = OUT / "manifest.json"
    return {e["name"]: e for e in json.loads(path.read_text())["cases"]} if path.exists() else {}


def check(names):
    """Recomputes the logits of what is committed: transformers' from the files alone, ours from families/remote.py."""
    worst = 0.0
    for name, entry in read_manifest().items():
        if names and name not in names:
            continue
        folder = OUT / name
        want = torch.from_numpy(np.fromfile(folder / "logits.bin", "<f4")).view(TOKENS, entry["vocab_size"]).double()
        if name in remote.FORWARDS:
            got = remote.forward(name, folder, IDS, torch.float32)
        elif name == "gpt-oss-mxfp4":
            got = mxfp4.forward(folder, case_of("gpt-oss"), build, logits_of)
        else:
            got = logits_of(load(folder, case_of(name.removesuffix("-fp8"))))
        far = distance(got, want)
        worst = max(worst, far)
        if far > TOLERANCE / 10:
            raise SystemExit(f"{name}: logits differ by {far:.2g} of the largest")
    print(f"{len(names) or len(read_manifest())} cases agree; largest distance {worst:.2g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--keep-going", action="store_true", help="name the cases that fail and go on")
    args = parser.parse_args()
    if args.check:
        return check(args.names)
    table, entries = makers(), read_manifest()
    entries = {name: e for name, e in entries.items() if name in table}
    for name in args.names or table:
        try:
            entries[name] = table[name]()
            print(json.dumps(entries[name]))
        except (SystemExit, Exception) as error:
            if not args.keep_going:
                raise
            print(f"FAILED {name}: {type(error).__name__} {error}")
    write_manifest(entries)


if __name__ == "__main__":
    main()
