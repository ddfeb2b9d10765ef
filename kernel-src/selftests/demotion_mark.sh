#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The demotion mark is a share of its zone while memory tiering is on, and 0 while it is off.
. "$(dirname "$0")/ktap.sh"
begin

factor=/proc/sys/vm/demote_scale_factor
balancing=/proc/sys/kernel/numa_balancing
for file in $factor $balancing; do
	[ -e $file ] || {
		echo "1..0 # SKIP no $file"
		exit $SKIP
	}
done

# the greatest mark of a zone, with the high watermark and the pages of that zone
marks() {
	awk '$1 == "high" { high = $2 } $1 == "managed" { managed = $2 }
		$1 == "demote" && $2 > mark { mark = $2; h = high; m = managed }
		END { print mark + 0, h + 0, m + 0 }' /proc/zoneinfo
}
none() { [ "$(marks)" = '0 0 0' ]; }
share() { # FACTOR
	# shellcheck disable=SC2046
	set -- "$1" $(marks)
	wanted=$(($4 * $1 / 10000))
	[ $wanted -ge $((2 * $3)) ] || wanted=$((2 * $3))
	[ $wanted -le "$4" ] || wanted=$4
	[ "$2" -gt 0 ] && [ "$2" = $wanted ]
}

old_factor=$(cat $factor) old_balancing=$(cat $balancing)
echo 0 >$balancing
ok 'no mark while balancing is off' none
echo 1 >$balancing
ok 'no mark while balancing is no tiering' none
echo 2 >$balancing
for value in 1 200 5000 10000; do
	echo $value >$factor
	ok "the mark for a factor of $value" share $value
done
echo "$old_factor" >$factor
echo "$old_balancing" >$balancing
finish
