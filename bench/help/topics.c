#include "bench/help/topics.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/text.h"
#include "bench/command.h"
#include "bench/suite/suite.h"

#include <string.h>

enum { PAGE_MAX_BYTES = 1 << 22 };

static const qb_topic topics[] = {
    {"suite", NULL, "every key of a suite file"},
#define X(name, page, summary) {#name, page, summary},
#include "bench/help/topics.def"
#undef X
    {"environment", NULL, "the variables that are read"},
};
enum { N_TOPICS = sizeof topics / sizeof topics[0] };

const qb_topic *qb_topic_at(size_t index) {
    return index < N_TOPICS ? &topics[index] : NULL;
}

const qb_topic *qb_topic_find(const char *name) {
    for (size_t i = 0; i < N_TOPICS; i++)
        if (!strcmp(topics[i].name, name)) return &topics[i];
    return NULL;
}

static qb_status environment(bool markdown, int columns, qb_str *out) {
    qb_str_text(out, markdown ? "# Environment\n\n| variable | meaning |\n|---|---|\n" : "ENVIRONMENT\n");
    for (const qb_variable *v = qb_program_variables; v->name; v++) {
        qb_str_printf(out, markdown ? "| `%s` | %s |\n" : "    %s\n", v->name, v->meaning);
        if (markdown) continue;
        qb_str_text(out, "        ");
        qb_text_wrap(v->meaning, 8, columns, out);
    }
    return qb_str_status(out);
}

qb_status qb_topic_print(const qb_topic *topic, bool markdown, int columns, qb_str *out) {
    if (!strcmp(topic->name, "suite")) return qb_suite_help(markdown, out);
    if (!topic->page) return environment(markdown, columns, out);
    char *share = qb_share_dir(), *docs = share ? qb_path_join(share, "docs") : NULL,
         *path = docs ? qb_path_join(docs, topic->page) : NULL, *text = NULL;
    size_t n = 0;
    qb_status st =
        path ? qb_file_read(path, PAGE_MAX_BYTES, &text, &n) : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK && markdown)
        qb_str_append(out, text, n);
    else if (st == QB_OK)
        qb_markdown_as_text(text, columns, out);
    qb_free(share);
    qb_free(docs);
    qb_free(path);
    qb_free(text);
    return st == QB_OK ? qb_str_status(out) : st;
}
