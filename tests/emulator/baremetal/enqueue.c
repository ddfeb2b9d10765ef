// SPDX-License-Identifier: Apache-2.0
/*
 * ENQCMD and ENQCMDS where nobody accepts a command: RAM, and a device that takes no blocks. What
 * a device with queues answers is for its own tests.
 */
#include "machine.h"

#define IA32_PASID 0xd93
#define VALID (1ull << 31)
#define FLAGS 0x8d5		/* O, S, Z, A, P, C */
#define Z 0x40

static uint64_t memory[64] __attribute__((aligned(4096)));
static uint64_t *const source = memory + 1;
static uint64_t *const target = memory + 32;
static uint64_t *table;

/* with all flags set before it, and their state after it */
#define ENQUEUE(instruction, to)                                                            \
	({                                                                                  \
		uint64_t flags_;                                                            \
		asm volatile("push $0x8d7; popf; " instruction " (%1), %2; pushf; pop %0"   \
			     : "=&r"(flags_) : "r"(source), "r"(to) : "memory", "cc");      \
		flags_ & FLAGS;                                                             \
	})

static void command(uint32_t first)
{
	for (int i = 0; i < 8; i++)
		source[i] = 0x1111111111111111ull * (i + 1);
	*(uint32_t *)source = first;
	for (int i = 0; i < 8; i++)
		target[i] = 0;
}

static uint64_t written(const volatile uint64_t *at)
{
	uint64_t all = 0;

	for (int i = 0; i < 8; i++)
		all |= at[i];
	return all;
}

static void test_msr(void)
{
	wrmsr(IA32_PASID, VALID | 0x12345);
	EQUAL("ia32_pasid reads as written", VALID | 0x12345, rdmsr(IA32_PASID));
	EQUAL("ia32_pasid has reserved bits", GP, FAULT(wrmsr(IA32_PASID, 1 << 20)).vector);
	EQUAL("ia32_pasid has 32 bits", GP, FAULT(wrmsr(IA32_PASID, 1ull << 32)).vector);
}

static void test_nobody_accepts(void)
{
	command(0);
	EQUAL("enqcmd to RAM sets Z alone", Z, ENQUEUE("enqcmd", target));
	EQUAL("enqcmds to RAM sets Z alone", Z, ENQUEUE("enqcmds", target));
	EQUAL("neither writes to RAM", 0, written(target));
	EQUAL("enqcmd to a device without queues sets Z", Z, ENQUEUE("enqcmd", table));
	EQUAL("enqcmds to a device without queues sets Z", Z, ENQUEUE("enqcmds", table));
	EQUAL("neither writes to a device without queues", 0, (uint32_t)written(table));
}

static void test_commands(void)
{
	command(1);
	EQUAL("enqcmd has its first 32 bits clear", GP, FAULT(ENQUEUE("enqcmd", target)).vector);
	EQUAL("enqcmds may have a pasid", Z, ENQUEUE("enqcmds", target));
	command(VALID | 0xfffff);
	EQUAL("enqcmds may be privileged", Z, ENQUEUE("enqcmds", target));
	for (int bit = 20; bit < 31; bit++) {
		command(1u << bit);
		if (FAULT(ENQUEUE("enqcmds", target)).vector != GP) {
			EQUAL("enqcmds has reserved bits", GP, bit);
			return;
		}
	}
	EQUAL("enqcmds has reserved bits", GP, GP);
}

static void test_faults(void)
{
	command(0);
	EQUAL("enqcmd to an unaligned address is a protection fault", GP,
	      FAULT(ENQUEUE("enqcmd", (char *)target + 8)).vector);
	EQUAL("enqcmds to an unaligned address is a protection fault", GP,
	      FAULT(ENQUEUE("enqcmds", (char *)target + 32)).vector);
	wrmsr(IA32_PASID, 0x12345);
	EQUAL("enqcmd without a valid pasid is a protection fault", GP,
	      FAULT(ENQUEUE("enqcmd", target)).vector);
	EQUAL("enqcmds needs no pasid of its own", Z, ENQUEUE("enqcmds", target));
	EQUAL("enqcmd with lock is undefined", UD,
	      FAULT(asm volatile(".byte 0xf0, 0xf2, 0x0f, 0x38, 0xf8, 0x3e"
				 : : "D"(target), "S"(source))).vector);
	EQUAL("enqcmds from a register is undefined", UD,
	      FAULT(asm volatile(".byte 0xf3, 0x0f, 0x38, 0xf8, 0xc0")).vector);
}

static uint64_t seen;

static void user_enqcmd(void)
{
	seen = ENQUEUE("enqcmd", target);
	asm volatile("ud2");
}

static void user_enqcmds(void)
{
	ENQUEUE("enqcmds", target);
	asm volatile("ud2");
}

static void test_ring3(void)
{
	command(0);
	wrmsr(IA32_PASID, VALID);
	EQUAL("enqcmd in ring 3 comes to its end", UD, FAULT(in_ring3(user_enqcmd)).vector);
	EQUAL("enqcmd in ring 3 sets Z", Z, seen);
	EQUAL("enqcmds in ring 3 is a protection fault", GP, FAULT(in_ring3(user_enqcmds)).vector);
}

void other(void)
{
}

void main(void)
{
	uint32_t features[4], device = pci_find(0x1af4, 0x1044);

	cpuid(7, 0, features);
	EQUAL("cpuid has enqcmd", 1, features[2] >> 29 & 1);
	EQUAL("there is a device", true, device != 0);
	pci_write(device, 4, (pci_read(device, 4) & 0xffff) | 2);
	table = (uint64_t *)(uint64_t)(pci_read(device, 0x14) & ~0xfu);
	for (int i = 0; i < 8; i++)
		table[i] = 0;
	test_msr();
	test_nobody_accepts();
	test_commands();
	test_faults();
	test_ring3();
}
