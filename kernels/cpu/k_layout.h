/* How weights of GGUF's K types lie: sixteen rows by 256 columns, a super-block, stand together with all that
   belongs to them, one after the other along the rows:

       low bits     two (K2, K3) or four (K4 to K6) of each code, in steps of 64 bytes as QB_PACK_2 and _4
       high bits    one (K3, K5) or two (K6) of each code: a 32-bit word a row for 32 or 16 columns, whose
                    bytes go with the bytes of a quad (qb_quad_orders); quad q of these columns at bit q times
                    the bits there are
       scales       bytes [four groups][lane][4] of 16 (K2, K3, K6) or 32 columns: whole numbers
       offsets      the same (K4, K5), without sign
       outer        float32 [lane]: what the scales are times; the same of offsets

   K2's scales are the lower halves of bytes whose higher ones are the offsets. */
#pragma once

#include "kernels/cpu/pack.h"

enum { QB_K_COLS = 256, QB_K_GROUPS_MAX = 16 };

static inline bool qb_is_k(qb_pack_kind kind) {
    return kind >= QB_PACK_K2 && kind <= QB_PACK_K6;
}
static inline int qb_k_low_bits(qb_pack_kind kind) {
    return kind == QB_PACK_K2 || kind == QB_PACK_K3 ? 2 : 4;
}
static inline int qb_k_high_bits(qb_pack_kind kind) {
    return kind == QB_PACK_K6 ? 2 : kind == QB_PACK_K3 || kind == QB_PACK_K5 ? 1 : 0;
}
static inline int qb_k_group_cols(qb_pack_kind kind) {
    return kind == QB_PACK_K4 || kind == QB_PACK_K5 ? 32 : 16;
}
static inline int qb_k_groups(qb_pack_kind kind) {
    return QB_K_COLS / qb_k_group_cols(kind);
}
static inline bool qb_k_has_offsets(qb_pack_kind kind) {
    return kind == QB_PACK_K2 || kind == QB_PACK_K4 || kind == QB_PACK_K5;
}
/* The same of a weight of any layout. */
static inline bool qb_packed_has_offsets(const qb_packed *p) {
    return p->offsets || (qb_is_k(p->kind) && qb_k_has_offsets(p->kind));
}
/* Where a super-block's parts begin, in bytes. */
static inline int64_t qb_k_high_at(qb_pack_kind kind) {
    return (int64_t)QB_BLOCK_ROWS * QB_K_COLS / 8 * qb_k_low_bits(kind);
}
static inline int64_t qb_k_scales_at(qb_pack_kind kind) {
    return qb_k_high_at(kind) + (int64_t)QB_BLOCK_ROWS * QB_K_COLS / 8 * qb_k_high_bits(kind);
}
static inline int64_t qb_k_offsets_at(qb_pack_kind kind) {
    return qb_k_scales_at(kind) + (kind == QB_PACK_K2 ? 0 : QB_BLOCK_ROWS * qb_k_groups(kind));
}
static inline int64_t qb_k_outer_at(qb_pack_kind kind) {
    return qb_k_scales_at(kind) +
           QB_BLOCK_ROWS * qb_k_groups(kind) * (kind == QB_PACK_K4 || kind == QB_PACK_K5 ? 2 : 1);
}
static inline int64_t qb_k_bytes(qb_pack_kind kind) {
    return qb_k_outer_at(kind) + QB_BLOCK_ROWS * 4 * (qb_k_has_offsets(kind) ? 2 : 1);
}
