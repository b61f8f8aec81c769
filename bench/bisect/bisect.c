#include "bench/bisect/bisect.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "bench/run/program.h"
#include "results/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SHORT = 12, WHY_ROWS = 3 };

const char *const qb_step_words[] = {"good", "bad", "skipped"};

/* ---- building ---- */

typedef struct {
    const qb_bisect_config *config;
    qb_repository repository;
    char *good_tree, *tree; /* of the good end, and of the revision that is looked at */
    qb_bisect *out;
} search;

/* *why stays empty when the tree holds the program afterwards. */
static qb_status build(const search *s, const char *tree, const char *commit, qb_str *why) {
    const qb_bisect_config *c = s->config;
    const char *const argv[] = {"sh", "-c", "cd \"$1\" && eval \"$2\"", "sh", tree, c->build, NULL};
    char said[QB_LAST_LINE_CHARS];
    qb_str log = {0};
    char *program = NULL;
    bool there = false;
    int code = 0;
    qb_status st;
    qb_str_printf(&log, "%s/%.*s-build.log", c->dir, SHORT, commit);
    QB_TRY(st, qb_str_status(&log));
    QB_TRY(st, qb_repository_checkout(&s->repository, commit, tree));
    st = qb_program_run(argv, log.text, &code);
    if (st == QB_ERR_NOT_FOUND) /* the shell's own 127: a command that is not there */
        qb_error_clear();
    else if (st != QB_OK)
        goto out;
    st = QB_OK;
    program = qb_path_join(tree, c->program);
    if (!program) QB_TRY(st, qb_fail(QB_ERR_MEMORY, "out of memory"));
    if (code != 0) {
        qb_program_last_line(log.text, said);
        qb_str_printf(why, "its build ended with code %d: %s", code, said);
    } else {
        QB_TRY(st, qb_path_look(program, &there));
        if (!there) qb_str_printf(why, "its build leaves no %s", c->program);
    }
    if (st == QB_OK) st = qb_str_status(why);
out:
    qb_free(program);
    qb_str_free(&log);
    return st;
}

/* ---- what a comparison says of a revision ---- */

static bool counts(const search *s, const char *name) {
    size_t n = strlen(name);
    for (const char *p = s->config->metric; p; p = *p ? p + 1 : NULL) {
        size_t length = strcspn(p, ",");
        if (length == n && !strncmp(p, name, n)) return true;
        p += length;
        if (!*p) return false;
    }
    return !s->config->metric;
}

static qb_bisect_row *known(const search *s, const qb_compare_row *row) {
    for (size_t i = 0; i < s->out->n_rows; i++)
        if (!strcmp(s->out->rows[i].id, row->id) && !strcmp(s->out->rows[i].metric, qb_str_get(&row->metric)))
            return &s->out->rows[i];
    return NULL;
}

static bool is_worse(const qb_compare_row *row) {
    return row->verdict == QB_REGRESSION || row->verdict == QB_MISSING;
}

static void put_row(const qb_compare_row *row, size_t nth, qb_str *out) {
    if (nth == WHY_ROWS) qb_str_text(out, ", ..");
    if (nth >= WHY_ROWS) return;
    if (nth) qb_str_text(out, ", ");
    qb_text_clean(row->id, 60, out);
    qb_str_printf(out, " %s ", qb_str_get(&row->metric));
    if (row->verdict == QB_MISSING)
        qb_str_text(out, "is missing");
    else if (isfinite(row->change_pct))
        qb_compare_put_change(row->change_pct, out);
    else
        qb_str_text(out, qb_verdict_keys[row->verdict]);
}

typedef struct {
    qb_step_kind kind;
    int64_t needed; /* pairs that would tell, of a skipped one; 0: unknown */
} answer;

/* One row that is worse is enough. The rows that are worse at the bad end are those that are looked for; at
   the end itself (nothing is known yet) all that count. */
static answer read_answer(const search *s, const qb_comparison *c, qb_str *why) {
    answer a = {QB_STEP_GOOD, 0};
    bool first = !s->out->n_rows;
    qb_str open = {0};
    size_t n_bad = 0, n_open = 0;
    for (size_t i = 0; i < c->count; i++) {
        const qb_compare_row *row = &c->rows[i];
        if (!counts(s, row->name) || (!first && !known(s, row))) continue;
        if (is_worse(row)) put_row(row, n_bad++, why);
        bool unclear = row->verdict == QB_INCONCLUSIVE ||
                       (!first && (row->verdict == QB_NOISY_ROW || row->verdict == QB_INCOMPARABLE));
        if (!unclear) continue;
        put_row(row, n_open++, &open);
        if (row->needed > a.needed && !strcmp(row->needed_of, "pairs")) a.needed = row->needed;
    }
    if (n_bad) {
        a.kind = QB_STEP_BAD;
    } else if (n_open) {
        a.kind = QB_STEP_SKIPPED;
        qb_str_printf(why, "it cannot be told: %s", qb_str_get(&open));
    }
    why->failed |= open.failed;
    qb_str_free(&open);
    return a;
}

/* Keeps which rows are worse at the bad end, and how much they are at the revision that leads now. */
static qb_status note_rows(const search *s, const qb_comparison *c) {
    qb_bisect *out = s->out;
    bool first = !out->n_rows;
    qb_status st = QB_OK;
    for (size_t i = 0; !first && i < out->n_rows; i++) out->rows[i].worse = false;
    for (size_t i = 0; i < c->count; i++) {
        const qb_compare_row *row = &c->rows[i];
        if (!is_worse(row) || !counts(s, row->name)) continue;
        qb_bisect_row *mine = first ? NULL : known(s, row);
        if (first) {
            QB_TRY(st, qb_grow(&out->rows, &out->rows_capacity, out->n_rows + 1, sizeof *out->rows));
            mine = &out->rows[out->n_rows++];
            *mine = (qb_bisect_row){.id = qb_strdup(row->id), .metric = qb_strdup(qb_str_get(&row->metric))};
            if (!mine->id || !mine->metric) QB_TRY(st, qb_fail(QB_ERR_MEMORY, "out of memory"));
        }
        if (!mine) continue;
        mine->worse = true;
        mine->change_pct = row->change_pct;
    }
out:
    return st;
}

/* ---- a revision ---- */

/* Measures by turns with the good end's program, on until it can be told or the pairs are spent. */
static qb_status measure(const search *s, qb_bisect_step *step) {
    const qb_bisect_config *c = s->config;
    char prefix[SHORT + 2];
    char *programs[2] = {qb_path_join(s->good_tree, c->program), qb_path_join(s->tree, c->program)};
    snprintf(prefix, sizeof prefix, "%.*s-", SHORT, step->commit.id);
    qb_turns t = {.config = &c->turns,
                  .both = c->settings,
                  .programs = {programs[0], programs[1]},
                  .dir = c->dir,
                  .prefix = prefix};
    int64_t pairs = c->turns.pairs, last = 0;
    qb_status st = programs[0] && programs[1] ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory");
    while (st == QB_OK && pairs > last) {
        qb_turns_verdict v;
        answer a = {QB_STEP_SKIPPED, 0};
        QB_TRY(st, qb_turns_measure(&t, (int)pairs));
        st = qb_turns_judge(&t, &c->judging, &v);
        qb_str_free(&step->why);
        if (st == QB_OK) a = read_answer(s, &v.comparison, &step->why);
        step->kind = a.kind;
        step->unclear = a.kind == QB_STEP_SKIPPED;
        step->pairs = t.n[0];
        if (st == QB_OK && a.kind == QB_STEP_BAD) st = note_rows(s, &v.comparison);
        qb_turns_verdict_free(&v);
        last = pairs;
        if (a.kind == QB_STEP_SKIPPED && !t.no_times)
            pairs = a.needed > pairs && a.needed < c->max_pairs ? a.needed : c->max_pairs;
    }
out:
    qb_turns_close(&t);
    for (int k = 0; k < 2; k++) qb_free(programs[k]);
    return st;
}

/* Whether a failure is the revision's own, so that the search goes on without it. */
static bool is_its_own(qb_status st) {
    return st != QB_OK && st != QB_ERR_INTERRUPTED && st != QB_ERR_MEMORY;
}

static qb_status look_at(const search *s, const char *id, const qb_bisect_step **out) {
    qb_bisect *b = s->out;
    qb_bisect_step *step;
    int64_t start = qb_now_ns();
    qb_status st;
    QB_TRY(st, qb_grow(&b->steps, &b->steps_capacity, b->n_steps + 1, sizeof *b->steps));
    step = &b->steps[b->n_steps++];
    memset(step, 0, sizeof *step);
    step->kind = QB_STEP_SKIPPED;
    QB_TRY(st, qb_repository_commit(&s->repository, id, &step->commit));
    qb_info("%.*s %s", SHORT, id, step->commit.subject);
    QB_TRY(st, build(s, s->tree, id, &step->why));
    if (!step->why.length) {
        st = measure(s, step);
        if (is_its_own(st)) {
            qb_str_free(&step->why);
            qb_str_text(&step->why, qb_error_text());
            qb_error_clear();
            st = QB_OK;
        }
    }
    step->seconds = (double)(qb_now_ns() - start) * 1e-9;
    if (step->why.text) qb_clean_line(step->why.text);
    qb_info("%.*s is %s%s%s", SHORT, id, qb_step_words[step->kind], step->why.length ? ": " : "",
            qb_str_get(&step->why));
    *out = step;
    if (st == QB_OK) st = qb_str_status(&step->why);
out:
    return st;
}

/* ---- narrowing ---- */

typedef char commit_id[QB_COMMIT_CHARS];

static bool was_skipped(const qb_bisect *b, const char *id) {
    for (size_t i = 0; i < b->n_steps; i++)
        if (b->steps[i].kind == QB_STEP_SKIPPED && !strcmp(b->steps[i].commit.id, id)) return true;
    return false;
}

static qb_status add_suspect(const search *s, const char *id) {
    qb_bisect *b = s->out;
    qb_status st = qb_grow(&b->suspects, &b->suspects_capacity, b->n_suspects + 1, sizeof *b->suspects);
    return st == QB_OK ? qb_repository_commit(&s->repository, id, &b->suspects[b->n_suspects++]) : st;
}

/* Between `bad` and the good ones the next to look at is the one that parts them most evenly. */
static qb_status narrow(const search *s) {
    qb_bisect *b = s->out;
    commit_id bad, *ids = NULL;
    const char **good = NULL;
    commit_id *good_ids = NULL;
    size_t n_good = 1, n_ids = 0, capacity = 0, pointers = 0;
    qb_status st;
    memcpy(bad, b->bad.id, sizeof bad);
    QB_TRY(st, qb_grow(&good_ids, &capacity, 1, sizeof *good_ids));
    memcpy(good_ids[0], b->good.id, sizeof *good_ids);
    for (;;) {
        const qb_bisect_step *step;
        size_t next = 0;
        QB_TRY(st, qb_grow(&good, &pointers, n_good, sizeof *good));
        for (size_t i = 0; i < n_good; i++) good[i] = good_ids[i];
        qb_free(ids);
        QB_TRY(st, qb_repository_between(&s->repository, bad, good, n_good, &ids, &n_ids));
        if (!b->between) b->between = (int64_t)n_ids;
        while (next < n_ids && (!strcmp(ids[next], bad) || was_skipped(b, ids[next]))) next++;
        if (next == n_ids) break;
        qb_info("%zu commit%s to choose among, about %.0f more to measure", n_ids, n_ids == 1 ? "" : "s",
                ceil(log2((double)n_ids)));
        QB_TRY(st, look_at(s, ids[next], &step));
        if (step->kind == QB_STEP_BAD) memcpy(bad, ids[next], sizeof bad);
        if (step->kind != QB_STEP_GOOD) continue;
        QB_TRY(st, qb_grow(&good_ids, &capacity, n_good + 1, sizeof *good_ids));
        memcpy(good_ids[n_good++], ids[next], sizeof *good_ids);
    }
    QB_TRY(st, add_suspect(s, bad));
    for (size_t i = 0; i < n_ids; i++)
        if (strcmp(ids[i], bad) != 0) QB_TRY(st, add_suspect(s, ids[i]));
out:
    qb_free(ids);
    qb_free(good);
    qb_free(good_ids);
    return st;
}

static qb_status check_ends(const search *s) {
    const qb_bisect_config *c = s->config;
    qb_bisect *b = s->out;
    bool yes = false;
    qb_status st;
    QB_TRY(st, qb_repository_commit(&s->repository, c->good, &b->good));
    QB_TRY(st, qb_repository_commit(&s->repository, c->bad, &b->bad));
    if (!strcmp(b->good.id, b->bad.id))
        QB_TRY(st, qb_fail(QB_ERR_USAGE, "%s and %s are the same commit %.*s", c->good, c->bad, SHORT,
                           b->good.id));
    QB_TRY(st, qb_repository_is_ancestor(&s->repository, b->good.id, b->bad.id, &yes));
    if (!yes)
        st = qb_fail(QB_ERR_USAGE, "%s is no ancestor of %s: the good revision must come before the bad one",
                     c->good, c->bad);
out:
    return st;
}

qb_status qb_bisect_run(const qb_bisect_config *config, qb_bisect *out) {
    search s = {.config = config, .out = out};
    const qb_bisect_step *end;
    qb_str why = {0};
    qb_status st;
    QB_TRY(st, qb_repository_open(config->repo, config->dir, &s.repository));
    QB_TRY(st, check_ends(&s));
    s.good_tree = qb_path_join(config->dir, "good");
    s.tree = qb_path_join(config->dir, "candidate");
    if (!s.good_tree || !s.tree) QB_TRY(st, qb_fail(QB_ERR_MEMORY, "out of memory"));
    qb_info("%.*s %s: the good end is built", SHORT, out->good.id, out->good.subject);
    QB_TRY(st, build(&s, s.good_tree, out->good.id, &why));
    if (why.length)
        QB_TRY(st, qb_fail(QB_ERR_INTERNAL, "the good end %.*s: %s", SHORT, out->good.id, why.text));
    QB_TRY(st, look_at(&s, out->bad.id, &end));
    if (end->kind == QB_STEP_BAD) st = narrow(&s);
out:
    qb_str_free(&why);
    qb_free(s.good_tree);
    qb_free(s.tree);
    qb_repository_close(&s.repository);
    return st;
}

void qb_bisect_free(qb_bisect *b) {
    qb_commit_free(&b->good);
    qb_commit_free(&b->bad);
    for (size_t i = 0; i < b->n_steps; i++) {
        qb_commit_free(&b->steps[i].commit);
        qb_str_free(&b->steps[i].why);
    }
    for (size_t i = 0; i < b->n_rows; i++) {
        qb_free(b->rows[i].id);
        qb_free(b->rows[i].metric);
    }
    for (size_t i = 0; i < b->n_suspects; i++) qb_commit_free(&b->suspects[i]);
    qb_free(b->steps);
    qb_free(b->rows);
    qb_free(b->suspects);
    *b = (qb_bisect){.n_steps = 0};
}
