#!/usr/bin/env python3
"""Records tests/golden/tokenizer_hostile.json: what the reference libraries make of hostile texts.

Needs: Python 3.9 or newer, tokenizers==0.20.3, sentencepiece>=0.2.0, protobuf.
Usage: record_tokenizer_golden.py SHARED OUTPUT

tokenizers 0.23 no longer leaves special tokens out of decode() when they are marked "normalized", as Llama-2's are;
0.15 to 0.20 agree with each other and with transformers.
Real tokenizers are named by their path below SHARED; variants are small tokenizers of our own, stored in the file, that
reach what the real ones do not. Texts, models and decoded texts are hexadecimal: they hold NUL and invalid UTF-8.
"""
import copy
import hashlib
import io
import json
import random
import struct
import sys

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as spm_pb
from tokenizers import Tokenizer

REAL = ["tokenizers/llama2/tokenizer.json", "tokenizers/llama2/tokenizer.model",
        "models/wikimini-hf/tokenizer.json", "models/wikimini-hf/tokenizer.model",
        "models/stories260K-hf/tokenizer.json", "models/babyllama-tok105-hf/tokenizer.json",
        "tokenizers/small/tok105.model"]

TEXTS = {
    "empty": "", "space": " ", "spaces": "     ", "newline": "\n", "crlf": "a\r\nb\r\n\r\n", "tabs": "\t\ta\t b",
    "word": "Hello", "leading space": " Hello", "two leading": "  Hello", "trailing": "Hello  ",
    "inner runs": "a  b   c    d                 e", "punctuation": "...!?,;:'\"()[]{}<>/\\|@#$%^&*_-+=~`",
    "digits": "0123456789 3.14159 1e-5 1,000,000", "mixed": "w048 7tuijk dsdfhu", "caps": "ALL CAPS mIxEd cAsE",
    "emoji": "🚀 (normal) 😶‍🌫️ ✅ 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪", "combining": "e\u0301 a\u0308\u0323 Z\u0351\u036b\u0343\u036a\u0302",
    "nfc nfd": "é e\u0301 ﬁ ½ Ⅳ ﷺ", "rtl": "שלום עולם مرحبا بالعالم", "cjk": "你好，世界。日本語テキスト 한국어",
    "indic": "नमस्ते दुनिया ខ្មែរ ไทย", "cyrillic": "нещо на Български", "greek": "Γειά σου Κόσμε",
    "spaces of unicode": "a\u00a0b\u2003c\u3000d\u200be\ufefff\u2028g\u0085h", "controls": "\x01\x02\x1b[0m\x7f\x80\x9f",
    "nul": "a\0b\0\0 \0", "replacement": "\ufffd\ufffd a\ufffd", "noncharacters": "\uffff\ufffe\U0010ffff\U00010000",
    "space symbol": "▁a▁▁b ▁ c▁", "space symbol start": "▁Hello", "byte token text": "<0x0A><0x41> <0xFF>",
    "special": "<s>", "special start": "<s>Hello", "special inside": "a<s>b", "special spaced": "a <s> b </s> c",
    "special run": "<s><s></s><unk>", "special prefix": "<s</s>> <s >", "unk text": "<unk> is unk",
    "special with spaces": "  <s>  ", "special newline": "x\n<s>\n", "code": "def f(x):\n    return x  # comment\n\n\tif (a&&b) {}",
    "url": "https://example.org/a_b?c=d&e=%20#f", "repeat": "ababababababababababababab", "a run": "a" * 97,
    "long word": "supercalifragilisticexpialidocious" * 3, "quotes": "“curly” ‘quotes’ — em–en…", "math": "∑∫√∞≠≤≥ α→β ∀x∃y",
    "zalgo": "H̷̡̪̯ͨ͊̽̅̾ȩ̸̛̯͙͉̠̟́̓", "surrogate pair": "𝒳𝔜 𐍈", "wiki": " = = Robert Boulter = = \n Robert <unk> is an English film",
    "added": "a<pad>b <pad> c  <mark>  d<mark>", "user": "foobar foo bar xfoobarx f oobar foo▁bar",
    "only unknown": "ŧŧŧ", "unknown between": "aŧŧb ŧ cŧ",
}
INVALID = {
    "lone bytes": b"a\xffb\xfe\x80", "surrogate bytes": b"x\xed\xa0\x80y\xed\xb0\x80", "overlong": b"\xc0\x80\xc1\xbf\xe0\x80\xaf\xf0\x80\x80\xaf",
    "cut short": b"\xe2\x82", "cut inside": b"\xe2\x82 \xf0\x9f\x9a a", "beyond": b"\xf4\x90\x80\x80\xf5\x80\x80\x80", "latin1": "na\u00efve caf\u00e9".encode("latin1"),
}
LARGE = {"a": ("a", 200000), "ab": ("ab", 100000), "space": (" ", 100000), "emoji": ("🚀", 20000), "the": ("the", 70000),
         "words": ("lorem ipsum ", 20000)}

ALPHABET = " abcdefghijklmnopqrstuvwxyzABT.,\n▁é漢🚀0123456789<s>"


def random_texts(n, seed):
    r = random.Random(seed)
    return {f"random {i}": "".join(r.choice(ALPHABET) for _ in range(r.randrange(1, 60))) for i in range(n)}


def ids_hash(ids):
    return hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest()


class Json:
    def __init__(self, text):
        self.tokenizer = Tokenizer.from_str(text)

    def encode(self, text):
        if isinstance(text, bytes):
            return None  # the library takes valid text only
        return self.tokenizer.encode(text).ids

    def decode(self, ids):
        return self.tokenizer.decode(ids)

    def size(self):
        return self.tokenizer.get_vocab_size()


class Model:
    def __init__(self, data):
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=data)

    def encode(self, text):
        return self.processor.encode(text)

    def decode(self, ids):
        return self.processor.decode(ids)

    def size(self):
        return self.processor.get_piece_size()


def record(name, tokenizer, texts, large, seed):
    """Ids of every text, the text of those ids, and the text of random ids. Bytes that form no character are kept by us
    and replaced by U+FFFD there: such decoded texts are not recorded."""
    row = {"tokenizer": name, "ids": {}, "decoded": {}, "large": {}, "random": []}
    for key, text in texts.items():
        ids = tokenizer.encode(text)
        row["ids"][key] = ids
        if ids is not None:
            decoded = tokenizer.decode(ids)
            if "\ufffd" not in decoded:
                row["decoded"][key] = decoded.encode().hex()
    for key, (unit, times) in large.items():
        ids = tokenizer.encode(unit * times)
        row["large"][key] = {"count": len(ids), "sha256": ids_hash(ids)}
    r = random.Random(seed)
    while len(row["random"]) < 12:
        ids = [r.randrange(tokenizer.size()) for _ in range(r.randrange(1, 12))]
        decoded = tokenizer.decode(ids)
        if "\ufffd" not in decoded:
            row["random"].append({"ids": ids, "text": decoded.encode().hex()})
    return row


# --- tokenizer.json variants ------------------------------------------------------------------------------------------

def tiny():
    """The Llama-2 form over a few letters; tests/test_tokenizer.c holds hand-checked ids of it."""
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    pieces += list("▁abcdefghilmnorstu.é") + ["▁t", "he", "▁the", "in", "▁a", "▁▁", "▁▁▁▁", "an", "▁an", "on", "er", "▁in", "re", "aa"]
    merges = ["▁ t", "h e", "▁t he", "i n", "▁ a", "▁ ▁", "▁▁ ▁▁", "a n", "▁ an", "▁a n", "o n", "e r", "▁ in", "r e", "a a"]
    special = [{"id": i, "content": pieces[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                "special": True} for i in range(3)]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                           {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "pre_tokenizer": None,
            "post_processor": {"type": "TemplateProcessing",
                               "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                               "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                               "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
            "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                        {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                      "vocab": {p: i for i, p in enumerate(pieces)}, "merges": merges}}


def small():
    """The same without byte tokens: short enough to be stored in many variants."""
    d = tiny()
    pieces = [p for p in d["model"]["vocab"] if not p.startswith("<0x")]
    d["model"]["vocab"] = {p: i for i, p in enumerate(pieces)}
    d["model"]["byte_fallback"] = False
    return d


def metaspace(scheme, split, **extra):
    d = small()
    d["normalizer"] = None
    d["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", **({"prepend_scheme": scheme} if scheme else {}), "split": split, **extra}
    d["decoder"] = {"type": "Metaspace", "replacement": "▁", **({"prepend_scheme": scheme} if scheme else {}), "split": split, **extra}
    return d


def json_variants():
    yield "tiny", tiny()
    d = small()
    d["model"]["fuse_unk"] = False
    yield "unk not fused", d
    d = small()
    d["model"]["unk_token"] = None
    yield "no unk", d
    d = tiny()
    for b in list(range(0xC0, 0x100)):
        del d["model"]["vocab"][f"<0x{b:02X}>"]
    d["model"]["vocab"] = {p: i for i, p in enumerate(d["model"]["vocab"])}
    yield "some bytes missing", d
    for scheme in ("always", "first", "never"):
        for split in (True, False):
            yield f"metaspace {scheme} {split}", metaspace(scheme, split)
    yield "metaspace old", metaspace(None, True, add_prefix_space=True)
    d = metaspace("first", True)
    for t in d["added_tokens"]:
        t["normalized"] = True
    yield "metaspace normalized specials", d
    d = small()
    n = len(d["model"]["vocab"])
    d["added_tokens"] += [{"id": n, "content": "<pad>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False},
                          {"id": n + 1, "content": "<mark>", "single_word": False, "lstrip": True, "rstrip": True, "normalized": False, "special": True}]
    for t in d["added_tokens"][:3]:
        t["normalized"] = True
    yield "added", d
    d = small()
    d["model"]["merges"] = [m.split(" ") for m in d["model"]["merges"]]
    d["model"]["vocab"]["▁<"] = len(d["model"]["vocab"])
    d["normalizer"] = {"type": "Replace", "pattern": {"String": "  "}, "content": "▁"}
    d["decoder"] = None
    d["post_processor"] = {"type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}, {
        "type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "end", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"end": {"id": "end", "ids": [2, 1], "tokens": ["</s>", "<s>"]}}}]}
    yield "pairs, other pipeline", d
    d = small()
    d["model"]["vocab"] = {p: i for i, p in enumerate(list(d["model"]["vocab"]) + ["a▁", "a▁t", "e▁", "é▁a", "<unk>a"])}
    d["model"]["merges"] = ["a ▁", "e ▁", "a ▁t", "a▁ t", "é ▁a", "<unk> a"] + d["model"]["merges"]
    yield "merges across spaces", d


# --- SentencePiece variants ----------------------------------------------------------------------------------------------

CORPUS = ["the tin hat is on the table and the hen ran to the inn", "an ant sat in the sand near the sea", "then the rain ran into the drain",
          "her hat is tan and her tent is red", "the other brother has rather thin feathers", "nine hundred and ninety nine hens"] * 20


def train(**options):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=out, model_type="bpe", normalization_rule_name="identity",
                                             hard_vocab_limit=False, minloglevel=2, **options)
    proto = spm_pb.ModelProto()
    proto.ParseFromString(out.getvalue())
    proto.trainer_spec.ClearField("input")
    return proto


def model_variants():
    yield "sp squeeze", train(vocab_size=90)
    yield "sp user", train(vocab_size=90, user_defined_symbols=["foobar", "foo", "<mark>", "▁the"], remove_extra_whitespaces=False)
    yield "sp suffix", train(vocab_size=90, treat_whitespace_as_suffix=True, remove_extra_whitespaces=False)
    yield "sp no prefix", train(vocab_size=90, add_dummy_prefix=False, remove_extra_whitespaces=False)
    yield "sp bytes", train(vocab_size=340, byte_fallback=True, remove_extra_whitespaces=False)
    proto = train(vocab_size=90, remove_extra_whitespaces=False)
    for i, piece in enumerate(proto.pieces):
        if piece.type == 1 and len(piece.piece) > 1 and i % 3 == 0:
            piece.type = 5
    yield "sp unused", proto
    proto = train(vocab_size=90, remove_extra_whitespaces=False)
    for i in reversed(range(len(proto.pieces))):  # characters that occur only inside longer pieces
        if proto.pieces[i].piece in ("h", "n", "▁"):
            del proto.pieces[i]
    yield "sp characters missing", proto
    proto = train(vocab_size=90, remove_extra_whitespaces=False)
    for piece in proto.pieces[40:60]:
        piece.score = -5
    yield "sp equal scores", proto
    proto = train(vocab_size=90)
    proto.normalizer_spec.escape_whitespaces = False
    proto.trainer_spec.unk_surface = "?!"
    yield "sp spaces not escaped", proto


def main():
    shared, output = sys.argv[1:3]
    real_texts = {**TEXTS, **INVALID, **random_texts(20, 1)}
    variant_texts = {**{k: v for k, v in TEXTS.items()}, **INVALID, **random_texts(10, 1)}
    words = random.Random(2)
    for i in range(12):  # texts that the small vocabularies know
        variant_texts[f"small {i}"] = "".join(words.choice([" ", "  ", "the", "an", "in", "on", "t", "h", "e", "a", "n", "r", "▁", "é", "\n", "ant hen", "0"]) for _ in range(30))
    document = {"made_by": "tools/record_tokenizer_golden.py", "texts": {}, "large": {}, "cases": []}
    for key, text in {**real_texts, **variant_texts}.items():
        document["texts"][key] = (text if isinstance(text, bytes) else text.encode()).hex()
    for key, (unit, times) in LARGE.items():
        document["large"][key] = {"unit": unit, "times": times}
    for name in REAL:
        with open(f"{shared}/{name}", "rb") as f:
            data = f.read()
        tokenizer = Json(data.decode()) if name.endswith("json") else Model(data)
        document["cases"].append(record(name, tokenizer, real_texts, LARGE, 3))
    for name, d in json_variants():
        text = json.dumps(d, ensure_ascii=False, separators=(",", ":"))
        row = record(name, Json(text), variant_texts, {}, 4)
        document["cases"].append({**row, "json": copy.deepcopy(text)})
    for name, proto in model_variants():
        data = proto.SerializeToString()
        document["cases"].append({**record(name, Model(data), variant_texts, {}, 5), "model": data.hex()})
    with open(output, "w", encoding="utf-8") as f:
        f.write("{" + f'"made_by":{json.dumps(document["made_by"])},\n"texts":{json.dumps(document["texts"], indent=0)},\n')
        f.write(f'"large":{json.dumps(document["large"])},\n"cases":[\n')
        f.write(",\n".join(json.dumps(c, separators=(",", ":")) for c in document["cases"]))
        f.write("\n]}\n")


if __name__ == "__main__":
    main()
