#pragma once

#include "model/config.h"

/* Elements of a head that turn: even, at most head_dim. */
int64_t qb_rope_width(const qb_config *c);
/* table[positions][rot / 2][2] = (cos, sin) of position * inverse frequency, in host memory. Frequencies as
   transformers' modeling_rope_utils computes them (default, linear, llama3) or divided by given
   factors, angles in float32 like its
   forward pass. */
void qb_rope_fill(const qb_config *c, int64_t positions, float *table);
