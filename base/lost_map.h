/* Mapped files that are cut short or vanish (a server that goes away, a download begun anew): reading them
   raises SIGBUS, which says nothing. Here it ends the process with one line that names the file. */
#pragma once

#include <stddef.h>

/* Gets the sentence, in a signal handler; the process ends behind it. */
typedef void (*qb_last_words)(const char *sentence);

/* From now on SIGBUS inside a known mapping is told through `tell` (NULL: "bench: ..." on standard error),
   and the process exits with 1. */
void qb_lost_map_watch(qb_last_words tell);

/* Mappings of files; qb_map_open and qb_map_close keep the list. */
void qb_lost_map_add(const void *at, size_t n, const char *path);
void qb_lost_map_remove(const void *at);
