// SPDX-License-Identifier: GPL-2.0-only
/*
 * Counts mappings that an IOMMU makes, and those of them by whom memory that is
 * kept for reclaim would be given: /sys/module/reserves/parameters/.
 */
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/sched.h>

static unsigned int mapped, reserved;
module_param(mapped, uint, 0444);
module_param(reserved, uint, 0444);

static int look(struct kprobe *probe, struct pt_regs *regs)
{
	mapped++;
	reserved += !!(current->flags & PF_MEMALLOC);
	return 0;
}

static struct kprobe probe = {
	.symbol_name = "iommu_map",
	.pre_handler = look,
};

static int __init begin(void)
{
	return register_kprobe(&probe);
}

static void __exit end(void)
{
	unregister_kprobe(&probe);
}

module_init(begin);
module_exit(end);
MODULE_DESCRIPTION("counts mappings by tasks that may use up all memory");
MODULE_LICENSE("GPL");
