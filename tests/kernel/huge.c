// SPDX-License-Identifier: Apache-2.0
/*
 * Pages of hugetlbfs that are moved by whatever moves them, and whose every word is checked.
 *
 *	huge KIND NODE COUNT HOW
 *
 * KIND	 anonymous, or memfd: shared, of a file in memory
 * NODE	 where the pages are made: 0 or 1
 * HOW	 move_pages, mbind: to the other node
 *	 soft: all are taken out of use, by MADV_SOFT_OFFLINE
 *	 wait: by somebody else
 *
 * Prints a line "pfns N..." with the place in memory of each page, moves them or, with "wait", waits for
 * a line; checks them; and prints a line of name=value: how many are on each node (on0, on1), how many
 * have another place than before (moved). Then the words are changed and checked once more, which finds
 * two pages that have become one. Ends with 0; with 1 and a word of what was found where one is wrong; 4
 * where something is missing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096UL
#define HUGE (2UL << 20)
#define WORDS (HUGE / sizeof(uint64_t))
#define MOST 512

#define MPOL_DEFAULT 0
#define MPOL_BIND 2
#define MPOL_MF_MOVE 2

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE 101
#endif

static unsigned char *memory;
static unsigned long count;

static void missing(const char *what)
{
	fprintf(stderr, "huge: %s: %s\n", what, strerror(errno));
	exit(4);
}

static uint64_t expected(unsigned long page, unsigned long at, unsigned int turn)
{
	return (page * WORDS + at + 1) * 0x9e3779b97f4a7c15UL + turn;
}

static void fill(unsigned int turn)
{
	for (unsigned long page = 0; page < count; page++) {
		uint64_t *words = (uint64_t *)(memory + page * HUGE);

		for (unsigned long i = 0; i < WORDS; i++)
			words[i] = expected(page, i, turn);
	}
}

static void check(unsigned int turn)
{
	for (unsigned long page = 0; page < count; page++) {
		const uint64_t *words = (const uint64_t *)(memory + page * HUGE);

		for (unsigned long i = 0; i < WORDS; i++) {
			if (words[i] == expected(page, i, turn))
				continue;
			fprintf(stderr, "huge: page %lu of %lu, word %lu: expected %016llx, found %016llx\n", page,
				count, i, (unsigned long long)expected(page, i, turn),
				(unsigned long long)words[i]);
			exit(1);
		}
	}
}

static unsigned long pfn_of(unsigned long page)
{
	uintptr_t at = (uintptr_t)(memory + page * HUGE);
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	if (fd < 0 || pread(fd, &entry, 8, at / PAGE * 8) != 8)
		missing("/proc/self/pagemap");
	close(fd);
	return entry & ((1UL << 55) - 1);
}

static void bind(int node)
{
	unsigned long mask = 1UL << node;

	if (syscall(SYS_mbind, memory, count * HUGE, MPOL_BIND, &mask, 8 * sizeof(mask), MPOL_MF_MOVE))
		missing("mbind");
}

static void move(const char *how, int node)
{
	void *where[MOST];
	int nodes[MOST], status[MOST];

	for (unsigned long i = 0; i < count; i++) {
		where[i] = memory + i * HUGE;
		nodes[i] = node;
	}
	if (!strcmp(how, "move_pages")) {
		if (syscall(SYS_move_pages, 0, count, where, nodes, status, MPOL_MF_MOVE) < 0)
			missing("move_pages");
	} else if (!strcmp(how, "mbind")) {
		bind(node);
	} else if (!strcmp(how, "soft")) {
		for (unsigned long i = 0; i < count; i++) {
			if (madvise(where[i], PAGE, MADV_SOFT_OFFLINE))
				missing("MADV_SOFT_OFFLINE");
		}
	} else {
		int c;

		while ((c = getchar()) != '\n' && c != EOF)
			;
	}
}

static void tell(const unsigned long *before)
{
	unsigned long moved = 0, on[2] = { 0, 0 };
	void *where[MOST];
	int status[MOST];

	for (unsigned long i = 0; i < count; i++)
		where[i] = memory + i * HUGE;
	if (syscall(SYS_move_pages, 0, count, where, NULL, status, 0) < 0)
		missing("move_pages");
	for (unsigned long i = 0; i < count; i++) {
		if (status[i] == 0 || status[i] == 1)
			on[status[i]]++;
		moved += pfn_of(i) != before[i];
	}
	printf("on0=%lu on1=%lu moved=%lu\n", on[0], on[1], moved);
}

int main(int argc, char **argv)
{
	unsigned long before[MOST];
	int node, shared, fd = -1;

	if (argc != 5) {
		fprintf(stderr, "usage: huge KIND NODE COUNT HOW\n");
		return 4;
	}
	shared = !strcmp(argv[1], "memfd");
	node = atoi(argv[2]);
	count = strtoul(argv[3], NULL, 10);
	if (count > MOST)
		count = MOST;
	if (shared) {
		fd = memfd_create("huge", MFD_HUGETLB);
		if (fd < 0 || ftruncate(fd, count * HUGE))
			missing("memfd_create");
	}
	memory = mmap(NULL, count * HUGE, PROT_READ | PROT_WRITE,
		      shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, fd, 0);
	if (memory == MAP_FAILED)
		missing("mmap");
	bind(node);
	fill(1);
	/* nothing is bound to where it was when it moves */
	if (syscall(SYS_mbind, memory, count * HUGE, MPOL_DEFAULT, NULL, 0, 0))
		missing("mbind");
	printf("pfns");
	for (unsigned long i = 0; i < count; i++) {
		before[i] = pfn_of(i);
		printf(" %lu", before[i]);
	}
	printf("\n");
	fflush(stdout);

	move(argv[4], !node);
	check(1);
	tell(before);
	fill(2);
	check(2);
	return 0;
}
