/* Allocations that failed inside cJSON: its builders leave out what they could not allocate and say nothing.
 */
#pragma once

/* How many failed on this thread since the last qb_json_losses_reset. What was built meanwhile may lack
   parts, so qb_json_print refuses until they are reset. */
unsigned long qb_json_losses(void);
/* Back to an earlier count (0: begin afresh): whatever was built since is not used, or was told to be
 * incomplete. */
void qb_json_losses_reset(unsigned long count);
