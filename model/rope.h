#pragma once

#include "model/config.h"

/* table[positions][width / 2][2] = (cos, sin) of position * inverse frequency, times the scaling's attention
   factor, in host memory. Frequencies as transformers' modeling_rope_utils computes them, angles in float32
   like its forward pass. `positions` decides what depends on the length (dynamic, longrope): a pass over so
   many tokens in transformers. */
void qb_rope_fill(const qb_rope_spec *r, int64_t positions, float *table);
/* The frequencies [width / 2] alone, and what cos and sin are multiplied by. */
void qb_rope_frequencies(const qb_rope_spec *r, int64_t positions, double *frequencies,
                         double *attention_factor);
/* True when this length takes other frequencies than a short one would, which numbers must say. */
bool qb_rope_depends_on_length(const qb_rope_spec *r, int64_t positions);
