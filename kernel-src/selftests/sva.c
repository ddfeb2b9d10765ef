// SPDX-License-Identifier: GPL-2.0-only
/*
 * Has drivers believe that devices may use the addresses of a process, which no
 * emulated IOMMU offers. Who binds a process to a device is still refused.
 */
#include <linux/kprobes.h>
#include <linux/module.h>

static int pretend(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	regs_set_return_value(regs, 0);
	return 0;
}

static struct kretprobe probe = {
	.kp.symbol_name = "iommu_dev_enable_feature",
	.handler = pretend,
};

static int __init begin(void)
{
	return register_kretprobe(&probe);
}

static void __exit end(void)
{
	unregister_kretprobe(&probe);
}

module_init(begin);
module_exit(end);
MODULE_DESCRIPTION("has every IOMMU say that it takes addresses of processes");
MODULE_LICENSE("GPL");
