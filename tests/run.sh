#!/bin/sh
# Builds and runs all tests on a system that may have nothing but this shell; arguments go to ctest:
#
#   sh tests/run.sh                every test
#   sh tests/run.sh -R kernels     those of one room
#
# Installs what is missing with apt (and says what), builds in build/release; a second run does neither again. The last
# line is the count. Tests that need the large data folder run when NIBBLE_TEST_DATA names it, and say so when not.
set -eu
cd "$(dirname "$0")/.."
. cmake/prepare.sh

# shellcheck disable=SC2086
need_packages $program_packages $test_packages
configure -DNIBBLE_BUILD_TESTS=ON
compile

report=$PWD/$build/tests.xml
rm -f "$report"
status=0
ctest --test-dir $build --output-on-failure --no-tests=error --timeout 900 --parallel "$(processors)" \
  --output-junit "$report" --test-output-size-passed 10000000 --test-output-size-failed 10000000 "$@" || status=$?
[ ! -f "$report" ] || awk -f tests/count.awk "$report" || status=1
exit $status
