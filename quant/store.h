/* The way of quantized linears into the files. Where a device computes, a thread of its own packs, writes and
   syncs behind the work, in the order in which things came, with at most 256 MiB of codes waiting. On the
   processor, which has no time to spare, everything is put at once. */
#pragma once

#include "base/json.h"
#include "checkpoint/layout.h"
#include "kernels/backend.h"

typedef struct qb_store qb_store;

/* The writer, which has begun, is the store's until qb_store_close. dev->threads pack where everything is put
   at once. */
qb_status qb_store_open(qb_writer *w, const qb_layout *layout, qb_device *dev, qb_store **out) QB_NODISCARD;
/* Takes q over in any case and empties it. What failed behind is told by whichever call comes next. */
qb_status qb_store_put(qb_store *s, const char *module, qb_qweight *q) QB_NODISCARD;
/* qb_writer_save behind what was put so far; takes `state` over. */
qb_status qb_store_save(qb_store *s, qb_json *state) QB_NODISCARD;
/* Waits until everything is done. */
qb_status qb_store_drain(qb_store *s) QB_NODISCARD;
/* Drops what waits; takes NULL. */
void qb_store_close(qb_store *s);
