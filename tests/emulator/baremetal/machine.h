/* SPDX-License-Identifier: Apache-2.0 */
/* A PC without an operating system: ports, PCI, exceptions, a second CPU. */
#ifndef MACHINE_H
#define MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STACK 0x4000

static inline void outb(uint16_t port, uint8_t value)
{
	asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outl(uint16_t port, uint32_t value)
{
	asm volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t value;

	asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static inline uint64_t rdmsr(uint32_t msr)
{
	uint32_t low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (uint64_t)high << 32 | low;
}

static inline void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	asm volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
		     : "a"(leaf), "c"(subleaf));
}

/* -- what QEMU's debug console shows ---------------------------------------------- */

static inline void say(const char *text)
{
	while (*text)
		outb(0xe9, *text++);
}

static inline void say_hex(uint64_t value)
{
	for (int shift = 60; shift >= 0; shift -= 4)
		outb(0xe9, "0123456789abcdef"[value >> shift & 15]);
}

/* one line, which the test on the other side reads */
static inline void verdict(const char *name, bool ok, uint64_t expected, uint64_t found)
{
	say(ok ? "ok " : "not ok ");
	say(name);
	if (!ok) {
		say(": expected ");
		say_hex(expected);
		say(", found ");
		say_hex(found);
	}
	say("\n");
}

#define EQUAL(name, expected, found)                                                        \
	do {                                                                                \
		uint64_t e_ = (uint64_t)(expected), f_ = (uint64_t)(found);                 \
		verdict(name, e_ == f_, e_, f_);                                            \
	} while (0)

/* ends QEMU: its exit code is 33 */
static inline void leave(void)
{
	say("end\n");
	outb(0x501, 16);
	for (;;)
		asm volatile("hlt");
}

/* -- exceptions --------------------------------------------------------------------- */

enum { NONE = -1, UD = 6, GP = 13, PF = 14 };

struct fault {
	int vector;	/* NONE if there was none */
	uint64_t error;
	uint64_t address;
};

/* runs a function, and leaves it at an exception; any other exception ends the program */
struct fault fault_of(void (*function)(void));

/* runs statements as such a function */
#define FAULT(...)                                                                          \
	({                                                                                  \
		void function_(void)                                                        \
		{                                                                           \
			__VA_ARGS__;                                                        \
		}                                                                           \
		fault_of(function_);                                                        \
	})

void set_up_exceptions(void);
void in_ring3(void (*function)(void));
void in_32_bit(void (*function)(void));

/* -- other parts of the machine ----------------------------------------------------- */

uint64_t *page_entry(uint64_t address);	/* of the 4 KiB page, which it makes if need be */
void forget_translations(void);
uint32_t pci_find(uint16_t vendor, uint16_t device);	/* 0 if there is none */
uint32_t pci_read(uint32_t function, uint8_t offset);
void pci_write(uint32_t function, uint8_t offset, uint32_t value);
void start_other_cpu(void);

/* what a program has: CPU 0 runs main(), CPU 1 other() */
void main(void);
void other(void);

#endif
