// SPDX-License-Identifier: Apache-2.0
/*
 * Reads files that it has mapped, over and over, and knows where their pages are.
 *
 *     reads NODE KIND FILE [KIND FILE]...
 *
 * First it reads each file into the page cache of node NODE. KIND is how it is mapped, always to be
 * read only: "shared", "private", or "exec", which is private and may be run. Then it reads a word of
 * every page in turn, until its input ends, and answers each line of that with the line's number and,
 * for each mapping, its address and how many of its pages are not on node NODE.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <linux/mempolicy.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAPPINGS 8
#define PAGE 4096
#define ASKED 512 /* pages, in one call */

static struct {
	volatile char *at;
	size_t pages;
} mappings[MAPPINGS];
static int count;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void policy(int mode, unsigned long nodes)
{
	if (syscall(SYS_set_mempolicy, mode, nodes ? &nodes : NULL, nodes ? 64 : 0))
		die("set_mempolicy");
}

static void map(const char *kind, const char *name)
{
	int prot = PROT_READ | (strcmp(kind, "exec") ? 0 : PROT_EXEC);
	int flags = strcmp(kind, "shared") ? MAP_PRIVATE : MAP_SHARED;
	static char buffer[1 << 16];
	int file = open(name, O_RDONLY);
	struct stat about;
	void *at;

	if (file < 0 || fstat(file, &about))
		die(name);
	while (read(file, buffer, sizeof(buffer)) > 0)
		;
	at = mmap(NULL, about.st_size, prot, flags, file, 0);
	if (at == MAP_FAILED)
		die(name);
	close(file);
	mappings[count].at = at;
	mappings[count++].pages = about.st_size / PAGE;
}

static size_t elsewhere(int mapping, int node)
{
	void *pages[ASKED];
	int nodes[ASKED];
	size_t n = 0;

	for (size_t first = 0; first < mappings[mapping].pages; first += ASKED) {
		size_t i, asked = mappings[mapping].pages - first;

		if (asked > ASKED)
			asked = ASKED;
		for (i = 0; i < asked; i++)
			pages[i] = (void *)(mappings[mapping].at + (first + i) * PAGE);
		if (syscall(SYS_move_pages, 0, asked, pages, NULL, nodes, 0))
			die("move_pages");
		for (i = 0; i < asked; i++)
			n += nodes[i] != node;
	}
	return n;
}

int main(int argc, char **argv)
{
	struct pollfd input = { .fd = 0, .events = POLLIN };
	unsigned int number = 0;
	char line[64];
	int node;

	if (argc < 4 || argc % 2 || (argc - 2) / 2 > MAPPINGS) {
		fprintf(stderr, "expected a node, then kinds and files\n");
		return 2;
	}
	setvbuf(stdin, NULL, _IONBF, 0);
	setvbuf(stdout, NULL, _IOLBF, 0);
	node = atoi(argv[1]);
	policy(MPOL_BIND, 1ul << node);
	for (int i = 2; i < argc; i += 2)
		map(argv[i], argv[i + 1]);
	policy(MPOL_DEFAULT, 0);
	for (;;) {
		for (int m = 0; m < count; m++)
			for (size_t i = 0; i < mappings[m].pages; i++)
				(void)mappings[m].at[i * PAGE];
		if (poll(&input, 1, 0) <= 0)
			continue;
		if (!fgets(line, sizeof(line), stdin))
			return 0;
		printf("%u", ++number);
		for (int m = 0; m < count; m++)
			printf(" %" PRIXPTR " %zu", (uintptr_t)mappings[m].at, elsewhere(m, node));
		printf("\n");
	}
}
