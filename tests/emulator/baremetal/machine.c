// SPDX-License-Identifier: Apache-2.0
#include "machine.h"

extern uint8_t stubs[], trampoline[], trampoline_end[], tss[];
extern uint64_t gdt[], pd[];

static void *escape[5];
static volatile bool expecting;
static volatile struct fault last_fault;

static struct {
	uint16_t low, selector, flags, middle;
	uint32_t high, zero;
} idt[32] __attribute__((aligned(16)));

static uint64_t page_tables[8][512] __attribute__((aligned(4096)));
static uint8_t exception_stack[STACK] __attribute__((aligned(16)));

__attribute__((noreturn, used)) void exception(uint64_t vector, uint64_t error)
{
	uint64_t address;

	if (!expecting) {
		EQUAL("no other exception", 0, vector << 32 | error);
		leave();
	}
	last_fault.vector = vector;
	last_fault.error = error;
	asm volatile("mov %%cr2, %0" : "=r"(address));
	last_fault.address = address;
	__builtin_longjmp(escape, 1);
}

__attribute__((noipa)) struct fault fault_of(void (*function)(void))
{
	last_fault.vector = NONE;
	expecting = true;
	if (!__builtin_setjmp(escape))
		function();
	expecting = false;
	return (struct fault){ last_fault.vector, last_fault.error, last_fault.address };
}

void set_up_exceptions(void)
{
	struct __attribute__((packed)) {
		uint16_t limit;
		uint64_t base;
	} pointer = { sizeof(idt) - 1, (uint64_t)idt };
	uint64_t base = (uint64_t)tss;

	for (int i = 0; i < 32; i++) {
		uint64_t at = (uint64_t)stubs + 16 * i;

		idt[i].low = at;
		idt[i].selector = 0x08;
		idt[i].flags = 0x8e00;
		idt[i].middle = at >> 16;
		idt[i].high = at >> 32;
	}
	asm volatile("lidt %0" : : "m"(pointer));

	/* the stack for exceptions in ring 3 */
	*(uint64_t *)(tss + 4) = (uint64_t)exception_stack + sizeof(exception_stack);
	gdt[7] = 103 | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
	gdt[8] = base >> 32;
	asm volatile("ltr %w0" : : "r"(0x38));
}

void forget_translations(void)
{
	uint64_t root;

	asm volatile("mov %%cr3, %0; mov %0, %%cr3" : "=r"(root) : : "memory");
}

uint64_t *page_entry(uint64_t address)
{
	static int used;
	uint64_t *large = &pd[address >> 21];

	if (*large & 0x80) {
		uint64_t *table = page_tables[used++];

		for (int i = 0; i < 512; i++)
			table[i] = (*large & ~0xfffull) + i * 4096ull + 7;
		*large = (uint64_t)table + 7;
		forget_translations();
	}
	return (uint64_t *)(*large & ~0xfffull) + (address >> 12 & 511);
}

uint32_t pci_read(uint32_t function, uint8_t offset)
{
	outl(0xcf8, 1u << 31 | function << 8 | offset);
	return inl(0xcfc);
}

void pci_write(uint32_t function, uint8_t offset, uint32_t value)
{
	outl(0xcf8, 1u << 31 | function << 8 | offset);
	outl(0xcfc, value);
}

uint32_t pci_find(uint16_t vendor, uint16_t device)
{
	for (uint32_t function = 8; function < 256; function++)
		if (pci_read(function, 0) == ((uint32_t)device << 16 | vendor))
			return function;
	return 0;
}

void start_other_cpu(void)
{
	volatile uint32_t *apic = (void *)0xfee00000;
	uint8_t *page = (void *)0x8000;

	for (int i = 0; i < trampoline_end - trampoline; i++)
		page[i] = trampoline[i];
	apic[0xf0 / 4] = 0x1ff;
	apic[0x310 / 4] = 1 << 24;
	apic[0x300 / 4] = 0x4500;
	for (int i = 0; i < 100000; i++)
		asm volatile("pause");
	apic[0x310 / 4] = 1 << 24;
	apic[0x300 / 4] = 0x4608;
}

__attribute__((used)) void cpu_main(uint64_t number)
{
	if (number)
		other();
	set_up_exceptions();
	main();
	leave();
}
