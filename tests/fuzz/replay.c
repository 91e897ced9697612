/* Where there is no fuzzer: the files given, or all of the target's corpus, once each. */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void replay(const char *path)
{
	uint8_t *data = NULL;
	size_t size = 0, n;
	FILE *f = fopen(path, "r");

	if (!f) {
		perror(path);
		exit(2);
	}
	do {
		data = realloc(data, size + 65536);
		if (!data)
			abort();
		n = fread(data + size, 1, 65536, f);
		size += n;
	} while (n);
	fclose(f);
	/* the end of what is allocated is the end of the input: a byte too many shows */
	data = realloc(data, size ? size : 1);
	fprintf(stderr, "%s\n", path);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
}

static int no_dots(const struct dirent *d)
{
	return *d->d_name != '.';
}

int main(int argc, char **argv)
{
	struct dirent **entries;
	char path[4096];
	int n;

	for (int i = 1; i < argc; i++)
		replay(argv[i]);
	if (argc > 1)
		return 0;
	n = scandir(CORPUS, &entries, no_dots, alphasort);
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof path, "%s/%s", CORPUS, entries[i]->d_name);
		replay(path);
		free(entries[i]);
	}
	if (n > 0)
		free(entries);
	if (n > 0)
		printf("ok replayed\n");
	else
		printf("not ok replayed: there is nothing in %s\n", CORPUS);
	return n > 0 ? 0 : 1;
}
