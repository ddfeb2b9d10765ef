// SPDX-License-Identifier: Apache-2.0
/*
 * Holds memory, and knows what is in it.
 *
 *     hold [huge | shared | node=N]...
 *
 * Reads orders from its input, a line each, and answers each with its number and:
 *
 *     more N    takes N MiB more, and fills every word of them     held N
 *     check     compares every word with what it filled in         right, or: wrong N words
 *
 * "huge" asks for huge pages, and without it none are taken. "shared" takes all as files in memory,
 * "node=1" all from node 1. It ends with its input.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <linux/mempolicy.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define AREAS 4096

static struct {
	uint64_t *at;
	size_t words;
} areas[AREAS];
static size_t held;

static uint64_t word(size_t area, size_t index)
{
	return (area + 1) * 0x9e3779b97f4a7c15u + index * 0xc2b2ae3d27d4eb4fu;
}

static void *map(size_t size, int shared)
{
	void *at;
	int fd;

	if (!shared)
		return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fd = memfd_create("hold", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, size))
		return MAP_FAILED;
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return at;
}

static int take(size_t mib, int huge, int shared)
{
	size_t size = mib << 20, words = size / sizeof(uint64_t);
	uint64_t *at;

	if (held == AREAS)
		return -1;
	at = map(size, shared);
	if (at == MAP_FAILED)
		return -1;
	if (madvise(at, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		return -1;
	for (size_t i = 0; i < words; i++)
		at[i] = word(held, i);
	areas[held].at = at;
	areas[held].words = words;
	held++;
	return 0;
}

static uint64_t wrong(void)
{
	uint64_t count = 0;

	for (size_t a = 0; a < held; a++)
		for (size_t i = 0; i < areas[a].words; i++)
			count += areas[a].at[i] != word(a, i);
	return count;
}

int main(int argc, char **argv)
{
	int huge = 0, shared = 0;
	unsigned long nodes = 0;
	unsigned int number = 0, node;
	char line[64];

	for (int i = 1; i < argc; i++) {
		huge |= !strcmp(argv[i], "huge");
		shared |= !strcmp(argv[i], "shared");
		if (sscanf(argv[i], "node=%u", &node) == 1)
			nodes = 1ul << node;
	}
	if (nodes && syscall(SYS_set_mempolicy, MPOL_BIND, &nodes, 64)) {
		perror("set_mempolicy");
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		size_t mib;

		number++;
		if (sscanf(line, "more %zu", &mib) == 1) {
			if (take(mib, huge, shared)) {
				perror("more");
				return 1;
			}
			printf("%u held %zu\n", number, mib);
		} else if (!strcmp(line, "check\n")) {
			uint64_t count = wrong();

			if (count)
				printf("%u wrong %" PRIu64 " words\n", number, count);
			else
				printf("%u right\n", number);
		} else {
			fprintf(stderr, "expected more N or check, found %s", line);
			return 2;
		}
	}
	return 0;
}
