/* Which file on this machine holds a split of a dataset. */
#pragma once

#include "datasets/datasets.h"
#include "datasets/text.h"

typedef struct qb_located {
    char *path;      /* owned */
    char *entry;     /* owned; of an archive, or NULL */
    bool substitute; /* a sample or a part, not the canonical file */
} qb_located;

/* Searches as qb_dataset_at's comment says: folder by folder, in each the canonical names first. The error
   names the file names, the folders looked in and how to get the file. */
qb_status qb_dataset_locate(const qb_dataset *d, bool calibration, const char *data_dir,
                            qb_located *out) QB_NODISCARD;
void qb_located_free(qb_located *l);
