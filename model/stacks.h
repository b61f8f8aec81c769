/* Experts that a class stacks in one tensor, taken apart. */
#pragma once

#include "model/model.h"

/* After the checkpoint's names are the family's: splits dense stacks of experts that have names apart
   (qb_stack_of.parted, else .apart), or finds them apart, and builds the topology anew with modules for each.
 */
qb_status qb_model_take_stacks_apart(qb_model *m) QB_NODISCARD;
