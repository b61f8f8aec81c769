/* One content into one blob. Inside hub/ only. */
#pragma once

#include "hub/ask.h"

#include <stdatomic.h>

/* Makes CACHE/.../blobs/ETAG of what is at content->url, verified, or leaves at most an .incomplete file that
   the next try goes on with. The blob's lock is held. `path` names the file in the repository, for messages
   and for asking where its content is when an address has run out. Adds the bytes that came to *done. */
qb_status qb_download(qb_asker *a, const char *revision, const char *path, qb_content *content,
                      _Atomic int64_t *done) QB_NODISCARD;
/* Whether the file has the hash that the etag is. *same is false for a file of another length. */
qb_status qb_content_verify(int fd, const char *etag, int64_t bytes, bool (*stopped)(void *), void *ctx,
                            bool *same) QB_NODISCARD;
