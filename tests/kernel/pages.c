// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages that move while they are in use, and whose every byte is checked.
 *
 *	pages KIND HOW MIB SECONDS [ACTIVITY[=N]...]
 *	pages short of PID SECONDS
 *	pages short write SECONDS [FILE TEXT]...
 *
 * moves another process's pages to and fro, or writes to files, for a while.
 * Allocations may fail there, as /sys/kernel/debug/fail* says, and so may what
 * it does. For the rest:
 *
 * KIND	 base, thp, mthp, mixed: anonymous memory (mthp: as the kernel is set up)
 *	 mostly: anonymous memory, in 52 MiB 24 huge pages and 1,024 others
 *	 ksm: anonymous memory whose pages are alike, for the kernel to merge
 *	 uffd: anonymous memory whose faults a thread of this program resolves
 *	 shmem, hugetlb: memory of a file in memory
 *	 file:PATH: a file, mapped shared, and read from its disk anew before it moves
 * HOW	 move_pages, migrate_pages, mbind: between nodes 0 and 1, to and fro
 *	 none, node1: somebody else moves them (demotion, compaction, hot-remove),
 *	 who finds them where they were made, or on node 1
 * ACTIVITY
 *	 write	two threads that change pages and check them
 *	 remote	one that writes to pages through /proc/self/mem: short pins
 *	 splice	one that holds pages in a pipe for a while and checks what comes out
 *	 pin	one that pins pages for longer, by /sys/kernel/debug/gup_test
 *	 fork	one that forks children, which check pages
 *	 mlock	one that locks and unlocks pages
 *	 discard	one that frees pages and writes them anew
 *	 swap	one that has pages written to swap
 *	 offline	one that has a few pages' memory taken out of use, contents and all
 *	 poison	one that has a few pages' memory fail, and their contents with it
 *	 protect	one that protects pages from writes by userfaultfd, moves them, and
 *		writes: that must be told (kind uffd)
 *	 cool	no thread: the others leave the last three quarters alone
 *
 * Each page belongs to one thread, so what it must hold is known at any time.
 * Prints one line of name=value (cpu: its own CPU time in us) and ends with 0, or tells the first wrong byte
 * and ends with 1; 4 if something is not there.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define HUGE (2UL << 20)
#define WORDS (PAGE / sizeof(uint64_t))

#define MPOL_BIND 2
#define MPOL_MF_MOVE 2
#define MPOL_MF_MOVE_ALL 4

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE 101
#endif

/* How much memory a run may take out of use. */
#define MOST_LOST 24

enum { CHECKER, WRITER0, WRITER1, REMOTE, SPLICER, DISCARDER, POISONER, PROTECTOR, OWNERS };

struct gup_pin {
	uint64_t addr;
	uint64_t size;
	uint32_t flags;
};
#define PIN_START _IOW('g', 7, struct gup_pin)
#define PIN_STOP _IO('g', 8)

static unsigned char *memory;
static size_t pages, part = 1;
static uint32_t *generation; /* of each page; changed by its owner alone */
static int alike; /* pages of one generation hold the same, and there are four generations */
static int move_flag = MPOL_MF_MOVE;
static int faults = -1; /* the userfaultfd */
static atomic_uint *told; /* of each page: how many writes the userfaultfd has told of */
static atomic_int done;
static atomic_ulong writes, remotes, splices, forks, pins, discards, moved, unmoved, checks;
static atomic_ulong swaps, offlined, poisoned, protects, locks;

static void fail(const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fprintf(stderr, "pages: %s\n", text);
	_exit(1);
}

static void missing(const char *what)
{
	fprintf(stderr, "pages: %s: %s\n", what, strerror(errno));
	_exit(4);
}

/* What a word of a page holds in a generation: no two alike. */
static uint64_t expected(size_t page, uint32_t gen, size_t word)
{
	uint64_t x = (page << 24) ^ ((uint64_t)gen << 9) ^ word;

	if (alike)
		x = ((gen & 3) << 9) ^ word;
	x = (x + 0x9e3779b97f4a7c15ULL) * 0xbf58476d1ce4e5b9ULL;
	return x ^ (x >> 29);
}

static void fill(uint64_t *to, size_t page, uint32_t gen)
{
	for (size_t i = 0; i < WORDS; i++)
		to[i] = expected(page, gen, i);
}

static void check(const void *from, size_t page, uint32_t gen, const char *who)
{
	const uint64_t *words = from;

	for (size_t i = 0; i < WORDS; i++) {
		if (words[i] != expected(page, gen, i))
			fail("%s: page %zu, word %zu, generation %u: expected %016llx, found %016llx", who, page,
			     i, gen, (unsigned long long)expected(page, gen, i),
			     (unsigned long long)words[i]);
	}
	checks++;
}

static unsigned char *at(size_t page)
{
	return memory + page * PAGE;
}

static unsigned int random_number(unsigned int *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

/* A page of one owner: they take turns. */
static size_t page_of(int owner, unsigned int *seed)
{
	return random_number(seed) % (pages / part / OWNERS) * OWNERS + owner;
}

static void *writer(void *arg)
{
	int owner = (int)(intptr_t)arg;
	unsigned int seed = 77 + owner;

	while (!done) {
		size_t page = page_of(owner, &seed);

		check(at(page), page, generation[page], "writer");
		fill((uint64_t *)at(page), page, ++generation[page]);
		writes++;
	}
	return NULL;
}

static void *remote(void *arg)
{
	static uint64_t buffer[WORDS];
	unsigned int seed = 5;
	int fd = open("/proc/self/mem", O_RDWR);

	(void)arg;
	if (fd < 0)
		missing("/proc/self/mem");
	while (!done) {
		size_t page = page_of(REMOTE, &seed);

		check(at(page), page, generation[page], "remote");
		fill(buffer, page, ++generation[page]);
		if (pwrite(fd, buffer, PAGE, (uintptr_t)at(page)) != (ssize_t)PAGE)
			fail("/proc/self/mem: %s", strerror(errno));
		remotes++;
	}
	return NULL;
}

static void *splicer(void *arg)
{
	static uint64_t buffer[WORDS];
	unsigned int seed = 9;
	int ends[2];

	(void)arg;
	if (pipe(ends))
		missing("pipe");
	while (!done) {
		size_t held[8];

		/* in the pipe are the pages themselves, not copies of them */
		for (int i = 0; i < 8; i++) {
			struct iovec one;

			held[i] = page_of(SPLICER, &seed);
			one = (struct iovec){ at(held[i]), PAGE };
			if (vmsplice(ends[1], &one, 1, 0) != (ssize_t)PAGE)
				fail("vmsplice: %s", strerror(errno));
		}
		usleep(2000);
		for (int i = 0; i < 8; i++) {
			size_t got = 0;

			while (got < PAGE) {
				ssize_t n = read(ends[0], (char *)buffer + got, PAGE - got);

				if (n <= 0)
					fail("pipe: %s", strerror(errno));
				got += n;
			}
			check(buffer, held[i], generation[held[i]], "splicer");
		}
		splices++;
	}
	return NULL;
}

static void *pinner(void *arg)
{
	int fd = open("/sys/kernel/debug/gup_test", O_RDWR);
	unsigned int seed = 21;

	(void)arg;
	if (fd < 0)
		missing("/sys/kernel/debug/gup_test");
	while (!done) {
		size_t page = page_of(CHECKER, &seed);
		struct gup_pin pin = { (uintptr_t)at(page), PAGE, 0 };

		if (ioctl(fd, PIN_START, &pin) == 0) {
			usleep(3000);
			check(at(page), page, generation[page], "pinner");
			ioctl(fd, PIN_STOP);
			pins++;
		}
	}
	close(fd);
	return NULL;
}

static void *forker(void *arg)
{
	(void)arg;
	while (!done) {
		int status;
		pid_t child = fork();

		if (child < 0) {
			usleep(10000);
			continue;
		}
		if (!child) {
			unsigned int seed = getpid();

			for (int i = 0; i < 200; i++) {
				size_t page = page_of(CHECKER, &seed);

				check(at(page), page, generation[page], "child");
				/* a write takes the page away from the parent: its must stay */
				if (i % 4 == 0)
					memset(at(page), 0xee, PAGE), generation[page] = 0;
				if (i % 4 == 0)
					fill((uint64_t *)at(page), page, 0);
			}
			_exit(0);
		}
		if (waitpid(child, &status, 0) == child && status)
			fail("child: status %#x", status);
		forks++;
	}
	return NULL;
}

static void *locker(void *arg)
{
	unsigned int seed = 31;

	(void)arg;
	while (!done) {
		size_t page = random_number(&seed) % pages;
		size_t count = 1 + random_number(&seed) % 64;

		if (page + count > pages)
			continue;
		mlock(at(page), count * PAGE);
		usleep(500);
		munlock(at(page), count * PAGE);
		locks++;
	}
	return NULL;
}

static void *discarder(void *arg)
{
	unsigned int seed = 41;

	(void)arg;
	while (!done) {
		size_t page = page_of(DISCARDER, &seed);

		check(at(page), page, generation[page], "discarder");
		madvise(at(page), PAGE, MADV_DONTNEED);
		fill((uint64_t *)at(page), page, ++generation[page]);
		discards++;
	}
	return NULL;
}

static void *swapper(void *arg)
{
	unsigned int seed = 51;

	(void)arg;
	while (!done) {
		size_t page = random_number(&seed) % pages;
		size_t count = 1 + random_number(&seed) % 256;

		if (page + count > pages)
			continue;
		/* the first call writes them, the next one frees what was written */
		for (int i = 0; i < 2; i++) {
			if (!madvise(at(page), count * PAGE, MADV_PAGEOUT))
				swaps++;
			usleep(2000);
		}
	}
	return NULL;
}

static void *offliner(void *arg)
{
	unsigned int seed = 61;

	(void)arg;
	for (int i = 0; i < MOST_LOST && !done; i++) {
		size_t page = page_of(CHECKER, &seed);

		if (!madvise(at(page), PAGE, MADV_SOFT_OFFLINE))
			offlined++;
		else if (errno == EPERM || errno == EINVAL)
			missing("MADV_SOFT_OFFLINE");
		check(at(page), page, generation[page], "offliner");
		usleep(20000);
	}
	return NULL;
}

static __thread sigjmp_buf after_fault;
static __thread volatile int reading, injecting;

static void bus_error(int sign, siginfo_t *info, void *context)
{
	(void)sign;
	(void)context;
	if (reading)
		siglongjmp(after_fault, 1);
	/* told to who has memory fail, and to any thread where nobody is just reading it */
	if (!injecting && info->si_code != BUS_MCEERR_AO)
		fail("SIGBUS at page %zu, code %d", ((unsigned char *)info->si_addr - memory) / PAGE,
		     info->si_code);
}

/* Check a page; false if it is told that its contents are gone. */
static int survived(size_t page)
{
	int whole = !sigsetjmp(after_fault, 1);

	reading = whole;
	if (whole)
		check(at(page), page, generation[page], "poisoner, afterwards");
	reading = 0;
	return whole;
}

static void *poisoner(void *arg)
{
	struct sigaction action = { .sa_sigaction = bus_error, .sa_flags = SA_SIGINFO };
	unsigned int seed = 71;

	(void)arg;
	sigaction(SIGBUS, &action, NULL);
	for (int i = 0; i < MOST_LOST && !done; i++) {
		size_t page = page_of(POISONER, &seed);

		check(at(page), page, generation[page], "poisoner");
		injecting = 1;
		if (madvise(at(page), PAGE, MADV_HWPOISON) && (errno == EPERM || errno == EINVAL))
			missing("MADV_HWPOISON");
		injecting = 0;
		/* the contents are there, or it is told that they are not: never others */
		if (!survived(page))
			poisoned++;
		madvise(at(page), PAGE, MADV_DONTNEED);
		fill((uint64_t *)at(page), page, ++generation[page]);
		usleep(20000);
	}
	return NULL;
}

static void *resolver(void *arg)
{
	static unsigned char rubbish[PAGE] = { 0xdd };

	(void)arg;
	for (;;) {
		struct uffd_msg message;
		uint64_t address;
		size_t page;

		if (read(faults, &message, sizeof(message)) != sizeof(message))
			fail("userfaultfd: %s", strerror(errno));
		address = message.arg.pagefault.address & ~(PAGE - 1);
		page = (address - (uintptr_t)memory) / PAGE;
		if (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
			struct uffdio_writeprotect allow = { { address, PAGE }, 0 };

			told[page]++;
			while (ioctl(faults, UFFDIO_WRITEPROTECT, &allow) && errno == EAGAIN)
				;
		} else {
			struct uffdio_copy copy = { address, (uintptr_t)rubbish, PAGE, 0, 0 };

			while (ioctl(faults, UFFDIO_COPY, &copy) && errno == EAGAIN)
				copy.copy = 0;
		}
	}
	return NULL;
}

static void *protector(void *arg)
{
	unsigned int seed = 81;

	(void)arg;
	if (faults < 0)
		missing("kind uffd");
	while (!done) {
		size_t page = page_of(PROTECTOR, &seed);
		struct uffdio_writeprotect protect = { { (uintptr_t)at(page), PAGE },
						       UFFDIO_WRITEPROTECT_MODE_WP };
		void *where = at(page);
		int node = random_number(&seed) % 2, status;
		unsigned int before = told[page];

		check(at(page), page, generation[page], "protector");
		while (ioctl(faults, UFFDIO_WRITEPROTECT, &protect)) {
			if (errno != EAGAIN)
				fail("UFFDIO_WRITEPROTECT: %s", strerror(errno));
		}
		syscall(SYS_move_pages, 0, 1, &where, &node, &status, MPOL_MF_MOVE);
		fill((uint64_t *)at(page), page, ++generation[page]);
		if (told[page] == before)
			fail("protector: a write to page %zu was not told, node %d", page, status);
		protects++;
	}
	return NULL;
}

static void move_all(const char *how, int node)
{
	unsigned long mask = 1UL << node, other = 3UL & ~mask;

	if (!strcmp(how, "move_pages")) {
		void **where = malloc(pages * sizeof(*where));
		int *nodes = malloc(pages * sizeof(*nodes)), *status = malloc(pages * sizeof(*status));

		for (size_t i = 0; i < pages; i++) {
			where[i] = at(i);
			nodes[i] = node;
			status[i] = INT_MIN;
		}
		if (syscall(SYS_move_pages, 0, pages, where, nodes, status, move_flag) < 0)
			fail("move_pages: %s", strerror(errno));
		for (size_t i = 0; i < pages; i++) {
			if (status[i] == node)
				moved++;
			else
				unmoved++;
		}
		free(where);
		free(nodes);
		free(status);
	} else if (!strcmp(how, "migrate_pages")) {
		if (syscall(SYS_migrate_pages, 0, 8 * sizeof(mask), &other, &mask) < 0)
			fail("migrate_pages: %s", strerror(errno));
	} else if (!strcmp(how, "mbind")) {
		if (syscall(SYS_mbind, memory, pages * PAGE, MPOL_BIND, &mask, 8 * sizeof(mask),
			    move_flag) < 0)
			fail("mbind: %s", strerror(errno));
	} else {
		usleep(100000);
	}
}

/* How many pages are on a node. */
static size_t count_on(int node)
{
	size_t found = 0;
	enum { STEP = 4096 };
	static void *where[STEP];
	static int status[STEP];

	for (size_t first = 0; first < pages; first += STEP) {
		size_t n = pages - first < STEP ? pages - first : STEP;

		for (size_t i = 0; i < n; i++)
			where[i] = at(first + i);
		if (syscall(SYS_move_pages, 0, n, where, NULL, status, 0) < 0)
			fail("move_pages: %s", strerror(errno));
		for (size_t i = 0; i < n; i++)
			found += status[i] == node;
	}
	return found;
}

static unsigned char *anonymous(size_t bytes)
{
	unsigned char *raw = mmap(NULL, bytes + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (raw == MAP_FAILED)
		missing("mmap");
	return (unsigned char *)(((uintptr_t)raw + HUGE - 1) & ~(HUGE - 1));
}

static void by_faults(size_t bytes)
{
	struct uffdio_api api = { UFFD_API, UFFD_FEATURE_PAGEFAULT_FLAG_WP, 0 };
	struct uffdio_register all = {
		{ (uintptr_t)memory, bytes }, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP, 0
	};
	pthread_t thread;

	told = calloc(pages, sizeof(*told));
	faults = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (faults < 0 || ioctl(faults, UFFDIO_API, &api) || ioctl(faults, UFFDIO_REGISTER, &all))
		missing("userfaultfd");
	if (pthread_create(&thread, NULL, resolver, NULL))
		missing("pthread_create");
}

static int file = -1;

/* Write a file's pages to its disk, and have them read from there. */
static void again_from_disk(size_t bytes)
{
	if (munmap(memory, bytes) || fsync(file) || posix_fadvise(file, 0, bytes, POSIX_FADV_DONTNEED))
		missing("file");
	memory = mmap(memory, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0);
	if (memory == MAP_FAILED)
		missing("mmap");
	for (size_t i = 0; i < pages; i++)
		check(at(i), i, generation[i], "from the disk");
}

static void take_memory(const char *kind, size_t bytes)
{
	int fd = -1;

	if (!strcmp(kind, "ksm") || !strcmp(kind, "uffd")) {
		memory = anonymous(bytes);
		madvise(memory, bytes, MADV_NOHUGEPAGE);
		if (!strcmp(kind, "uffd")) {
			by_faults(bytes);
			return;
		}
		alike = 1;
		/* a merged page is of several mappings, and root may move it */
		move_flag = MPOL_MF_MOVE_ALL;
		if (madvise(memory, bytes, MADV_MERGEABLE))
			missing("MADV_MERGEABLE");
		return;
	}

	if (!strcmp(kind, "mostly")) {
		memory = anonymous(bytes);
		for (size_t at = 0; at < bytes; at += HUGE)
			madvise(memory + at, HUGE, at / HUGE % 13 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
		return;
	}
	if (!strcmp(kind, "base") || !strcmp(kind, "thp") || !strcmp(kind, "mthp") || !strcmp(kind, "mixed")) {
		memory = anonymous(bytes);
		if (!strcmp(kind, "base"))
			madvise(memory, bytes, MADV_NOHUGEPAGE);
		if (!strcmp(kind, "thp"))
			madvise(memory, bytes, MADV_HUGEPAGE);
		/* every second 2 MiB small, the others huge */
		for (size_t at = 0; !strcmp(kind, "mixed") && at < bytes; at += HUGE)
			madvise(memory + at, HUGE, at / HUGE % 2 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
		return;
	}
	if (!strcmp(kind, "shmem")) {
		fd = memfd_create("pages", 0);
	} else if (!strcmp(kind, "hugetlb")) {
		fd = memfd_create("pages", MFD_HUGETLB);
	} else if (!strncmp(kind, "file:", 5)) {
		fd = file = open(kind + 5, O_RDWR | O_CREAT, 0600);
	} else {
		errno = EINVAL;
		missing(kind);
	}
	if (fd < 0 || ftruncate(fd, bytes))
		missing(kind);
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		missing(kind);
}

static void until(struct timespec *end, int seconds)
{
	clock_gettime(CLOCK_MONOTONIC, end);
	end->tv_sec += seconds;
}

static int before(const struct timespec *end)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec < end->tv_sec;
}

/* From here on allocations for this process may fail. */
static void be_short(void)
{
	int fd = open("/proc/self/make-it-fail", O_WRONLY);

	if (fd < 0 || write(fd, "1", 1) != 1)
		missing("/proc/self/make-it-fail");
}

static int move_others(int pid, int seconds)
{
	unsigned long node[] = { 1, 2 };
	int rounds = 0, failed = 0;
	struct timespec end;

	be_short();
	for (until(&end, seconds); before(&end); rounds++) {
		if (syscall(SYS_migrate_pages, pid, 8 * sizeof(*node), &node[rounds % 2],
			    &node[(rounds + 1) % 2]) >= 0)
			continue;
		if (errno == ESRCH)
			break;
		failed++;
	}
	printf("rounds=%d failed=%d\n", rounds, failed);
	return 0;
}

static int write_files(int seconds, int nr, char **words)
{
	int files[16], rounds = 0, failed = 0;
	struct timespec end;

	for (int i = 0; i + 1 < nr && i < 32; i += 2) {
		files[i / 2] = open(words[i], O_WRONLY);
		if (files[i / 2] < 0)
			missing(words[i]);
	}
	be_short();
	for (until(&end, seconds); before(&end); rounds++) {
		for (int i = 0; i + 1 < nr && i < 32; i += 2)
			failed += pwrite(files[i / 2], words[i + 1], strlen(words[i + 1]), 0) < 0;
	}
	printf("rounds=%d failed=%d\n", rounds, failed);
	return 0;
}

static const struct activity {
	const char *name;
	void *(*run)(void *);
	int owner;
	atomic_ulong *count; /* how often it was done */
} activities[] = {
	{ "write", writer, WRITER0, &writes },
	{ "write", writer, WRITER1, &writes },
	{ "remote", remote, REMOTE, &remotes },
	{ "splice", splicer, SPLICER, &splices },
	{ "pin", pinner, 0, &pins },
	{ "fork", forker, 0, &forks },
	{ "mlock", locker, 0, &locks },
	{ "discard", discarder, 0, &discards },
	{ "swap", swapper, 0, &swaps },
	{ "offline", offliner, 0, &offlined },
	{ "poison", poisoner, 0, &poisoned },
	{ "protect", protector, 0, &protects },
};

/* Whether a word of the command line means this activity, and how often it is to be done. */
static int means(const char *word, const struct activity *activity, unsigned long *least)
{
	size_t length = strcspn(word, "=");

	if (strlen(activity->name) != length || strncmp(word, activity->name, length))
		return 0;
	*least = word[length] ? strtoul(word + length + 1, NULL, 10) : 0;
	return 1;
}

/* Whether each activity was done as often as the words ask. */
static int enough(int nr, char **words)
{
	unsigned long least;

	for (int i = 0; i < nr; i++) {
		for (size_t k = 0; k < sizeof(activities) / sizeof(*activities); k++) {
			if (means(words[i], &activities[k], &least) && *activities[k].count < least)
				return 0;
		}
	}
	return 1;
}

int main(int argc, char **argv)
{
	pthread_t threads[16];
	struct timespec end;
	struct rusage own;
	int nr = 0, rounds = 0;
	unsigned long least;

	if (argc == 5 && !strcmp(argv[1], "short") && !strcmp(argv[2], "of"))
		return move_others(atoi(argv[3]), atoi(argv[4]));
	if (argc >= 4 && !strcmp(argv[1], "short") && !strcmp(argv[2], "write"))
		return write_files(atoi(argv[3]), argc - 4, argv + 4);
	if (argc < 5) {
		fprintf(stderr, "usage: pages KIND HOW MIB SECONDS [ACTIVITY[=N]...]\n");
		return 4;
	}
	pages = strtoul(argv[3], NULL, 10) * (1 << 20) / PAGE;
	generation = calloc(pages, sizeof(*generation));
	take_memory(argv[1], pages * PAGE);
	for (size_t i = 0; i < pages; i++)
		fill((uint64_t *)at(i), i, 0);
	if (file >= 0)
		again_from_disk(pages * PAGE);
	if (!strcmp(argv[2], "node1"))
		move_all("move_pages", 1);
	printf("ready\n");
	fflush(stdout);

	for (int i = 5; i < argc; i++) {
		if (!strcmp(argv[i], "cool"))
			part = 4;
	}
	for (int i = 5; i < argc; i++) {
		for (size_t k = 0; k < sizeof(activities) / sizeof(*activities); k++) {
			if (means(argv[i], &activities[k], &least) &&
			    pthread_create(&threads[nr++], NULL, activities[k].run,
					   (void *)(intptr_t)activities[k].owner))
				missing("pthread_create");
		}
	}

	until(&end, atoi(argv[4]));
	do {
		move_all(argv[2], ++rounds % 2);
	} while (before(&end) || !enough(argc - 5, argv + 5) ||
		 (rounds < 2 && strcmp(argv[2], "none") && strcmp(argv[2], "node1")));
	done = 1;
	for (int i = 0; i < nr; i++)
		pthread_join(threads[i], NULL);
	for (size_t i = 0; i < pages; i++)
		check(at(i), i, generation[i], "at the end");
	getrusage(RUSAGE_SELF, &own);
	printf("rounds=%d cpu=%lu moved=%lu unmoved=%lu writes=%lu remotes=%lu splices=%lu pins=%lu forks=%lu discards=%lu "
	       "swaps=%lu offlined=%lu poisoned=%lu protects=%lu checks=%lu on0=%zu on1=%zu\n",
	       rounds,
	       (own.ru_utime.tv_sec + own.ru_stime.tv_sec) * 1000000 + own.ru_utime.tv_usec + own.ru_stime.tv_usec,
	       moved, unmoved, writes, remotes, splices, pins, forks, discards, swaps, offlined, poisoned,
	       protects, checks, count_on(0), count_on(1));
	fflush(stdout);
	if (file >= 0)
		again_from_disk(pages * PAGE);
	return 0;
}
