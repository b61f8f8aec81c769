/* bench merge: a base model with a LoRA adapter put in. */
#include "adapter/merge.h"
#include "base/file.h"
#include "base/log.h"
#include "bench/command.h"
#include "bench/machine/machine.h"
#include "bench/run/identity.h"
#include "bench/session.h"

#include <inttypes.h>
#include <string.h>

typedef struct {
    const char *output, *dtype;
    double shard_gb;
    int64_t threads;
    bool force, residual_base;
} merge_options;

static const qb_option rows[] = {
    {"output", 'o', QB_OPTION_TEXT, offsetof(merge_options, output), NULL, 0, 0, NULL, "DIR",
     "checkpoint directory to write; it appears when it is complete"},
    {"dtype", 'd', QB_OPTION_CHOICE, offsetof(merge_options, dtype), "keep", 0, 0, "keep|f32|f16|bf16",
     "TYPE",
     "type of the floats that are written; keep: each tensor's own, of nf4 and fp4 the one that they are "
     "dequantized to in training"},
    {"residual-base", 0, QB_OPTION_BOOL, offsetof(merge_options, residual_base), NULL, 0, 0, NULL, NULL,
     "BASE is what an initialisation such as PiSSA left behind and saved with the adapter"},
    {"force", 'f', QB_OPTION_BOOL, offsetof(merge_options, force), NULL, 0, 0, NULL, NULL,
     "replace the output directory when it is there"},
    {"shard-size", 0, QB_OPTION_REAL, offsetof(merge_options, shard_gb), "5", 0.0001, 1e6, NULL, "GB",
     "largest safetensors file (1 GB = 1e9 bytes); more tensors make several files with an index"},
    {"threads", 't', QB_OPTION_INT, offsetof(merge_options, threads), "0", 0, 4096, NULL, "N",
     "0 takes all cores"},
    {0},
};

static const qb_page page = {
    .name = "merge",
    .summary = "put a LoRA adapter into its base model",
    .synopsis = "merge BASE ADAPTER -o DIR [options]",
    .description =
        "ADAPTER is a directory that PEFT saved: adapter_config.json and adapter_model.safetensors. The "
        "result\n"
        "is a model of its own that computes what BASE with ADAPTER does, ready for `bench quantize`.\n"
        "\n"
        "Merged are LoRA with ranks and alphas by module, rsLoRA, DoRA, biases, modules saved whole, rows "
        "of\n"
        "single tokens, embeddings, resized vocabularies, GPT-2's Conv1D and experts. A head that BASE ties "
        "to\n"
        "the embedding becomes a tensor of its own where the two differ in the adapter.\n"
        "\n"
        "BASE may be quantized: nf4 and fp4 of bitsandbytes are dequantized to the values that the adapter "
        "was\n"
        "trained beside, and the update is added to those. The sum is made in float32 and rounded once.\n"
        "\n"
        "Refused, before anything is written: an adapter whose shapes or ranks do not fit BASE, tensors that "
        "are\n"
        "missing or have no place, keys of adapter_config.json that change the computation and are not "
        "known,\n"
        "and initialisations that changed the base (PiSSA, OLoRA, CorDA, LoRA-GA, LoftQ) without "
        "--residual-base.\n"
        "One tensor is held at a time.",
    .examples = "bench merge ./llama2-7b-nf4 ./my-adapter -o ./llama2-7b-tuned\n"
                "bench merge meta-llama/Llama-2-7b-hf ./my-adapter -o ./llama2-7b-tuned --dtype bf16",
};

static qb_status parse_dtype(const char *name, qb_dtype *out) {
    *out = QB_DTYPE_COUNT;
    if (!strcmp(name, "f32")) *out = QB_DTYPE_F32;
    if (!strcmp(name, "f16")) *out = QB_DTYPE_F16;
    if (!strcmp(name, "bf16")) *out = QB_DTYPE_BF16;
    return QB_OK;
}

static qb_status print_json(const merge_options *o, const qb_model *m, const char *adapter,
                            const qb_merge_report *r) {
    qb_json *j = qb_json_object();
    qb_json_put_text(j, "base", m->name);
    qb_json_put_text(j, "adapter", adapter);
    qb_json_put_text(j, "output", o->output);
    qb_json_put_text(j, "dtype", r->dtype);
    qb_json_put_int(j, "updates", r->lora);
    qb_json_put_int(j, "replaced", r->replaced);
    qb_json_put_int(j, "tensors_changed", r->tensors);
    qb_json_put_int(j, "dequantized", r->dequantized);
    qb_json_put_int(j, "weights", r->weights);
    qb_json_put_int(j, "rounded", r->rounded);
    qb_json_put_bool(j, "head_untied", r->unties);
    qb_json_put_int(j, "tensor_bytes", r->tensor_bytes);
    qb_json_put_real(j, "seconds", r->seconds);
    qb_status st = qb_output_json(j);
    qb_json_free(j);
    return st;
}

static qb_status print_report(const merge_options *o, const qb_merge_report *r) {
    char size[32], time[32];
    qb_output("%s: %" PRId64 " tensors changed (%" PRId64 " updates, %" PRId64
              " replaced), written as %s, %s in %s",
              o->output, r->tensors, r->lora, r->replaced, r->dtype,
              qb_format_bytes((double)r->tensor_bytes, size), qb_format_seconds(r->seconds, time));
    if (r->dequantized) qb_output("; %" PRId64 " quantized modules were dequantized first", r->dequantized);
    if (r->rounded && r->weights)
        qb_output("; %.4g %% of the weights rounded once from float32",
                  100.0 * (double)r->rounded / (double)r->weights);
    qb_output("\n");
    return QB_OK;
}

/* Its name, for whoever mixes up two bases of the same shapes. */
static void compare_bases(const qb_adapter *a, const qb_model *m) {
    const char *base = a->config.base ? qb_path_base(a->config.base) : NULL;
    if (base && *base && strcmp(base, m->name) != 0)
        qb_info("%s says that its base is %.200s; it is merged onto %s, whose shapes fit or are refused",
                qb_path_base(qb_checkpoint_dir(a->checkpoint)), a->config.base, m->name);
}

static qb_status merge_words(const merge_options *o, bool json, const char *base, const char *word) {
    char sha256[QB_SHA256_HEX];
    char *dir = NULL;
    qb_model *m = NULL;
    qb_adapter a = {0};
    qb_threads *threads = NULL;
    qb_merge_report report;
    qb_tokenizer_files tokenizer = {0};
    qb_dtype as;
    qb_status st;
    QB_TRY(st, parse_dtype(o->dtype, &as));
    QB_TRY(st, qb_session_model(base, false, &m));
    QB_TRY(st, qb_session_find(word, &dir));
    QB_TRY(st, qb_adapter_open(dir, o->residual_base, &a));
    QB_TRY(st, qb_session_check_output(m, o->output, o->force));
    compare_bases(&a, m);
    QB_TRY(st, qb_identity_of(m, sha256));
    QB_TRY(st, qb_session_tokenizer_files(m, &tokenizer));
    QB_TRY(st, qb_threads_create((int)o->threads, &threads));
    qb_quant_target target = {.dir = o->output,
                              .replace = o->force,
                              .shard_bytes = (int64_t)(o->shard_gb * 1e9),
                              .source_sha256 = sha256,
                              .program = qb_program_version(),
                              .files = tokenizer.files,
                              .n_files = tokenizer.n};
    QB_TRY(st, qb_merge_model(m, &a, as, threads, &target, &report));
    st = json ? print_json(o, m, word, &report) : print_report(o, &report);
out:
    qb_threads_free(threads);
    qb_tokenizer_files_free(&tokenizer);
    qb_adapter_close(&a);
    qb_model_close(m);
    qb_free(dir);
    return st;
}

static qb_status merge_main(int argc, char **argv, int *exit_code) {
    (void)exit_code;
    merge_options options;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options}, {"COMMON OPTIONS", qb_common_options, &common}};
    const char *words[2] = {NULL, NULL};
    size_t n_words;
    bool done;
    qb_status st = qb_command_parse(&page, sets, 2, argc, argv, words, 2, &n_words, &done);
    if (st != QB_OK || done) return st;
    if (!words[0]) return qb_command_missing(&page, "BASE");
    if (!words[1]) return qb_command_missing(&page, "ADAPTER");
    if (!options.output) return qb_command_missing(&page, "--output");
    return merge_words(&options, common.json, words[0], words[1]);
}

const qb_command qb_command_merge = {"merge", "put a LoRA adapter into its base model", merge_main};
