/* Codes of b bits in a contiguous little-endian stream of 32-bit words, as GPTQ checkpoints hold them
   (docs/formats.md: value k stands at bit b*k, so that 32 values fill b words, for 3 bits too). Private to
   checkpoint/. */
#pragma once

#include "base/threads.h"

#include <stdbool.h>

/* Whether n codes are below 2^bits: one that is not would spill into its neighbours. */
bool qb_bits_fit(const uint8_t *codes, int64_t n, int bits);

/* n codes, each below 2^bits, to ceil(n * bits / 32) words; bits is 2 to 6, or 8. */
void qb_bits_pack(const uint8_t *codes, int64_t n, int bits, uint32_t *words);
void qb_bits_unpack(const uint32_t *words, int64_t n, int bits, uint8_t *codes);

/* The same for a matrix of codes [rows, cols] whose stream runs along the columns while the words lie
   transposed: words[w * rows + r] is word w of row r. (cols * bits) must be a multiple of 32. threads may be
   NULL. Whether all codes fit. */
bool qb_bits_pack_transposed(qb_threads *threads, const uint8_t *codes, int64_t rows, int64_t cols, int bits,
                             uint32_t *words);
/* Rows first .. first + n of it, codes[n, cols]. */
void qb_bits_unpack_transposed(const uint32_t *words, int64_t rows, int64_t cols, int bits, int64_t first,
                               int64_t n, uint8_t *codes);
