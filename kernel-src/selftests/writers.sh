#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Many writers at once: every value that is read meanwhile is one that somebody wrote.
. "$(dirname "$0")/ktap.sh"
begin

writer() { # FILE VALUE TIMES
	i=0
	while [ $i -lt "$3" ]; do
		echo "$2" >"$1" 2>/dev/null
		i=$((i + 1))
	done
}

only() { # FILE A B: nothing but A and B is read while two write them and one writes what is refused
	writer "$1" "$2" 300 &
	writer "$1" "$3" 300 &
	writer "$1" -1 300 &
	i=0 strange=0
	while [ $i -lt 200 ]; do
		case $(cat "$1") in "$2" | "$3") ;; *) strange=1 ;; esac
		i=$((i + 1))
	done
	wait
	[ $strange = 0 ]
}

while read -r name a b; do
	file=/proc/sys/vm/$name
	if [ ! -e "$file" ]; then
		skip "$name" 'not in this kernel'
		continue
	fi
	boot=$(cat "$file")
	echo "$a" >"$file"
	ok "$name: only what was written is read" only "$file" "$a" "$b"
	echo "$boot" >"$file"
done <<KNOBS
limit_mt_num 3 7
limit_chans 2 5
dsa_copy_threshold 17 4096
demote_scale_factor 123 4567
KNOBS
finish
