# Holds every #include line to the arrows. Arguments: docs/ARCHITECTURE.md, then all source files, by paths relative to
# the root. The table between the lines `<!-- rooms -->` and `<!-- /rooms -->` has one row for a room:
#
#   | `io` | `formats` `base` | `fcntl.h` `sys/` | |
#
# room; rooms it may see; what its sources may take from outside the standard library (a name ending in / is a folder);
# the same for its public headers. Links (-v links="io:formats base,...") are the edges that CMake knows.

function complain(text) {
  printf "%s:%d: %s\n", FILENAME, FNR, text
  found = 1
}

# The room of a path, or nothing.
function room_of(path,    part) {
  split(path, part, "/")
  if (part[1] == "include" && part[2] == "nibble" && part[4] != "") return part[3]
  if (part[1] == "src" && part[3] != "") return part[2]
  if (part[1] == "examples") return part[3] == "" ? "examples" : part[2]
  return part[1] == "capi" || part[1] == "cuda" ? part[1] : ""
}

function is_public(path) { return path ~ /^include\// || path ~ /^capi\/include\// }

# "src/io/../base/x.hpp" is "src/base/x.hpp".
function plain(path) {
  while (match(path, /[^\/]+\/\.\.\//)) path = substr(path, 1, RSTART - 1) substr(path, RSTART + RLENGTH)
  return path
}

# The words between backquotes of one cell, each surrounded by single spaces.
function words(cell) {
  gsub(/`/, " ", cell)
  gsub(/ +/, " ", cell)
  return " " cell " "
}

function holds(list, word) { return index(list, " " word " ") > 0 }

function outside(room, name,    list) {
  list = is_public(FILENAME) ? headers_take[room] : sources_take[room]
  if (holds(list, name)) return
  if (index(name, "/") && holds(list, substr(name, 1, index(name, "/")))) return
  complain("room " room " takes <" name "> from outside the standard library, which its row in docs/ARCHITECTURE.md does not name" \
    (is_public(FILENAME) ? " for public headers" : ""))
}

BEGIN {
  for (i = 2; i < ARGC; i++) known[ARGV[i]] = 1
  # C headers as C++ code and C code write them; the C ones are for capi's header and the C examples.
  c_standard = " assert.h errno.h inttypes.h limits.h math.h signal.h stdbool.h stddef.h stdint.h stdio.h stdlib.h string.h time.h "
}

FILENAME == ARGV[1] {
  if ($0 == "<!-- rooms -->") reading = 1
  if ($0 == "<!-- /rooms -->") reading = 0
  if (reading && /^\| `/) {
    split($0, cell, "|")
    room = cell[2]
    gsub(/[ `]/, "", room)
    sees[room] = words(cell[3]) room " "
    sources_take[room] = words(cell[4]) words(cell[5])
    headers_take[room] = words(cell[5])
    rows++
  }
  next
}

FNR == 1 {
  room = room_of(FILENAME)
  if (FILENAME == "include/nibble/version.hpp") room = "version"
  else if (!(room in sees)) complain("belongs to no room that docs/ARCHITECTURE.md names")
}

/^[ \t]*#[ \t]*include/ {
  includes++
  line = $0
  sub(/^[ \t]*#[ \t]*include[ \t]*/, "", line)
  if (room == "version") complain("include/nibble/version.hpp includes nothing: everybody includes it")
  else if (line ~ /^"[^"]+"/) {
    split(line, name, "\"")
    folder = FILENAME
    sub(/[^\/]*$/, "", folder)
    target = plain(folder name[2])
    if (!(target in known)) complain("\"" name[2] "\" is no file of ours beside it: write <...> for what is not")
    else if (room_of(target) != room) complain("\"" name[2] "\" reaches into room " room_of(target) "; public headers are included as <nibble/...>")
  } else if (match(line, /^<[^>]+>/)) {
    name[2] = substr(line, 2, RLENGTH - 2)
    if (name[2] == "nibble/version.hpp") {
    } else if (name[2] == "nibble.h") {
      if (!holds(sees[room], "capi")) complain("room " room " may not see capi")
    } else if (name[2] ~ /^nibble\//) {
      target = room_of("include/" name[2])
      if (!("include/" name[2] in known)) complain("<" name[2] "> is not a public header of ours")
      else if (!holds(sees[room], target)) complain("room " room " may not see room " target)
    } else if (name[2] ~ /[.\/]/ && !((room == "capi" && is_public(FILENAME) || FILENAME ~ /\.c$/) && holds(c_standard, name[2])))
      outside(room, name[2])
  } else complain("an #include that names no file cannot be checked")
}

END {
  FILENAME = ARGV[1]
  FNR = 0
  if (!rows) complain("has no table of rooms")
  if (!includes) complain("no #include line was checked")
  count = split(links, edge, ",")
  for (i = 1; i <= count; i++) {
    split(edge[i], side, ":")
    wanted = split(side[2], linked, " ")
    for (j = 1; j <= wanted; j++)
      if (!holds(sees[side[1]], linked[j])) complain("CMake links room " side[1] " to room " linked[j] ", which it may not see")
  }
  if (!found) printf "%d #include lines in %d files keep to the arrows of %d rooms\n", includes, ARGC - 2, rows
  exit found
}
