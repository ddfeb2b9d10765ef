// SPDX-License-Identifier: Apache-2.0
/*
 * MOVDIRI, MOVDIR64B, ENQCMD and ENQCMDS as Intel's manual has them, where no enqueue register is
 * needed: to RAM and to the interrupt table of a device, which reads back what was written.
 */
#include "machine.h"

#define ROUNDS 1000
#define GIB 0x40000000ull

static uint8_t memory[6 * 4096] __attribute__((aligned(4096)));
static uint64_t *const source = (uint64_t *)(memory + 4096 - 32);	/* crosses a page */
static uint64_t *const target = (uint64_t *)(memory + 8192 + 128);
static uint64_t *table;							/* of the device */

static inline void movdir64b(void *to, const void *from)
{
	asm volatile("movdir64b (%0), %1" : : "r"(from), "r"(to) : "memory");
}

static void fill(uint64_t *block, uint64_t first)
{
	for (int i = 0; i < 8; i++)
		block[i] = first + i * 0x0101010101010101ull;
}

/* the number of quadwords that are as fill() leaves them */
static int filled(const volatile uint64_t *block, uint64_t first)
{
	int count = 0;

	for (int i = 0; i < 8; i++)
		count += block[i] == first + i * 0x0101010101010101ull;
	return count;
}

/* -- MOVDIRI ------------------------------------------------------------------------ */

static void test_movdiri(void)
{
	uint64_t value = 0x1122334455667788;

	fill(target, 0);
	asm volatile("movdiri %1, %0" : "=m"(target[0]) : "r"(value));
	EQUAL("movdiri stores 8 bytes", value, target[0]);
	target[0] = 0;
	asm volatile("movdiri %k1, %0" : "=m"(*(uint32_t *)target) : "r"(value));
	EQUAL("movdiri stores 4 bytes", 0x55667788, target[0]);
	EQUAL("movdiri with 66 is undefined", UD,
	      FAULT(asm volatile(".byte 0x66, 0x0f, 0x38, 0xf9, 0x07" : : "D"(target))).vector);
	EQUAL("movdiri to a register is undefined", UD,
	      FAULT(asm volatile(".byte 0x0f, 0x38, 0xf9, 0xc0")).vector);
}

/* -- MOVDIR64B: what it stores, and where --------------------------------------------- */

static void test_stores(void)
{
	fill(source, 1);
	movdir64b(target, source);
	EQUAL("movdir64b stores 64 bytes", 8, filled(target, 1));

	fill(source, 2);
	movdir64b(target, (uint8_t *)source);
	asm volatile("movdir64b 8(%0, %1), %2"
		     : : "r"(source), "r"(-8ull), "r"(target) : "memory");
	EQUAL("movdir64b has a source with base and index", 8, filled(target, 2));

	fill(source, 3);
	movdir64b(target, (uint8_t *)source);
	fill((uint64_t *)((uint8_t *)source + 3), 4);
	movdir64b(target, (uint8_t *)source + 3);
	EQUAL("movdir64b has a source at any address", 8, filled(target, 4));

	/* source and destination overlap: all is read before anything is written */
	fill(target + 4, 5);
	movdir64b(target, target + 4);
	EQUAL("movdir64b reads all before it writes", 8, filled(target, 5));
}

static void test_addresses(void)
{
	/* 67: both registers are 32 bits wide */
	fill(source, 6);
	asm volatile("movdir64b (%k0), %k1"
		     : : "r"((uint64_t)source | 1ull << 40), "r"((uint64_t)target | 1ull << 41)
		     : "memory");
	EQUAL("movdir64b with 67 cuts both addresses", 8, filled(target, 6));

	/* 65: the source is at GS, the destination never */
	fill(source, 7);
	fill(target, 0);
	wrmsr(0xc0000101, (uint64_t)source - 0x1000);
	asm volatile("movdir64b %%gs:(%0), %1" : : "r"(0x1000ull), "r"(target) : "memory");
	wrmsr(0xc0000101, 0);
	EQUAL("movdir64b with 65 has its source at GS", 8, filled(target, 7));
}

/* in compatibility mode: ES begins at 1 GiB, DS at 0 */
asm(".code32\n"
    "to_es:\n"
    "	mov $0x20, %eax\n"
    "	mov %eax, %es\n"
    "	mov to_es_source, %eax\n"
    "	mov to_es_target, %edx\n"
    "	movdir64b (%eax), %edx\n"
    "	ret\n"
    /* with a prefix for ES, which the source is then at, and 16-bit addresses */
    "from_es:\n"
    "	mov $0x20, %eax\n"
    "	mov %eax, %es\n"
    "	mov to_es_source, %esi\n"
    "	mov to_es_target, %edi\n"
    "	.byte 0x26, 0x67, 0x66, 0x0f, 0x38, 0xf8, 0x3c\n"	/* es: (%si), %di */
    "	ret\n"
    ".code64\n");
void to_es(void), from_es(void);
__attribute__((used)) uint32_t to_es_source, to_es_target;

static void test_segments(void)
{
	uint64_t *low = (uint64_t *)0x7000;

	fill(source, 8);
	fill(target, 0);
	to_es_source = (uint64_t)source;
	to_es_target = (uint64_t)target - GIB;
	in_32_bit(to_es);
	EQUAL("movdir64b writes to ES", 8, filled(target, 8));

	/* the page of 0x7000 is at 1 GiB + 0x7000, too */
	*page_entry(GIB + 0x7000) = 0x7007;
	forget_translations();
	fill(low, 9);
	to_es_source = 0xabcd7000;
	to_es_target = 0xabcd7080;
	in_32_bit(from_es);
	EQUAL("movdir64b has 16-bit addresses", 8, filled(low + 16, 9));
}

/* -- MOVDIR64B: what it does not do --------------------------------------------------- */

static void test_faults(void)
{
	uint64_t *entry = page_entry((uint64_t)memory + 3 * 4096);
	uint64_t *page = (uint64_t *)(memory + 3 * 4096);
	uint64_t present = *entry;
	struct fault fault;

	fill(source, 10);
	fill(target, 11);
	for (int offset = 1; offset < 64; offset += offset < 8 ? 1 : 8) {
		fault = FAULT(movdir64b((uint8_t *)target + offset, source));
		if (fault.vector != GP || fault.error)
			break;
	}
	EQUAL("movdir64b to an unaligned address is a protection fault", GP, fault.vector);
	fault = FAULT(movdir64b((uint8_t *)(1ull << 63), source));
	EQUAL("movdir64b to no canonical address is a protection fault", GP, fault.vector);

	*entry = 0;
	forget_translations();
	fault = FAULT(movdir64b(page, source));
	EQUAL("movdir64b to no page is a page fault", PF, fault.vector);
	EQUAL("movdir64b to no page tells of a write", 2, fault.error);
	EQUAL("movdir64b to no page tells the address", page, fault.address);
	fault = FAULT(movdir64b(target, (uint8_t *)page - 16));
	EQUAL("movdir64b from no page is a page fault", PF, fault.vector);
	EQUAL("movdir64b from no page tells of a read", 0, fault.error);
	EQUAL("movdir64b from no page tells the address", page, fault.address);
	EQUAL("movdir64b that faults writes nothing", 8, filled(target, 11));
	fault = FAULT(movdir64b((uint8_t *)page + 1, (uint8_t *)page - 16));
	EQUAL("movdir64b looks at alignment first", GP, fault.vector);

	*entry = present & ~2ull;
	forget_translations();
	fault = FAULT(movdir64b(page, source));
	EQUAL("movdir64b to a page for reading is a page fault", PF, fault.vector);
	EQUAL("movdir64b to a page for reading tells so", 3, fault.error);
	*entry = present & ~0x60ull;
	forget_translations();
	movdir64b(page, source);
	EQUAL("movdir64b marks the page accessed and dirty", 0x60, *entry & 0x60);
	EQUAL("movdir64b marks the page and writes", 8, filled(page, 10));
	*entry = present;
	forget_translations();
}

static void test_illegal_forms(void)
{
	EQUAL("movdir64b from a register is undefined", UD,
	      FAULT(asm volatile(".byte 0x66, 0x0f, 0x38, 0xf8, 0xc0")).vector);
	EQUAL("movdir64b with lock is undefined", UD,
	      FAULT(asm volatile(".byte 0xf0, 0x66, 0x0f, 0x38, 0xf8, 0x3e"
				 : : "D"(target), "S"(source))).vector);
	EQUAL("movdir64b with VEX is undefined", UD,
	      FAULT(asm volatile(".byte 0xc4, 0xe2, 0x79, 0xf8, 0x3e"
				 : : "D"(target), "S"(source))).vector);
	EQUAL("0f 38 f8 without a prefix is undefined", UD,
	      FAULT(asm volatile(".byte 0x0f, 0x38, 0xf8, 0x3e"
				 : : "D"(target), "S"(source))).vector);
	fill(source, 12);
	asm volatile(".byte 0x66, 0x48, 0x0f, 0x38, 0xf8, 0x3e"
		     : : "D"(target), "S"(source) : "memory");
	EQUAL("movdir64b takes no notice of REX.W", 8, filled(target, 12));
}

/* -- two CPUs -------------------------------------------------------------------------- */

enum step { WAIT, TO_RAM, TO_DEVICE, READ };
static volatile enum step order;
static volatile uint32_t arrived, torn;

/* both CPUs are here, and go on in the same moment */
static void meet(void)
{
	uint32_t mine = __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
	uint32_t both = (mine + 1) & ~1u;

	while (__atomic_load_n(&arrived, __ATOMIC_SEQ_CST) < both)
		asm volatile("pause");
}

static void race(uint64_t *to, uint64_t first, int rounds)
{
	uint64_t block[8];

	for (int i = 0; i < 8; i++)
		block[i] = first;
	for (int round = 0; round < rounds; round++) {
		meet();
		movdir64b(to, block);
		meet();
		if (first & 1)
			continue;
		for (int i = 1; i < 8; i++)
			if (*(volatile uint64_t *)(to + i) != *(volatile uint64_t *)to) {
				torn++;
				break;
			}
	}
	meet();
}

/* quadwords of a block that counts up, read in both directions: none may be older */
static void watch(const volatile uint64_t *block)
{
	for (int round = 0; round < 20 * ROUNDS; round++) {
		uint64_t seen = block[7];

		for (int i = 6; i >= 0; i--) {
			uint64_t now = block[i];

			if (now < seen)
				torn++;
			seen = now;
		}
		for (int i = 1; i < 8; i++) {
			uint64_t now = block[i];

			if (now < seen)
				torn++;
			seen = now;
		}
	}
}

void other(void)
{
	for (;;) {
		enum step step;

		while ((step = order) == WAIT)
			asm volatile("pause");
		order = WAIT;
		if (step == TO_RAM)
			race(target, 1, ROUNDS / 4);
		else if (step == TO_DEVICE)
			race(table, 1, ROUNDS);
		else {
			watch(target);
			meet();
		}
	}
}

static void test_two_cpus(void)
{
	uint64_t block[8];
	uint32_t waiting;

	start_other_cpu();
	torn = 0;
	order = TO_RAM;
	race(target, 2, ROUNDS / 4);
	EQUAL("movdir64b of two CPUs do not mix in RAM", 0, torn);

	torn = 0;
	order = TO_DEVICE;
	race(table, 2, ROUNDS);
	EQUAL("movdir64b of two CPUs do not mix in a device", 0, torn);

	fill(target, 0);
	for (int i = 0; i < 8; i++)
		target[i] = 0;
	torn = 0;
	waiting = arrived;
	order = READ;
	for (uint64_t count = 1; arrived == waiting; count++) {
		for (int i = 0; i < 8; i++)
			block[i] = count;
		movdir64b(target, block);
	}
	meet();
	EQUAL("no CPU sees a part of a movdir64b to RAM", 0, torn);
}

static void find_device(void)
{
	uint32_t function = pci_find(0x1af4, 0x1044);	/* virtio-rng, whose BAR 1 has the table */

	EQUAL("there is a device", true, function != 0);
	pci_write(function, 4, pci_read(function, 4) | 2);
	table = (uint64_t *)(uint64_t)(pci_read(function, 0x14) & ~0xfu);
}

void main(void)
{
	uint32_t features[4];

	cpuid(7, 0, features);
	EQUAL("cpuid has movdiri", 1, features[2] >> 27 & 1);
	EQUAL("cpuid has movdir64b", 1, features[2] >> 28 & 1);
	find_device();
	test_movdiri();
	test_stores();
	test_addresses();
	test_segments();
	test_faults();
	test_illegal_forms();
	fill(source, 0x1234500000000);
	movdir64b(table, source);
	EQUAL("movdir64b to a device without blocks comes in pieces", 8,
	      filled(table, 0x1234500000000));
	test_two_cpus();
}
