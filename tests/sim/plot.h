/* A run of the model as an SVG file: one panel a quantity, one line a VM. */
#pragma once

#include "tests/sim/model.h"

/* Into the directory that --plots DIR or MEMCTL_BUILD (its folder sim/) names; without either nothing is drawn. */
void plot(const struct host *h, const char *name, const char *title);
/* Takes --plots DIR out of the arguments. */
void plot_begin(int *argc, char **argv);
