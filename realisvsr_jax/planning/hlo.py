"""What a compiled program says of itself: exchanges between chips, and bytes through memory.

Read from the compiler's text, since its own counts take a loop's body once. A loop runs as often
as its condition and its counter say; one that does not say counts once.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator

BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2,
    "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8,
}  # fmt: skip
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# What writes no memory: names for what is there already, and the ends of what was started.
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while",
    "conditional", "call", "partition-id", "replica-id", "opt-barrier",
}  # fmt: skip

VIEWS = ("AllocateBuffer", "ConcatBitcast")  # custom calls that write nothing either

_INSTRUCTION = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)")
_CALLED = re.compile(r"(?:to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_ROUNDS = re.compile(r'known_trip_count"?:\s*\{\s*"?n"?:\s*"?(\d+)')
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """`shape` is the text of the result's type, `rest` what follows the opening bracket."""

    root: bool
    name: str
    shape: str
    opcode: str
    rest: str

    @property
    def operands(self) -> list[str]:
        """Names, in order."""
        return _NAME.findall(_bracketed("(" + self.rest))


class Program:
    """A compiled program's computations."""

    def __init__(self, text: str):
        self.bodies: dict[str, list[Instruction]] = {}
        self.entry = ""
        current: list[Instruction] = []
        for line in text.splitlines():
            if match := _INSTRUCTION.match(line):
                root, name, shape, opcode, rest = match.groups()
                current.append(Instruction(bool(root), name, shape, opcode, rest))
            elif match := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line):
                current = self.bodies[match[2]] = []
                self.entry = match[2] if match[1] else self.entry
        self.named = {
            body: {instruction.name: instruction for instruction in instructions}
            for body, instructions in self.bodies.items()
        }
        self._started = {
            _channel(instruction)
            for body, instructions in self.bodies.items()
            for instruction in instructions
            if instruction.opcode in COLLECTIVES and self._starts(body, instruction)
        }

    def collectives(self) -> dict[str, dict[str, int]]:
        """By kind: `count`, `bytes` of results on one chip, and `moved`, what it must receive."""
        found: dict[str, dict[str, int]] = {}
        for body, instruction, times in self._running():
            for one in self._exchanges(body, instruction):
                kind = one.opcode.removesuffix("-start")
                size, chips = _result(one), _group(one.rest)
                row = found.setdefault(kind, {"count": 0, "bytes": 0, "moved": 0})
                row["count"] += times
                row["bytes"] += times * size
                row["moved"] += round(times * size * _received(kind, chips))
        return found

    def traffic(self) -> int:
        """Bytes through one chip's memory, if each result is written once and read once.

        Inside a fusion nothing is; what is written in place counts as far as it is written.
        """
        return 2 * sum(
            times * self._written(body, instruction)
            for body, instruction, times in self._running()
            if instruction.opcode not in FREE and not instruction.opcode.endswith("-done")
        )

    def _running(self) -> Iterator[tuple[str, Instruction, int]]:
        """Every instruction outside of fusions, with its computation and how often it runs."""
        todo = [(self.entry, 1)]
        while todo:
            body, times = todo.pop()
            for instruction in self.bodies.get(body, ()):
                yield body, instruction, times
                rest = instruction.rest
                if instruction.opcode == "while":
                    inner = _attribute(rest, "body")
                    todo.append((inner, times * self._rounds(rest)))
                elif instruction.opcode in ("call", "conditional", "async-start"):
                    called = _CALLED.findall(rest)
                    for branches in _BRANCHES.findall(rest):
                        called += _NAME.findall(branches) or branches.split(", ")
                    todo += [(name, times) for name in called]

    def _exchanges(self, body: str, instruction: Instruction) -> Iterator[Instruction]:
        """The collectives that an instruction starts, those in a fusion too.

        A TPU cuts one into fusions, to compute meanwhile. All have it, with the same channel; only
        the first one counts.
        """
        if instruction.opcode.removesuffix("-start") in COLLECTIVES:
            if _channel(instruction) not in self._started or self._starts(body, instruction):
                yield instruction
        elif instruction.opcode == "fusion":
            for name in _CALLED.findall(instruction.rest):
                for inner in self.bodies.get(name, ()):
                    yield from self._exchanges(name, inner)

    def _starts(self, body: str, collective: Instruction) -> bool:
        """Whether this is where a collective that is cut into fusions begins."""
        return any(
            other.opcode == "custom-call"
            and 'custom_call_target="AsyncCollectiveStart"' in other.rest
            and collective.name in other.operands
            for other in self.bodies[body]
        )

    def _rounds(self, rest: str) -> int:
        """Of a loop: as the compiler says, else (limit − 0) / step of its counter."""
        if known := _ROUNDS.search(rest):
            return int(known[1])
        condition = self.named.get(_attribute(rest, "condition"), {})
        body = self.named.get(_attribute(rest, "body"), {})
        compare = next((i for i in condition.values() if i.opcode == "compare"), None)
        if compare is None or "direction=LT" not in compare.rest:
            return 1
        counter, limit = (condition.get(name) for name in compare.operands[:2])
        if counter is None or limit is None or (bound := _constant(limit)) is None:
            return 1
        place = re.search(r"index=(\d+)", counter.rest)
        root = next((i for i in body.values() if i.root), None)
        step = 1
        if place and root and int(place[1]) < len(root.operands):
            added = body.get(root.operands[int(place[1])])
            steps = [_constant(body[n]) for n in added.operands if n in body] if added else []
            step = next((s for s in steps if s), 1)
        return max(1, bound // step)

    def _written(self, body: str, instruction: Instruction) -> int:
        """Bytes of the result that go to memory."""
        if instruction.opcode == "dynamic-update-slice":
            update = self.named[body].get(instruction.operands[1])
            return _bytes(update.shape, in_memory) if update else 0
        if instruction.opcode != "fusion":
            return _result(instruction, in_memory)
        inner = self.named.get(next(iter(_CALLED.findall(instruction.rest)), ""), {})
        root = next((i for i in inner.values() if i.root), None)
        if root is None:
            return _bytes(instruction.shape, in_memory)
        ends = [root] if root.opcode != "tuple" else [inner.get(n) for n in root.operands]
        return sum(
            _end(inner, end, shape) for end, shape in zip(ends, _split(instruction.shape)) if end
        )


def in_memory(layout: str) -> bool:
    """Whether a result lies in the chip's main memory, not in one on the core."""
    return "S(" not in layout


def _end(inner: dict[str, Instruction], end: Instruction, shape: str) -> int:
    """Bytes that a fusion writes for one of its results."""
    while end.opcode == "bitcast" and end.operands[0] in inner:
        end = inner[end.operands[0]]
    if end.opcode in ("parameter", "custom-call"):
        return 0
    if end.opcode == "dynamic-update-slice" and end.operands[1] in inner:
        shape = inner[end.operands[1]].shape
    return _bytes(shape, in_memory)


def _result(instruction: Instruction, counted: Callable[[str], bool] = lambda _: True) -> int:
    """Bytes of a result; what is started also returns what it was given, or handles."""
    kind, starts = instruction.opcode.removesuffix("-start"), instruction.opcode.endswith("-start")
    shapes = _split(instruction.shape)
    if starts and kind in ("all-gather", "collective-permute", "slice") and len(shapes) > 1:
        return _bytes(shapes[1], counted)
    if starts and kind == "copy":
        return _bytes(shapes[0], counted)
    if any(f'custom_call_target="{name}"' in instruction.rest for name in VIEWS):
        return 0
    return _bytes(instruction.shape, counted)


def _bytes(shapes: str, counted: Callable[[str], bool] = lambda _: True) -> int:
    return sum(
        BYTES.get(kind, 0) * math.prod(int(size) for size in sizes.split(",") if size)
        for kind, sizes, layout in _SHAPE.findall(shapes)
        if counted(layout)
    )


def _received(kind: str, chips: int) -> float:
    """What a chip receives in a ring, as a share of its result."""
    others = (chips - 1) / chips
    shares = {"all-reduce": 2 * others, "reduce-scatter": chips - 1.0, "collective-permute": 1.0}
    return shares.get(kind, others)


def _group(rest: str) -> int:
    """Chips that exchange with each other: {{0,1},{2,3}}, [2,8]<=[16] or mesh['a'=8,'b'=2] {'a'}.

    2 where none is named, as in a permutation.
    """
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return len(match[1].split(","))
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest):
        return int(match[1])
    if match := re.search(r"replica_groups=@?mesh\w*\[([^\]]*)\] ?\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", match[1]))
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(part or sizes.get(name, 1)) for name, part in axes)
    return 2


def _channel(collective: Instruction) -> str:
    match = re.search(r"channel_id=(\d+)", collective.rest)
    return match[1] if match else ""


def _attribute(rest: str, name: str) -> str:
    match = re.search(rf"\b{name}=%?([\w.\-]+)", rest)
    return match[1] if match else ""


def _constant(instruction: Instruction) -> int | None:
    match = re.match(r"(\d+)\)", instruction.rest) if instruction.opcode == "constant" else None
    return int(match[1]) if match else None


def _bracketed(text: str) -> str:
    """From an opening bracket to the one that closes it."""
    depth = 0
    for place, letter in enumerate(text):
        depth += letter in "({["
        depth -= letter in ")}]"
        if not depth:
            return text[: place + 1]
    return text


def _split(shape: str) -> list[str]:
    """A tuple's types; of anything else its own."""
    if not shape.startswith("("):
        return [shape]
    parts, depth, start = [], 0, 1
    for place, letter in enumerate(shape[1:-1], 1):
        depth += letter in "({["
        depth -= letter in ")}]"
        if letter == "," and not depth:
            parts.append(shape[start:place])
            start = place + 1
    return [*parts, shape[start:-1]]
