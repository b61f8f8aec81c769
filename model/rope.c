#include "model/rope.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

static double plain(const qb_rope_spec *r, double theta, int64_t i) {
    return pow(theta, -2.0 * (double)i / (double)r->width);
}

/* Llama 3.1 stretches low frequencies by `factor`, keeps high ones and blends between. */
static double llama3(const qb_rope_spec *r, double frequency) {
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

static double yarn(const qb_rope_spec *r, double frequency, int64_t i) {
    double low = yarn_bound(r, r->beta_fast), high = yarn_bound(r, r->beta_slow);
    if (r->truncate) low = floor(low), high = ceil(high);
    low = fmax(low, 0);
    high = fmin(high, (double)(r->width - 1));
    if (low == high) high += 0.001;
    double ramp = fmin(fmax(((double)i - low) / (high - low), 0), 1);
    return frequency / r->factor * ramp + frequency * (1 - ramp);
}

static double yarn_attention(const qb_rope_spec *r, double scale) {
    return r->factor <= 1 ? 1 : 0.1 * scale * log(r->factor) + 1;
}

static double attention_factor(const qb_rope_spec *r, bool beyond) {
    double given = beyond ? r->long_mscale : r->short_mscale;
    if (r->scaling == QB_ROPE_LONGROPE && given > 0) return given;
    if (r->attention_factor > 0) return r->attention_factor;
    if (r->scaling == QB_ROPE_YARN) {
        if (r->mscale > 0 && r->mscale_all_dim > 0)
            return yarn_attention(r, r->mscale) / yarn_attention(r, r->mscale_all_dim);
        return yarn_attention(r, 1);
    }
    if (r->scaling == QB_ROPE_LONGROPE && r->factor > 1)
        return sqrt(1 + log(r->factor) / log((double)r->original_positions));
    return 1;
}

bool qb_rope_depends_on_length(const qb_rope_spec *r, int64_t positions) {
    return (r->scaling == QB_ROPE_DYNAMIC && positions > r->max_positions) ||
           (r->scaling == QB_ROPE_LONGROPE && positions > r->original_positions);
}

void qb_rope_frequencies(const qb_rope_spec *r, int64_t positions, double *frequencies, double *factor) {
    bool beyond = qb_rope_depends_on_length(r, positions);
    double theta = r->theta, width = (double)r->width;
    if (r->scaling == QB_ROPE_DYNAMIC && beyond)
        theta *= pow(r->factor * (double)positions / (double)r->max_positions - (r->factor - 1),
                     width / (width - 2));
    const float *divisors = r->scaling == QB_ROPE_LONGROPE && beyond ? r->long_factors : r->factors;
    for (int64_t i = 0; i < r->width / 2; i++) {
        double f = plain(r, theta, i);
        switch (r->scaling) {
        case QB_ROPE_DEFAULT:
        case QB_ROPE_DYNAMIC:
            break;
        case QB_ROPE_LINEAR:
            f /= r->factor;
            break;
        case QB_ROPE_LLAMA3:
            f = llama3(r, f);
            break;
        case QB_ROPE_YARN:
            f = yarn(r, f, i);
            break;
        case QB_ROPE_LONGROPE:
        case QB_ROPE_FACTORS:
            f /= (double)divisors[i];
            break;
        }
        frequencies[i] = f;
    }
    *factor = attention_factor(r, beyond);
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
