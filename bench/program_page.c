/* What `bench --help` and bench(1) say of the program as a whole. */
#include "bench/command.h"

const qb_page qb_program_page = {
    .name = "bench",
    .summary = "quantize language models and measure perplexity, speed and memory",
    .synopsis = "COMMAND [options]\n"
                "COMMAND --help\n"
                "help COMMAND|TOPIC [markdown]\n"
                "--version",
    .description =
        "MODEL is a Hugging Face directory, quantized or not; a GGUF file; \"demo\", the little model that\n"
        "comes with the program; a known name or hub id in the local hub cache (`bench list models`); or\n"
        "synthetic:NAME, random weights of that model's shapes. Data goes to standard output,\n"
        "progress and warnings to standard error.",
    .examples = "bench run --suite demo -o demo.json --plots plots\n"
                "bench quantize ./Llama-2-7b-hf --method gptq --bits 4 --group-size 128 -o ./llama2-7b-w4\n"
                "bench eval ./llama2-7b-w4 --dataset wikitext2 --protocol gptq-2048",
    .exit_status = "0   success\n"
                   "1   failure\n"
                   "2   usage error\n"
                   "130 interrupted",
};

const qb_variable qb_program_variables[] = {
    {"BENCH_DATA", "where dataset files are looked for besides --data DIR"},
    {"BENCH_CACHE", "quantized checkpoints and data; else $XDG_CACHE_HOME/quantbench or ~/.cache/quantbench"},
    {"BENCH_BASELINES", "where `bench compare baseline:NAME` looks first"},
    {"BENCH_MAX_TEXT_GB", "the most that a dataset file may take, decompressed (8 GB)"},
    {"BENCH_SHARE", "suites, plot scripts, these pages and the demo model, when not beside the program"},
    {"BENCH_CUDA_DEPENDENT", "0: a token's CUDA kernels begin only when the one before has ended"},
    {"BENCH_SIMD",
     "the most of the processor's vector instructions to use: generic, avx2 or avx512, on aarch64 generic or "
     "neon; or those of products in whole numbers, such as avx512-vnni (what is there: any other word "
     "tells)"},
    {"BENCH_NUMA_ROOT", "a folder in place of / under which sys/devices/system/node and proc/self/status "
                        "tell of memory nodes (tests)"},
    {"OPENBLAS_CORETYPE",
     "OpenBLAS's choice of kernels; set by the program at its start when OpenBLAS does not know the "
     "processor or takes slower ones than it has, and left alone when it is set"},
    {"HF_HUB_CACHE", "the Hugging Face cache; else $HF_HOME/hub, or ~/.cache/huggingface/hub"},
    {"HF_TOKEN", "for models that need a licence; else the file $HF_TOKEN_PATH or $HF_HOME/token"},
    {"HF_HUB_OFFLINE", "1: no request is made; TRANSFORMERS_OFFLINE says the same"},
    {"HF_ENDPOINT", "another hub than https://huggingface.co; further HF_ variables: `bench help hub`"},
    {"SSL_CERT_FILE", "certificates to trust, in place of the system's"},
    {"TMPDIR", "where `bench ab` and `bench bisect` work when nothing is to be kept (/tmp)"},
    {"NO_COLOR", "set to anything: no colours, unless --color always asks for them"},
    {NULL, NULL},
};
