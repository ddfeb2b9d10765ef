# SPDX-License-Identifier: GPL-2.0-only
# What the tests here share: results in KTAP, and the exit code that kselftest expects (4: skipped).

SKIP=4
results=0
passed=0
failed=0

result() { # RESULT NAME
	results=$((results + 1))
	echo "$1 $results $2"
}

ok() { # NAME COMMAND...: passes where the command does
	what=$1
	shift
	if "$@"; then
		passed=$((passed + 1))
		result ok "$what"
	else
		failed=$((failed + 1))
		result 'not ok' "$what"
	fi
}

skip() { result ok "$1 # SKIP $2"; }

begin() {
	echo 'KTAP version 1'
	[ "$(id -u)" = 0 ] || {
		echo '1..0 # SKIP needs root'
		exit $SKIP
	}
}

finish() {
	echo "1..$results"
	[ "$failed" = 0 ] || exit 1
	[ "$passed" != 0 ] || exit $SKIP
	exit 0
}

# a write is refused with EINVAL, and the value stays
refused() { # FILE VALUE
	before=$(cat "$1")
	# some shells do not tell that printf could not write
	said=$( (echo "$2" >"$1") 2>&1) && return 1
	case $said in *'nvalid argument'*) ;; *) return 1 ;; esac
	[ "$(cat "$1")" = "$before" ]
}

taken() { # FILE VALUE: a write is taken and reads back
	echo "$2" >"$1" 2>/dev/null && [ "$(cat "$1")" = "$2" ]
}
