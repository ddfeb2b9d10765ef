# SPDX-License-Identifier: GPL-2.0-only
# What is written otherwise here: patches of all bases are read by `sed -E` with this.

# a namespace of symbols is a string since 6.13
s/(EXPORT_SYMBOL_NS_GPL\(\w+, |MODULE_IMPORT_NS\()(\w+)\)/\1"\2")/

# only the scheduler has the function by now; it asks both
s/!available_idle_cpu\(cpu\)/!idle_cpu(cpu) || vcpu_is_preempted(cpu)/

# flags of a folio are a structure, those of its mapping are called after it, and what drivers move has a type
s/READ_ONCE\(src->flags\)/READ_ONCE(src->flags.f)/
s/\bPAGE_MAPPING_(FLAGS|ANON)\b/FOLIO_MAPPING_\1/
s/!__folio_test_movable\(src\)/!page_has_movable_ops(\&src->page)/

# one object is allocated by its type
s/\b(kzalloc|kvzalloc)\(sizeof\(\*(\w+(\[i\])?)\), GFP_KERNEL\)/\1_obj(*\2)/
