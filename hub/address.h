/* Addresses of the hub (huggingface_hub 2.4.0, constants.py and hf_api.py), and what may be asked of URLs. */
#pragma once

#include "base/str.h"
#include "hub/hub.h"

/* E/ORG/NAME/resolve/REV/PATH, datasets below E/datasets/: a file, its head saying hash and size. */
qb_status qb_hub_file_url(const char *endpoint, const qb_hub_repo *repo, const char *revision,
                          const char *path, qb_str *out) QB_NODISCARD;
/* E/api/models/ORG/NAME/revision/REV: its commit. */
qb_status qb_hub_info_url(const char *endpoint, const qb_hub_repo *repo, qb_str *out) QB_NODISCARD;
/* E/api/models/ORG/NAME/tree/COMMIT?recursive=true&expand=false: its files, page by page. */
qb_status qb_hub_tree_url(const char *endpoint, const qb_hub_repo *repo, const char *commit,
                          qb_str *out) QB_NODISCARD;
/* The repository's page, for messages. */
void qb_hub_page_url(const char *endpoint, const qb_hub_repo *repo, qb_str *out);

/* Whether scheme, host and port are one. False for what is no http(s) URL. */
bool qb_url_same_host(const char *a, const char *b);
bool qb_url_is_relative(const char *location); /* names no host */
/* Where `location` leads from `base`; refuses what is neither http nor https, and the way from https to http.
   Free *out with qb_free. */
qb_status qb_url_join(const char *base, const char *location, char **out) QB_NODISCARD;
/* "https://host", for messages: addresses of content are signed and long. Appends. */
void qb_url_host(const char *url, qb_str *out);
