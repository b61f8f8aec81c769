/* bench convert: the same weights in another layout. */
#include "base/log.h"
#include "bench/command.h"
#include "bench/machine/machine.h"
#include "bench/run/identity.h"
#include "bench/session.h"
#include "quant/convert.h"

#include <inttypes.h>
#include <string.h>

typedef struct {
    const char *to, *output;
    double shard_gb;
    bool force;
} convert_options;

static const qb_option rows[] = {
    {"to", 't', QB_OPTION_TEXT, offsetof(convert_options, to), NULL, 0, 0, NULL, "FORMAT",
     "gptq, gptq_v2, nf4, fp4, int8, f16, bf16 or f32"},
    {"output", 'o', QB_OPTION_TEXT, offsetof(convert_options, output), NULL, 0, 0, NULL, "DIR",
     "checkpoint directory to write; it appears when it is complete"},
    {"force", 'f', QB_OPTION_BOOL, offsetof(convert_options, force), NULL, 0, 0, NULL, NULL,
     "replace the output directory when it is there"},
    {"shard-size", 0, QB_OPTION_REAL, offsetof(convert_options, shard_gb), "5", 0.0001, 1e6, NULL, "GB",
     "largest safetensors file (1 GB = 1e9 bytes); more tensors make several files with an index"},
    {0},
};

static const qb_page page = {
    .name = "convert",
    .summary = "write the same weights in another layout",
    .synopsis = "convert MODEL --to FORMAT -o DIR [options]",
    .description =
        "Nothing is quantized here: a conversion is made where the new layout holds the very same weights, "
        "and\n"
        "refused with the reason where it does not, before anything is written.\n"
        "\n"
        "gptq, gptq_v2   from gptq, gptq_v2, AWQ, compressed-tensors and others whose groups have whole "
        "zero\n"
        "                points and float16 scales; gptq (zero points minus one) refuses zero points of 0\n"
        "nf4, fp4, int8  from bitsandbytes' files of the same values\n"
        "f32             from anything: every weight is the exact product that the layout defines\n"
        "f16, bf16       from quantized weights: rounded once from those products, which is what "
        "transformers'\n"
        "                dequantize gives; from dense weights: only where each fits exactly\n"
        "\n"
        "Other tensors, the tokenizer's files (of a GGUF of byte-level merges: a tokenizer.json made of it) "
        "and\n"
        "config.json are taken over. One matrix is held at a time.",
    .examples = "bench convert ./llama2-7b-w4 --to gptq_v2 -o ./llama2-7b-w4-v2\n"
                "bench convert ./llama2-7b-nf4 --to f16 -o ./llama2-7b-nf4-dense",
};

static qb_status print_report(const convert_options *o, const qb_model *m, const qb_conversion *r,
                              bool json) {
    char size[32], time[32];
    if (json) {
        qb_json *j = qb_json_object();
        qb_json_put_text(j, "model", m->name);
        qb_json_put_text(j, "to", o->to);
        qb_json_put_text(j, "output", o->output);
        qb_json_put_int(j, "modules", r->modules);
        qb_json_put_int(j, "weights", r->weights);
        qb_json_put_int(j, "rounded", r->rounded);
        qb_json_put_int(j, "widened", r->widened);
        qb_json_put_int(j, "skipped", r->skipped);
        qb_json_put_int(j, "tensor_bytes", r->tensor_bytes);
        qb_json_put_real(j, "seconds", r->seconds);
        qb_status st = qb_output_json(j);
        qb_json_free(j);
        return st;
    }
    qb_output("%s: %" PRId64 " modules as %s, %s in %s", o->output, r->modules, o->to,
              qb_format_bytes((double)r->tensor_bytes, size), qb_format_seconds(r->seconds, time));
    if (r->rounded)
        qb_output("; %.4g %% of the weights rounded once from float32, --to f32 is exact",
                  100.0 * (double)r->rounded / (double)r->weights);
    else
        qb_output("; every weight is the same number");
    if (r->widened) qb_output("; %" PRId64 " quantized embedding or head became float32", r->widened);
    if (r->skipped) qb_output("; %" PRId64 " that were left dense stay so", r->skipped);
    qb_output("\n");
    return QB_OK;
}

static qb_status convert_main(int argc, char **argv, int *exit_code) {
    (void)exit_code;
    convert_options options;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options}, {"COMMON OPTIONS", qb_common_options, &common}};
    const char *word = NULL;
    char sha256[QB_SHA256_HEX];
    size_t n_words;
    bool done;
    qb_model *m = NULL;
    qb_conversion report;
    qb_tokenizer_files tokenizer = {0};
    qb_status st;
    QB_TRY(st, qb_command_parse(&page, sets, 2, argc, argv, &word, 1, &n_words, &done));
    if (done) goto out;
    if (!word) return qb_command_missing(&page, "MODEL");
    if (!options.to) return qb_command_missing(&page, "--to");
    if (!options.output) return qb_command_missing(&page, "--output");
    QB_TRY(st, qb_session_model(word, false, &m));
    QB_TRY(st, qb_session_check_output(m, options.output, options.force));
    QB_TRY(st, qb_identity_of(m, sha256));
    QB_TRY(st, qb_session_tokenizer_files(m, &tokenizer));
    qb_quant_target target = {.dir = options.output,
                              .replace = options.force,
                              .shard_bytes = (int64_t)(options.shard_gb * 1e9),
                              .source_sha256 = sha256,
                              .program = qb_program_version(),
                              .files = tokenizer.files,
                              .n_files = tokenizer.n};
    QB_TRY(st, qb_convert_model(m, options.to, &target, &report));
    st = print_report(&options, m, &report, common.json);
out:
    qb_tokenizer_files_free(&tokenizer);
    qb_model_close(m);
    return st;
}

const qb_command qb_command_convert = {"convert", "write the same weights in another layout", convert_main};
