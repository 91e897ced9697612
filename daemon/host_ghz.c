#include "host_ghz.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define GUESS_GHZ 2.0

/* "2600000", in kHz; 0: not told. */
static double highest_ghz(const char *root, unsigned cpu)
{
	char path[256];
	double khz = 0;
	FILE *f;

	snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%u/cpufreq/cpuinfo_max_freq", root, cpu);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "%lf", &khz) != 1 || khz < 0)
		khz = 0;
	fclose(f);
	return khz / 1e6;
}

double host_ghz(const char *root)
{
	char path[256], line[512];
	double sum = 0, mhz;
	unsigned cpus = 0, told = 0, cpu;
	FILE *f;

	snprintf(path, sizeof path, "%s/proc/cpuinfo", root);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof line, f)) {
		/* x86-64 has a line "cpu MHz" for each; aarch64 has none */
		if (sscanf(line, "processor : %u", &cpu) == 1) {
			double highest = highest_ghz(root, cpu);

			cpus++;
			told += highest > 0;
			sum += highest;
		} else if (told < cpus && sscanf(line, "cpu MHz : %lf", &mhz) == 1 && mhz > 0) {
			told++;
			sum += mhz / 1e3;
		}
	}
	if (f)
		fclose(f);
	if (!cpus) {
		long online = sysconf(_SC_NPROCESSORS_ONLN);

		cpus = online > 0 ? (unsigned)online : 1;
	}
	return sum + (cpus - told) * GUESS_GHZ;
}
