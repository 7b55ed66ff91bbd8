#!/bin/sh
# The test cases of a doctest program, each in a process of its own and some at a time:
#
#   bench/test_cases.sh SECONDS AT_ONCE PROGRAM [OPTION...]
#
# An error of a device is the answer to all that its process asks from then on, and a kernel may never end: so one case
# spoils no other, and has SECONDS. A line for each case; all that it printed, if it failed.
set -u
if [ "$1" = --case ]; then
  number=$2 seconds=$3
  shift 3
  text=$(timeout --kill-after=5 "$seconds" "$@" --duration=true --no-colors=true --first="$number" --last="$number" 2>&1)
  status=$?
  ran=$(printf '%s\n' "$text" | sed -n 's/^\([0-9.]* s: .*\)/\1/p' | head -n 1)
  if [ $status = 0 ]; then
    printf 'passed: %s\n' "$ran"
  else
    printf 'FAILED: case %s, status %s (124: %s s were over)\n%s\n' "$number" $status "$seconds" "$text"
  fi
  exit $status
fi

seconds=$1 at_once=$2
shift 2
count=$("$@" --count --no-colors=true | sed -n 's/.*filters: //p')
[ -n "$count" ] || {
  "$@" --count
  exit 1
}
echo "$count cases of $1"
seq "$count" | xargs -P "$at_once" -I{} "$0" --case {} "$seconds" "$@"
status=$?
[ $status = 0 ] && echo "all passed"
exit $status
