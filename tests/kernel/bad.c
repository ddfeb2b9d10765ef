// SPDX-License-Identifier: Apache-2.0
/*
 * Pages that are to move from node 0 to node 1 while one of them cannot be read.
 *
 *	bad KIND PAGES WHICH
 *
 * KIND is base or thp. Prints "pfn N" of the page that is to fail, and waits for a line; moves all pages
 * with move_pages(2), prints "moved", and waits for a line; then reads all bytes and prints one line of
 * name=value: pages on each node and on none (on0, on1, nowhere), pages that are right, wrong, and those
 * that nobody may read (bus), where the page is that was to fail (where: its node, or an errno below 0),
 * what came of reading it (bad: right, wrong, bus), and its place in memory (pfn, 0 for none).
 * Ends with 0, or with 4 where something is missing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096UL
#define HUGE_PAGE (2UL << 20)
#define WORDS (PAGE / sizeof(uint64_t))

static sigjmp_buf over;

static void missing(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(4);
}

static void on_bus(int number)
{
	(void)number;
	siglongjmp(over, 1);
}

static uint64_t word(unsigned long page, unsigned long at)
{
	return (page * WORDS + at + 1) * 0x9e3779b97f4a7c15UL;
}

static unsigned long pfn_of(const void *at)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	if (fd < 0 || pread(fd, &entry, 8, (uintptr_t)at / PAGE * 8) != 8)
		missing("/proc/self/pagemap");
	close(fd);
	return entry >> 63 ? entry & ((1UL << 55) - 1) : 0;
}

static void wait_for_a_line(void)
{
	int c;

	fflush(stdout);
	while ((c = getchar()) != '\n' && c != EOF)
		;
}

static const char *look(const uint64_t *at, unsigned long page)
{
	if (sigsetjmp(over, 1))
		return "bus";
	for (unsigned long i = 0; i < WORDS; i++) {
		if (((const volatile uint64_t *)at)[i] != word(page, i))
			return "wrong";
	}
	return "right";
}

int main(int argc, char **argv)
{
	unsigned long pages, which, first_node = 1;
	unsigned long on[2] = {}, nowhere = 0, right = 0, wrong = 0, bus = 0;
	const char *bad = "";
	int *node, *status;
	void **at;
	char *memory;

	if (argc != 4) {
		fprintf(stderr, "usage: bad KIND PAGES WHICH\n");
		return 4;
	}
	pages = strtoul(argv[2], NULL, 10);
	which = strtoul(argv[3], NULL, 10);
	at = calloc(pages, sizeof(*at));
	node = calloc(pages, sizeof(*node));
	status = calloc(pages, sizeof(*status));
	memory = mmap(NULL, pages * PAGE + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!at || !node || !status || memory == MAP_FAILED || which >= pages)
		missing("memory");
	memory = (char *)(((uintptr_t)memory + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
	if (madvise(memory, pages * PAGE, strcmp(argv[1], "thp") ? MADV_NOHUGEPAGE : MADV_HUGEPAGE))
		missing("madvise");
	if (syscall(SYS_set_mempolicy, 2 /* MPOL_BIND */, &first_node, 64))
		missing("set_mempolicy");
	for (unsigned long i = 0; i < pages; i++) {
		at[i] = memory + i * PAGE;
		node[i] = 1;
		for (unsigned long k = 0; k < WORDS; k++)
			((uint64_t *)at[i])[k] = word(i, k);
	}
	if (syscall(SYS_set_mempolicy, 0 /* MPOL_DEFAULT */, NULL, 0))
		missing("set_mempolicy");

	printf("pfn %lu\n", pfn_of(at[which]));
	wait_for_a_line();
	if (syscall(SYS_move_pages, 0, pages, at, node, status, 2 /* MPOL_MF_MOVE */) < 0)
		missing("move_pages");
	printf("moved\n");
	wait_for_a_line();

	if (syscall(SYS_move_pages, 0, pages, at, NULL, status, 0))
		missing("move_pages");
	signal(SIGBUS, on_bus);
	for (unsigned long i = 0; i < pages; i++) {
		const char *found = look(at[i], i);

		if (status[i] == 0 || status[i] == 1)
			on[status[i]]++;
		else
			nowhere++;
		right += !strcmp(found, "right");
		wrong += !strcmp(found, "wrong");
		bus += !strcmp(found, "bus");
		if (i == which)
			bad = found;
	}
	printf("on0=%lu on1=%lu nowhere=%lu right=%lu wrong=%lu bus=%lu where=%d bad=%s pfn=%lu\n", on[0], on[1], nowhere,
	       right, wrong, bus, status[which], bad, pfn_of(at[which]));
	return 0;
}
