/* The pre-tokenizers that llama.cpp's converter names in tokenizer.ggml.pre, by their models' own patterns
   where those are known, else as llama.cpp (b7000 and about, llama-vocab.cpp) spells them. Names whose
   splitting is code in llama.cpp (afmoe, chameleon) or no pattern are refused. */
#include "tokenizer/patterns.h"

#include <string.h>

#define CJK     "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"
#define KANA    "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+"
#define BLOOM   " ?[^()|\\s.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C}]+"
#define DIGITS  "\\p{N}+"
#define DIGIT   "\\p{N}"
#define THREE   "[0-9][0-9][0-9]"
#define NEWLINE "[\\r\\n]"
/* The letters of cased scripts, spelt out. */
#define DEEPSEEK_LETTERS                                                                                     \
    "\\s?["                                                                                                  \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-"                  \
    "\\x{293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}"            \
    "\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-"                  \
    "\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-"           \
    "\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}"                  \
    "\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-"                 \
    "\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-"                   \
    "\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-"                  \
    "\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}"                   \
    "\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-"                   \
    "\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}"                   \
    "\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}"                   \
    "\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}"                  \
    "\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-"                 \
    "\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}"            \
    "\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"                   \
    "]+"
#define DEEPSEEK_MARKS                                                                                       \
    "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+"
#define DEEPSEEK3                                                                                            \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"     \
    " ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SPARK                                                                                                \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"     \
    " ?[\\p{P}\\p{S}]+|[\\r\\n]|\\s+(?!\\S)|\\s+"
#define JAIS2                                                                                                \
    QB_CONTRACTION                                                                                           \
    "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"               \
    "\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|"                         \
    "\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"
#define SEED_CODER                                                                                           \
    QB_CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|"     \
                   "\\s+(?!\\S)|\\s+"
#define BAILING                                                                                              \
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|"           \
    "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"
#define EXAONE_MOE                                                                                           \
    QB_CONTRACTION                                                                                           \
    "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+"              \
    "[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"
#define MINICPM5 QB_CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}+|" QB_TAIL
#define UFAKZEKA "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|" QB_TAIL
/* GPT-2's without its last alternative, as llama.cpp has it in its default; what remains between matches is a
   piece too. */
#define GPT2_SHORT "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"

#define NO_HAN(more) "[" more "&&[^\\p{Han}]]"
#define KIMI_UPPER   NO_HAN("\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}")
#define KIMI_LOWER   NO_HAN("\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}")
#define KIMI                                                                                                 \
    "[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?" KIMI_UPPER "*" KIMI_LOWER "+" QB_CONTRACTION                        \
    "?|[^\\r\\n\\p{L}\\p{N}]?" KIMI_UPPER "+" KIMI_LOWER "*" QB_CONTRACTION "?|\\p{N}{1,3}|" QB_TAIL

#define YOUTU_SCRIPTS                                                                                        \
    "[\\x{AC00}-\\x{D7A3}\\x{3131}-\\x{318E}]+|[\\x{FF01}\\x{2026}\\x{201C}\\x{201D}\\x{2018}\\x{2019}\\x{"  \
    "2014}\\x{FF1A}\\x{FF1B}\\x{FF0C}\\x{3001}-\\x{303F}\\x{FE30}-\\x{FE4F}]+|[\\x{3105}-\\x{312F}]+|[\\x{"  \
    "4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+"
#define YOUTU QB_CASED_WORD(QB_CONTRACTION "?") "\\p{N}|" QB_SLASH_TAIL

static const qb_pre_name rows[] = {
    {"default", .patterns = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2_SHORT, DIGITS, THREE}},
    {"llama3|llama-v3|llama-bpe|falcon3|falcon-h1|pixtral|midm-2.0|lfm2|jina-v5-nano", .ignore_merges = true,
     .add_bos = true, .patterns = {QB_LLAMA3_PATTERN}},
    {"dbrx|smaug-bpe|chatglm-bpe", .patterns = {QB_LLAMA3_PATTERN}},
    {"glm4|glm5", .ignore_merges = true, .patterns = {QB_LLAMA3_PATTERN}},
    {"gpt-2|phi-2|mpt|olmo|jais|trillion|granite-docling|jina-es|jina-de|gigachat|jina-v2-es|jina-v2-de|a.x-"
     "4.0|"
     "mellum|modern-bert|exaone4|jina-v1-en|jina-v2-code|roberta-bpe",
     .patterns = {QB_GPT2_PATTERN}},
    {"starcoder|refact|command-r|smollm|codeshell|exaone|minerva-7b|mellum2",
     .patterns = {DIGIT, QB_GPT2_PATTERN}},
    {"qwen2|deepseek-r1-qwen|kormo|f2llmv2|stablelm2|hunyuan|megrez|solar-open|grok-2",
     .patterns = {QB_QWEN2_PATTERN}},
    {"qwen35", .patterns = {QB_QWEN35_PATTERN}},
    {"laguna", .patterns = {"[^\\n]+|[\\n]+", QB_QWEN2_PATTERN}},
    {"ufakzeka", .patterns = {UFAKZEKA}},
    {"gpt-4o|llama4|kanana2|talkie|minimax-m2", .patterns = {QB_GPT4O_PATTERN}},
    {"granite-embed-multi-97m", .ignore_merges = true, .patterns = {QB_GPT4O_PATTERN}},
    {"tiny_aya|cohere2moe", .patterns = {"\\d{1,3}(?=(?:\\d{3})*\\b)", QB_GPT4O_PATTERN}},
    {"tekken", .ignore_merges = true, .add_bos = true, .patterns = {QB_TEKKEN_PATTERN}},
    {"falcon", .patterns = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", QB_GPT2_PATTERN}, .mapped = {DIGITS, THREE}},
    {"kimi-k2", .patterns = {KIMI}},
    {"bloom|poro-chat|gpt3-finnish", .patterns = {BLOOM}},
    {"viking", .patterns = {BLOOM, DIGIT}},
    {"deepseek-llm", .patterns = {NEWLINE, DEEPSEEK_LETTERS, DEEPSEEK_MARKS, "\\s+$", CJK, DIGITS}},
    {"deepseek-coder", .patterns = {NEWLINE, "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, DIGIT}},
    {"deepseek-v3|hunyuan-dense|hy_v4|joyai-llm", .patterns = {"\\p{N}{1,3}", KANA, DEEPSEEK3}},
    {"spark2_5", .patterns = {"\\p{N}{1,3}", KANA, SPARK, DIGIT}},
    {"jais-2", .patterns = {JAIS2}},
    {"superbpe", .patterns = {DIGITS, "(?=(\\d{3})+(?!\\d))"}},
    {"bailingmoe|bailingmoe2|llada-moe", .patterns = {BAILING}},
    {"seed-coder", .patterns = {SEED_CODER}},
    {"exaone-moe", .patterns = {EXAONE_MOE}},
    {"youtu", .ignore_merges = true, .patterns = {YOUTU_SCRIPTS, YOUTU}},
    {"minicpm5", .ignore_merges = true, .patterns = {"\\p{N}{1,3}", MINICPM5}},
    {"gemma4|granite-embed-multi-311m|sarvam-moe", .raw = true, .patterns = {"[^\\n]+|[\\n]+"}},
};

const qb_pre_name *qb_pre_name_find(const char *name) {
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (const char *p = rows[i].names; *p;) {
            size_t length = strcspn(p, "|");
            if (length == n && !memcmp(p, name, n)) return &rows[i];
            p += length + (p[length] == '|');
        }
    return NULL;
}
