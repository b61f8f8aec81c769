#include "model/rope.h"

#include <math.h>
#include <string.h>

int64_t qb_rope_width(const qb_config *c) {
    return (int64_t)((float)c->head_dim * c->rope_fraction) / 2 * 2;
}

/* Llama 3.1 stretches low frequencies by `factor`, keeps high ones and blends between. */
static double llama3_scaled(const qb_config *c, double frequency) {
    const double pi = 3.14159265358979323846;
    double wavelength = 2 * pi / frequency, original = (double)c->rope_original_positions;
    if (wavelength < original / c->rope_high_freq) return frequency;
    if (wavelength > original / c->rope_low_freq) return frequency / c->rope_factor;
    double smooth = (original / wavelength - c->rope_low_freq) / (c->rope_high_freq - c->rope_low_freq);
    return (1 - smooth) * frequency / c->rope_factor + smooth * frequency;
}

void qb_rope_fill(const qb_config *c, int64_t positions, float *table) {
    int64_t rot = qb_rope_width(c), half = rot / 2;
    for (int64_t i = 0; i < half; i++) {
        double frequency = pow((double)c->rope_theta, -2.0 * (double)i / (double)rot);
        if (!strcmp(c->rope_scaling, "linear")) frequency /= c->rope_factor;
        if (!strcmp(c->rope_scaling, "factors")) frequency /= (double)c->rope_factors[i];
        if (!strcmp(c->rope_scaling, "llama3")) frequency = llama3_scaled(c, frequency);
        float inverse = (float)frequency;
        for (int64_t p = 0; p < positions; p++) {
            float angle = (float)p * inverse;
            table[(p * half + i) * 2] = cosf(angle);
            table[(p * half + i) * 2 + 1] = sinf(angle);
        }
    }
}
