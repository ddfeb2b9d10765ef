// SPDX-License-Identifier: Apache-2.0
/*
 * What a DSA says of itself and makes of a fixed set of descriptors, as JSON.
 *
 *     dsa-dump 0000:6a:01.0             registers, and the descriptors by VFIO
 *     dsa-dump --physical 0000:6a:01.0  the same by physical addresses
 *     dsa-dump --registers 0000:6a:01.0 registers only; changes nothing
 *
 * For the descriptors the device must belong to nobody: it is reset, configured
 * with one queue, and reset again. The CPU needs MOVDIR64B.
 *
 * VFIO: bind it to vfio-pci (modprobe vfio_pci disable_denylist=1: the kernel
 * keeps DSA from it otherwise). Some descriptors meet pages that the IOMMU does
 * not map; the kernel's log tells of them.
 *
 * Physical: bind it to nothing. Its IOMMU must be off or in passthrough, and
 * the memory is one huge page: echo 1 > /proc/sys/vm/nr_hugepages.
 *
 * Two dumps are compared by diff.py. Layouts are those of Linux's idxd.h.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

enum {
	GENCAP = 0x10, WQCAP = 0x20, GRPCAP = 0x30, ENGCAP = 0x38, OPCAP = 0x40, TABLES = 0x60,
	CMD = 0xa0, CMDSTS = 0xa8, CMDCAP = 0xb0, SWERR = 0xc0,
};
enum { ENABLE_DEVICE = 1, RESET_DEVICE = 5, ENABLE_WQ = 6 };

/* the memory that descriptors work on: one huge page */
#define MEMORY (2u << 20)
#define IOVA 0x100000000ull
#define UNMAPPED 0x200000000ull
enum {
	AT_RECORD = 0x0000, AT_MEMBERS = 0x0400, AT_LIST = 0x1000, AT_SEED = 0x2000,
	AT_A = 0x10000, AT_B = 0x40000, AT_C = 0x80000, AT_DELTA = 0xc0000, AT_END = 0x100000,
};

struct desc {
	uint32_t who, what; /* pasid and privilege; flags and opcode */
	uint64_t record, src, dst;
	uint32_t size;
	uint16_t handle, rsvd;
	uint8_t op[24];
} __attribute__((packed, aligned(64)));

struct device {
	const char *address;
	int fd;             /* of VFIO; -1 without */
	uint64_t bar0, bar2; /* VFIO: where in fd */
	volatile uint8_t *regs; /* sysfs: mapped */
	volatile uint8_t *portal;
	uint8_t *memory;
	uint64_t bus;       /* where the device sees it */
	bool translated;
};

/* ---- registers ---- */

static uint32_t get32(struct device *d, uint32_t at)
{
	uint32_t value;

	if (d->regs)
		return *(volatile uint32_t *)(d->regs + at);
	if (pread(d->fd, &value, 4, d->bar0 + at) != 4)
		err(1, "cannot read register %#x", at);
	return value;
}

static uint64_t get64(struct device *d, uint32_t at)
{
	return get32(d, at) | (uint64_t)get32(d, at + 4) << 32;
}

static void put32(struct device *d, uint32_t at, uint32_t value)
{
	if (d->regs)
		*(volatile uint32_t *)(d->regs + at) = value;
	else if (pwrite(d->fd, &value, 4, d->bar0 + at) != 4)
		err(1, "cannot write register %#x", at);
}

static void put64(struct device *d, uint32_t at, uint64_t value)
{
	put32(d, at, value);
	put32(d, at + 4, value >> 32);
}

static void nap(long microseconds)
{
	struct timespec pause = { .tv_nsec = microseconds * 1000 };

	nanosleep(&pause, NULL);
}

static uint32_t command(struct device *d, uint32_t code, uint32_t operand)
{
	put32(d, CMD, code << 20 | operand);
	for (int i = 0; i < 50000; i++) {
		uint32_t status = get32(d, CMDSTS);

		if (!(status >> 31))
			return status;
		nap(100);
	}
	errx(1, "command %u does not end", code);
}

/* ---- JSON ---- */

static const char *separator = "";

static void name(const char *text)
{
	printf("%s\n  \"%s\": ", separator, text);
	separator = ",";
}

static void hex(const void *data, size_t length)
{
	putchar('"');
	for (size_t i = 0; i < length; i++)
		printf("%02x", ((const uint8_t *)data)[i]);
	putchar('"');
}

/* ---- what the device says of itself ---- */

static void show_pci(const char *address)
{
	uint8_t config[4096] = { 0 };
	char path[256];
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", address);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		err(1, "%s", path);
	length = read(fd, config, sizeof(config));
	close(fd);
	name("pci");
	printf("{\"address\": \"%s\", \"vendor\": %u, \"device\": %u, \"revision\": %u, "
	       "\"class\": %u, \"subsystem\": %u, \"capabilities\": [",
	       address, config[0] | config[1] << 8, config[2] | config[3] << 8, config[8],
	       config[9] | config[10] << 8 | config[11] << 16,
	       config[0x2c] | config[0x2d] << 8 | config[0x2e] << 16 | (unsigned)config[0x2f] << 24);
	for (unsigned at = config[0x34], n = 0; at >= 0x40 && at < 0x100 && n < 48; n++) {
		printf("%s%u", n ? ", " : "", config[at]);
		at = config[at + 1];
	}
	printf("], \"extended\": [");
	for (unsigned at = 0x100, n = 0; at && at + 4 <= (size_t)length && n < 64; n++) {
		uint32_t head;

		memcpy(&head, config + at, 4);
		if (!head || head == 0xffffffff)
			break;
		printf("%s%u", n ? ", " : "", head & 0xffff);
		at = head >> 20;
	}
	printf("]}");
}

static void show_registers(struct device *d)
{
	static const struct {
		const char *name;
		uint32_t at;
		int words; /* of 64 bits; 0: one of 32 */
	} registers[] = {
		{ "version", 0x00, 0 }, { "gencap", GENCAP, 1 }, { "wqcap", WQCAP, 1 },
		{ "grpcap", GRPCAP, 1 }, { "engcap", ENGCAP, 1 }, { "opcap", OPCAP, 4 },
		{ "tables", TABLES, 2 }, { "gencfg", 0x80, 0 }, { "genctrl", 0x88, 0 },
		{ "gensts", 0x90, 0 }, { "intcause", 0x98, 0 }, { "cmdsts", CMDSTS, 0 },
		{ "cmdcap", CMDCAP, 0 }, { "swerr", SWERR, 4 },
	};

	name("registers");
	putchar('{');
	for (size_t i = 0; i < ARRAY_SIZE(registers); i++) {
		printf("%s\n    \"%s\": ", i ? "," : "", registers[i].name);
		if (!registers[i].words)
			printf("\"%08x\"", get32(d, registers[i].at));
		for (int w = 0; w < registers[i].words; w++)
			printf("%s%016llx%s", w ? "" : "\"",
			       (unsigned long long)get64(d, registers[i].at + 8 * (uint32_t)w),
			       w == registers[i].words - 1 ? "\"" : " ");
	}
	printf("\n  }");
}

/* the configuration tables as they stand, most significant double word last */
static void show_tables(struct device *d, const char *when)
{
	uint64_t tables = get64(d, TABLES), wqcap = get64(d, WQCAP);
	uint32_t groups = get64(d, GRPCAP) & 0xff, queues = wqcap >> 16 & 0xff;
	uint32_t stride = 32u << (wqcap >> 24 & 0xf);

	name(when);
	printf("{\n    \"queues\": [");
	for (uint32_t q = 0; q < queues; q++) {
		printf("%s\"", q ? ", " : "");
		for (uint32_t at = 0; at < stride; at += 4)
			printf("%s%08x", at ? " " : "",
			       get32(d, (tables >> 16 & 0xffff) * 0x100 + q * stride + at));
		putchar('"');
	}
	printf("],\n    \"groups\": [");
	for (uint32_t g = 0; g < groups; g++) {
		printf("%s\"", g ? ", " : "");
		for (uint32_t at = 0; at < 64; at += 8)
			printf("%s%016llx", at ? " " : "",
			       (unsigned long long)get64(d, (tables & 0xffff) * 0x100 + g * 64 + at));
		putchar('"');
	}
	printf("]\n  }");
}

/* ---- opening ---- */

/* map a BAR, from sysfs */
static volatile uint8_t *resource(struct device *d, int number, size_t length, bool write)
{
	char path[256];
	void *found;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource%d", d->address, number);
	fd = open(path, write ? O_RDWR : O_RDONLY);
	if (fd < 0)
		err(1, "%s", path);
	found = mmap(NULL, length, PROT_READ | (write ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
	if (found == MAP_FAILED)
		err(1, "%s: cannot be mapped", path);
	close(fd);
	return found;
}

static void open_registers(struct device *d, bool write)
{
	d->regs = resource(d, 0, 0x8000, write);
	if (*(volatile uint32_t *)d->regs == 0xffffffff)
		errx(1, "%s does not answer: is its memory enabled?", d->address);
}

static uint64_t physical(void *page)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	if (fd < 0 || pread(fd, &entry, 8, (off_t)((uintptr_t)page / 4096 * 8)) != 8 ||
	    !(entry & (1ull << 63)) || !(entry & ((1ull << 55) - 1)))
		errx(1, "cannot find where memory is: /proc/self/pagemap needs root");
	close(fd);
	return (entry & ((1ull << 55) - 1)) * 4096;
}

static void get_memory(struct device *d, int how)
{
	d->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | how,
			 -1, 0);
	if (d->memory == MAP_FAILED)
		errx(1, "no memory: %s%s", strerror(errno),
		    how ? "; echo 1 > /proc/sys/vm/nr_hugepages" : "");
	memset(d->memory, 1, MEMORY);
}

static void open_physical(struct device *d)
{
	uint16_t pci_command = 0x6; /* memory and bus mastering */
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver", d->address);
	if (!access(path, F_OK))
		errx(1, "%s has a driver: unbind it", d->address);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", d->address);
	fd = open(path, O_RDWR);
	if (fd < 0 || pwrite(fd, &pci_command, 2, 4) != 2)
		err(1, "%s", path);
	close(fd);
	open_registers(d, true);
	d->portal = resource(d, 2, 4096, true);
	get_memory(d, MAP_HUGETLB);
	d->bus = physical(d->memory);
}

static int open_group(struct device *d)
{
	char path[256], target[256];
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", d->address);
	length = readlink(path, target, sizeof(target) - 1);
	if (length < 0)
		errx(1, "%s is not there, or in no IOMMU group: bind it to vfio-pci, or use --physical",
		    d->address);
	target[length] = 0;
	snprintf(path, sizeof(path), "/dev/vfio/%.200s", strrchr(target, '/') + 1);
	fd = open(path, O_RDWR);
	if (fd < 0)
		errx(1, "%s: %s; is %s bound to vfio-pci?", path, strerror(errno), d->address);
	return fd;
}

static uint64_t region(struct device *d, uint32_t index)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = index };

	if (ioctl(d->fd, VFIO_DEVICE_GET_REGION_INFO, &info) || !info.size)
		errx(1, "%s has no region %u", d->address, index);
	return info.offset;
}

static void open_vfio(struct device *d)
{
	int container = open("/dev/vfio/vfio", O_RDWR), group = open_group(d);
	uint16_t pci_command = 0x6; /* memory and bus mastering */
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map), .iova = IOVA, .size = MEMORY,
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
	};

	if (container < 0)
		err(1, "/dev/vfio/vfio");
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) ||
	    ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		err(1, "VFIO does not give %s away", d->address);
	get_memory(d, 0);
	map.vaddr = (uintptr_t)d->memory;
	if (ioctl(container, VFIO_IOMMU_MAP_DMA, &map))
		err(1, "cannot map memory for the device");
	d->bus = IOVA;
	d->translated = true;
	d->fd = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, d->address);
	if (d->fd < 0)
		err(1, "%s cannot be had of VFIO", d->address);
	if (pwrite(d->fd, &pci_command, 2,
		   region(d, VFIO_PCI_CONFIG_REGION_INDEX) + 4) != 2)
		err(1, "cannot write the command register of PCI");
	d->bar0 = region(d, VFIO_PCI_BAR0_REGION_INDEX);
	d->portal = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, d->fd,
			 (off_t)region(d, VFIO_PCI_BAR2_REGION_INDEX));
	if (d->portal == MAP_FAILED)
		err(1, "cannot map the portal");
}

static void need_movdir64b(void)
{
	unsigned a, b, c, d;

	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(c >> 28 & 1))
		errx(1, "this CPU has no MOVDIR64B");
}

static void start(struct device *d)
{
	uint64_t tables = get64(d, TABLES), gencap = get64(d, GENCAP), wqcap = get64(d, WQCAP);
	uint32_t queue = (tables >> 16 & 0xffff) * 0x100, group = (tables & 0xffff) * 0x100;
	uint32_t status;

	put32(d, queue, wqcap & 0xffff);                       /* all entries */
	put32(d, queue + 4, 0);
	put32(d, queue + 8, 1 | 10 << 4);                      /* dedicated, priority 10 */
	put32(d, queue + 12, (gencap >> 16 & 0x1f) | (gencap >> 21 & 0xf) << 5);
	for (uint32_t i = 0; i < 8 && (wqcap >> 54 & 1); i++)
		put32(d, queue + 32 + 4 * i, get32(d, OPCAP + 4 * i));
	put64(d, group, 1);
	put64(d, group + 32, 1);
	status = command(d, ENABLE_DEVICE, 0);
	if (status & 0xff)
		errx(1, "the device cannot be enabled: error %#x", status & 0xff);
	status = command(d, ENABLE_WQ, 0);
	if (status & 0xff)
		errx(1, "queue 0 cannot be enabled: error %#x", status & 0xff);
}

/* ---- descriptors ---- */

enum {
	F_FENCE = 1, F_BOF = 2, F_CRAV = 4, F_RCR = 8, F_RCI = 16, F_CHECK = 0x80,
	F_OP0 = 1 << 16, F_OP1 = 1 << 17, F_OP2 = 1 << 18,
};
#define TOLD (F_CRAV | F_RCR)

/* addresses in the table are places in the memory; these say which fields are such */
enum { SRC = 1, DST = 2, OP0 = 4, OP8 = 8 };

struct op { uint64_t at0; uint64_t at8; uint64_t at16; }; /* bytes 40, 48, 56 */

struct entry {
	const char *name;
	uint8_t opcode;
	uint32_t flags;
	uint64_t src, dst;
	uint32_t size;
	int places;
	struct op op;
	uint16_t rsvd, handle;
	int same;           /* bytes of B made equal to A before */
	bool translated;    /* makes sense behind an IOMMU only */
};

#define TAGS(ref, app, mask) ((uint64_t)(ref) | (uint64_t)(mask) << 32 | (uint64_t)(app) << 48)

static const struct entry entries[] = {
	{ "noop", 0x00, TOLD },
	{ "noop with a size", 0x00, TOLD, .size = 1 },
	{ "drain", 0x02, TOLD },
	{ "drain with block-on-fault", 0x02, TOLD | F_BOF },
	{ "move 1 byte", 0x03, TOLD, AT_A + 1, AT_B + 2, 1, SRC | DST },
	{ "move 64 KiB", 0x03, TOLD, AT_A + 5, AT_B + 3, 65536, SRC | DST },
	{ "move upwards onto itself", 0x03, TOLD, AT_A, AT_A + 100, 20000, SRC | DST },
	{ "move downwards onto itself", 0x03, TOLD, AT_A + 100, AT_A, 20000, SRC | DST },
	{ "move nothing", 0x03, TOLD, AT_A, AT_B, 0, SRC | DST },
	{ "move with a fence outside of a batch", 0x03, TOLD | F_FENCE, AT_A, AT_B, 64, SRC | DST },
	{ "move with block-on-fault not enabled", 0x03, TOLD | F_BOF, AT_A, AT_B, 64, SRC | DST },
	{ "move with a reserved flag", 0x03, TOLD | 0x40, AT_A, AT_B, 64, SRC | DST },
	{ "move with an operation's flag", 0x03, TOLD | F_OP0, AT_A, AT_B, 64, SRC | DST },
	{ "move with bytes 38 and 39 set", 0x03, TOLD, AT_A, AT_B, 64, SRC | DST, .rsvd = 1 },
	{ "move with byte 40 set", 0x03, TOLD, AT_A, AT_B, 64, SRC | DST, { 1 } },
	{ "move with a handle and no interrupt", 0x03, TOLD, AT_A, AT_B, 64, SRC | DST,
	  .handle = 0xffff },
	{ "move with a handle that is not there", 0x03, TOLD | F_RCI, AT_A, AT_B, 64, SRC | DST,
	  .handle = 0xffff },
	{ "move from a page that is not there", 0x03, TOLD, UNMAPPED, AT_B, 64, DST,
	  .translated = true },
	{ "move to a page that is not there", 0x03, TOLD, AT_A, UNMAPPED, 64, SRC,
	  .translated = true },
	{ "move out of the memory", 0x03, TOLD, MEMORY - 8200, AT_A, 20000, SRC | DST,
	  .translated = true },
	{ "fill", 0x04, TOLD, 0x1122334455667788, AT_B + 3, 1001, DST },
	{ "fill with 16 bytes", 0x04, TOLD | F_OP0, 0x1122334455667788, AT_B + 3, 1001, DST,
	  { 0x99aabbccddeeff00 } },
	{ "compare equal", 0x05, TOLD, AT_A, AT_B, 10000, SRC | DST, .same = 10000 },
	{ "compare different", 0x05, TOLD, AT_A, AT_B, 10000, SRC | DST, .same = 5003 },
	{ "compare equal, expected different", 0x05, TOLD | F_CHECK, AT_A, AT_B, 64, SRC | DST,
	  { 1 }, .same = 64 },
	{ "compare different, expected different", 0x05, TOLD | F_CHECK, AT_A, AT_B, 64,
	  SRC | DST, { 1 } },
	{ "compare with a result expected and not checked", 0x05, TOLD, AT_A, AT_B, 64,
	  SRC | DST, { 1 } },
	{ "compare without a record on success", 0x05, F_CRAV, AT_A, AT_B, 64, SRC | DST },
	{ "compare with a pattern", 0x06, TOLD, AT_A, 0x0102030405060708, 64, SRC },
	{ "delta of equals", 0x07, TOLD, AT_A, AT_B, 4096, SRC | DST | OP0,
	  { AT_DELTA, 4096 }, .same = 4096 },
	{ "delta", 0x07, TOLD, AT_A, AT_B, 4096, SRC | DST | OP0, { AT_DELTA, 8192 },
	  .same = 4000 },
	{ "delta without room", 0x07, TOLD, AT_A, AT_B, 4096, SRC | DST | OP0, { AT_DELTA, 80 } },
	{ "delta with room for a part of an entry", 0x07, TOLD, AT_A, AT_B, 4096,
	  SRC | DST | OP0, { AT_DELTA, 85 } },
	{ "delta with too little room", 0x07, TOLD, AT_A, AT_B, 4096, SRC | DST | OP0,
	  { AT_DELTA, 72 } },
	{ "delta of an odd size", 0x07, TOLD, AT_A, AT_B, 4100, SRC | DST | OP0,
	  { AT_DELTA, 8192 } },
	{ "delta to an odd place", 0x07, TOLD, AT_A, AT_B, 4096, SRC | DST | OP0,
	  { AT_DELTA + 2, 8192 } },
	{ "delta beyond 512 KiB", 0x07, TOLD, AT_A, AT_B, 512 * 1024 + 8, SRC | DST | OP0,
	  { AT_DELTA, 8192 } },
	{ "delta onto a source", 0x07, TOLD, AT_A, AT_B, 4096, SRC | DST | OP0, { AT_B, 8192 } },
	{ "delta with two results expected", 0x07, TOLD | F_CHECK, AT_A, AT_B, 4096,
	  SRC | DST | OP0, { AT_DELTA, 8192, 0x3 } },
	{ "apply a delta", 0x08, TOLD, AT_LIST, AT_B, 4096, SRC | DST, { 20 } },
	{ "apply a delta out of order", 0x08, TOLD, AT_LIST + 0x40, AT_B, 4096, SRC | DST, { 20 } },
	{ "apply a delta beyond the size", 0x08, TOLD, AT_LIST + 0x80, AT_B, 4096, SRC | DST,
	  { 20 } },
	{ "apply a delta of no whole entry", 0x08, TOLD, AT_LIST, AT_B, 4096, SRC | DST, { 15 } },
	{ "apply a delta of nothing", 0x08, TOLD, AT_LIST, AT_B, 4096, SRC | DST, { 0 } },
	{ "dualcast", 0x09, TOLD, AT_A, AT_B + 7, 10000, SRC | DST | OP0, { AT_C + 7 } },
	{ "dualcast not aligned", 0x09, TOLD, AT_A, AT_B + 7, 10000, SRC | DST | OP0,
	  { AT_C + 8 } },
	{ "dualcast onto the source", 0x09, TOLD, AT_A, AT_B, 10000, SRC | DST | OP0, { AT_A } },
	{ "translation fetch", 0x0a, TOLD, AT_A, 0, 65536, SRC },
	{ "crc", 0x10, TOLD, AT_A + 1, 0, 10000, SRC },
	{ "crc with a seed", 0x10, TOLD, AT_A + 1, 0, 10000, SRC, { 0x12345678 } },
	{ "crc with a seed in memory", 0x10, TOLD | F_OP0, AT_A + 1, 0, 10000, SRC | OP8,
	  { 0, AT_SEED } },
	{ "crc with both seeds", 0x10, TOLD | F_OP0, AT_A + 1, 0, 10000, SRC | OP8,
	  { 0x12345678, AT_SEED } },
	{ "crc with a seed at an odd place", 0x10, TOLD | F_OP0, AT_A + 1, 0, 10000, SRC | OP8,
	  { 0, AT_SEED + 2 } },
	{ "crc with a place of a seed not read", 0x10, TOLD, AT_A + 1, 0, 10000, SRC | OP8,
	  { 0, AT_SEED } },
	{ "crc not inverted", 0x10, TOLD | F_OP1, AT_A + 1, 0, 10000, SRC, { 0x12345678 } },
	{ "crc of data not reflected", 0x10, TOLD | F_OP2, AT_A + 1, 0, 10000, SRC,
	  { 0x12345678 } },
	{ "crc with a destination", 0x10, TOLD, AT_A + 1, AT_B, 10000, SRC | DST },
	{ "copy with crc", 0x11, TOLD, AT_A + 1, AT_B, 10000, SRC | DST },
	{ "copy with crc onto itself", 0x11, TOLD, AT_A, AT_A + 8, 10000, SRC | DST },
	{ "dif check of noise", 0x12, TOLD, AT_A, 0, 1040, SRC, { 0 } },
	{ "dif check of nothing", 0x12, TOLD, AT_A, 0, 1040, SRC,
	  { 0x60, TAGS(0, 0, 0xffff) } },
	{ "dif check of a wrong size", 0x12, TOLD, AT_A, 0, 1000, SRC, { 0 } },
	{ "dif check of all ones", 0x12, TOLD, AT_END, 0, 520, SRC, { 0x02 } },
	{ "dif check of all ones as an error", 0x12, TOLD, AT_END, 0, 520, SRC, { 0x03 } },
	{ "dif insert 512", 0x13, TOLD, AT_A, AT_B, 2048, SRC | DST,
	  { 0x1000, 0, TAGS(0x11223344, 0x5566, 0) } },
	{ "dif insert 520", 0x13, TOLD, AT_A, AT_B, 2080, SRC | DST,
	  { 0x10000, 0, TAGS(0x11223344, 0x5566, 0xff) } },
	{ "dif insert 4096, inverted", 0x13, TOLD, AT_A, AT_B, 8192, SRC | DST,
	  { 0x0e0000, 0, TAGS(0xffffffff, 0xffff, 0) } },
	{ "dif insert 4104, fixed", 0x13, TOLD, AT_A, AT_B, 8208, SRC | DST,
	  { 0x038000, 0, TAGS(7, 8, 0) } },
	{ "dif insert with a field passed through", 0x13, TOLD, AT_A, AT_B, 2048, SRC | DST,
	  { 0x2000 } },
	{ "dif strip unchecked", 0x14, TOLD, AT_A, AT_B, 2080, SRC | DST,
	  { 0x60, TAGS(0, 0, 0xffff) } },
	{ "dif update unchecked", 0x15, TOLD, AT_A, AT_B, 2080, SRC | DST,
	  { 0x60, TAGS(0, 0, 0xffff), TAGS(9, 0x1234, 0x00f0) } },
	{ "dix generate", 0x17, TOLD, AT_A, AT_B, 2048, SRC | DST,
	  { 0, 0, TAGS(9, 0x1234, 0) } },
	{ "flush", 0x20, TOLD, 0, AT_B, 10000, DST },
	{ "operation 0x0b", 0x0b, TOLD, AT_A, AT_B, 64, SRC | DST },
	{ "operation 0xff", 0xff, TOLD },
	{ "batch of one", 0x01, TOLD, AT_LIST + 0x400, 0, 1, SRC },
	{ "batch", 0x01, TOLD, AT_LIST + 0x400, 0, 3, SRC },
	{ "batch with a failure", 0x01, TOLD, AT_LIST + 0x400, 0, 4, SRC },
	{ "batch with a fence after a failure", 0x01, TOLD, AT_LIST + 0x400, 0, 6, SRC },
	{ "batch not aligned", 0x01, TOLD, AT_LIST + 0x420, 0, 3, SRC },
	{ "batch with block-on-fault", 0x01, TOLD | F_BOF, AT_LIST + 0x400, 0, 3, SRC },
	{ "batch with a batch in it", 0x01, TOLD, AT_LIST + 0x600, 0, 2, SRC },
	{ "batch of a list that is not there", 0x01, TOLD, UNMAPPED, 0, 3, .translated = true },
};

static void put16(uint8_t *at, uint16_t value)
{
	memcpy(at, &value, 2);
}

static struct desc member(struct device *d, int number, uint8_t opcode, uint32_t flags)
{
	return (struct desc){
		.what = (uint32_t)opcode << 24 | TOLD | flags,
		.record = d->bus + AT_MEMBERS + 32u * (unsigned)number,
		.src = opcode == 3 ? d->bus + AT_A : opcode == 1 ? d->bus + AT_LIST + 0x400 : 0,
		.dst = opcode == 3 ? d->bus + AT_B + 0x1000u * (unsigned)number : 0,
		.size = opcode == 3 ? 4096 : opcode == 1 ? 2 : 0,
	};
}

/* the same bytes before each descriptor */
static void prepare(struct device *d, const struct entry *e)
{
	struct desc *list = (struct desc *)(d->memory + AT_LIST + 0x400);
	uint8_t *deltas = d->memory + AT_LIST;
	uint32_t value = 1;

	memset(d->memory, 0, AT_A);
	for (uint32_t i = AT_A; i < AT_END; i++) {
		value = value * 1664525 + 1013904223;
		d->memory[i] = value >> 24;
	}
	memset(d->memory + AT_END, 0xff, 4096);
	memcpy(d->memory + AT_B, d->memory + AT_A, (size_t)e->same);
	memcpy(d->memory + AT_SEED, "\x78\x56\x34\x12", 4);
	put16(deltas, 3), put16(deltas + 10, 9);
	put16(deltas + 0x40, 9), put16(deltas + 0x4a, 9);
	put16(deltas + 0x80, 9), put16(deltas + 0x8a, 512);
	list[0] = member(d, 0, 3, 0);
	list[1] = member(d, 1, 0, 0);
	list[2] = member(d, 2, 3, 0);
	list[3] = member(d, 3, 0xff, 0);
	list[4] = member(d, 4, 3, F_FENCE);
	list[5] = member(d, 5, 3, 0);
	list[8] = member(d, 0, 1, 0);
	list[9] = member(d, 1, 2, 0);
}

static uint32_t checksum(const uint8_t *data, size_t length)
{
	uint32_t hash = 2166136261u; /* FNV-1a */

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ data[i]) * 16777619u;
	return hash;
}

static void submit(struct device *d, const struct desc *desc)
{
	asm volatile("mfence\n\t"
		     ".byte 0x66, 0x0f, 0x38, 0xf8, 0x02" /* movdir64b (%rdx), %rax */
		     :
		     : "a"(d->portal), "d"(desc)
		     : "memory");
}

/* addresses are shown by their place in the memory: two machines have it elsewhere */
static void show_record(struct device *d, const volatile uint8_t *at)
{
	uint8_t record[32];
	uint64_t fault;

	memcpy(record, (const void *)at, sizeof(record));
	memcpy(&fault, record + 8, 8);
	printf("{\"status\": %u, \"result\": %u, \"fault_info\": %u, \"completed\": %u, \"fault\": ",
	       record[0], record[1], record[2],
	       record[4] | record[5] << 8 | record[6] << 16 | (unsigned)record[7] << 24);
	if (fault >= d->bus && fault <= d->bus + MEMORY)
		printf("\"memory+%#llx\"", (unsigned long long)(fault - d->bus));
	else
		printf("\"%#llx\"", (unsigned long long)fault);
	printf(", \"op\": ");
	hex(record + 16, 16);
	putchar('}');
}

static void run(struct device *d, const struct entry *e)
{
	volatile uint8_t *record = d->memory + AT_RECORD;
	struct op op = e->op;
	struct desc desc = {
		.what = (uint32_t)e->opcode << 24 | e->flags,
		.record = d->bus + AT_RECORD,
		.src = e->src + (e->places & SRC ? d->bus : 0),
		.dst = e->dst + (e->places & DST ? d->bus : 0),
		.size = e->size,
		.rsvd = e->rsvd,
		.handle = e->handle,
	};

	op.at0 += e->places & OP0 ? d->bus : 0;
	op.at8 += e->places & OP8 ? d->bus : 0;
	memcpy(desc.op, &op, sizeof(op));
	prepare(d, e);
	submit(d, &desc);
	for (int i = 0; i < 2000 && !*record; i++)
		nap(100); /* 0.2 s at most: without a record on success none comes */
	__sync_synchronize();
	printf("{\n      \"record\": ");
	show_record(d, record);
	printf(",\n      \"memory\": \"%08x\"", checksum(d->memory + AT_A, MEMORY - AT_A));
	if (e->opcode == 1) {
		printf(",\n      \"members\": [");
		for (unsigned i = 0; i < 6; i++) {
			printf("%s\n        ", i ? "," : "");
			show_record(d, d->memory + AT_MEMBERS + 32 * i);
		}
		printf("]");
	}
	if (get32(d, SWERR) & 1) {
		printf(",\n      \"swerr\": \"%016llx\"", (unsigned long long)get64(d, SWERR));
		put32(d, SWERR, 3);
	}
	printf("\n    }");
}

static void show_descriptors(struct device *d)
{
	name("descriptors");
	putchar('{');
	for (size_t i = 0, shown = 0; i < ARRAY_SIZE(entries); i++) {
		if (entries[i].translated && !d->translated)
			continue;
		printf("%s\n    \"%s\": ", shown++ ? "," : "", entries[i].name);
		run(d, &entries[i]);
	}
	printf("\n  }");
}

int main(int argc, char **argv)
{
	bool registers = argc == 3 && !strcmp(argv[1], "--registers");
	bool by_physical = argc == 3 && !strcmp(argv[1], "--physical");
	struct device d = { .fd = -1 };

	if (argc != 2 + registers + by_physical || argv[argc - 1][0] == '-') {
		fprintf(stderr, "usage: dsa-dump [--physical | --registers] "
			"DOMAIN:BUS:SLOT.FUNCTION\n");
		return 64;
	}
	d.address = argv[argc - 1];
	if (registers) {
		open_registers(&d, false);
	} else {
		need_movdir64b();
		if (by_physical)
			open_physical(&d);
		else
			open_vfio(&d);
		if (command(&d, RESET_DEVICE, 0) & 0xff)
			errx(1, "the device cannot be reset");
	}
	putchar('{');
	name("schema");
	printf("1");
	show_pci(d.address);
	name("translated");
	printf("%s", d.translated ? "true" : "false");
	show_registers(&d);
	show_tables(&d, registers ? "tables" : "tables after reset");
	if (!registers) {
		start(&d);
		show_tables(&d, "tables when enabled");
		show_descriptors(&d);
		command(&d, RESET_DEVICE, 0);
	}
	printf("\n}\n");
	return fflush(stdout) ? 1 : 0;
}
