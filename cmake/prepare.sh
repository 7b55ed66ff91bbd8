# What examples/run.sh and tests/run.sh do before they do their own part: packages, configuration, build. Sourced by
# them from the repository's root; plain POSIX sh, for a system that has nothing else yet.
#
# Both use one build folder, so that what one script compiled the other finds. All that is said here goes to stderr:
# stdout belongs to the program that is built.
build=build/release

# What the library and the program need, and what the tests need beside it.
program_packages="cmake ninja-build g++ nlohmann-json3-dev libutf8proc-dev libxsimd-dev libcli11-dev libedit-dev"
test_packages="doctest-dev libsimde-dev libpcre2-dev pkg-config"

if [ -n "${NO_COLOR:-}" ]; then
  export CLICOLOR=0 GCC_COLORS=
fi

say() {
  if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then
    printf '\033[1m%s\033[0m\n' "$*" >&2
  else
    printf '%s\n' "$*" >&2
  fi
}

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

# need_packages PACKAGE...: what the system lacks of these is installed, or named for somebody who can.
need_packages() {
  if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
    command -v cmake >/dev/null 2>&1 || fail "This is no Debian or Ubuntu, and there is no cmake.
Please install CMake 3.25 or later, a C++20 compiler and what these Debian packages hold, then run this again:
  $*"
    return 0
  fi
  missing=
  for package in "$@"; do
    case $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) in
      *" ok installed") ;;
      *) missing="$missing $package" ;;
    esac
  done
  [ -n "$missing" ] || return 0

  by_hand="Somebody with the rights can install them, then run this again:
  apt-get update && apt-get install --no-install-recommends$missing"
  say "Installing with apt:$missing"
  as_root=
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || fail "That needs root, and there is no sudo here. $by_hand"
    [ -t 0 ] || sudo -n true 2>/dev/null || fail "That needs root, and sudo would ask for a password. $by_hand"
    as_root=sudo
  fi
  # The lists of packages may be missing or older than what the mirrors still hold.
  $as_root apt-get update -q >&2 || fail "apt-get update failed, see above: is there a network? $by_hand"
  # shellcheck disable=SC2086
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >&2 ||
    fail "apt-get install failed, see above: is there a network? $by_hand"
}

# configure -DNAME=VALUE: makes the build folder, unless it is there and agrees already. A new one leaves out the tests.
configure() {
  name=${1#-D}
  if grep -q "^${name%%=*}:[A-Z]*=${name#*=}\$" $build/CMakeCache.txt 2>/dev/null &&
    { [ -f $build/build.ninja ] || [ -f $build/Makefile ]; }; then
    return 0
  fi
  say "Configuring in $build"
  if ! [ -f $build/CMakeCache.txt ]; then
    set -- -DCMAKE_BUILD_TYPE=Release -DNIBBLE_BUILD_TESTS=OFF "$@"
    ! command -v ninja >/dev/null 2>&1 || set -- -G Ninja "$@"
  fi
  cmake -S . -B $build "$@" >&2 || fail "Configuring failed, see above."
}

processors() { getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1; }

# compile [TARGET...]: builds what has changed of them, or of everything.
compile() {
  targets=
  for target in "$@"; do
    targets="$targets --target $target"
  done
  # shellcheck disable=SC2086
  cmake --build $build --parallel "$(processors)" $targets >&2 || fail "Building failed, see above."
}
