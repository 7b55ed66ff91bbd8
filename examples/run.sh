#!/bin/sh
# Builds the program `nibble` on a system that may have nothing but this shell, and runs it:
#
#   sh examples/run.sh                          a story, written as you watch
#   sh examples/run.sh chat                     a conversation
#   sh examples/run.sh run -p "The dragon was"  any command of the program, with its arguments
#
# Installs what is missing with apt (and says what), builds in build/release; a second run does neither again.
set -eu
here=$PWD
cd "$(dirname "$0")/.."
root=$PWD
. cmake/prepare.sh

# shellcheck disable=SC2086
need_packages $program_packages
configure -DNIBBLE_BUILD_EXAMPLES=ON
compile nibble_program
program=$root/$build/bin/nibble

cd "$here"  # file names among the arguments are the caller's
[ $# -eq 0 ] || exec "$program" "$@"

say "A story by the model that comes with nibble (examples/models/tales). It begins with: Once upon a time"
"$program" run -p "Once upon a time" -n 400 --temp 0.6
printf '\n\n' >&2
say "More of it:"
cat >&2 <<END
  sh examples/run.sh chat                     talk with it; ask: Tell me a story about a dog.
  sh examples/run.sh run -p "The dragon was"  begin a story yourself
  sh examples/run.sh --help                   what else the program does; it lies in $build/bin
END
