/* Token windows from ids, inside this room. */
#pragma once

#include "base/windows.h"
#include "tokenizer/tokenizer.h"

/* Moves the ids into out (zeroed first), names the protocol and hashes the ids as little-endian int32. Makes
   no windows. On failure the ids are in out all the same: qb_windows_free. */
qb_status qb_windows_take(qb_ids *ids, int64_t total_tokens, const char *protocol,
                          qb_windows *out) QB_NODISCARD;
/* As many windows of seqlen as the ids hold, one behind the other, that score nothing. */
qb_status qb_windows_for_calibration(qb_ids *ids, int64_t seqlen, int64_t total_tokens, const char *dataset,
                                     qb_windows *out) QB_NODISCARD;
