/* Where suites are found: files of the user's, and those that come with the program. */
#include "base/file.h"
#include "base/log.h"
#include "bench/suite/suite.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { SUITE_MAX_BYTES = 1 << 20 };

static char *suites_dir(void) {
    char *share = qb_share_dir();
    char *dir = share ? qb_path_join(share, "suites") : NULL;
    qb_free(share);
    return dir;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

qb_status qb_suite_names(char ***out, size_t *n) {
    char *folder = suites_dir();
    DIR *dir = folder ? opendir(folder) : NULL;
    char **names = NULL;
    size_t capacity = 0;
    qb_status st = QB_OK;
    *n = 0;
    for (struct dirent *e; dir && st == QB_OK && (e = qb_dir_next(dir, folder, &st));) {
        size_t length = strlen(e->d_name);
        if (length < 6 || strcmp(e->d_name + length - 5, ".json") != 0) continue;
        st = qb_grow(&names, &capacity, *n + 1, sizeof *names);
        if (st != QB_OK) break;
        if (!(names[*n] = qb_strdup(e->d_name))) {
            st = qb_fail(QB_ERR_MEMORY, "out of memory");
            break;
        }
        names[(*n)++][length - 5] = 0;
    }
    if (dir) closedir(dir);
    qb_free(folder);
    if (st == QB_OK && *n) qsort(names, *n, sizeof *names, by_text);
    *out = names;
    return st;
}

static qb_status no_suite(const char *word, const char *path) {
    char **names;
    size_t n;
    qb_status st = qb_suite_names(&names, &n);
    if (st == QB_OK) {
        char hint[QB_HINT_CHARS];
        st = qb_fail(QB_ERR_USAGE, "no suite '%s' (looked for %s): `bench list suites` shows them%s", word,
                     path, qb_did_you_mean(word, (const char *const *)names, n, hint));
    }
    for (size_t i = 0; i < n; i++) qb_free(names[i]);
    qb_free(names);
    return st;
}

/* "opt-125m" where no file is called so: the suite that has a model of that name, for that model alone. */
static qb_status load_for_model(const char *word, bool *found, qb_suite *out) {
    char **names;
    size_t n;
    qb_status st = qb_suite_names(&names, &n);
    *found = false;
    for (size_t i = 0; i < n; i++) {
        if (st == QB_OK && !*found &&
            qb_suite_load(names[i], out) == QB_OK) { /* a broken one is another's error */
            for (int m = 0; st == QB_OK && m < out->models.n && !*found; m++) {
                char label[96];
                qb_model_label(out->models.items[m], label);
                if (out->models.n < 2 || out->model_entries[m].adapter || strcasecmp(label, word) != 0)
                    continue;
                *found = true;
                st = qb_suite_set_list(out, "models", out->models.items[m]);
                if (st == QB_OK) qb_info("suite %s, of its models %s alone", out->name, out->models.items[0]);
            }
            if (!*found || st != QB_OK) qb_suite_free(out);
        }
        qb_free(names[i]);
    }
    qb_free(names);
    return st;
}

qb_status qb_suite_load(const char *word, qb_suite *out) {
    *out = (qb_suite){0};
    size_t length = strlen(word);
    bool is_path = strchr(word, '/') || (length > 5 && !strcmp(word + length - 5, ".json"));
    qb_str path = {0};
    char *dir = suites_dir(), *text = NULL;
    if (is_path)
        qb_str_text(&path, word);
    else
        qb_str_printf(&path, "%s/%s.json", dir ? dir : "", word);
    size_t n = 0;
    qb_status st;
    QB_TRY(st, qb_str_status(&path));
    bool there = true;
    if (!is_path) QB_TRY(st, qb_path_look(path.text, &there));
    if (!there) {
        QB_TRY(st, load_for_model(word, &there, out));
        if (!there) st = no_suite(word, path.text);
        goto out;
    }
    QB_TRY(st, qb_file_read(path.text, SUITE_MAX_BYTES, &text, &n));
    st = qb_suite_parse(text, n, path.text, out);
out:
    qb_free(text);
    qb_free(dir);
    qb_str_free(&path);
    return st;
}
