#include "results/runs.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char baseline_prefix[] = "baseline:";

static const char *created(const qb_results *r) {
    const char *text = qb_json_string(qb_json_get(qb_json_get(r->doc, "context"), "created"));
    return text ? text : "";
}

/* Times are RFC 3339 in UTC, so their text sorts as they do; the name decides between equal ones. */
static int by_time(const void *a, const void *b) {
    const qb_results *x = a, *y = b;
    int order = strcmp(created(x), created(y));
    return order ? order : strcmp(x->path ? x->path : "", y->path ? y->path : "");
}

static qb_status add(qb_runs *runs, const char *path) {
    qb_status st = qb_grow(&runs->documents, &runs->capacity, (size_t)runs->n + 1, sizeof *runs->documents);
    if (st == QB_OK) st = qb_results_open(path, &runs->documents[runs->n]);
    if (st == QB_OK) runs->n++;
    return st;
}

static bool has_suffix(const char *name, const char *suffix) {
    size_t n = strlen(name), m = strlen(suffix);
    return n > m && !strcmp(name + n - m, suffix);
}

/* One damaged run of a month does not stop a gate, but it is said. */
static qb_status add_directory(qb_runs *runs, const char *path) {
    DIR *dir = opendir(path);
    if (!dir) return qb_fail(QB_ERR_IO, "cannot list %s: %s", path, strerror(errno));
    struct dirent *entry;
    qb_status st = QB_OK;
    runs->several = true;
    while (st == QB_OK && (entry = qb_dir_next(dir, path, &st))) {
        if (!has_suffix(entry->d_name, ".json")) continue;
        char *file = qb_path_join(path, entry->d_name);
        if (!file) {
            st = qb_fail(QB_ERR_MEMORY, "out of memory while listing %s", path);
            break;
        }
        if (add(runs, file) != QB_OK) qb_warn("%s is left out: %s", file, qb_error_text());
        qb_free(file);
    }
    closedir(dir);
    return st;
}

static void keep_newest(qb_runs *runs, int64_t newest) {
    if (runs->n) qsort(runs->documents, (size_t)runs->n, sizeof *runs->documents, by_time);
    int surplus = runs->n > newest ? runs->n - (int)newest : 0;
    for (int i = 0; i < surplus; i++) qb_results_close(&runs->documents[i]);
    memmove(runs->documents, runs->documents + surplus,
            (size_t)(runs->n - surplus) * sizeof *runs->documents);
    runs->n -= surplus;
}

/* NAME.json or the directory NAME below `folder`; NULL when neither is there. */
static char *find_below(const char *folder, const char *name) {
    qb_str file = {0};
    char *dir = qb_path_join(folder, name), *found = NULL;
    qb_str_printf(&file, "%s/%s.json", folder, name);
    if (!file.failed && qb_path_exists(file.text))
        found = qb_strdup(file.text);
    else if (dir && qb_path_exists(dir))
        found = qb_strdup(dir);
    qb_str_free(&file);
    qb_free(dir);
    return found;
}

static qb_status find_baseline(const char *name, char **out) {
    char *share = qb_share_dir(), *own = share ? qb_path_join(share, "results/baselines") : NULL;
    const char *folders[] = {getenv("BENCH_BASELINES"), "baselines", "results/baselines", own};
    *out = NULL;
    if (*name && !strchr(name, '/'))
        for (size_t i = 0; !*out && i < sizeof folders / sizeof folders[0]; i++)
            if (folders[i]) *out = find_below(folders[i], name);
    if (!*out)
        (void)qb_fail(
            QB_ERR_IO,
            "no baseline \"%s\": neither %s.json nor a directory of that name in $BENCH_BASELINES (%s), "
            "baselines, results/baselines or %s",
            name, name, folders[0] ? folders[0] : "not set", own ? own : "the program's share folder");
    qb_free(own);
    qb_free(share);
    return *out ? QB_OK : QB_ERR_IO;
}

static qb_status add_word(qb_runs *out, const char *word) {
    char *found = NULL;
    bool is_dir = false;
    int before = out->n;
    qb_status st;
    if (!strncmp(word, baseline_prefix, sizeof baseline_prefix - 1)) {
        QB_TRY(st, find_baseline(word + sizeof baseline_prefix - 1, &found));
        word = found;
    }
    QB_TRY(st, qb_path_look_dir(word, &is_dir));
    QB_TRY(st, is_dir ? add_directory(out, word) : add(out, word));
    if (out->n == before)
        QB_TRY(st, qb_fail(QB_ERR_FORMAT, "%s holds no result document (*.json written by bench run)", word));
out:
    qb_free(found);
    return st;
}

qb_status qb_runs_open(const char *const *words, size_t n, int64_t newest, qb_runs *out) {
    qb_status st = QB_OK;
    *out = (qb_runs){0};
    for (size_t i = 0; i < n && st == QB_OK; i++) st = add_word(out, words[i]);
    if (st == QB_OK) keep_newest(out, newest);
    return st;
}

void qb_runs_close(qb_runs *runs) {
    for (int i = 0; i < runs->n; i++) qb_results_close(&runs->documents[i]);
    qb_free(runs->documents);
    *runs = (qb_runs){0};
}

void qb_runs_without(qb_runs *runs, const qb_runs *others) {
    int kept = 0;
    for (int i = 0; i < runs->n; i++) {
        bool there = false;
        for (int j = 0; runs->several && !there && j < others->n; j++)
            there = !strcmp(created(&runs->documents[i]), created(&others->documents[j])) &&
                    qb_json_equal(runs->documents[i].doc, others->documents[j].doc);
        if (there)
            qb_results_close(&runs->documents[i]);
        else
            runs->documents[kept++] = runs->documents[i];
    }
    runs->n = kept;
}
