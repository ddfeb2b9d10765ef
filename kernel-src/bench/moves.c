// SPDX-License-Identifier: GPL-2.0-only
/*
 * Moves pages between nodes 0 and 1 for a while, and tells what that took.
 *
 *	moves SIZE FOLIOS MIB SECONDS [TOUCHERS]
 *
 * SIZE	    bytes of a folio: 4096 to 2097152, a power of two; or "mixed": calls of 1,000 pages of
 *	    4 KiB and 24 of 2 MiB, whatever FOLIOS says
 * FOLIOS   folios in one call of move_pages(2)
 * MIB	    memory to move, to and fro, as a whole; as many calls as that takes
 * SECONDS  how long; each direction is done once at least, 0 is once each
 * TOUCHERS threads on other CPUs that read the memory meanwhile, so that its translations are
 *	    in their TLBs
 *
 * Everything is written before, and every word is compared after. Prints one line of JSON:
 *
 *	folios	    how many there are, and of those, how many are of that size ("whole")
 *	moved	    folios that arrived, over all calls; "left": those that did not
 *	bytes	    in those that arrived
 *	ns	    in the calls, as a whole; "user_ns", "system_ns": CPU time of this process in them
 *	host_busy_ns  CPU time of all of the host from the first call to the last, in ticks;
 *		    with TOUCHERS that is mostly theirs
 *	tlb_interrupts  interrupts meanwhile by which CPUs asked others to flush TLBs
 *	latency	    of a call, in ns: [to node, percentile, value]...; percentiles 50, 90, 99, 100
 *	wrong	    words that are not what they were: anything but 0 is a defect of the kernel
 *
 * Ends with 0; 1 where words are wrong, 2 for arguments, 4 where node 1 or memory is not there,
 * each with a line that says so.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define HUGE (2UL << 20)
#define MPOL_BIND 2
#define MPOL_MF_MOVE 2
#define MIXED_BASE 1000
#define MIXED_HUGE 24
#define CALLS (1UL << 20)

struct direction {
	uint64_t *ns; /* of each call */
	size_t calls;
};

static unsigned char *memory;
static size_t bytes;
static void **folios; /* the first page of each */
static size_t *sizes;
static size_t count;
static atomic_int done;

static void __attribute__((noreturn, format(printf, 2, 3))) end(int code, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "moves: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	_exit(code);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static uint64_t nanoseconds(struct timeval t)
{
	return t.tv_sec * 1000000000ULL + t.tv_usec * 1000ULL;
}

static size_t number(const char *text, const char *what, size_t low, size_t high)
{
	char *rest;
	unsigned long found;

	errno = 0;
	found = strtoul(text, &rest, 10);
	if (errno || rest == text || *rest || found < low || found > high)
		end(2, "%s: expected %zu to %zu, found %s", what, low, high, text);
	return found;
}

static uint64_t word(size_t index)
{
	uint64_t x = (index + 0x9e3779b97f4a7c15ULL) * 0xbf58476d1ce4e5b9ULL;

	return x ^ (x >> 29);
}

static void fill(void)
{
	uint64_t *words = (uint64_t *)memory;

	for (size_t i = 0; i < bytes / sizeof(*words); i++)
		words[i] = word(i);
}

static uint64_t wrong(void)
{
	uint64_t found = 0, *words = (uint64_t *)memory;

	for (size_t i = 0; i < bytes / sizeof(*words); i++)
		found += words[i] != word(i);
	return found;
}

/* Lays folios out in the memory: kinds that alternate begin at huge pages. */
static void lay_out(size_t size, size_t per_call)
{
	size_t at = 0;

	folios = malloc((bytes / PAGE + 1) * sizeof(*folios));
	sizes = malloc((bytes / PAGE + 1) * sizeof(*sizes));
	if (!folios || !sizes)
		end(4, "no memory for a list");
	if (size) {
		if (madvise(memory, bytes, size > PAGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
			end(4, "madvise: %s", strerror(errno));
		for (; at + size <= bytes; at += size) {
			folios[count] = memory + at;
			sizes[count++] = size;
		}
	} else {
		const size_t base = (MIXED_BASE * PAGE + HUGE - 1) & ~(HUGE - 1);

		for (; at + base + MIXED_HUGE * HUGE <= bytes; at += base + MIXED_HUGE * HUGE) {
			if (madvise(memory + at, base, MADV_NOHUGEPAGE) ||
			    madvise(memory + at + base, MIXED_HUGE * HUGE, MADV_HUGEPAGE))
				end(4, "madvise: %s", strerror(errno));
			for (size_t i = 0; i < MIXED_BASE; i++) {
				folios[count] = memory + at + i * PAGE;
				sizes[count++] = PAGE;
			}
			for (size_t i = 0; i < MIXED_HUGE; i++) {
				folios[count] = memory + at + base + i * HUGE;
				sizes[count++] = HUGE;
			}
		}
	}
	if (count < per_call)
		end(2, "a call of %zu folios wants more memory than %zu MiB", per_call, bytes >> 20);
	count -= count % per_call;
}

/* How many folios are what they should be, by the kernel's word on each page. */
static size_t whole(void)
{
	int maps = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int flags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	size_t found = 0;

	if (maps < 0 || flags < 0)
		end(4, "/proc/self/pagemap, /proc/kpageflags: %s: expected root", strerror(errno));
	for (size_t f = 0; f < count; f++) {
		const uint64_t PRESENT = 1ULL << 63, PFN = (1ULL << 55) - 1;
		const uint64_t HEAD = 1ULL << 15, TAIL = 1ULL << 16;
		size_t pages = sizes[f] / PAGE;
		uint64_t entry, first, last;

		if (pread(maps, &entry, 8, (uintptr_t)folios[f] / PAGE * 8) != 8 || !(entry & PRESENT))
			continue;
		entry &= PFN;
		if (pread(flags, &first, 8, entry * 8) != 8)
			continue;
		if (pages == 1) {
			found += !(first & (HEAD | TAIL));
			continue;
		}
		if (pread(flags, &last, 8, (entry + pages - 1) * 8) != 8)
			continue;
		found += (first & HEAD) && (last & TAIL);
	}
	close(maps);
	close(flags);
	return found;
}

static void *touch(void *unused)
{
	volatile unsigned char *here = memory;
	unsigned char sum = 0;

	(void)unused;
	while (!done) {
		for (size_t at = 0; at < bytes && !done; at += PAGE)
			sum += here[at];
	}
	return (void *)(uintptr_t)sum;
}

/* CPU time that the host has worked, of all that /proc/stat knows but idle, iowait and steal. */
static uint64_t host_busy(void)
{
	unsigned long user, nice, system, idle, iowait, irq, softirq;
	FILE *file = fopen("/proc/stat", "re");

	if (!file || fscanf(file, "cpu %lu %lu %lu %lu %lu %lu %lu", &user, &nice, &system, &idle, &iowait,
			    &irq, &softirq) != 7)
		end(4, "/proc/stat: expected seven numbers of all CPUs");
	fclose(file);
	return (user + nice + system + irq + softirq) * (1000000000ULL / sysconf(_SC_CLK_TCK));
}

/* Interrupts for TLB flushes, of all CPUs; 0 where this machine has none of the kind. */
static uint64_t shootdowns(void)
{
	FILE *file = fopen("/proc/interrupts", "re");
	uint64_t found = 0;
	char *line = NULL;
	size_t room = 0;

	while (file && getline(&line, &room, file) > 0) {
		char *at = line + strspn(line, " "), *rest;

		if (strncmp(at, "TLB:", 4))
			continue;
		for (at += 4;; at = rest) {
			uint64_t value = strtoull(at, &rest, 10);

			if (rest == at)
				break;
			found += value;
		}
	}
	free(line);
	if (file)
		fclose(file);
	return found;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* The least value that so many of a hundred are not above. */
static uint64_t percentile(const struct direction *way, unsigned int percent)
{
	size_t rank = (way->calls * percent + 99) / 100;

	return way->ns[rank ? rank - 1 : 0];
}

int main(int argc, char **argv)
{
	static const unsigned int percents[] = { 50, 90, 99, 100 };
	const unsigned long first_node = 1;
	struct direction ways[2] = { 0 };
	size_t size, per_call, touchers = 0, moved = 0, left = 0, sound;
	uint64_t spent = 0, user = 0, system = 0, until, bad, moved_bytes = 0, busy, interrupts;
	pthread_t threads[64];
	int *nodes, *status, target = 1, stop;
	unsigned char *raw;

	if (argc < 5 || argc > 6) {
		fprintf(stderr, "usage: moves SIZE FOLIOS MIB SECONDS [TOUCHERS]\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	size = strcmp(argv[1], "mixed") ? number(argv[1], "SIZE", PAGE, HUGE) : 0;
	if (size & (size - 1))
		end(2, "SIZE: expected a power of two, found %zu", size);
	per_call = number(argv[2], "FOLIOS", 1, 1 << 20);
	if (!size)
		per_call = MIXED_BASE + MIXED_HUGE;
	bytes = number(argv[3], "MIB", 1, 1 << 20) << 20;
	until = number(argv[4], "SECONDS", 0, 86400) * 1000000000ULL;
	if (argc > 5)
		touchers = number(argv[5], "TOUCHERS", 0, 64);

	if (access("/sys/devices/system/node/node1/meminfo", F_OK))
		end(4, "node 1 is not there: expected two nodes with memory");
	if (syscall(SYS_set_mempolicy, MPOL_BIND, &first_node, 8 * sizeof(first_node)))
		end(4, "node 0: %s", strerror(errno));
	raw = mmap(NULL, bytes + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (raw == MAP_FAILED)
		end(4, "%zu MiB: %s", bytes >> 20, strerror(errno));
	memory = (unsigned char *)(((uintptr_t)raw + HUGE - 1) & ~(HUGE - 1));
	lay_out(size, per_call);
	fill();
	syscall(SYS_set_mempolicy, 0, NULL, 0);
	sound = whole();

	nodes = malloc(per_call * sizeof(*nodes));
	status = malloc(per_call * sizeof(*status));
	ways[0].ns = malloc(CALLS * sizeof(uint64_t));
	ways[1].ns = malloc(CALLS * sizeof(uint64_t));
	if (!nodes || !status || !ways[0].ns || !ways[1].ns)
		end(4, "no memory for results");
	for (size_t i = 0; i < touchers; i++) {
		if (pthread_create(&threads[i], NULL, touch, NULL))
			end(4, "a thread: %s", strerror(errno));
	}

	busy = host_busy();
	interrupts = shootdowns();
	until += now();
	do {
		struct direction *way = &ways[target];

		for (size_t i = 0; i < per_call; i++)
			nodes[i] = target;
		for (size_t f = 0; f < count; f += per_call) {
			struct rusage before, after;
			uint64_t begin, took;

			for (size_t i = 0; i < per_call; i++)
				status[i] = INT_MIN;
			getrusage(RUSAGE_THREAD, &before);
			begin = now();
			if (syscall(SYS_move_pages, 0, per_call, folios + f, nodes, status, MPOL_MF_MOVE) < 0)
				end(4, "move_pages to node %d: %s", target, strerror(errno));
			took = now() - begin;
			getrusage(RUSAGE_THREAD, &after);
			spent += took;
			user += nanoseconds(after.ru_utime) - nanoseconds(before.ru_utime);
			system += nanoseconds(after.ru_stime) - nanoseconds(before.ru_stime);
			if (way->calls < CALLS)
				way->ns[way->calls++] = took;
			for (size_t i = 0; i < per_call; i++) {
				if (status[i] == target) {
					moved++;
					moved_bytes += sizes[f + i];
				} else {
					left++;
				}
			}
		}
		/* there and back is the least, and all: both directions count alike */
		stop = target == 0 && now() >= until;
		target = !target;
	} while (!stop);
	busy = host_busy() - busy;
	interrupts = shootdowns() - interrupts;
	done = 1;
	for (size_t i = 0; i < touchers; i++)
		pthread_join(threads[i], NULL);
	bad = wrong();

	printf("{\"folios\": %zu, \"whole\": %zu, \"calls\": %zu, \"moved\": %zu, \"left\": %zu, "
	       "\"bytes\": %lu, \"ns\": %lu, \"user_ns\": %lu, \"system_ns\": %lu, \"wrong\": %lu, "
	       "\"host_busy_ns\": %lu, \"tlb_interrupts\": %lu, \"latency\": [",
	       count, sound, ways[0].calls + ways[1].calls, moved, left, moved_bytes, spent, user, system, bad, busy,
	       interrupts);
	for (int to = 0; to < 2; to++) {
		qsort(ways[to].ns, ways[to].calls, sizeof(uint64_t), by_value);
		for (size_t p = 0; p < sizeof(percents) / sizeof(*percents); p++)
			printf("%s[%d, %u, %lu]", to || p ? ", " : "", to, percents[p],
			       percentile(&ways[to], percents[p]));
	}
	printf("]}\n");
	if (bad) {
		fflush(stdout);
		end(1, "%lu words are wrong after the moves: a defect of the kernel", bad);
	}
	return 0;
}
