#!/usr/bin/env python3
"""Trains small OPT, BLOOM, Qwen2 and GPT-NeoX models with tokenizers of their families' form, and records what transformers
computes of them.

Needs (in a virtual environment): torch 2.15.0 (CPU), transformers 5.24.0, tokenizers 0.23.3, safetensors 0.8.0, numpy 2.4.6.

  train_small.py qwen2 bloom opt                 train into tests/golden/trained/NAME; or neox
  train_small.py --out DIR --steps 300 bloom     elsewhere, shorter
  train_small.py --check [NAME...]               computes reference.json again from the files and compares; a few seconds

Takes: 8 minutes of one core (AVX-512) a model, 1 GB of memory. The best state so far is on the disk after every 200 steps,
so an interrupted run leaves a model; run it with nice. Seeds are fixed; another processor or library rounds differently and
ends at another model of the same quality.
Reads: text for training, by default ../shared/data (1 MB of wikitext2, CC BY-SA 3.0; 2.3 MB of C4, ODC-BY); the evaluation
text is committed beside the models (text.txt, its licence in README.md) and is not in what is trained on.
Gives: float16 weights. reference.json holds transformers' numbers on them in float32: perplexity of text.txt under gptq-256,
the mean loss of every window, the root mean square of the first window's logits; and for orientation the perplexity after
plain rounding to 4 and 3 bits, groups of 128.
"""
import argparse
import hashlib
import json
import math
import os
import pathlib
import time

os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, decoders, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM

transformers.utils.logging.disable_progress_bar()
ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "tests/golden/trained"
SHARED = ROOT.parent / "shared/data"
VOCABULARY, CONTEXT, BATCH, WARMUP, PEAK_RATE, DECAY, STEPS = 1024, 256, 8, 100, 4e-3, 0.05, 1500
SIZE = dict(vocab_size=VOCABULARY, tie_word_embeddings=True)
GPT2_WORDS = dict(add_prefix_space=False, trim_offsets=True)
QWEN2_WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
               r"|\s*[\r\n]+|\s+(?!\S)|\s+")
BLOOM_WORDS = r" ?[^(\s|[.,!?…。，、।۔،])]+"


# ---------------------------------------------------------------- families: config, and the form of the tokenizer


def special(content):
    return AddedToken(content, normalized=False, special=True)


def opt_tokenizer(t):
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.post_processor = processors.TemplateProcessing(single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", 2)])
    return ["<s>", "<pad>", "</s>", "<unk>"]


def bloom_tokenizer(t):
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(BLOOM_WORDS), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    return ["<unk>", "<s>", "</s>", "<pad>"]


def neox_tokenizer(t):
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.ByteLevel(**GPT2_WORDS)
    t.post_processor = processors.ByteLevel(**GPT2_WORDS)
    return ["<|endoftext|>", "<|padding|>"]


def qwen2_tokenizer(t):
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2_WORDS), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    return []  # Qwen2's special pieces stand behind the vocabulary, not in it


FAMILIES = {
    "opt": (opt_tokenizer, dict(model_type="opt", hidden_size=128, ffn_dim=512, num_hidden_layers=3, num_attention_heads=4,
                                word_embed_proj_dim=128, max_position_embeddings=CONTEXT, dropout=0.0, bos_token_id=2,
                                eos_token_id=2, pad_token_id=1)),
    "bloom": (bloom_tokenizer, dict(model_type="bloom", hidden_size=128, n_layer=3, n_head=4, bos_token_id=1, eos_token_id=2,
                                    pad_token_id=3)),
    "neox": (neox_tokenizer, dict(model_type="gpt_neox", hidden_size=128, intermediate_size=512, num_hidden_layers=3,
                                  num_attention_heads=4, max_position_embeddings=CONTEXT, tie_word_embeddings=False,
                                  rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.25),
                                  bos_token_id=0, eos_token_id=0)),
    "qwen2": (qwen2_tokenizer, dict(model_type="qwen2", hidden_size=128, intermediate_size=384, num_hidden_layers=3,
                                    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=CONTEXT,
                                    rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
                                    bos_token_id=VOCABULARY - 3, eos_token_id=VOCABULARY - 3)),
}
QWEN2_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def train_tokenizer(name, text):
    tokenizer = Tokenizer(models.BPE())
    specials = FAMILIES[name][0](tokenizer)
    tokenizer.decoder = decoders.ByteLevel()
    behind = QWEN2_SPECIALS if name == "qwen2" else []
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - len(behind), special_tokens=[special(s) for s in specials],
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    tokenizer.add_special_tokens([special(s) for s in behind])
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise SystemExit(f"{name}: {tokenizer.get_vocab_size()} pieces came out, not {VOCABULARY}")
    return tokenizer


def tokenizer_config(name):
    bos, eos = dict(opt=("</s>", "</s>"), bloom=("<s>", "</s>")).get(name, ("<|endoftext|>", "<|endoftext|>"))
    return dict(tokenizer_class="PreTrainedTokenizerFast", bos_token=bos, eos_token=eos, model_max_length=CONTEXT,
                clean_up_tokenization_spaces=False)


def make_model(name):
    torch.manual_seed(0)
    keys = {**SIZE, **FAMILIES[name][1]}
    config = AutoConfig.for_model(keys.pop("model_type"), **keys)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager")


# ---------------------------------------------------------------- text and measure


def training_text(paths):
    def read(path):
        if path.suffix != ".jsonl":
            return path.read_text()
        return "\n\n".join(json.loads(line)["text"] for line in path.read_text().splitlines())
    return "\n\n".join(read(path) for path in paths)


def encode_stream(tokenizer, text, piece=1 << 16):
    """Ids of a long text without special tokens; cut at line ends, where no piece of these vocabularies goes across."""
    lines, ids, part = text.splitlines(keepends=True), [], ""
    for line in lines:
        part += line
        if len(part) > piece:
            ids, part = ids + tokenizer.encode(part, add_special_tokens=False).ids, ""
    return torch.tensor(ids + tokenizer.encode(part, add_special_tokens=False).ids)


@torch.no_grad()
def window_losses(model, ids):
    """Protocol gptq-256: disjoint windows, the remainder dropped, the mean loss of each window's tokens but its first."""
    windows = ids[: len(ids) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    losses = []
    for batch in windows.split(16):
        logits = model(batch, use_cache=False).logits[:, :-1].double()
        losses += F.cross_entropy(logits.transpose(1, 2), batch[:, 1:], reduction="none").mean(1).tolist()
    return losses


def perplexity(model, ids):
    losses = window_losses(model, ids)
    return math.exp(sum(losses) / len(losses))


# ---------------------------------------------------------------- training


def train(model, stream, held_out, steps, keep):
    decayed = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}],
                                  betas=(0.9, 0.98))
    draw, best, began = torch.Generator().manual_seed(0), math.inf, time.time()
    for step in range(steps):
        done = max(0, step - WARMUP) / max(1, steps - WARMUP)
        rate = PEAK_RATE * min((step + 1) / WARMUP, 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(stream) - CONTEXT, (BATCH, 1), generator=draw)
        batch = stream[starts + torch.arange(CONTEXT)]
        if model.config.model_type == "opt":
            batch[: BATCH // 2, 0] = model.config.bos_token_id
        logits = model(batch, use_cache=False).logits[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 200 == 0 or step + 1 == steps:
            model.eval()
            now = perplexity(model, held_out)
            model.train()
            spent = time.time() - began
            print(f"step {step + 1} loss {loss.item():.4f} held-out perplexity {now:.3f} {spent:.0f} s", flush=True)
            if now < best:
                best = now
                keep(model)


def save(model, folder):
    """As save_pretrained writes it, in float16."""
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tensors = {name: t.half() for name, t in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}, indent=2) + "\n")


def make(name, out, sources, steps):
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    text = training_text(sources)
    tokenizer = train_tokenizer(name, text)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(name), indent=2, ensure_ascii=False) + "\n")
    cut = len(text) - 60_000
    stream, held_out = encode_stream(tokenizer, text[:cut]), encode_stream(tokenizer, text[cut:])
    print(f"{name}: {len(stream)} training tokens, {len(text[:cut].encode()) / len(stream):.2f} bytes a token", flush=True)
    model = make_model(name)
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    train(model, stream, held_out, steps, lambda m: save(m, folder))
    (folder / "reference.json").write_text(json.dumps(measure(name, folder), indent=1) + "\n")


# ---------------------------------------------------------------- reference numbers


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                local_files_only=True).eval()


def nine(x):
    return float("%.9g" % x)


def round_to_nearest(weight, bits, group=128):
    """The paper's symmetric grid, fitted to each group of a row."""
    w, top = weight.view(-1, group), 2**bits - 1
    scale = (2 * w.abs().amax(1, keepdim=True) / top).clamp(min=1e-12)
    codes = (torch.round(w / scale) + (top + 1) / 2).clamp(0, top)
    return ((codes - (top + 1) / 2) * scale).view_as(weight)


def rounded_perplexity(folder, ids, bits):
    model = load(folder)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings():
                module.weight.copy_(round_to_nearest(module.weight.data, bits))
    return perplexity(model, ids)


def measure(name, folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode((OUT / "text.txt").read_text()).ids
    tensor, model = torch.tensor(ids), load(folder)
    losses = window_losses(model, tensor)
    with torch.no_grad():
        logits = model(tensor[None, :CONTEXT], use_cache=False).logits.double()
    print(f"{name}: {len(ids)} tokens, perplexity {math.exp(sum(losses) / len(losses)):.4f}", flush=True)
    return dict(
        versions=dict(torch=torch.__version__.split("+")[0], transformers=transformers.__version__),
        text="text.txt", n_tokens=len(ids), first_ids=ids[:16],
        ids_sha256=hashlib.sha256(torch.tensor(ids, dtype=torch.int32).numpy().tobytes()).hexdigest(),
        protocol="gptq-256", perplexity=nine(math.exp(sum(losses) / len(losses))), window_losses=[nine(x) for x in losses],
        first_window_logits_rms=nine(logits.square().mean().sqrt().item()),
        n_params=sum(p.numel() for p in model.parameters()),
        rounded_perplexity={str(bits): float("%.4g" % rounded_perplexity(folder, tensor, bits)) for bits in (4, 3)},
    )


def check(names, out):
    for name in names or sorted(p.parent.name for p in out.glob("*/reference.json")):
        was, now = json.loads((out / name / "reference.json").read_text()), measure(name, out / name)
        far = max(abs(a / b - 1) for a, b in zip([was["perplexity"], was["first_window_logits_rms"], *was["window_losses"]],
                                                 [now["perplexity"], now["first_window_logits_rms"], *now["window_losses"]]))
        if far > 1e-5 or was["ids_sha256"] != now["ids_sha256"]:
            raise SystemExit(f"{name}: differs from reference.json by {far:.2g}, or its ids do")
        print(f"{name}: agrees within {far:.2g}; rounded to nearest {now['rounded_perplexity']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FAMILIES))
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--text", type=pathlib.Path, nargs="+",
                        default=[SHARED / "c4/c4-train.sample.jsonl", SHARED / "wikitext2/wiki.train.head.raw"])
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.check:
        return check(args.names, args.out)
    for name in args.names or parser.error("name a family"):
        make(name, args.out, args.text, args.steps)


if __name__ == "__main__":
    main()
