/* bench help TOPIC: pages about things that are no command. */
#pragma once

#include "base/str.h"

typedef struct qb_topic {
    const char *name, *page, *summary; /* page: a file of docs/; NULL: written from rows */
} qb_topic;
const qb_topic *qb_topic_at(size_t index); /* NULL behind the last */
const qb_topic *qb_topic_find(const char *name);

/* The topic for a terminal of so many columns, or as the Markdown that it is. Appends. */
qb_status qb_topic_print(const qb_topic *topic, bool markdown, int columns, qb_str *out) QB_NODISCARD;

/* Markdown as text: heads at the margin, all else indented; tables become a paragraph a row; links keep their
 * words. Appends. */
void qb_markdown_as_text(const char *markdown, int columns, qb_str *out);
