/* Products in whole numbers by AVX-512 VNNI: unsigned codes times signed bytes, four at once. A 16-bit
   activation is 256 high + low, two signed bytes and two products. Called only on CPUs that have VNNI and
   VBMI. */
#include "kernels/cpu/integer.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/tuning.h"

#define INTEGER_TABLE    qb_integer_vnni
#define INTEGER_NAME     "avx512-vnni"
#define INTEGER_FAST     true
#define INTEGER_WIDE_I16 1
#define SHAPES(X)        X(4, 4, 1) X(4, 4, 2) X(2, 4, 4) X(1, 2, 8)
#define SPIN_BLOCKS      4
#define PANEL_BLOCKS_I16 2
#define PANEL_TOKENS_I16 4
#define PANEL_BLOCKS_I8  4
#define PANEL_TOKENS_I8  4
#define WORDS(eight)     ((eight) ? 1 : 2)

/* clang-format off */
#include "kernels/cpu/groups.inc"
#include "kernels/cpu/k_groups.inc"
#include "kernels/cpu/codes_avx512.inc"
#include "kernels/cpu/integer_vnni_sums.inc"
/* clang-format on */

/* Higher and lower bytes of values with those of activations. */
LANES_INLINE whole_sum whole_dot_wide(const bool eight, whole_sum s, lanes_codes h, lanes_codes l,
                                      const int32_t *words) {
    const __m512i low = _mm512_set1_epi32(words[0]);
    if (eight) {
        s.low = dot(s.low, l, low);
        s.high = dot(s.high, h, low);
        return s;
    }
    const __m512i high = _mm512_set1_epi32(words[1]);
    s.low = dot(s.low, h, low);
    s.low = dot(s.low, l, high);
    s.high = dot(s.high, h, high);
    return s;
}

/* Sixteen columns, zeros behind the last. */
LANES_INLINE __mmask16 first_columns(int64_t left) {
    return (__mmask16)(left >= 16 ? 0xffff : (1 << left) - 1);
}
LANES_INLINE __m512 columns(const float *x, int64_t left) {
    return left >= 16 ? _mm512_loadu_ps(x) : _mm512_maskz_loadu_ps(first_columns(left), x);
}

LANES_INLINE float scale_of(const float *x, int64_t n, bool eight, float *inverse) {
    __m512i most = _mm512_setzero_si512();
    for (int64_t i = 0; i < n; i += 16) /* without sign they are in the order of their sizes, NaN last */
        most = _mm512_max_epu32(most, _mm512_and_si512(_mm512_castps_si512(columns(x + i, n - i)),
                                                       _mm512_set1_epi32(0x7fffffff)));
    return qb_whole_scale(_mm512_reduce_max_epu32(most), eight, inverse);
}

static float round_numbers(const float *x, int64_t n, bool eight, float *q, int32_t *sum) {
    float inverse;
    const float scale = scale_of(x, n, eight, &inverse);
    __m512i all = _mm512_setzero_si512();
    if (inverse == 0.0f) memset(q, 0, (size_t)n * sizeof *q);
    for (int64_t i = 0; i < n && inverse != 0.0f; i += 16) {
        const __m512i q_now =
            _mm512_cvtps_epi32(_mm512_mul_ps(columns(x + i, n - i), _mm512_set1_ps(inverse)));
        all = _mm512_add_epi32(all, q_now);
        _mm512_mask_storeu_ps(q + i, first_columns(n - i), _mm512_cvtepi32_ps(q_now));
    }
    if (sum) *sum = _mm512_reduce_add_epi32(all);
    return scale;
}

/* Low bytes, then high ones: q = 256 high + low with both signed. */
static qb_whole_segment lay_segment(const float *x, int64_t n, bool eight, int words, const uint8_t order[64],
                                    int32_t *to, int64_t stride, qb_whole_part *parts) {
    (void)words;
    const __m512i place = _mm512_loadu_si512(order);
    __m512i sum = _mm512_setzero_si512(), high_sum = sum;
    float inverse;
    qb_whole_segment s = {.scale = scale_of(x, n, eight, &inverse)};
    if (parts && inverse == 0.0f) memset(parts, 0, (size_t)(n / 16) * sizeof *parts);
    for (int64_t k = 0; k < n; k += 64) {
        _Alignas(64) uint8_t low[64] = {0}, high[64] = {0};
        for (int64_t i = 0; i < 64 && k + i < n && inverse != 0.0f; i += 16) {
            __m512i q =
                _mm512_cvtps_epi32(_mm512_mul_ps(columns(x + k + i, n - k - i), _mm512_set1_ps(inverse)));
            __m512i h = _mm512_srai_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(128)), 8);
            sum = _mm512_add_epi32(sum, q);
            high_sum = _mm512_add_epi32(high_sum, h);
            if (parts)
                parts[(k + i) / 16] = (qb_whole_part){_mm512_reduce_add_epi32(q), _mm512_reduce_add_epi32(h)};
            _mm_store_si128((__m128i *)(void *)(low + i), _mm512_cvtepi32_epi8(q));
            _mm_store_si128((__m128i *)(void *)(high + i), _mm512_cvtepi32_epi8(h));
        }
        _mm512_store_si512(low, _mm512_permutexvar_epi8(place, _mm512_load_si512(low)));
        _mm512_store_si512(high, _mm512_permutexvar_epi8(place, _mm512_load_si512(high)));
        for (int64_t i = 0; i < 64 && k + i < n; i += 4, to += stride) {
            memcpy(to, low + i, 4);
            if (!eight) memcpy(to + 1, high + i, 4);
        }
    }
    s.sum = _mm512_reduce_add_epi32(sum);
    s.high_sum = _mm512_reduce_add_epi32(high_sum);
    return s;
}

/* Sums of q as three signed bytes (two hold those of 8-bit activations): offsets are bytes without sign, and
   four groups one product. */
static void lay_sums(const int32_t sums[4], int32_t words[QB_K_SUM_WORDS]) {
    int8_t bytes[QB_K_SUM_WORDS][4] = {{0}};
    for (int i = 0; i < 4; i++) {
        bytes[0][i] = (int8_t)sums[i];
        int32_t above = (sums[i] - bytes[0][i]) / 256;
        bytes[1][i] = (int8_t)above;
        bytes[2][i] = (int8_t)((above - bytes[1][i]) / 256);
    }
    memcpy(words, bytes, sizeof bytes);
}
/* clang-format off */
#include "kernels/cpu/integer_runs.inc"
#include "kernels/cpu/integer.inc"
