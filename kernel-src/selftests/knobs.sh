#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Every knob takes the ends of its range, refuses what is beyond with EINVAL, and then is as it was.
# Those that need a device, or one another, are only refused values here.
. "$(dirname "$0")/ktap.sh"
begin

int_max=2147483647
while read -r name min max ends; do
	file=/proc/sys/vm/$name
	if [ ! -e "$file" ]; then
		skip "$name" 'not in this kernel'
		continue
	fi
	boot=$(cat "$file")
	ok "$name: less than $min is refused" refused "$file" $((min - 1))
	[ "$max" = $int_max ] || ok "$name: more than $max is refused" refused "$file" $((max + 1))
	ok "$name: what is no number is refused" refused "$file" x
	if [ "$ends" = ends ]; then
		ok "$name: $min is taken" taken "$file" "$min"
		ok "$name: $max is taken" taken "$file" "$max"
	fi
	echo "$boot" >"$file"
	ok "$name: as it was" [ "$(cat "$file")" = "$boot" ]
done <<KNOBS
use_concur_to_compact 0 1 ends
use_concur_to_demote 0 1 ends
cpu_multi_copy_pages 0 1 ends
limit_mt_num 1 32 ends
migrate_engine_reasons 0 2047 ends
limit_chans 1 8 ends
dsa_copy_threshold 1 $int_max ends
demote_scale_factor 1 10000 ends
dsa_state 0 1 -
use_dsa_copy_pages 0 1 -
KNOBS

timer=/proc/timer
if [ -e $timer ]; then
	ok 'timer: 1 starts it' sh -c "echo 1 >$timer"
	ok 'timer: its first line has the seed'\''s names' \
		sh -c "head -n 1 $timer | grep -q '^timer_state = .*bpage_cnt = '"
	ok 'timer: other words are refused' sh -c "! echo abc >$timer 2>/dev/null"
	ok 'timer: long words are refused' sh -c "! head -c 2000 /dev/zero | tr '\\0' 1 >$timer 2>/dev/null"
	ok 'timer: 0 stops it' sh -c "echo 0 >$timer"
else
	skip timer 'not in this kernel'
fi
finish
