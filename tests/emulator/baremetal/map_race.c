// SPDX-License-Identifier: Apache-2.0
/*
 * One CPU uses a device while another one makes a second device appear and disappear: every
 * access must reach the first one, whatever the memory map is at that moment.
 */
#include "machine.h"

#define ROUNDS 5000

static volatile uint32_t *table;	/* interrupts of the first device, which read as written */
static volatile bool begun, ended;
static volatile uint64_t lost;

void other(void)
{
	uint32_t count = 0;

	begun = true;
	while (!ended) {
		table[0] = ++count;
		if (table[0] != count)
			lost++;
	}
	begun = false;
	for (;;)
		asm volatile("hlt");
}

void main(void)
{
	uint32_t first = pci_find(0x1af4, 0x1044), second = pci_find(0x1af4, 0x1043);
	uint32_t command = pci_read(second, 4) & 0xffff;

	EQUAL("there are two devices", 2, (first != 0) + (second != 0));
	pci_write(first, 4, (pci_read(first, 4) & 0xffff) | 2);
	table = (uint32_t *)(uint64_t)(pci_read(first, 0x14) & ~0xfu);
	start_other_cpu();
	while (!begun)
		asm volatile("pause");
	for (int round = 0; round < ROUNDS; round++) {
		pci_write(second, 4, command & ~2u);
		pci_write(second, 4, command | 2);
	}
	ended = true;
	while (begun)
		asm volatile("pause");
	EQUAL("every access reached its device", 0, lost);
}
