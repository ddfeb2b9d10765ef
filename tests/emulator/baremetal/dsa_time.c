// SPDX-License-Identifier: Apache-2.0
/*
 * Moves on a DSA, and how long a CPU that polls waits for each. Where the clock counts
 * instructions, it is the same number of them in every run.
 */
#include "machine.h"

enum { WQCAP = 0x20, TABLES = 0x60, CMD = 0xa0, CMDSTS = 0xa8 };
enum { ENABLE_DEVICE = 1, ENABLE_WQ = 6 };
#define RECORD 0x2000000ull
#define FROM 0x2100000ull
#define TO 0x2400000ull

struct descriptor {
	uint32_t who, what;
	uint64_t record, from, to;
	uint32_t size, handle;
	uint8_t op[24];
} __attribute__((aligned(64)));

static volatile uint8_t *regs, *portal;

static uint32_t get(uint32_t at)
{
	return *(volatile uint32_t *)(regs + at);
}

static void put(uint32_t at, uint32_t value)
{
	*(volatile uint32_t *)(regs + at) = value;
}

static uint32_t command(uint32_t code)
{
	put(CMD, code << 20);
	while (get(CMDSTS) >> 31)
		asm volatile("pause");
	return get(CMDSTS) & 0xff;
}

static uint64_t ticks(void)
{
	uint32_t low, high;

	asm volatile("lfence; rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

static uint64_t bar(uint32_t function, uint8_t at)
{
	return (pci_read(function, at) & ~0xfu) | (uint64_t)pci_read(function, at + 4) << 32;
}

static void start(void)
{
	uint32_t queue, group;

	queue = (get(TABLES) >> 16) * 0x100;
	group = (get(TABLES) & 0xffff) * 0x100;
	put(queue, 16);
	put(queue + 8, 1 | 10 << 4);	/* dedicated, priority 10 */
	put(queue + 12, 21 | 10 << 5);	/* 2 MiB, batches of 1024 */
	put(group, 1);
	put(group + 32, 1);
	EQUAL("the device is enabled", 0, command(ENABLE_DEVICE));
	EQUAL("the queue is enabled", 0, command(ENABLE_WQ));
}

static void move(uint32_t size)
{
	static struct descriptor d;
	volatile uint8_t *record = (volatile uint8_t *)RECORD;
	uint64_t begun, done;

	d = (struct descriptor){
		.what = 0x0c | 3 << 24, .record = RECORD, .from = FROM, .to = TO, .size = size,
	};
	*record = 0;
	begun = ticks();
	asm volatile("movdir64b (%1), %0" : : "r"(portal), "r"(&d) : "memory");
	while (!*record)
		asm volatile("pause");
	done = ticks();
	EQUAL("the move succeeds", 1, *record);
	EQUAL("its last byte is there", ((volatile uint8_t *)FROM)[size - 1],
	      ((volatile uint8_t *)TO)[size - 1]);
	say("ok took ");
	say_hex(size);
	say(" ");
	say_hex(done - begun);
	say("\n");
}

void main(void)
{
	uint32_t function = pci_find(0x8086, 0x0b25);

	EQUAL("there is a DSA", 1, function != 0);
	pci_write(function, 4, (pci_read(function, 4) & 0xffff) | 6);
	regs = (volatile uint8_t *)bar(function, 0x10);
	portal = (volatile uint8_t *)bar(function, 0x18);
	start();
	for (uint64_t i = 0; i < 1 << 20; i++)
		((volatile uint8_t *)FROM)[i] = (uint8_t)(i * 7 + i / 251 + 1);
	for (uint32_t size = 4096; size <= 1 << 20; size *= 4)
		for (int round = 0; round < 3; round++)
			move(size);
}

void other(void)
{
}
