// SPDX-License-Identifier: Apache-2.0
/*
 * A program that means harm to a DSA, from a guest that has several CPUs.
 *
 *     hostile 0000:6a:01.0 SEED SECONDS
 *
 * The device is bound to vfio-pci, so that an IOMMU keeps its wrong addresses
 * from the guest's own memory. Threads do, all at once and at random: write
 * and read registers; write and read the portals' pages, in stores of every
 * width; submit descriptors that are nearly right; change descriptors, lists
 * and data while the device reads them; configure, enable, abort and reset.
 *
 * At the end the device is reset and has to execute a no-op. Prints what was
 * done as JSON. Exits with 1 where the device does not come back.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
	GENCAP = 0x10, WQCAP = 0x20, GRPCAP = 0x30, ENGCAP = 0x38, OPCAP = 0x40, TABLES = 0x60,
	GENCFG = 0x80, CMD = 0xa0, CMDSTS = 0xa8, EVLCFG = 0xe0,
};
enum { ENABLE_DEVICE = 1, RESET_DEVICE = 5, ENABLE_WQ = 6 };

#define REGISTERS 0x10000u
#define VECTORS_AT 0x8000u /* random messages would reach the guest's own CPUs */
#define VECTORS_END 0x9000u
#define MEMORY (4u << 20)
#define IOVA 0x100000000ull

struct desc {
	uint32_t who, what; /* pasid and privilege; flags and opcode */
	uint64_t record, src, dst;
	uint32_t size;
	uint16_t handle, rsvd;
	uint8_t op[24];
} __attribute__((packed, aligned(64)));

static volatile uint8_t *regs, *portals;
static uint8_t *memory;
static uint32_t queues, used = 1; /* there, and enabled */
static int device;
static volatile bool over;
static int patience = 50; /* looks at a command, 200 µs apart */
static unsigned long accesses, submitted, stores, restarts, resets, commands;

static void nap(long microseconds)
{
	struct timespec pause = { .tv_nsec = microseconds * 1000 };

	nanosleep(&pause, NULL);
}

/* ---- chance: each thread has its own, from the seed ---- */

static _Thread_local uint64_t chance;

static uint64_t draw(void)
{
	chance ^= chance << 13;
	chance ^= chance >> 7;
	chance ^= chance << 17;
	return chance * 0x2545f4914f6cdd1dull;
}

static uint32_t below(uint32_t end)
{
	return (uint32_t)((draw() >> 32) * end >> 32);
}

static bool rarely(uint32_t one_of)
{
	return below(one_of) == 0;
}

/* ---- orders ---- */

static uint32_t get32(uint32_t at)
{
	return *(volatile uint32_t *)(regs + at);
}

static uint64_t get64(uint32_t at)
{
	return *(volatile uint64_t *)(regs + at);
}

static void put32(uint32_t at, uint32_t value)
{
	*(volatile uint32_t *)(regs + at) = value;
}

static void put64(uint32_t at, uint64_t value)
{
	*(volatile uint64_t *)(regs + at) = value;
}

/* returns the status, or -1 where the command does not end in time */
static int64_t command(uint32_t code, uint32_t operand)
{
	put32(CMD, code << 20 | operand);
	__atomic_add_fetch(&commands, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < patience; i++) {
		uint32_t status = get32(CMDSTS);

		if (!(status >> 31))
			return status;
		nap(200);
	}
	return -1;
}

static void submit(volatile uint8_t *portal, const struct desc *desc)
{
	asm volatile("mfence\n\t"
		     ".byte 0x66, 0x0f, 0x38, 0xf8, 0x02" /* movdir64b (%rdx), %rax */
		     :
		     : "a"(portal), "d"(desc)
		     : "memory");
}

static uint64_t address(void)
{
	static const uint64_t edges[] = {
		0, 0xfee00000, IOVA - 64, IOVA + MEMORY - 64, IOVA + MEMORY, 1ull << 38,
		1ull << 46, 1ull << 52, 1ull << 63, -64ull, -4096ull, -1ull,
	};

	if (rarely(40))
		return edges[below(sizeof(edges) / sizeof(edges[0]))] - below(65);
	return IOVA + (below(MEMORY) & -(1u << below(13)));
}

static uint32_t size(void)
{
	static const uint32_t sizes[] = { 0, 1, 2, 8, 31, 32, 63, 64, 65, 4095, 4096, 4097 };

	if (rarely(50))
		return (uint32_t)draw();
	return rarely(3) ? below(1u << 17) : sizes[below(sizeof(sizes) / sizeof(sizes[0]))];
}

static struct desc descriptor(void)
{
	static const uint8_t opcodes[] = {
		0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 0x0a, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x17, 0x20,
	};
	uint32_t flags = 0x0c, count = rarely(30) ? below(3000) : below(20);
	struct desc d = { 0 };

	if (rarely(4))
		flags |= 1 << 4; /* an interrupt */
	while (rarely(6))
		flags ^= 1u << below(24);
	d.what = flags | (uint32_t)opcodes[below(sizeof(opcodes))] << 24;
	if (rarely(100))
		d.what = (uint32_t)draw();
	d.who = rarely(50) ? (uint32_t)draw() : 0;
	d.record = rarely(50) ? address() : (IOVA + below(MEMORY)) & -32ull;
	d.src = address();
	d.dst = address();
	d.size = size();
	d.handle = rarely(20) ? (uint16_t)draw() : below(queues + 1);
	if (d.what >> 24 == 1) { /* a batch: its list is anywhere, and changes as it is read */
		d.src &= -64ull;
		d.dst = 0;
		d.size = count;
	} else if ((d.what >> 24 == 0 || d.what >> 24 == 2) && !rarely(8)) {
		d.src = d.dst = d.size = 0;
	}
	/* a second address, and a size or a mask, where operations have them */
	if (d.what >> 24 >= 7 && d.what >> 24 != 0x20 ? !rarely(8) : rarely(20)) {
		uint64_t second = address();
		uint32_t room = size();

		memcpy(d.op, &second, 8);
		memcpy(d.op + 8, &room, 4);
	}
	while (rarely(10))
		((uint8_t *)&d)[below(64)] ^= (uint8_t)(1 << below(8));
	return d;
}

static void touch(volatile uint8_t *at, bool write, uint64_t value)
{
	switch (below(4)) {
	case 0:
		if (write)
			*at = (uint8_t)value;
		else
			(void)*at;
		break;
	case 1:
		at = (volatile uint8_t *)((uintptr_t)at & -2ul);
		if (write)
			*(volatile uint16_t *)at = (uint16_t)value;
		else
			(void)*(volatile uint16_t *)at;
		break;
	case 2:
		at = (volatile uint8_t *)((uintptr_t)at & -4ul);
		if (write)
			*(volatile uint32_t *)at = (uint32_t)value;
		else
			(void)*(volatile uint32_t *)at;
		break;
	default:
		at = (volatile uint8_t *)((uintptr_t)at & -8ul);
		if (write)
			*(volatile uint64_t *)at = value;
		else
			(void)*(volatile uint64_t *)at;
	}
}

/* ---- the device's life ---- */

static void configure(void)
{
	uint64_t tables = get64(TABLES), gencap = get64(GENCAP), wqcap = get64(WQCAP);
	uint32_t groups = get64(GRPCAP) & 0xff, engines = get64(ENGCAP) & 0xff;
	uint32_t stride = 32u << (wqcap >> 24 & 0xf), entries = wqcap & 0xffff;
	uint32_t parts = 1 + below(groups);

	used = 1 + below(rarely(2) ? 2 : queues);
	if (parts > used)
		parts = used;
	if (parts > engines)
		parts = engines;
	for (uint32_t q = 0; q < queues; q++) {
		uint32_t at = (tables >> 16 & 0xffff) * 0x100 + q * stride;

		put32(at, q < used ? entries / used : 0);
		put32(at + 4, 0);
		put32(at + 8, 1 | below(2) << 1 | (1 + below(15)) << 4);
		put32(at + 12, (gencap >> 16 & 0x1f) | (gencap >> 21 & 0xf) << 5);
		for (uint32_t i = 0; i < 8 && stride > 32; i++)
			put32(at + 32 + 4 * i, get32(OPCAP + 4 * i));
	}
	for (uint32_t g = 0; g < groups; g++) {
		uint32_t at = (tables & 0xffff) * 0x100 + g * 64;
		uint64_t of_queues = 0, of_engines = 0;

		for (uint32_t q = 0; g < parts && q < used; q++)
			of_queues |= q % parts == g ? 1ull << q : 0;
		for (uint32_t e = 0; g < parts && e < engines; e++)
			of_engines |= e % parts == g ? 1ull << e : 0;
		put64(at, of_queues);
		put64(at + 8, 0), put64(at + 16, 0), put64(at + 24, 0);
		put64(at + 32, of_engines);
		put64(at + 40, 0);
	}
	if (gencap >> 13 & 3) { /* an event log */
		put64(EVLCFG, IOVA + (below(MEMORY) & -4096u));
		put64(EVLCFG + 8, 64 + below(64));
		put32(GENCFG, rarely(3) ? 0 : 1 << 13);
	}
	command(ENABLE_DEVICE, 0);
	for (uint32_t q = 0; q < used; q++)
		command(ENABLE_WQ, q);
}

static bool renew(void)
{
	uint16_t pci_command = 0x6; /* memory and bus mastering */
	struct vfio_region_info config = {
		.argsz = sizeof(config), .index = VFIO_PCI_CONFIG_REGION_INDEX,
	};

	return !ioctl(device, VFIO_DEVICE_RESET) &&
	       !ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &config) &&
	       pwrite(device, &pci_command, 2, (off_t)config.offset + 4) == 2;
}

static void *live(void *arg)
{
	chance = (uint64_t)(uintptr_t)arg;
	while (!over) {
		if (rarely(4) || command(RESET_DEVICE, 0) < 0) {
			if (!renew())
				err(1, "VFIO does not reset the device");
			resets++;
		}
		configure();
		restarts++;
		nap(1000 + below(40000));
		if (rarely(2)) {
			command(below(16), rarely(2) ? (uint32_t)draw() & 0xfffff : below(256));
			nap(below(5000));
		}
	}
	return NULL;
}

static void *registers(void *arg)
{
	chance = (uint64_t)(uintptr_t)arg;
	while (!over) {
		uint32_t at = below(4) ? below(0x3100) : below(REGISTERS);
		uint64_t value = rarely(2) ? draw() : 1ull << below(64);
		bool write = rarely(8);

		if (rarely(3))
			at = below(0x110);
		if (write && ((at >= VECTORS_AT && at < VECTORS_END) || (at & ~7u) == CMD))
			continue;
		touch(regs + at, write, value);
		if (rarely(8))
			touch(portals + below(queues * 0x4000), rarely(2), value), stores++;
		accesses++;
		if (rarely(64))
			nap(below(2000));
	}
	return NULL;
}

static void *submitter(void *arg)
{
	unsigned long count = 0;

	chance = (uint64_t)(uintptr_t)arg;
	while (!over) {
		struct desc d = descriptor();
		uint32_t queue = below(rarely(20) ? queues : used), page = rarely(20) ? below(4) : 0;

		submit(portals + queue * 0x4000 + page * 0x1000 + below(64) * 64, &d);
		count++;
		if (rarely(8))
			nap(below(1000));
	}
	__atomic_add_fetch(&submitted, count, __ATOMIC_RELAXED);
	return NULL;
}

/* lists of descriptors everywhere, which change while they are read */
static void *scribbler(void *arg)
{
	chance = (uint64_t)(uintptr_t)arg;
	while (!over) {
		uint32_t at = below(MEMORY) & -64u;

		for (uint32_t i = below(16); i && at < MEMORY; i--, at += 64) {
			struct desc d = descriptor();

			memcpy(memory + at, &d, sizeof(d));
		}
		if (rarely(16))
			nap(below(1000));
	}
	return NULL;
}

/* ---- beginning and end ---- */

static volatile uint8_t *region(uint32_t index, size_t length)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = index };
	void *found;

	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info) || info.size < length)
		errx(1, "region %u: expected %zu bytes, found %llu", index, length, info.size);
	found = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)info.offset);
	if (found == MAP_FAILED)
		err(1, "region %u cannot be mapped", index);
	return found;
}

static int open_group(const char *where)
{
	char path[256], target[256];
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", where);
	length = readlink(path, target, sizeof(target) - 1);
	if (length < 0)
		errx(1, "%s is not there, or in no IOMMU group: bind it to vfio-pci", where);
	target[length] = 0;
	snprintf(path, sizeof(path), "/dev/vfio/%.200s", strrchr(target, '/') + 1);
	fd = open(path, O_RDWR);
	if (fd < 0)
		errx(1, "%s: %s; is %s bound to vfio-pci?", path, strerror(errno), where);
	return fd;
}

static void open_device(const char *where)
{
	int container = open("/dev/vfio/vfio", O_RDWR), group = open_group(where);
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map), .iova = IOVA, .size = MEMORY,
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
	};

	if (container < 0 || ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) ||
	    ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		err(1, "VFIO does not give %s away", where);
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		err(1, "no memory");
	map.vaddr = (uintptr_t)memory;
	if (ioctl(container, VFIO_IOMMU_MAP_DMA, &map))
		err(1, "cannot map memory for the device");
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, where);
	if (device < 0 || !renew())
		err(1, "%s cannot be had of VFIO, or reset", where);
	regs = region(VFIO_PCI_BAR0_REGION_INDEX, REGISTERS);
	queues = get64(WQCAP) >> 16 & 0xff;
	portals = region(VFIO_PCI_BAR2_REGION_INDEX, queues * 0x4000);
}

/* every vector tells a counter that nobody reads */
static void take_interrupts(void)
{
	size_t count = queues + 1;
	struct vfio_irq_set *set = calloc(1, sizeof(*set) + count * sizeof(int32_t));

	if (!set)
		errx(1, "no memory");
	set->argsz = (uint32_t)(sizeof(*set) + count * sizeof(int32_t));
	set->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
	set->index = VFIO_PCI_MSIX_IRQ_INDEX;
	set->count = (uint32_t)count;
	for (size_t i = 0; i < count; i++)
		((int32_t *)set->data)[i] = eventfd(0, EFD_NONBLOCK);
	if (ioctl(device, VFIO_DEVICE_SET_IRQS, set))
		err(1, "no interrupts");
	free(set);
}

static bool works(void)
{
	volatile uint8_t *record = memory;
	struct desc d = { .what = 0x0c, .record = IOVA };

	patience = 50000;
	if (!renew())
		return false;
	configure();
	*record = 0;
	submit(portals, &d);
	for (int i = 0; i < patience && !*record; i++)
		nap(200);
	return *record == 1;
}

int main(int argc, char **argv)
{
	void *(*const roles[])(void *) = {
		live, registers, scribbler, submitter, submitter,
	};
	pthread_t threads[sizeof(roles) / sizeof(roles[0])];
	uint64_t seed;

	if (argc != 4) {
		fprintf(stderr, "usage: hostile DOMAIN:BUS:SLOT.FUNCTION SEED SECONDS\n");
		return 64;
	}
	seed = strtoull(argv[2], NULL, 0);
	open_device(argv[1]);
	take_interrupts();
	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
		uint64_t mixed = (seed * 8 + i + 1) * 0x9e3779b97f4a7c15ull | 1;

		if (pthread_create(&threads[i], NULL, roles[i], (void *)(uintptr_t)mixed))
			errx(1, "no thread");
	}
	sleep((unsigned)strtoul(argv[3], NULL, 0));
	over = true;
	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
		pthread_join(threads[i], NULL);
	printf("{\"accesses\": %lu, \"stores\": %lu, \"submitted\": %lu, \"commands\": %lu, "
	       "\"restarts\": %lu, \"resets\": %lu}\n",
	       accesses, stores, submitted, commands, restarts, resets);
	if (!works())
		errx(1, "the device does not come back");
	return 0;
}
