/* SPDX-License-Identifier: BSD-2-Clause */
/* fault - places where a test may end the process: PGSPAN_FAULT="name:n" kills it with SIGKILL when the place *name* is passed
 * for the n-th time. Without the variable a place costs one load. PGSPAN_FAULT="name", with no number, makes who asks for
 * it choose otherwise than it would. */
#ifndef PGSPAN_FAULT_H
#define PGSPAN_FAULT_H

#include "pgspan/defs.h"

/* Reads the environment; called once, before threads start. */
void fault_init(void);
void fault_point(const char *name);
bool fault_is_set(const char *name);

#endif
