#!/usr/bin/env python3
"""sass_budget.py CUOBJDUMP LIBRARY: what the compiler made of the kernels, for every architecture of the library.

No kernel may keep anything in local memory. The inner loop of each kernel named below has a budget of instructions for a
weight: at the bandwidth of an H200 (4.3 TB/s, 132 multiprocessors at 1.755 GHz) 148.5 bits come in for a clock and
multiprocessor, whose 128 lanes then have 0.862 instructions for each of them, and whose 64 lanes of the integer unit 0.431:
3.67 and 1.83 for a weight of 4.25 bits. What is counted is the shortest way around the loop that both asks for a whole slice
and multiplies one.

Where a block sums up an item that others had a share of, nothing goes on beside it, and one load takes as long as a slice:
the kernels named below have LOADS_UNDER_WAY loads of 16 bytes there before the first addition.

Kernels of the fast class (cuda/bodies/warpgroups.cuh) have one of instructions for a block of 64 inputs: the tensor cores
take 8 clocks for a column, in which a multiprocessor's four schedulers issue for two warps each. What a product reads in
registers, nothing may write before a wait has ended that product; and where weights are unpacked, none may wait for all
that are under way.
"""
import collections
import heapq
import re
import subprocess
import sys

ARCHITECTURE = "sm_90"
ALLOWED = 128 / 148.5, 64 / 148.5  # instructions, and those of the integer unit, for a bit
# Of these. The rest is for the sums between slices, which this way leaves out; and of the integer unit's
# budget for the compiler, which gives shifts to it or to the multipliers as it likes.
BUDGET = 0.85, 0.9
KERNELS = ["multiply_kernel.*{}", "experts_kernel.*{}.*GateUp", "experts_kernel.*{}.*DownAndAdd"]
# What their names have of the weights, inputs of a slice, bits of a weight with its scale.
WEIGHTS = [("Mxfp4", 256, 4.25), ("NibblesLess8", 256, 4.5), ("SignedBytes.*ScalesOfHalves", 128, 8.5),
           ("SignedBytes.*ScalesOfSlices", 128, 8.25), ("FloatBytes", 128, 8.25)]
LOADS_UNDER_WAY = 16
FAST_ARCHITECTURE = "sm_90a"
FAST_KERNELS = ["fast_experts_kernel.*GateUp", "fast_experts_kernel.*DownOutputs", "fast_multiply_kernel"]
FAST_COLUMNS = {"ILi8E": 64, "ILi16E": 128}  # what their names have of N
FAST_WEIGHTS = {"ILi128ELi512ELi4E": "MXFP4", "ILi0ELi2048ELi1E": "bf16"}  # and of the tiles of weights
# Of the clocks, for each width: the rest is for waits that the two warps of a scheduler do not hide from each other.
FAST_BUDGET = {64: 1.05, 128: 0.6}
INTEGER = {"LOP3", "SHF", "PRMT", "ISETP", "SEL", "LEA", "IADD3", "VIADD", "MOV", "PLOP3"}


def functions(text):
    """Yields (architecture, name, lines of its instructions)."""
    architecture, name, lines = None, None, []
    for line in text.splitlines():
        if line.startswith("        /*"):
            lines.append(line)
        elif match := re.search(r"code for (sm_\w+)", line):
            architecture = match[1]
        elif match := re.search(r"Function : (\S+)", line):
            if name:
                yield (*name, lines)
            name, lines = (architecture, match[1]), []
    if name:
        yield (*name, lines)


def instructions(lines):
    """[(address, instruction)]"""
    matches = (re.match(r"\s+/\*([0-9a-f]{4,6})\*/\s+(.*?);", line) for line in lines)
    return [(int(match[1], 16), match[2].strip()) for match in matches if match]


def mnemonic(instruction):
    return re.sub(r"^@!?U?P[T0-9]+\s+", "", instruction).split()[0].split(".")[0]


def successors(code):
    at = {address: i for i, (address, _) in enumerate(code)}
    out = []
    for i, (_, text) in enumerate(code):
        jump = re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", text)
        falls_through = text.startswith("@") or "DIV" in text or re.search(r"\bBRA(\.\w+)*\s+!?U?P[0-9]", text)
        if jump:
            out.append([at[int(jump[1], 16)]] + ([i + 1] if falls_through else []))
        elif mnemonic(text) in ("EXIT", "RET"):
            out.append([i + 1] if text.startswith("@") else [])
        else:
            out.append([i + 1] if i + 1 < len(code) else [])
    return out


def blocks_with(code, after, name):
    """First instructions called `name` of the straight pieces of code that have the most of them."""
    leaders = {0}
    for i, to in enumerate(after):
        if to != [i + 1]:
            leaders.update(to)
            leaders.add(i + 1)
    counts, first, leader = collections.Counter(), {}, 0
    for i, (_, text) in enumerate(code):
        leader = i if i in leaders else leader
        if mnemonic(text) == name:
            counts[leader] += 1
            first.setdefault(leader, i)
    most = max(counts.values(), default=0)
    return [first[leader] for leader, count in counts.items() if count == most]


def shortest(after, start, end):
    """Instructions from `start` to before `end`, or nothing."""
    came, costs, queue = {}, {start: 0}, [(0, start)]
    while queue:
        cost, at = heapq.heappop(queue)
        for to in after[at]:
            if to == end:
                path = [at]
                while path[-1] != start:
                    path.append(came[path[-1]])
                return path
            if cost + 1 < costs.get(to, sys.maxsize):
                costs[to], came[to] = cost + 1, at
                heapq.heappush(queue, (cost + 1, to))
    return None


def way_around(code):
    """The mnemonics of the shortest way through the largest piece of tensor products and one of copies."""
    after = successors(code)
    ways = []
    for product in blocks_with(code, after, "HMMA"):
        for copy in blocks_with(code, after, "LDGSTS"):
            there, back = shortest(after, copy, product), shortest(after, product, copy)
            if there and back:
                ways.append(there + back)
    return [mnemonic(code[i][1]) for i in min(ways, key=len)] if ways else []


def loads_under_way(code):
    """The most loads of 16 bytes that follow each other, with no jump and no sum of floats between them."""
    leaders = {to for i, targets in enumerate(successors(code)) if targets != [i + 1] for to in (*targets, i + 1)}
    most = loads = 0
    for i, (_, text) in enumerate(code):
        if i in leaders or mnemonic(text) in ("FADD", "HMMA"):
            loads = 0
        loads += "LDG.E.128" in text
        most = max(most, loads)
    return most


def loop_of_products(code):
    """The shortest piece of code that ends in a jump to its beginning and has all products of warpgroups; and what comes
    behind it, up to the wait for all of them."""
    products = [i for i, (_, text) in enumerate(code) if mnemonic(text) == "HGMMA"]
    at = {address: i for i, (address, _) in enumerate(code)}
    loops = []
    for i, (_, text) in enumerate(code):
        jump = re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", text)
        if products and jump and (to := at.get(int(jump[1], 16), i + 1)) <= products[0] and products[-1] < i:
            loops.append((to, i + 1))
    if not loops:
        return [], []
    first, end = min(loops, key=lambda each: each[1] - each[0])
    texts = [text for _, text in code]
    waits = [i for i, text in enumerate(texts) if i >= end and "WARPGROUP.DEPBAR.LE gsb0, 0x0" in text]
    return texts[first:end], texts[end : waits[0] if waits else len(texts)]


def written(text):
    """The registers that an instruction writes, as far as it can be the first factor's."""
    match = re.match(r"(?:@!?U?P[T0-9]+\s+)?(\S+)\s+(?:P[T0-9], )*R(\d+)", text)
    if not match or match[1].split(".")[0] in ("STS", "STG", "ST", "HGMMA", "BAR", "ISETP", "LDGSTS", "CCTL", "CCTLL2"):
        return set()
    first, count = int(match[2]), 4 if ".128" in match[1] else 2 if ".64" in match[1] or ".WIDE" in match[1] else 1
    return set(range(first, first + count))


def broken_products(loop, behind, unpacks):
    """What is wrong about products under way, in two rounds of a loop and behind it."""
    closed, open_group = [], set()  # registers that groups of products read
    for text in loop + loop + behind:
        if match := re.match(r"HGMMA\S*\s+R\d+, R(\d+), gdesc", text):
            open_group |= set(range(int(match[1]), int(match[1]) + 4))
            if "gsb0" in text:
                closed.append(open_group)
                open_group = set()
        elif match := re.search(r"WARPGROUP\.DEPBAR\.LE gsb0, (0x[0-9a-f]+)", text):
            remaining = int(match[1], 16)
            if remaining == 0 and unpacks:
                yield "waits for all products under way"
            closed = closed[-remaining:] if remaining else []
        elif changed := written(text) & open_group.union(*closed):
            yield f"{text} writes R{min(changed)}, which a product under way reads"


def check_fast(name, code):
    """(the budget's line of a kernel of the fast class, what is wrong)"""
    columns = next(width for part, width in FAST_COLUMNS.items() if part in name)
    weights = next(format for part, format in FAST_WEIGHTS.items() if part in name)
    loop, behind = loop_of_products(code)
    wrong = [f"{name}: {each}" for each in dict.fromkeys(broken_products(loop, behind, weights == "MXFP4"))]
    if (products := sum(mnemonic(text) == "HGMMA" for text in loop)) != 8:
        return "", [f"{name}: {products} products of a warpgroup in its loop, expected 8"]
    share = 2 * len(loop) / (8 * columns)
    if share > FAST_BUDGET[columns]:
        wrong.append(f"{name}: over its budget")
    return (f"{weights}, {columns} columns: {len(loop)} instructions for 64 weights, {share:.0%} of the clocks that tensor "
            f"cores take for them; the budget is {FAST_BUDGET[columns]:.0%}"), wrong


def printed(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout


def memories(text):
    """Yields (architecture, name, bytes of local memory of a thread), of every kernel."""
    architecture, name = None, None
    for line in text.splitlines():
        if match := re.match(r"arch = (sm_\w+)", line):
            architecture = match[1]
        elif match := re.match(r"\s*Function (\S+):", line):
            name = match[1]
        elif name and (match := re.search(r"STACK:(\d+).*LOCAL:(\d+)", line)):
            yield architecture, name, int(match[1]) + int(match[2])
            name = None


def main():
    cuobjdump, library = sys.argv[1:]
    wrong, seen, architectures, kernels = [], set(), set(), 0
    budgets = [(kernel.format(name), inputs, bits) for kernel in KERNELS for name, inputs, bits in WEIGHTS]
    for architecture, name, local in memories(printed(cuobjdump, "--dump-resource-usage", library)):
        architectures.add(architecture)
        kernels += 1
        if local:
            wrong.append(f"{architecture}: {name} takes {local} bytes of local memory")
    if not kernels:
        wrong.append(f"{library}: no kernels were found")
    for architecture, name, lines in functions(printed(cuobjdump, "-sass", "-arch", ARCHITECTURE, library)):
        for part, inputs, bits in budgets:
            if architecture != ARCHITECTURE or not re.search(part, name):
                continue
            code = instructions(lines)
            way = way_around(code)
            if not way:  # the arithmetic of older devices
                continue
            seen.add(part)
            if (loads := loads_under_way(code)) < LOADS_UNDER_WAY:
                wrong.append(f"{name}: {loads} loads under way, expected {LOADS_UNDER_WAY}")
            weights = 16 * inputs // 32  # of a lane in a slice
            used = len(way) / weights, sum(each in INTEGER for each in way) / weights
            allowed = [each * bits for each in ALLOWED]
            if way.count("HMMA") != weights // 8:
                wrong.append(f"{name}: {way.count('HMMA')} tensor products in its loop, expected {weights // 8}")
            print(f"{part}: {used[0]:.2f} instructions for a weight, of them {used[1]:.2f} of the integer unit; bandwidth "
                  f"allows {allowed[0]:.2f} and {allowed[1]:.2f}, the budget is {BUDGET[0]:.0%} and {BUDGET[1]:.0%} of that")
            if any(one > share * most for one, share, most in zip(used, BUDGET, allowed)):
                wrong.append(f"{name}: over its budget")
    fast = collections.Counter()
    for architecture, name, lines in functions(printed(cuobjdump, "-sass", "-arch", FAST_ARCHITECTURE, library)):
        for part in FAST_KERNELS:
            if architecture == FAST_ARCHITECTURE and re.search(part, name):
                line, found = check_fast(name, instructions(lines))
                fast[part] += 1
                wrong += found
                print(f"{part}: {line}")
    expected = len(FAST_COLUMNS) * len(FAST_WEIGHTS)
    wrong += [f"{fast[part]} kernels {part} for {FAST_ARCHITECTURE}, expected {expected}" for part in FAST_KERNELS
              if fast[part] != expected]
    wrong += [f"no kernel {part} for {ARCHITECTURE} was found" for part in sorted({each[0] for each in budgets} - seen)]
    print(f"{kernels} kernels for {', '.join(sorted(architectures))}")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
