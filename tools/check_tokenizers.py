#!/usr/bin/env python3
"""Compares ids with the reference libraries': random strings of many classes, and whole texts.
usage: check_tokenizers.py DUMP_IDS [-n STRINGS_A_CLASS] [--seed N] [--only CLASS] [--text FILE ...] TOKENIZER ...

TOKENIZER: a tokenizer.json (reference: tokenizers), a SentencePiece *.model (sentencepiece), a tekken.json (mistral-common), a tiktoken
file of Llama 3, Llama 4 or Qwen (tiktoken), a directory with vocab.json, merges.txt and a config that names the class (transformers).
DUMP_IDS is the build's bin/dump_ids. Results that are stated: tokenizers 0.23.3, sentencepiece 0.2.3, mistral-common 1.13.1, tiktoken
0.14.0, transformers 5.24.0. Prints for each tokenizer and class
how many strings differ, and the shortest that do; exit 1 when any does."""
import argparse, os, random, struct, subprocess, sys
import tokenizers

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

O200K = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {128000: LLAMA3, 151643: LLAMA3.replace("{1,3}", ""), 200000: O200K}  # by the number of a tiktoken file's ranks

ASCII = [chr(c) for c in range(32, 127)]
WORDS = "the of and a in to was is for on as with by he that at from his it an don't I'LL they've We'd rock'n'roll O'Neill".split()
SPACES = [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\u200b", "\u180e", "\x0b", "\x0c", "\x85", "   ", "\n\n", " \n "]

def code_points(low, high):
    def draw(r):
        while True:
            c = r.randint(low, high)
            if not 0xD800 <= c < 0xE000: return chr(c)
    return draw

def mixed(*draws):
    return lambda r: r.choice(draws)(r)

choice = lambda items: (lambda r: r.choice(items))
CLASSES = {  # what one unit of a string is
    "ascii": choice(ASCII),
    "words": mixed(choice(WORDS), choice([" "]), choice(ASCII), choice(SPACES)),
    "digits": mixed(choice("0123456789"), choice("0123456789"), choice(list("½²١१１Ⅷ①.,- ") )),
    "spaces": mixed(choice(SPACES), choice(SPACES), choice(list("aB1.\u4e00é"))),
    "punctuation": mixed(choice([c for c in ASCII if not c.isalnum()]), choice(list("…。，、।۔،“”‘’—–«»¿¡ a1"))),
    "contractions": mixed(choice(["'s", "'S", "'t", "'re", "'RE", "'ve", "'m", "'ll", "'Ll", "'d", "'\u017f", "’s"]), choice(WORDS), choice([" ", ""])),
    "latin": code_points(0xA0, 0x24F), "greek-cyrillic": code_points(0x370, 0x52F), "semitic": code_points(0x590, 0x7FF),
    "indic": code_points(0x900, 0xDFF), "southeast": code_points(0xE00, 0x18AF), "cjk": mixed(code_points(0x3000, 0x30FF), code_points(0x4E00, 0x9FFF)),
    "hangul": mixed(code_points(0x1100, 0x11FF), code_points(0xAC00, 0xD7A3)), "combining": mixed(choice(list("aeiouAEIOUnN한")), code_points(0x300, 0x36F), code_points(0x1AB0, 0x1AFF), code_points(0x591, 0x5BD)),
    "compatibility": mixed(code_points(0xF900, 0xFFEF), code_points(0x2460, 0x24FF), code_points(0x2150, 0x218F), code_points(0x1D400, 0x1D7FF)),
    "symbols": code_points(0x2000, 0x2BFF), "emoji": mixed(code_points(0x1F300, 0x1FAFF), choice(["\u200d", "\ufe0f", "\U0001F3FD", "👩‍👩‍👧", "🇩🇪"])),
    "bmp": code_points(0, 0xFFFF), "astral": code_points(0x10000, 0x1FFFF), "any": code_points(0, 0x10FFFF),
    "controls": mixed(code_points(1, 0x1F), code_points(0x7F, 0x9F), choice(ASCII)),
}

def strings(name, n, seed, added):
    r = random.Random(f"{name} {seed}")
    for _ in range(n):
        length = int(r.expovariate(1 / 12)) + 1
        parts = [CLASSES[name](r) for _ in range(length)]
        if added and r.random() < 0.3: parts.insert(r.randint(0, len(parts)), r.choice(added))
        if r.random() < 0.2: parts.insert(r.randint(0, len(parts)), r.choice(SPACES))
        yield "".join(parts)

def ours(program, path, texts, rule="file"):
    data = b"".join(struct.pack("<I", len(b)) + b for b in (t.encode() for t in texts))
    out = subprocess.run([program, path, rule], input=data, capture_output=True)
    if out.returncode: sys.exit(out.stderr.decode())
    return [[int(i) for i in line.split()] for line in out.stdout.decode().split("\n")[:-1]]

def shorten(text, differs):
    """The shortest string that still differs, by taking characters away."""
    changed = True
    while changed:
        changed = False
        for size in (8, 4, 2, 1):
            for i in range(0, len(text) - size + 1):
                shorter = text[:i] + text[i + size:]
                if shorter and differs(shorter): text, changed = shorter, True; break
            if changed: break
    return text

def reference_of(path):
    """(ids of a text, special tokens that it knows in text, rule for our program)"""
    if os.path.isdir(path):
        import transformers
        t = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True).backend_tokenizer
        return lambda text: t.encode(text, add_special_tokens=False).ids, [x.content for x in t.get_added_tokens_decoder().values()], "file"
    base, head = os.path.basename(path), open(path, "rb").read(2000)
    if base.startswith("tekken"):
        from mistral_common.tokens.tokenizers.tekken import Tekkenizer
        t = Tekkenizer.from_file(path)
        return lambda text: t.encode(text, bos=False, eos=False), [], "text"
    if b".json" in base.encode():
        t = tokenizers.Tokenizer.from_file(path)
        t.no_truncation(); t.no_padding()
        return lambda text: t.encode(text, add_special_tokens=False).ids, [x.content for x in t.get_added_tokens_decoder().values()], "file"
    first = head.split(b"\n")[0].split(b" ")
    if len(first) == 2 and first[1].isdigit():
        import base64, tiktoken
        nfc = tokenizers.normalizers.NFC()
        ranks = {base64.b64decode(a): int(b) for a, b in (line.split() for line in open(path, "rb") if line.strip())}
        qwen = len(ranks) == 151643
        t = tiktoken.Encoding("x", pat_str=PATTERNS[len(ranks)], mergeable_ranks=ranks, special_tokens={})
        return lambda text: t.encode_ordinary(nfc.normalize_str(text) if qwen else text), [], "text"
    import sentencepiece
    t = sentencepiece.SentencePieceProcessor(model_file=path)
    return lambda text: t.encode(text), [], "text"

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("program"); p.add_argument("tokenizer", nargs="+")
    p.add_argument("-n", type=int, default=1000); p.add_argument("--seed", type=int, default=0)
    p.add_argument("--only", choices=CLASSES); p.add_argument("--text", action="append", default=[])
    a = p.parse_args()
    print(f"tokenizers {tokenizers.__version__}")
    bad = 0
    for path in a.tokenizer:
        reference, added, rule = reference_of(path)
        found_in = lambda texts: ours(a.program, path, texts, rule)
        for name in CLASSES:
            if a.only and name != a.only: continue
            texts = list(strings(name, a.n, a.seed, added))
            wrong = [(x, f) for x, f in zip(texts, found_in(texts)) if f != reference(x)]
            print(f"{path} {name}: {len(wrong)} of {len(texts)} differ", flush=True)
            bad += len(wrong)
            for text in sorted({shorten(x, lambda s: found_in([s])[0] != reference(s)) for x, _ in wrong[:3]}, key=len):
                print(f"   {text!r} {[hex(ord(c)) for c in text]} expected {reference(text)} found {found_in([text])[0]}")
        for file in a.text:
            text = open(file, encoding="utf-8", newline="").read()
            same = found_in([text])[0] == reference(text)
            print(f"{path} {os.path.basename(file)}: {'equal' if same else 'DIFFERENT'}", flush=True)
            bad += not same
    return bad != 0

if __name__ == "__main__":
    sys.exit(main())
