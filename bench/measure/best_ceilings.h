/* The best that each device was ever measured to do on this machine: ceilings.json in the cache, {"devices":
   {IDENTITY: {"read_bytes_per_s": {"value", "date", "load_average"}, ..}}}. One measurement under load is
   then not believed for ever. */
#pragma once

#include "base/json.h"

/* device: an entry of context.devices. What it measured joins the file, and its "ceilings" get the member
   "best", what the file knows of them. Without measured ceilings nothing happens; a cache that cannot be
   written is a warning, for nothing depends on it. */
void qb_ceilings_remember(qb_json *device);
