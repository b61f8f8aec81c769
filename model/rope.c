#include "model/rope.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

/* `beyond`: of more tokens than the kind takes as they are (qb_rope_depends_on_length). */
typedef struct {
    const qb_rope_spec *spec;
    int64_t positions;
    bool beyond;
} request;

static double power(const qb_rope_spec *r, double theta, int64_t i) {
    return pow(theta, -2.0 * (double)i / (double)r->width);
}

/* ---- frequency i of each kind ---- */

static double plain(const request *q, int64_t i) {
    return power(q->spec, q->spec->theta, i);
}

static double linear(const request *q, int64_t i) {
    return plain(q, i) / q->spec->factor;
}

static double dynamic(const request *q, int64_t i) {
    const qb_rope_spec *r = q->spec;
    double theta = r->theta, width = (double)r->width;
    if (q->beyond)
        theta *= pow(r->factor * (double)q->positions / (double)r->max_positions - (r->factor - 1),
                     width / (width - 2));
    return power(r, theta, i);
}

/* Llama 3.1 stretches low frequencies by `factor`, keeps high ones and blends between. */
static double llama3(const request *q, int64_t i) {
    const qb_rope_spec *r = q->spec;
    double frequency = plain(q, i);
    double wavelength = 2 * pi / frequency, original = (double)r->original_positions;
    if (wavelength < original / r->high_freq) return frequency;
    if (wavelength > original / r->low_freq) return frequency / r->factor;
    double smooth = (original / wavelength - r->low_freq) / (r->high_freq - r->low_freq);
    return (1 - smooth) * frequency / r->factor + smooth * frequency;
}

/* The frequency index whose wavelength turns `rotations` times within the original length. */
static double yarn_bound(const qb_rope_spec *r, double rotations) {
    return (double)r->width * log((double)r->original_positions / (rotations * 2 * pi)) / (2 * log(r->theta));
}

static double yarn(const request *q, int64_t i) {
    const qb_rope_spec *r = q->spec;
    double frequency = plain(q, i);
    double low = yarn_bound(r, r->beta_fast), high = yarn_bound(r, r->beta_slow);
    if (r->truncate) low = floor(low), high = ceil(high);
    low = fmax(low, 0);
    high = fmin(high, (double)(r->width - 1));
    if (low == high) high += 0.001;
    double ramp = fmin(fmax(((double)i - low) / (high - low), 0), 1);
    return frequency / r->factor * ramp + frequency * (1 - ramp);
}

/* One divisor a frequency, and with longrope another list for long sequences. */
static double divided(const request *q, int64_t i) {
    const float *divisors =
        q->spec->scaling == QB_ROPE_LONGROPE && q->beyond ? q->spec->long_factors : q->spec->factors;
    return plain(q, i) / (double)divisors[i];
}

/* ---- what cos and sin are multiplied by ---- */

static double one(const request *q) {
    (void)q;
    return 1;
}

static double yarn_grown(const qb_rope_spec *r, double scale) {
    return r->factor <= 1 ? 1 : 0.1 * scale * log(r->factor) + 1;
}

static double yarn_attention(const request *q) {
    const qb_rope_spec *r = q->spec;
    if (r->mscale > 0 && r->mscale_all_dim > 0)
        return yarn_grown(r, r->mscale) / yarn_grown(r, r->mscale_all_dim);
    return yarn_grown(r, 1);
}

static double longrope_attention(const request *q) {
    const qb_rope_spec *r = q->spec;
    return r->factor > 1 ? sqrt(1 + log(r->factor) / log((double)r->original_positions)) : 1;
}

static const struct {
    double (*frequency)(const request *q, int64_t i);
    double (*attention)(const request *q); /* where the spec states none */
} kinds[] = {
    [QB_ROPE_DEFAULT] = {plain, one},        [QB_ROPE_LINEAR] = {linear, one},
    [QB_ROPE_DYNAMIC] = {dynamic, one},      [QB_ROPE_LLAMA3] = {llama3, one},
    [QB_ROPE_YARN] = {yarn, yarn_attention}, [QB_ROPE_LONGROPE] = {divided, longrope_attention},
    [QB_ROPE_FACTORS] = {divided, one},
};

static double attention_factor(const request *q) {
    const qb_rope_spec *r = q->spec;
    double given = q->beyond ? r->long_mscale : r->short_mscale;
    if (r->scaling == QB_ROPE_LONGROPE && given > 0) return given;
    return r->attention_factor > 0 ? r->attention_factor : kinds[r->scaling].attention(q);
}

bool qb_rope_depends_on_length(const qb_rope_spec *r, int64_t positions) {
    return (r->scaling == QB_ROPE_DYNAMIC && positions > r->max_positions) ||
           (r->scaling == QB_ROPE_LONGROPE && positions > r->original_positions);
}

void qb_rope_frequencies(const qb_rope_spec *r, int64_t positions, double *frequencies, double *factor) {
    request q = {r, positions, qb_rope_depends_on_length(r, positions)};
    int64_t half = r->width / 2;
    for (int64_t i = 0; i < half; i++) frequencies[i] = kinds[r->scaling].frequency(&q, i);
    *factor = attention_factor(&q);
}

void qb_rope_fill(const qb_rope_spec *r, int64_t positions, float *table) {
    enum { PAIRS_MAX = 2048 };
    double frequencies[PAIRS_MAX], factor;
    int64_t half = r->width / 2;
    qb_rope_frequencies(r, positions, frequencies, &factor);
    float scale = (float)factor;
    for (int64_t i = 0; i < half; i++) {
        float inverse = (float)frequencies[i];
        for (int64_t p = 0; p < positions; p++) {
            float angle = (float)p * inverse;
            table[(p * half + i) * 2] = scale * cosf(angle);
            table[(p * half + i) * 2 + 1] = scale * sinf(angle);
        }
    }
}
