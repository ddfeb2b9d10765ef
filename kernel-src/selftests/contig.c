// SPDX-License-Identifier: GPL-2.0-only
/*
 * Takes a range of memory as the contiguous memory allocator does, by moving all
 * that is in it elsewhere, and gives it back:
 *
 *	insmod contig.ko pfn=NUMBER count=NUMBER
 *
 * count is a multiple of a page block. Loading fails as the allocation does.
 */
#include <linux/gfp.h>
#include <linux/mmzone.h>
#include <linux/module.h>

static unsigned long pfn;
module_param(pfn, ulong, 0);
static unsigned long count;
module_param(count, ulong, 0);

static int __init begin(void)
{
	int err = alloc_contig_range(pfn, pfn + count, MIGRATE_MOVABLE, GFP_KERNEL);

	if (!err)
		free_contig_range(pfn, count);
	return err;
}

static void __exit end(void)
{
}

module_init(begin);
module_exit(end);
MODULE_DESCRIPTION("moves all that is in a range of memory elsewhere");
MODULE_LICENSE("GPL");
