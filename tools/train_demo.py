#!/usr/bin/env python3
"""Makes bench/demo: texts of the synthetic language, their entropy, a tokenizer, a small Llama trained on the language.

Needs: what tools/install_deps.sh quick installs (for tools/corpus); Python 3.11, torch 1.13, tokenizers 0.23,
       safetensors 0.8. Run from the root of the checkout:
           nice tools/train_demo.py                     # everything, into bench/demo
           nice tools/train_demo.py --check             # only measures the model that is there: 16 bit and rounded
Takes: 15 minutes of one core (AVX-512) and 1.7 GB of memory.
Gives: perplexity 8.16 on test.txt (protocol gptq-256), 3.9 % above the floor of 7.85 that the text's entropy sets. Seeds are
       fixed; another BLAS or processor rounds differently and ends at another model of the same quality.
"""

import argparse
import json
import math
import os
import pathlib
import subprocess
import tempfile
import time

# Before torch loads its OpenBLAS: one thread, and on processors newer than the library, which it takes for a Pentium 4 and
# serves three to five times slower, the newest kernels it has.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
if "avx512vl" in pathlib.Path("/proc/cpuinfo").read_text():
    os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

LANGUAGE = 1
TEXTS = {"train": (1, 250_000), "test": (2, 150_000)}  # name: (seed, least bytes); committed
STREAM = (1001, 24_000_000)  # what the model reads; made anew by every training
VALIDATION = (1002, 200_000)
VOCABULARY = 1024
CONTEXT, BATCH, WARMUP, PEAK_RATE, DECAY = 256, 8, 100, 4e-3, 0.01
SCHEDULE, STOP = 3600, 2700  # steps: the cosine is laid over more than are run; the floor is near enough by then
SPREAD = 0.5  # see spread(); 0 keeps the model as it was trained
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 384,
    "max_position_embeddings": CONTEXT,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_cache": True,
    "vocab_size": VOCABULARY,
}
ROOT = pathlib.Path(__file__).resolve().parent.parent


# ---------------------------------------------------------------- texts


def build_generator():
    for command in (["cmake", "--preset", "release"], ["cmake", "--build", "--preset", "release", "--target", "make_corpus"]):
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return ROOT / "build/bin/make_corpus"


def generate(program, seed, size, path):
    printed = subprocess.run([program, str(LANGUAGE), str(seed), str(size), path], check=True, stdout=subprocess.PIPE)
    return json.loads(printed.stdout)


# ---------------------------------------------------------------- tokenizer, in the form of Llama 2's tokenizer.json


def train_tokenizer(text):
    specials = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    # Pieces are learnt inside words; the finished tokenizer has no pre-tokenizer and needs none, as no merge crosses.
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "removed"), pre_tokenizers.Split(Regex("▁?[A-Za-z]+"), "isolated")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=specials + [f"<0x{byte:02X}>" for byte in range(256)],
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    trained = json.loads(tokenizer.to_str())["model"]

    def added(index, content):
        return {"id": index, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True}

    def sequence(name, kind):
        return [{"SpecialToken": {"id": "<s>", "type_id": kind}}, {"Sequence": {"id": name, "type_id": kind}}]

    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added(i, name) for i, name in enumerate(specials)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": sequence("A", 0),
            "pair": sequence("A", 0) + sequence("B", 1),
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": trained["vocab"],
            "merges": [m if isinstance(m, str) else " ".join(m) for m in trained["merges"]]},
    }


def encode_stream(tokenizer, text, piece=1 << 18):
    """Ids of a long text without <s>: cut at paragraph ends, each piece led by its line end so that the prepended
    space stays alone and can be dropped."""
    ids, start = [], 0
    while start < len(text):
        end = text.find("\n", start + piece)
        end = len(text) if end < 0 else end
        led = text[start:end] if start else "\n" + text[start:end]
        ids += tokenizer.encode(led, add_special_tokens=False).ids[1:]
        start = end
    return torch.tensor(ids)


# ---------------------------------------------------------------- model


class Block(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        d, f = c["hidden_size"], c["intermediate_size"]
        self.h, self.kv, self.dh = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]

        def linear(cols, rows):
            return torch.nn.Linear(cols, rows, bias=False)

        self.input_layernorm, self.post_attention_layernorm = (torch.nn.Parameter(torch.ones(d)) for _ in range(2))
        self.q_proj, self.k_proj = linear(d, self.h * self.dh), linear(d, self.kv * self.dh)
        self.v_proj, self.o_proj = linear(d, self.kv * self.dh), linear(self.h * self.dh, d)
        self.gate_proj, self.up_proj, self.down_proj = linear(d, f), linear(d, f), linear(f, d)

    def forward(self, x, cos, sin, mask, eps):
        b, t, d = x.shape

        def rotate(y):  # the halves of a head turn against each other
            low, high = y.chunk(2, -1)
            return y * cos + torch.cat([-high, low], -1) * sin

        n = norm(x, self.input_layernorm, eps)
        q = rotate(self.q_proj(n).view(b, t, self.h, self.dh).transpose(1, 2))
        k = rotate(self.k_proj(n).view(b, t, self.kv, self.dh).transpose(1, 2))
        v = self.v_proj(n).view(b, t, self.kv, self.dh).transpose(1, 2)
        k, v = (y.repeat_interleave(self.h // self.kv, 1) for y in (k, v))
        scores = q @ k.transpose(2, 3) * self.dh**-0.5 + mask
        x = x + self.o_proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, -1))
        n = norm(x, self.post_attention_layernorm, eps)
        return x + self.down_proj(F.silu(self.gate_proj(n)) * self.up_proj(n))


def norm(x, weight, eps):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


class Llama(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed_tokens = torch.nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = torch.nn.ModuleList(Block(c) for _ in range(c["num_hidden_layers"]))
        self.norm = torch.nn.Parameter(torch.ones(c["hidden_size"]))
        self.lm_head = torch.nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                torch.nn.init.normal_(p, std=0.02 if not deep else 0.02 / math.sqrt(2 * c["num_hidden_layers"]))
        half = c["head_dim"] // 2
        angles = torch.arange(CONTEXT)[:, None] * c["rope_theta"] ** (-torch.arange(half) / half)
        self.cos, self.sin = (torch.cat([f(angles)] * 2, -1) for f in (torch.cos, torch.sin))
        self.mask = torch.full((CONTEXT, CONTEXT), -torch.inf).triu(1)

    def forward(self, ids):
        t = ids.shape[1]
        x = self.embed_tokens(ids)
        for block in self.layers:
            x = block(x, self.cos[:t], self.sin[:t], self.mask[:t, :t], self.c["rms_norm_eps"])
        return self.lm_head(norm(x, self.norm, self.c["rms_norm_eps"]))

    def tensors(self):
        """Under Hugging Face's names."""
        out = {}
        for name, p in self.named_parameters():
            if name.endswith("_proj.weight"):
                part = "mlp" if name.split(".")[2] in ("gate_proj", "up_proj", "down_proj") else "self_attn"
                name = name.replace(name.split(".")[2], f"{part}.{name.split('.')[2]}")
            elif "norm" in name:
                name += ".weight"
            out[name if name.startswith("lm_head") else "model." + name] = p
        return out


def perplexity(model, ids):
    """Protocol gptq-256: disjoint windows, the mean of the windows' mean losses."""
    windows = ids[: len(ids) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    losses = []
    with torch.no_grad():
        for batch in windows.split(32):
            logits = model(batch)[:, :-1].double()
            losses += F.cross_entropy(logits.transpose(1, 2), batch[:, 1:], reduction="none").mean(1).tolist()
    return math.exp(sum(losses) / len(losses))


# ---------------------------------------------------------------- training


def train(model, stream, held_out, stop, keep):
    decayed = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}], betas=(0.9, 0.98))
    draw = torch.Generator().manual_seed(0)
    best, began = math.inf, time.time()
    for step in range(stop):
        done = max(0, step - WARMUP) / (SCHEDULE - WARMUP)
        rate = PEAK_RATE * min((step + 1) / WARMUP, 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(stream) - CONTEXT, (BATCH, 1), generator=draw)
        batch = stream[starts + torch.arange(CONTEXT + 1)]
        batch[: BATCH // 4, 0] = CONFIG["bos_token_id"]  # protocols differ in where they put <s>
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 300 == 0 or step + 1 == stop:
            now = perplexity(model, held_out)
            spent = time.time() - began
            print(f"step {step + 1} loss {loss.item():.4f} held-out perplexity {now:.4f} {spent:.0f} s", flush=True)
            if now < best:
                best = now
                keep(model)


def spread(model, sigma=SPREAD):
    """Scales channels by log-normal factors and their counterparts by the inverse, which leaves the function as it is:
    the gains of the norms against the columns that read them, rows of up against columns of down, rows of v against columns
    of o. Trained long and wide, models come to such channels of unequal scale by themselves (they are what AWQ and
    SmoothQuant work on); this one is far too small and its task too easy for that, and would lose nothing at 4 bits."""
    draw = torch.Generator().manual_seed(0)
    c = model.c

    def factors(n):
        return torch.exp(sigma * torch.randn(n, generator=draw))

    with torch.no_grad():
        for b in model.layers:
            for gain, readers in ((b.input_layernorm, (b.q_proj, b.k_proj, b.v_proj)),
                                  (b.post_attention_layernorm, (b.gate_proj, b.up_proj))):
                s = factors(c["hidden_size"])
                gain /= s
                for linear in readers:
                    linear.weight *= s
            s = factors(c["intermediate_size"])
            b.up_proj.weight /= s[:, None]
            b.down_proj.weight *= s
            s = factors(b.kv * b.dh)
            b.v_proj.weight /= s[:, None]
            b.o_proj.weight *= s.view(b.kv, b.dh).repeat_interleave(b.h // b.kv, 0).flatten()


def round_to_nearest(weight, bits, group=128):
    """The paper's symmetric grid, fitted to each group of a row."""
    w = weight.view(-1, group)
    top = 2**bits - 1
    scale = 2 * w.abs().amax(1, keepdim=True) / top
    codes = (torch.round(w / scale) + (top + 1) / 2).clamp(0, top)
    return ((codes - (top + 1) / 2) * scale).view_as(weight)


def save(model, folder):
    half = {name: p.detach().half().contiguous() for name, p in model.tensors().items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)


def load(folder):
    model = Llama(CONFIG)
    stored = load_file(folder / "model.safetensors")
    with torch.no_grad():
        for name, p in model.tensors().items():
            p.copy_(stored[name])
    return model


def check(folder, tokenizer):
    model = load(folder)
    stored = {name: p.detach().clone() for name, p in model.tensors().items()}
    ids = torch.tensor(tokenizer.encode((folder / "test.txt").read_text()).ids)
    nll = json.loads((folder / "entropy.json").read_text())["test"]["nll_nats"]
    print(f"test.txt: {len(ids)} tokens with <s>; floor {math.exp(nll / (len(ids) - 1)):.4f}")
    for bits in (16, 8, 4, 3, 2):
        with torch.no_grad():
            for name, p in model.tensors().items():
                w = stored[name]
                p.copy_(round_to_nearest(w, bits) if bits < 16 and "_proj" in name else w)
        print(f"{bits:2d} bit: perplexity {perplexity(model, ids):.4f}")


def finish(folder, tokenizer):
    model = load(folder)
    spread(model)
    save(model, folder)
    print(f"channels spread by {SPREAD}")
    check(folder, tokenizer)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/demo")
    parser.add_argument("--stop", type=int, default=STOP, metavar="STEPS")
    parser.add_argument("--check", action="store_true", help="measure the model in --out, make nothing")
    parser.add_argument("--finish", action="store_true", help="behind a training that was cut off: spread, measure")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    out = args.out
    out.mkdir(parents=True, exist_ok=True)
    if args.check or args.finish:
        (check if args.check else finish)(out, Tokenizer.from_file(str(out / "tokenizer.json")))
        return
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        program = build_generator()
        made = {name: generate(program, *spec, out / f"{name}.txt") for name, spec in TEXTS.items()}
        generate(program, *STREAM, scratch / "stream.txt")
        generate(program, *VALIDATION, scratch / "held_out.txt")
        stream, held_out = ((scratch / f"{name}.txt").read_text() for name in ("stream", "held_out"))
    entropy = {"language_seed": LANGUAGE, "entropy_per_word_nats": made["test"]["entropy_per_word_nats"]}
    for name, m in made.items():
        entropy[name] = {k: m[k] for k in ("seed", "min_bytes", "bytes", "paragraphs", "words", "nll_nats", "sha256")}
    write_json(out / "entropy.json", entropy)
    write_json(out / "tokenizer.json", train_tokenizer(stream[:4_000_000]))
    write_json(out / "tokenizer_config.json", {
        "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "clean_up_tokenization_spaces": False,
        "eos_token": "</s>", "legacy": False, "model_max_length": CONTEXT, "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>"})
    write_json(out / "special_tokens_map.json", {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    write_json(out / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    write_json(out / "config.json", CONFIG)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    stream, held_out = (encode_stream(tokenizer, text) for text in (stream, held_out))
    print(f"{len(stream)} training tokens", flush=True)

    train(Llama(CONFIG), stream, held_out, args.stop, lambda model: save(model, out))
    check(out, tokenizer)
    finish(out, tokenizer)


if __name__ == "__main__":
    main()
