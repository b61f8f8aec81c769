/* bench generate: text from a prompt, streamed. */
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "bench/command.h"
#include "bench/measure/placement.h"
#include "bench/session.h"
#include "bench/stops.h"
#include "eval/eval.h"

#include <inttypes.h>
#include <string.h>

typedef struct {
    const char *prompt;
    bool echo;
    qb_generate_config config;
} generate_options;

#define CONFIG(field) offsetof(generate_options, config) + offsetof(qb_generate_config, field)
static const qb_option rows[] = {
    {"prompt", 'p', QB_OPTION_TEXT, offsetof(generate_options, prompt), NULL, 0, 0, NULL, "TEXT",
     "what the text begins with; without it the model starts from its BOS token"},
    {"tokens", 'n', QB_OPTION_INT, CONFIG(tokens), "40", 1, 1e6, NULL, "N", "new tokens at most"},
    {"temperature", 0, QB_OPTION_REAL, CONFIG(temperature), "0", 0, 100, NULL, "T",
     "0 always takes the likeliest token; above it tokens are drawn, the more evenly the higher"},
    {"top-p", 0, QB_OPTION_REAL, CONFIG(top_p), "1", 0, 1, NULL, "P",
     "draw from the fewest tokens that hold this share of the probability"},
    {"top-k", 0, QB_OPTION_INT, CONFIG(top_k), "0", 0, 1e6, NULL, "K",
     "draw from the K likeliest tokens; 0: all"},
    {"seed", 0, QB_OPTION_INT, CONFIG(seed), "0", 0, 9e15, NULL, "N", "seed of the draws"},
    {"ignore-eos", 0, QB_OPTION_BOOL, CONFIG(ignore_eos), NULL, 0, 0, NULL, NULL,
     "go on behind the model's end-of-sequence token"},
    {"echo", 0, QB_OPTION_BOOL, offsetof(generate_options, echo), "true", 0, 0, NULL, NULL,
     "print the prompt before what follows it"},
    {0},
};

static const qb_page page = {
    .name = "generate",
    .summary = "continue a prompt",
    .synopsis = "generate MODEL --prompt TEXT [--tokens N] [--temperature T --top-p P --top-k K --seed N]",
    .description =
        "Prints the prompt and the tokens that the model puts behind it, as they come. Greedy unless a\n"
        "temperature is given; the same seed draws the same text. Ends at an end-of-sequence token\n"
        "of config.json, generation_config.json or the tokenizer.\n"
        "The speed goes to standard error; --json gives ids, text and times in one object.",
    .examples = "bench generate ./stories260K --prompt 'Once upon a time' --tokens 40\n"
                "bench generate ./llama2-7b-w4 --prompt 'The sea' --temperature 0.8 --top-p 0.95 --seed 7",
};

typedef struct {
    const qb_tokenizer *t;
    const char *prompt; /* still to be printed, before the first new token; NULL: nothing */
    bool stream;
    qb_ids ids;
    qb_str text;
    qb_status status;
    int64_t first_ns, last_ns;
} emission;

/* Not before the model answers: what is refused prints nothing. */
static void echo(emission *e) {
    if (e->prompt) qb_output("%s", e->prompt);
    e->prompt = NULL;
}

static bool emit(void *ctx, int32_t id) {
    emission *e = ctx;
    size_t before = e->text.length;
    e->last_ns = qb_now_ns();
    if (!e->first_ns) e->first_ns = e->last_ns;
    e->status = qb_grow(&e->ids.ids, &e->ids.capacity, e->ids.count + 1, sizeof *e->ids.ids);
    if (e->status != QB_OK) return false;
    e->ids.ids[e->ids.count++] = id;
    e->status = qb_tokenizer_piece(e->t, id, &e->text);
    if (e->status != QB_OK) return false;
    if (!e->stream) return true;
    echo(e);
    qb_output_bytes(qb_str_get(&e->text) + before, e->text.length - before);
    return !qb_output_broken(); /* nobody reads any more */
}

static qb_status finish(const generate_options *o, emission *e, const qb_ids *prompt, int64_t begin_ns,
                        bool json) {
    size_t n = e->ids.count;
    double first_s = n ? (double)(e->first_ns - begin_ns) * 1e-9 : 0;
    double rate = n > 1 ? (double)(n - 1) / ((double)(e->last_ns - e->first_ns) * 1e-9) : 0;
    if (!json) {
        echo(e);
        qb_output("\n");
        qb_info("%zu prompt tokens, first new token after %.3f s, %zu new tokens at %.1f tok/s",
                prompt->count, first_s, n, rate);
        return QB_OK;
    }
    qb_json *j = qb_json_object(), *ids = qb_json_array(), *prompt_ids = qb_json_array(),
            *config = qb_json_object();
    for (size_t i = 0; i < prompt->count; i++) qb_json_push_int(prompt_ids, prompt->ids[i]);
    for (size_t i = 0; i < n; i++) qb_json_push_int(ids, e->ids.ids[i]);
    qb_options_to_json(rows, o, config);
    qb_json_put_text(j, "prompt", o->prompt ? o->prompt : "");
    qb_json_put_text(j, "text", qb_str_get(&e->text));
    qb_json_put(j, "prompt_ids", prompt_ids);
    qb_json_put(j, "ids", ids);
    qb_json_put_real(j, "time_to_first_token_s", first_s);
    if (n > 1)
        qb_json_put_real(j, "decode_tok_per_s", rate);
    else
        qb_json_put_null(j, "decode_tok_per_s");
    qb_json_put(j, "config", config);
    qb_status st = qb_output_json(j);
    qb_json_free(j);
    return st;
}

/* What does not fit the device goes to host memory with
   --offload; without it, loading fails with the sizes. */
static qb_status place(qb_model *m, qb_device *dev, int64_t positions, bool offload) {
    qb_placement p;
    qb_str line = {0};
    int64_t chunk = qb_prefill_piece(dev->backend, 1, positions);
    int64_t work = qb_kv_bytes(&m->topology, QB_DTYPE_F16, m->config.n_layers, 1, positions) +
                   qb_workspace_bytes(&m->topology, chunk);
    if (!dev->backend->separate_memory) return QB_OK;
    qb_status st = qb_placement_make(m, dev, work, 0, offload, &p);
    if (st != QB_OK) return st;
    if (p.kind == QB_PLACEMENT_BLOCKS) return qb_fail(QB_ERR_MEMORY, "%s: %s", m->name, p.reason);
    if (p.kind == QB_PLACEMENT_SPLIT) {
        qb_model_offload(m, &p.plan);
        qb_placement_describe(&p, NULL, NULL, &line);
        qb_info("%s", qb_str_get(&line));
        qb_str_free(&line);
    }
    return QB_OK;
}

static qb_status generate_main(int argc, char **argv, int *exit_code) {
    (void)exit_code;
    generate_options options;
    qb_compute compute;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options},
                            {"COMPUTING", qb_compute_options, &compute},
                            {"COMMON OPTIONS", qb_common_options, &common}};
    const char *word = NULL;
    size_t n_words;
    bool done;
    qb_model *m = NULL;
    qb_device *dev = NULL;
    qb_tokenizer *t = NULL;
    qb_ids prompt = {0};
    emission e = {0};
    qb_stops stops = {0};
    qb_status st;
    QB_TRY(st, qb_command_parse(&page, sets, 3, argc, argv, &word, 1, &n_words, &done));
    if (done) goto out;
    if (!word) return qb_command_missing(&page, "MODEL");
    QB_TRY(st, qb_session_model(word, false, &m));
    QB_TRY(st, qb_session_tokenizer(m, &t));
    const char *text = options.prompt ? options.prompt : "";
    QB_TRY(st, qb_tokenizer_encode(t, text, strlen(text), true, &prompt));
    int64_t positions = (int64_t)prompt.count + options.config.tokens;
    if (positions > m->config.max_positions) positions = m->config.max_positions;
    QB_TRY(st, qb_stops_read(m, t, &stops));
    options.config.stops = stops.ids;
    options.config.n_stops = stops.n;
    QB_TRY(st, qb_session_device(&compute, &dev));
    QB_TRY(st, place(m, dev, positions, compute.offload));
    QB_TRY(st, qb_model_load(m, dev, positions, true));
    e.t = t;
    e.stream = !common.json;
    if (e.stream && options.echo) e.prompt = text;
    int64_t begin_ns = qb_now_ns();
    QB_TRY(st, qb_generate(m, dev, prompt.ids, (int64_t)prompt.count, &options.config, emit, &e));
    QB_TRY(st, e.status);
    st = finish(&options, &e, &prompt, begin_ns, common.json);
out:
    qb_str_free(&e.text);
    qb_ids_free(&e.ids);
    qb_ids_free(&prompt);
    qb_tokenizer_close(t);
    qb_model_close(m);
    qb_session_close(dev);
    return st;
}

const qb_command qb_command_generate = {"generate", "continue a prompt", generate_main};
