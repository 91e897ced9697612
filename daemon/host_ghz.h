/* How much processor the host has: the measure of ShareScanGHz. */
#pragma once

/* The sum over its processors, from the highest frequency of each (cpufreq), else from what /proc/cpuinfo says they run at,
 * else 2 GHz for each.  `root` is put before the paths: "" but for tests. */
double host_ghz(const char *root);
