#include "bench/bisect/revisions.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "bench/run/program.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { WORDS_MAX = 256, ANSWER_MAX_BYTES = 64 << 20 };

/* A hook or an alias of git leaves variables that name its own repository. */
static const char *const plain_git[] = {"env",
                                        "-u",
                                        "GIT_DIR",
                                        "-u",
                                        "GIT_WORK_TREE",
                                        "-u",
                                        "GIT_INDEX_FILE",
                                        "-u",
                                        "GIT_OBJECT_DIRECTORY",
                                        "-u",
                                        "GIT_PREFIX",
                                        "LC_ALL=C",
                                        "GIT_TERMINAL_PROMPT=0",
                                        "git"};
enum { N_PLAIN = sizeof plain_git / sizeof plain_git[0] };

/* Its exit code, and what it wrote (both channels), without the last newline; *answer may be NULL. */
static qb_status git(const char *log, const char *const *words, int *code, char **answer) {
    const char *argv[WORDS_MAX + N_PLAIN + 1];
    size_t n = 0;
    qb_status st;
    for (size_t i = 0; i < N_PLAIN; i++) argv[n++] = plain_git[i];
    for (size_t i = 0; words[i]; i++) {
        if (i == WORDS_MAX) return qb_fail(QB_ERR_USAGE, "more than %d words for git", WORDS_MAX);
        argv[n++] = words[i];
    }
    argv[n] = NULL;
    st = qb_program_run(argv, log, code);
    if (st == QB_ERR_NOT_FOUND) st = qb_fail(st, "git could not be started: is it installed?");
    if (st != QB_OK) return st;
    if (answer) {
        size_t bytes;
        QB_TRY(st, qb_file_read(log, ANSWER_MAX_BYTES, answer, &bytes));
        while (bytes && isspace((unsigned char)(*answer)[bytes - 1])) (*answer)[--bytes] = 0;
    }
out:
    return st;
}
#define GIT(log, code, answer, ...) git(log, (const char *const[]){__VA_ARGS__, NULL}, code, answer)

static qb_status failed(const char *log, int code, const char *what) {
    char said[QB_LAST_LINE_CHARS];
    qb_program_last_line(log, said);
    return qb_fail(QB_ERR_IO, "%s: git ended with code %d: %s", what, code, said);
}

qb_status qb_repository_open(const char *dir, const char *scratch, qb_repository *out) {
    int code;
    qb_status st;
    *out = (qb_repository){0};
    out->log = qb_path_join(scratch, "git.log");
    if (!out->log) return qb_fail(QB_ERR_MEMORY, "out of memory");
    QB_TRY(st, GIT(out->log, &code, &out->path, "-C", dir, "rev-parse", "--path-format=absolute",
                   "--git-common-dir"));
    if (code != 0) st = qb_fail(QB_ERR_USAGE, "%s is in no Git repository; --repo names one", dir);
out:
    return st;
}

void qb_repository_close(qb_repository *r) {
    qb_free(r->path);
    qb_free(r->log);
    *r = (qb_repository){0};
}

void qb_commit_free(qb_commit *c) {
    qb_free(c->subject);
    qb_free(c->author);
    qb_free(c->date);
    *c = (qb_commit){{0}, NULL, NULL, NULL};
}

/* The next line, ended in place. */
static char *line(char **rest) {
    char *start = *rest, *end = strchr(start, '\n');
    if (end) *end = 0;
    *rest = end ? end + 1 : start + strlen(start);
    return start;
}

static char *clean_copy(char *text) {
    qb_clean_line(text);
    return qb_strdup(text);
}

qb_status qb_repository_commit(const qb_repository *r, const char *revision, qb_commit *out) {
    char *answer = NULL;
    qb_str peeled = {0};
    int code;
    qb_status st;
    *out = (qb_commit){{0}, NULL, NULL, NULL};
    qb_str_printf(&peeled, "%s^{commit}", revision);
    QB_TRY(st, qb_str_status(&peeled));
    QB_TRY(st, GIT(r->log, &code, NULL, "--git-dir", r->path, "rev-parse", "--verify", "--quiet",
                   "--end-of-options", peeled.text));
    if (code != 0) QB_TRY(st, qb_fail(QB_ERR_USAGE, "'%s' is no revision of %s", revision, r->path));
    QB_TRY(st, GIT(r->log, &code, &answer, "--git-dir", r->path, "log", "-1", "--no-show-signature",
                   "--format=%H%n%cs%n%an%n%s", "--end-of-options", peeled.text, "--"));
    if (code != 0) QB_TRY(st, failed(r->log, code, revision));
    char *rest = answer;
    snprintf(out->id, sizeof out->id, "%s", line(&rest));
    out->date = clean_copy(line(&rest));
    out->author = clean_copy(line(&rest));
    out->subject = clean_copy(line(&rest));
    if (!out->date || !out->author || !out->subject) st = qb_fail(QB_ERR_MEMORY, "out of memory");
out:
    qb_free(answer);
    qb_str_free(&peeled);
    return st;
}

qb_status qb_repository_is_ancestor(const qb_repository *r, const char *old, const char *new_id, bool *yes) {
    int code;
    qb_status st = GIT(r->log, &code, NULL, "--git-dir", r->path, "merge-base", "--is-ancestor", old, new_id);
    *yes = code == 0;
    if (st == QB_OK && code > 1) st = failed(r->log, code, new_id);
    return st;
}

qb_status qb_repository_between(const qb_repository *r, const char *bad, const char *const *good,
                                size_t n_good, char (**ids)[QB_COMMIT_CHARS], size_t *n) {
    const char *words[WORDS_MAX] = {"--git-dir", r->path, "rev-list", "--bisect-all", bad};
    size_t n_words = 5, capacity = 0;
    char *answer = NULL, (*list)[QB_COMMIT_CHARS] = NULL;
    int code;
    qb_status st;
    *n = 0;
    *ids = NULL;
    if (n_words + n_good + 2 > WORDS_MAX)
        return qb_fail(QB_ERR_USAGE, "more than %d good revisions", WORDS_MAX - 7);
    words[n_words++] = "--not";
    for (size_t i = 0; i < n_good; i++) words[n_words++] = good[i];
    QB_TRY(st, git(r->log, words, &code, &answer));
    if (code != 0) QB_TRY(st, failed(r->log, code, bad));
    for (char *rest = answer; *rest;) { /* "ID (dist=3)" */
        const char *id = line(&rest);
        QB_TRY(st, qb_grow(&list, &capacity, *n + 1, sizeof *list));
        snprintf(list[*n], sizeof *list, "%.*s", (int)strspn(id, "0123456789abcdef"), id);
        if (*list[*n]) ++*n;
    }
out:
    qb_free(answer);
    *ids = list;
    return st;
}

qb_status qb_repository_checkout(const qb_repository *r, const char *commit, const char *tree) {
    bool there = false;
    int code;
    qb_status st;
    char *inside = qb_path_join(tree, ".git");
    if (!inside) return qb_fail(QB_ERR_MEMORY, "out of memory");
    QB_TRY(st, qb_path_look(inside, &there));
    if (!there) {
        QB_TRY(st, GIT(r->log, &code, NULL, "clone", "--quiet", "--shared", "--no-checkout", "--", r->path,
                       tree));
        if (code != 0) QB_TRY(st, failed(r->log, code, tree));
    }
    QB_TRY(st, GIT(r->log, &code, NULL, "-C", tree, "-c", "advice.detachedHead=false", "checkout", "--quiet",
                   "--force", "--detach", commit));
    if (code != 0) st = failed(r->log, code, tree);
out:
    qb_free(inside);
    return st;
}
