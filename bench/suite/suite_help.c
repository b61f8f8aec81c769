/* The keys of a suite for people: `bench help suite` and docs/suites.md, from the same rows that read it. */
#include "base/text.h"
#include "bench/suite/keys.h"
#include "bench/suite/variant.h"

#include <string.h>

static const char about[] =
    "A suite is a JSON file: which models, methods, texts and metrics `bench run` measures. --suite takes a "
    "path, or a name of `bench list suites`. Every model is measured with every method on every backend; a "
    "method that cannot start from a model is a skipped row with its reason. Paths in a suite are looked for "
    "beside its file; those that begin with ./ or ../ only there. `bench run --suite X --print` shows the "
    "suite as it is resolved, with every option spelt out. --set KEY=VALUE changes a key of the suite, of "
    "speed "
    "or of every method that has it.";

static const char example[] =
    "{\n"
    "    \"name\": \"published\",\n"
    "    \"models\": [\"./SmolLM2-135M\",\n"
    "               {\"model\": \"./SmolLM2-135M-Q4_K_M.gguf\", \"label\": \"Q4_K_M\",\n"
    "                \"base\": \"./SmolLM2-135M\"}],\n"
    "    \"methods\": [{\"method\": \"none\"},\n"
    "                {\"method\": \"gptq\", \"bits\": [4, 3], \"group_size\": 128, "
    "\"models\": [\"./SmolLM2-135M\"]}],\n"
    "    \"datasets\": [\"wikitext2\"],\n"
    "    \"protocols\": [\"gptq-2048\"],\n"
    "    \"metrics\": [\"perplexity\", \"divergence\", \"memory\"]\n"
    "}\n";

/* ---- one item in either form ---- */

typedef struct writer {
    qb_str *out;
    bool markdown;
} writer;

enum { KEY_COLUMN = 20, TEXT_COLUMNS = 100 };

static void put_escaped(const char *text, qb_str *out) {
    for (const char *p = text; *p; p++) {
        if (strchr("|<>*_", *p)) qb_str_text(out, "\\");
        qb_str_append(out, p, 1);
    }
}

static void put_heading(const writer *w, const char *title, const char *text) {
    qb_str_printf(w->out, w->markdown ? "\n## %s\n\n" : "\n%s\n", title);
    if (!text) return;
    qb_str_text(w->out, w->markdown ? "" : "    ");
    if (w->markdown)
        qb_str_printf(w->out, "%s\n", text);
    else
        qb_text_wrap(text, 4, TEXT_COLUMNS, w->out);
    if (w->markdown) qb_str_text(w->out, "\n");
}

static void begin_items(const writer *w) {
    if (w->markdown) qb_str_text(w->out, "| key | value | default | meaning |\n|---|---|---|---|\n");
}

static void put_item(const writer *w, const char *key, const char *kind, const char *initial,
                     const char *help) {
    if (w->markdown) {
        qb_str_printf(w->out, "| `%s` | ", key);
        put_escaped(kind, w->out);
        qb_str_text(w->out, " | ");
        put_escaped(initial, w->out);
        qb_str_text(w->out, " | ");
        put_escaped(help, w->out);
        qb_str_text(w->out, " |\n");
        return;
    }
    qb_str text = {0};
    qb_str_printf(&text, "%s; %s", kind, help);
    if (*initial) qb_str_printf(&text, " [%s]", initial);
    qb_str_printf(w->out, "    %-*s", KEY_COLUMN - 4, key);
    if ((int)strlen(key) >= KEY_COLUMN - 4) qb_str_printf(w->out, "\n%*s", KEY_COLUMN, "");
    qb_text_wrap(qb_str_get(&text), KEY_COLUMN, TEXT_COLUMNS, w->out);
    w->out->failed |= text.failed;
    qb_str_free(&text);
}

/* ---- rows ---- */

static void put_kind(const qb_option *row, bool list, qb_str *out) {
    static const char *const kinds[] = {
        [QB_OPTION_BOOL] = "true or false", [QB_OPTION_INT] = "whole number",
        [QB_OPTION_REAL] = "number",        [QB_OPTION_TEXT] = "text",
        [QB_OPTION_CHOICE] = "one of ",     [QB_OPTION_INT_LIST] = "list of whole numbers"};
    qb_str_text(out, kinds[row->type]);
    for (const char *p = row->type == QB_OPTION_CHOICE ? row->choices : ""; *p; p++)
        if (*p == '|')
            qb_str_text(out, ", ");
        else
            qb_str_append(out, p, 1);
    if (row->min < row->max && row->max < 1e15 && row->type != QB_OPTION_BOOL)
        qb_str_printf(out, ", %.15g to %.15g", row->min, row->max);
    else if (row->min < row->max && row->type != QB_OPTION_BOOL)
        qb_str_printf(out, ", at least %.15g", row->min);
    if (list && row->type != QB_OPTION_INT_LIST) qb_str_text(out, ", or a list of them");
}

static void put_options(const writer *w, const qb_option *rows, bool lists) {
    for (const qb_option *row = rows; row->name; row++) {
        char key[48];
        qb_str kind = {0};
        const char *initial = row->initial ? row->initial : row->type == QB_OPTION_BOOL ? "false" : "";
        put_kind(row, lists, &kind);
        put_item(w, qb_option_key(row->name, key), qb_str_get(&kind), initial, row->help);
        w->out->failed |= kind.failed;
        qb_str_free(&kind);
    }
}

static void put_keys(const writer *w, const qb_suite_key *keys) {
    for (; keys->name; keys++)
        put_item(w, keys->name, keys->kind,
                 keys->required  ? "required"
                 : keys->initial ? keys->initial
                                 : "",
                 keys->help);
}

static void put_groups(const writer *w) {
    for (size_t i = 0; qb_metric_group_at(i); i++) {
        const qb_metric_group *g = qb_metric_group_at(i);
        qb_str_printf(w->out, w->markdown ? "- `%s`: %s\n" : "    %-16s", g->name, g->summary);
        if (!w->markdown) qb_text_wrap(g->summary, KEY_COLUMN, TEXT_COLUMNS, w->out);
    }
}

qb_status qb_suite_help(bool markdown, qb_str *out) {
    const writer w = {out, markdown};
    if (markdown)
        qb_str_printf(out,
                      "# Suites\n\n`bench help suite markdown` writes this page from the rows that read "
                      "suites.\n\n%s\n",
                      about);
    else
        put_heading(&w, "SUITES", about);
    put_heading(&w, markdown ? "Keys" : "KEYS", NULL);
    begin_items(&w);
    put_keys(&w, qb_suite_keys);
    put_options(&w, qb_suite_options, false);
    put_heading(&w, markdown ? "Models" : "MODELS",
                "An entry of `models` is a name, or an object of these keys.");
    begin_items(&w);
    put_options(&w, qb_suite_model_options, false);
    put_heading(
        &w, markdown ? "Methods" : "METHODS",
        "An entry of `methods` is an object. A list in the place of a value stands for an entry with each "
        "of its items; the first key's list turns slowest.");
    begin_items(&w);
    put_keys(&w, qb_suite_method_keys);
    for (size_t i = 0; qb_quant_method_at(i); i++) {
        const qb_quant_method *m = qb_quant_method_at(i);
        qb_str title = {0};
        if (!m->options->name) continue;
        qb_str_printf(&title, markdown ? "Method %s" : "METHOD %s", m->name);
        put_heading(&w, qb_str_get(&title), m->summary);
        begin_items(&w);
        put_options(&w, m->options, true);
        qb_str_free(&title);
    }
    put_heading(&w, markdown ? "Speed" : "SPEED", "The keys of the object `speed`.");
    begin_items(&w);
    put_options(&w, qb_speed_options, false);
    put_heading(&w, markdown ? "Metrics" : "METRICS", NULL);
    put_groups(&w);
    put_heading(&w, markdown ? "Example" : "EXAMPLE", NULL);
    qb_str_printf(out, markdown ? "```json\n%s```\n" : "%s", example);
    return qb_str_status(out);
}
