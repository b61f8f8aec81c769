#!/usr/bin/env python3
"""Records tests/golden/tokenizer_steps.json: small tokenizers, one for each step of tokenizer.json, and what the tokenizers library
makes of hostile texts with them. usage: record_tokenizer_steps.py > tests/golden/tokenizer_steps.json
Made with tokenizers 0.23.3. Texts that once failed in tools/check_tokenizers.py are among them."""
import base64, json, struct, sys
import tokenizers
from tokenizers import Tokenizer

TEXTS = [
    "", " ", "a", "Hello world", " Hello  world ", "the-final--countdown", "--", "-a-", "don't I'LL they'Ve 'S x's", "1 12 123 1234 12345678",
    "½ ² Ⅷ १२३ １２", "a\nb\r\nc\n\n d", "  \n  x", "x   ", "\t\ttab", "é e\u0301 \u212b \ufb01 ﬁ ① Ａ", "ＡＢＣ ㎏ ｶﾞ", "한국어 \u1112\u1161\u11ab", "日本語 中文",
    "\u00a0\u2003\u3000\u2028x\u200b\u180e\ufeff", "a\u180eb \u180e", "\u1e030\u16d67\u16d67 \u105d2\u0307 \U000105d2\u0307 \U0001e030", "\u0345\u08ca\u0301", "İstanbul ΣΑΣ ǅ ẞ Ⰰ \ua7cb \U00010d50",
    "…،、。۔ (x|y) [z] d[e]f", "$+<=>^`|~ #a_b", "« ¿Qué? » — ‘x’ \u2e52 \U00011f43", "emoji 👩‍👩‍👧 🇩🇪 👍🏽", "\U0001fae8\U00031350\U000323af \U00010d6f \U0001ccd6", "abcdabcd abc", "<s>a<s> b </s>c<x>d <x> e",
    "x<u>y <u> <u>z", "aword word words word", "w\u00e4word wordß word\u0301", "<L>  a  <L>b", "a  <R>  b", "  <B>  ", "\u0000nul\u0000", "a\u0000", "'\u017f I'\u017f", "u\u0303\u1ae0 a\u0341\u1ad6", "\u2581x \u2581", "a\u2581b",
    "naïve café résumé", "Ǆ ǆ ﷺ", "ab" * 40, "x" * 70, "1" * 30, " " * 20 + "y", "a\u0338\u0307\u0323b", "\u0f77\u0f71\u0f72", "q\u0307\u0323", "\uac00\u11a8 \u1100\u1161\u11a8", "\ub5bc\u11a7 \u1100\u1161\u11a7", "\n\u0ece \f\u1ae6",
]
CHARS = sorted({c for t in TEXTS for c in t} | set(map(chr, range(32, 127))) - {"\u0000"})
CHARS = [c for c in CHARS if c != "\u0000"]

def alphabet():
    keep = list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100)); out, n = {}, 0
    for b in range(256):
        if b in keep: out[b] = chr(b)
        else: out[b] = chr(0x100 + n); n += 1
    return out
BYTES = alphabet()

def bpe(pieces, merges, **more):
    vocab = {}
    for p in pieces: vocab.setdefault(p, len(vocab))
    for a, b in merges: vocab.setdefault(a + b, len(vocab))
    return dict(dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=False, byte_fallback=False, ignore_merges=False), vocab=vocab, merges=[list(m) for m in merges], **more)

CHAR_MERGES = [("t", "h"), ("th", "e"), ("a", "b"), ("ab", "c"), ("abc", "d"), ("1", "2"), ("12", "3"), ("l", "l"), ("w", "o"), ("wo", "r"), ("wor", "d"), (" ", " "), ("-", "-"), ("é", "s"), ("\u2581", "a"), ("\u2581", "\u2581")]
BYTE_MERGES = [("t", "h"), ("th", "e"), ("Ġ", "w"), ("Ġw", "o"), ("l", "l"), ("Ġ", "Ġ"), ("ĠĠ", "ĠĠ"), ("Ã", "©"), ("ä", "¸"), ("1", "2"), ("12", "3"), ("Ċ", "Ċ"), ("'", "s"), ("'", "t"), ("a", "b"), ("ab", "ab")]
def chars(**m): return bpe(CHARS + ["\u2581", "<unk>"], CHAR_MERGES, **m)
def bytelevel(**m): return bpe(list(BYTES.values()), BYTE_MERGES, **m)

def charsmap():
    """A small precompiled character map, as SentencePiece's builder would write it: a double array by brute force."""
    rules = {"ﬁ": "fi", "Ａ": "A", "①": "1", "\u00a0": " ", "é": "e", "e\u0301": "E", "x": "X", "a\u0338": "!", "\U0001fae8": "", "Ｂ": "BB"}
    texts, blob = {}, b""
    for v in sorted(set(rules.values())): texts[v] = len(blob); blob += v.encode() + b"\0"
    keys = sorted((k.encode(), texts[v]) for k, v in rules.items())
    units, used = [0] * 4096, {0}
    def place(at, keys, depth):
        kids = {}
        for k, v in keys: kids.setdefault(k[depth] if depth < len(k) else 0, []).append((k, v))
        for offset in range(1, 2000):
            if all((at ^ offset ^ c) not in used for c in kids) : break
        for c in kids: used.add(at ^ offset ^ c)
        units[at] |= offset << 10
        if 0 in kids: units[at] |= 1 << 8; units[at ^ offset] = kids[0][0][1] | 1 << 31
        for c, sub in kids.items():
            if c: units[at ^ offset ^ c] = c; place(at ^ offset ^ c, sub, depth + 1)
    place(0, keys, 0)
    trie = struct.pack(f"<{len(units)}I", *units)
    return base64.b64encode(struct.pack("<I", len(trie)) + trie + blob).decode()

def added(content, id, **flags):
    return dict(dict(id=id, content=content, single_word=False, lstrip=False, rstrip=False, normalized=True, special=False), **flags)

RE = lambda s: {"Regex": s}
STR = lambda s: {"String": s}
GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
RAW = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
def split(pattern, behavior, invert=False): return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}
def seq(*steps): return {"type": "Sequence", "pretokenizers": list(steps)}
def norm(*steps): return {"type": "Sequence", "normalizers": list(steps)}
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN35 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT4O = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BLOOM = " ?[^(\\s|[.,!?…。，、।۔،])]+"
DEEPSEEK3 = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
BLOB = r"\s?\p{L}+"
UNIGRAM = dict(type="Unigram", unk_id=0, vocab=[["<unk>", 0.0]] + [[p, s] for p, s in [("\u2581", -2.0), ("\u2581the", -3.5), ("the", -4.0), ("\u2581a", -3.0), ("a", -4.5), ("b", -5.0), ("ab", -6.0), ("abcd", -8.0), ("abc", -7.0), ("bc", -6.5), ("c", -5.5), ("d", -5.25), ("e", -4.75), ("l", -5.0), ("ll", -9.0), ("o", -5.0), ("H", -6.0), ("w", -6.1), ("r", -5.0), ("x", -7.0), ("xx", -13.9), ("1", -6.0), ("2", -6.5), ("12", -7.0), ("é", -9.0), ("一", -9.0)]])
BYTE_UNIGRAM = dict(UNIGRAM, byte_fallback=True, vocab=UNIGRAM["vocab"] + [[f"<0x{b:02X}>", -20.0] for b in range(256)])

def tokenizer(model, normalizer=None, pre=None, post=None, decoder=None, tokens=()):
    vocab = model["vocab"] if isinstance(model["vocab"], dict) else {p: i for i, (p, _) in enumerate(model["vocab"])}
    n, placed = len(vocab), []
    for t in tokens: placed.append(dict(t, id=vocab.get(t["content"], n + sum(p["content"] not in vocab for p in placed))))
    tokens = placed
    return dict(version="1.0", truncation=None, padding=None, added_tokens=tokens, normalizer=normalizer, pre_tokenizer=pre, post_processor=post, decoder=decoder, model=model)

BL = dict(type="ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True)
CASES = {
    "byte-level": tokenizer(bytelevel(), pre=GPT2, decoder=BL),
    "byte-level prefix": tokenizer(bytelevel(), pre=dict(GPT2, add_prefix_space=True), decoder=BL, tokens=[added("<x>", 0), added("<u>", 0, special=True, normalized=False)]),
    "llama3": tokenizer(bytelevel(ignore_merges=True), pre=seq(split(RE(LLAMA3), "Isolated"), RAW), decoder=BL),
    "llama3 removed": tokenizer(bytelevel(), pre=seq(split(RE(LLAMA3), "Removed", True), RAW), decoder=BL),
    "qwen35": tokenizer(bytelevel(), {"type": "NFC"}, seq(split(RE(QWEN35), "Isolated"), RAW), decoder=BL),
    "gpt4o": tokenizer(bytelevel(), pre=seq(split(RE(GPT4O), "Isolated"), RAW), decoder=BL),
    "bloom": tokenizer(bytelevel(), pre=seq(split(RE(BLOOM), "Isolated"), RAW), decoder=BL),
    "deepseek": tokenizer(bytelevel(), norm(), seq(split(RE(r"\p{N}{1,3}"), "Isolated"), split(RE("[一-龥぀-ゟ゠-ヿ]+"), "Isolated"), split(RE(DEEPSEEK3), "Isolated"), RAW), decoder=BL),
    "deepseek-llm ends": tokenizer(bytelevel(), pre=seq(split(RE(r"[\r\n]"), "Isolated"), split(RE(r"\s+$"), "Isolated"), {"type": "Digits", "individual_digits": False}, RAW), decoder=BL),
    "falcon": tokenizer(bytelevel(), pre=seq({"type": "Punctuation", "behavior": "Contiguous"}, GPT2, {"type": "Digits", "individual_digits": False}, split(RE("[0-9][0-9][0-9]"), "Isolated")), decoder=BL),
    "starcoder": tokenizer(bytelevel(), pre=seq({"type": "Digits", "individual_digits": True}, GPT2), decoder=BL),
    "superbpe": tokenizer(bytelevel(), pre=seq(split(RE(r"\p{N}+"), "Isolated"), split(RE(r"(?=(\d{3})+(?!\d))"), "Isolated"), RAW), decoder=BL),
    "scripts and words": tokenizer(bytelevel(), pre=seq(split(RE(r"\p{Han}+|\w+"), "Isolated"), RAW), decoder=BL),
    "intersection": tokenizer(bytelevel(), pre=seq(split(RE(r"[\p{L}&&[^\p{Han}a-f]]+"), "Isolated"), RAW), decoder=BL),
    **{f"split {b}{' inverted' if i else ''}": tokenizer(chars(unk_token="<unk>"), pre=split(STR("-"), b, i)) for b in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous") for i in (False, True)},
    **{f"split regex {b}": tokenizer(chars(unk_token="<unk>"), pre=split(RE(r"\s|[ab]"), b)) for b in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")},
    "punctuation": tokenizer(chars(unk_token="<unk>"), pre={"type": "Punctuation", "behavior": "Isolated"}),
    "punctuation removed": tokenizer(chars(unk_token="<unk>"), pre={"type": "Punctuation", "behavior": "Removed"}),
    "digits": tokenizer(chars(unk_token="<unk>"), pre={"type": "Digits", "individual_digits": False}),
    "whitespace": tokenizer(chars(unk_token="<unk>"), pre={"type": "Whitespace"}),
    "whitespace split": tokenizer(chars(unk_token="<unk>"), pre={"type": "WhitespaceSplit"}),
    "bert": tokenizer(chars(unk_token="<unk>"), {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}, {"type": "BertPreTokenizer"}),
    "gemma": tokenizer(chars(unk_token="<unk>", fuse_unk=True), {"type": "Replace", "pattern": STR(" "), "content": "\u2581"}, split(STR(" "), "MergedWithPrevious"), decoder={"type": "Sequence", "decoders": [{"type": "Replace", "pattern": STR("\u2581"), "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]}),
    **{f"metaspace {s}{' split' if w else ''}": tokenizer(chars(unk_token="<unk>"), pre={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": s, "split": w}, decoder={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": s, "split": w}, tokens=[added("<x>", 0), added("<u>", 0, special=True, normalized=False)]) for s in ("always", "first", "never") for w in (False, True)},
    **{n: tokenizer(chars(unk_token="<unk>"), {"type": n}) for n in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Nmt")},
    "strip accents": tokenizer(chars(unk_token="<unk>"), norm({"type": "NFD"}, {"type": "StripAccents"})),
    "strip": tokenizer(chars(unk_token="<unk>"), norm({"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Prepend", "prepend": "\u2581"}), tokens=[added("<x>", 0)]),
    "strip left": tokenizer(chars(unk_token="<unk>"), {"type": "Strip", "strip_left": True, "strip_right": False}),
    "replace regex": tokenizer(chars(unk_token="<unk>"), norm({"type": "Replace", "pattern": RE(" {2,}"), "content": "-"}, {"type": "Replace", "pattern": RE("(?<=a)b|\\s*$"), "content": "<"})),
    "precompiled": tokenizer(chars(unk_token="<unk>"), {"type": "Precompiled", "precompiled_charsmap": charsmap()}),
    "added flags": tokenizer(chars(unk_token="<unk>"), {"type": "NFC"}, tokens=[added("word", 0, single_word=True), added("<L>", 0, lstrip=True), added("<R>", 0, rstrip=True), added("<B>", 0, lstrip=True, rstrip=True, special=True, normalized=False), added("bc", 0, single_word=True), added("  ", 0), added("    ", 0), added("ab", 0, normalized=False), added("abc", 0)]),
    "added normalized": tokenizer(chars(unk_token="<unk>"), norm({"type": "Lowercase"}, {"type": "Prepend", "prepend": "\u2581"}), tokens=[added("<X>", 0), added("<S>", 0), added("</s>", 0, special=True, normalized=False)]),
    "unigram": tokenizer(UNIGRAM, norm({"type": "NFKC"}), seq({"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}), decoder={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}),
    "unigram whole": tokenizer(UNIGRAM, None, {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}),
    "unigram bytes": tokenizer(BYTE_UNIGRAM, None, {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}, decoder={"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}]}),
    "roberta": tokenizer(bytelevel(), pre=GPT2, post={"type": "RobertaProcessing", "sep": ["b", 66], "cls": ["a", 65], "trim_offsets": True, "add_prefix_space": False}, decoder=BL),
    "bert post": tokenizer(bytelevel(), pre=GPT2, post={"type": "Sequence", "processors": [dict(BL), {"type": "BertProcessing", "sep": ["b", 66], "cls": ["a", 65]}]}, decoder=BL),
    "bpe decoder": tokenizer(chars(unk_token="<unk>"), decoder={"type": "BPEDecoder", "suffix": "d"}),
    "dropped unknowns": tokenizer(bpe([c for c in CHARS if ord(c) < 128], [m for m in CHAR_MERGES if all(ord(c) < 128 for c in m[0] + m[1])])),
}

def main():
    cases = []
    for name, t in CASES.items():
        text = json.dumps(t, ensure_ascii=True)
        tk = Tokenizer.from_str(text)
        rows = [tk.encode(x, add_special_tokens=True).ids for x in TEXTS]
        # The library decodes such tokens to their normalized text, even special ones; here they keep their own.
        back = [None if name == "added normalized" else tk.decode(r) for r in rows]
        cases.append(dict(name=name, json=text, ids=rows, decoded=back))
    json.dump(dict(made_with=f"tokenizers {tokenizers.__version__}", texts=[t.encode().hex() for t in TEXTS],
                   cases=cases), sys.stdout, ensure_ascii=True, separators=(",", ":"))
    print()

main()
