#include "bench/measure/scoring.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PROMPTS_MAX = 256, PROMPTS_MAX_BYTES = 16 << 20 };

void qb_scoring_free(qb_scoring *s) {
    qb_windows_free(&s->windows);
    *s = (qb_scoring){0};
}

static const char *const kind_names[] = {
    [QB_PROTOCOL_GPTQ] = "gptq", [QB_PROTOCOL_LLAMACPP] = "llamacpp", [QB_PROTOCOL_STRIDED] = "strided"};

qb_status qb_protocol_fits(const qb_protocol *p, const qb_config *c, const char *model) {
    if (p->window <= c->max_positions) return QB_OK;
    return qb_fail(QB_ERR_USAGE,
                   "protocol %s has windows of %d tokens, but %s has %" PRId64 " positions; try %s-%" PRId64,
                   p->name, (int)p->window, model, c->max_positions, kind_names[p->kind], c->max_positions);
}

void qb_data_files_add(qb_json *data, const char *dataset, const qb_data_files *files) {
    for (int i = 0; data && i < files->n; i++) {
        const qb_data_file *f = &files->files[i];
        bool known = false;
        for (const qb_json *j = qb_json_first(data); j; j = qb_json_next(j)) {
            const char *sha = qb_json_string(qb_json_get(j, "sha256"));
            const char *name = qb_json_string(qb_json_get(j, "dataset"));
            known = known || (sha && name && !strcmp(sha, f->sha256) && !strcmp(name, dataset));
        }
        if (known) continue;
        qb_json *j = qb_json_object();
        qb_json_put_text(j, "dataset", dataset);
        qb_json_put_text(j, "role", f->role);
        qb_json_put_text(j, "file", qb_path_base(f->path));
        qb_json_put_text(j, "sha256", f->sha256);
        qb_json_put_int(j, "bytes", f->bytes);
        /* The user's own file is neither canonical nor a substitute for something. */
        if (qb_dataset_find(dataset))
            qb_json_put_bool(j, "canonical", !f->note[0]);
        else
            qb_json_put_null(j, "canonical");
        qb_json_put_text(j, "note", f->note[0] ? f->note : NULL);
        qb_json_push(data, j);
    }
}

/* The windows reach the text's end, but for a remainder shorter than a window. */
static bool is_whole(const qb_windows *w) {
    int64_t end = 0;
    if (w->part < 1) return false;
    for (int64_t i = 0; i < w->count; i++)
        if (w->windows[i].offset + w->windows[i].length > end)
            end = w->windows[i].offset + w->windows[i].length;
    return end + w->max_length > w->total_tokens;
}

/* The demo text comes from a source whose exact log-probability its maker wrote beside it. The floor is that
   of the whole test text: total nats over the tokens predicted, which are all but the first. A part of the
   text may be easier than the whole, so it has no floor. */
static double entropy_floor(const char *dataset, const qb_windows *w) {
    double nats = (double)NAN;
    if (strcmp(dataset, "demo") != 0 || w->total_tokens < 2 || !is_whole(w)) return nats;
    char *share = qb_share_dir(), *path = share ? qb_path_join(share, "demo/entropy.json") : NULL;
    qb_json *json = NULL;
    bool there = false;
    qb_status st = path ? qb_path_look(path, &there) : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (there) st = qb_json_read(path, 1 << 20, &json);
    if (st == QB_OK)
        nats = qb_json_number(qb_json_get(qb_json_get(json, "test"), "nll_nats"));
    else
        qb_warn("the floor of perplexity is not known: %s", qb_error_text());
    qb_json_free(json);
    qb_free(path);
    qb_free(share);
    return exp(nats / (double)(w->total_tokens - 1));
}

/* The last `parts` parts of a path; the whole when it has no more. */
static const char *tail_of(const char *path, int parts) {
    const char *p = path + strlen(path);
    while (p > path) {
        if (p[-1] == '/' && --parts == 0) break;
        p--;
    }
    return p;
}

static bool is_taken(const char *tail, int parts, const char *const *words, int n, int self) {
    if (qb_dataset_find(tail)) return true; /* a file of that name is not that dataset */
    for (int i = 0; i < n; i++)
        if (i != self && !qb_dataset_find(words[i]) && strcmp(words[i], words[self]) != 0 &&
            !strcmp(tail_of(words[i], parts), tail))
            return true;
    return false;
}

qb_status qb_dataset_labels(const char *const *words, int n, qb_dataset_label *labels) {
    for (int i = 0; i < n; i++) {
        const char *tail = words[i];
        int parts = 1;
        if (!qb_dataset_find(words[i]))
            while (tail = tail_of(words[i], parts), tail > words[i] && is_taken(tail, parts, words, n, i))
                parts++;
        if (strlen(tail) >= sizeof labels[i] && parts > 1)
            return qb_fail(QB_ERR_USAGE,
                           "'%.60s...' has the base name of another text, and what tells them apart is "
                           "longer than %zu characters; rename one or give shorter paths",
                           tail, sizeof labels[i] - 1);
        snprintf(labels[i], sizeof labels[i], "%.*s", (int)sizeof labels[i] - 1, tail);
    }
    return QB_OK;
}

/* A tokenizer may know more tokens than the model, when a file beside it names some that were never trained.
 */
static qb_status check_ids(const qb_windows *w, const qb_model *m) {
    for (int64_t i = 0; i < w->n_ids; i++)
        if (w->ids[i] >= m->config.vocab)
            return qb_fail(
                QB_ERR_FORMAT,
                "%s: the tokenizer reads token %d in the text, but %s has a vocabulary of %" PRId64
                ": tokenizer and model do not match, or a special token that the model lacks is spelt "
                "there (--special-tokens text reads it as text)",
                w->dataset, w->ids[i], m->name, m->config.vocab);
    return QB_OK;
}

qb_status qb_scoring_open(const qb_scoring_request *r, qb_scoring *out) {
    qb_protocol p;
    qb_data_files files = {0};
    const char *dataset = r->dataset;
    *out = (qb_scoring){.floor = (double)NAN};
    qb_status st = qb_protocol_parse(r->protocol, &p);
    if (st == QB_OK) st = qb_protocol_fits(&p, &r->model->config, r->model->name);
    qb_source source = {dataset, r->data_dir, r->tokenizer, qb_protocol_special_tokens(p.kind)};
    if (st == QB_OK && strcmp(r->special_tokens, "protocol") != 0)
        st = qb_special_tokens_parse(r->special_tokens, &source.special);
    if (st == QB_OK) st = qb_dataset_windows(&source, &p, r->max_windows, &out->windows, &files);
    if (st == QB_OK && (st = check_ids(&out->windows, r->model)) != QB_OK) qb_windows_free(&out->windows);
    if (st != QB_OK) return st;
    snprintf(out->windows.dataset, sizeof out->windows.dataset, "%s", r->label);
    snprintf(out->dataset, sizeof out->dataset, "%s", r->label);
    snprintf(out->protocol, sizeof out->protocol, "%s", p.name);
    out->floor = entropy_floor(dataset, &out->windows);
    qb_data_files_add(r->data, r->label, &files);
    return QB_OK;
}

/* ---- prompts ---- */

/* The next run of lines that are not blank; false at the end. */
static bool next_prompt(const char **at, const char **begin, size_t *n) {
    const char *p = *at;
    while (*p == '\n' || *p == '\r' || *p == ' ' || *p == '\t') p++;
    if (!*p) return false;
    *begin = p;
    const char *end = p;
    for (const char *line = p; *line;) {
        size_t length = strcspn(line, "\n");
        if (strspn(line, " \t\r") >= length) break; /* a blank line ends the prompt */
        end = line + length;
        line = end + (*end == '\n');
    }
    *n = (size_t)(end - p);
    *at = end;
    return true;
}

static qb_status add_prompt(const qb_tokenizer *t, const char *text, size_t n, qb_ids *ids, qb_windows *out) {
    size_t before = ids->count;
    qb_status st = qb_tokenizer_encode(t, text, n, true, ids);
    if (st != QB_OK) return st;
    int32_t length = (int32_t)(ids->count - before);
    out->windows[out->count++] = (qb_window){(int64_t)before, length, length, length};
    if (length > out->max_length) out->max_length = length;
    return QB_OK;
}

qb_status qb_prompts_open(const char *file, const qb_tokenizer *t, qb_windows *out) {
    char *share = NULL, *own = NULL, *text = NULL;
    qb_ids ids = {0};
    size_t n;
    qb_status st;
    *out = (qb_windows){0};
    if (!strcmp(file, "default")) {
        share = qb_share_dir();
        own = share ? qb_path_join(share, "prompts/default.txt") : NULL;
        if (!own) return qb_fail(QB_ERR_MEMORY, "out of memory");
        file = own;
    }
    QB_TRY(st, qb_file_read(file, PROMPTS_MAX_BYTES, &text, &n));
    QB_TRY(st, qb_alloc_zero(PROMPTS_MAX, sizeof *out->windows, &out->windows));
    const char *at = text, *begin;
    while (out->count < PROMPTS_MAX && next_prompt(&at, &begin, &n))
        QB_TRY(st, add_prompt(t, begin, n, &ids, out));
    if (!out->count) {
        st = qb_fail(QB_ERR_FORMAT, "%s holds no prompt; write prompts with a blank line between them", file);
        goto out;
    }
    out->ids = ids.ids;
    out->n_ids = out->total_tokens = (int64_t)ids.count;
    ids = (qb_ids){0};
    snprintf(out->protocol, sizeof out->protocol, "prompts");
    snprintf(out->dataset, sizeof out->dataset, "%.63s", qb_path_base(file));
out:
    qb_ids_free(&ids);
    qb_free(text);
    qb_free(own);
    qb_free(share);
    if (st != QB_OK) qb_windows_free(out);
    return st;
}
