"""What a program compiled for a TPU moves, read off its text.

The compiler's own count of bytes does not tell: it counts the body of a loop once, a prefetch as all of its operand for
each slice, and what stays in the memory on the chip (VMEM, memory space 1 in the text) as if it went to HBM.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "s32": 4, "u32": 4, "f32": 4}
_BYTES |= {"s64": 8, "u64": 8, "f64": 8}
_ARRAY = re.compile(r"(?P<dtype>\w+)\[(?P<shape>[\d,]*)\](?:\{(?P<layout>[^}]*)\})?")
_INSTRUCTION = re.compile(
    r"\s+(?P<root>ROOT )?%?(?P<name>[\w.-]+) = (?P<result>\(.*?\)|\S+) (?P<kind>[\w-]+)\((?P<rest>.*)"
)
_COMPUTATION = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) \(.*\{$")

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# They name values, and move none.
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "opt-barrier")
_FREE_CALLS = ("AllocateBuffer", "ConcatBitcast")
# How the name of a fusion begins that sums over chips and keeps each one's part.
_SCATTER = "all-reduce-scatter"


@dataclass(frozen=True)
class Collective:
    """All operations of one kind in a step: how many, the bytes of their results, and those that one chip sends."""

    count: int
    bytes: float
    sent: float


@dataclass
class Traffic:
    """What one run of a program moves on each chip: bytes to and from HBM, and between chips by kind."""

    hbm: float = 0.0
    collectives: dict[str, Collective] = field(default_factory=dict)

    def add(self, other: "Traffic", times: int = 1) -> None:
        self.hbm += times * other.hbm
        for kind, more in other.collectives.items():
            own = self.collectives.get(kind, Collective(0, 0.0, 0.0))
            self.collectives[kind] = Collective(
                own.count + times * more.count, own.bytes + times * more.bytes, own.sent + times * more.sent
            )


@dataclass(frozen=True)
class _Instruction:
    name: str
    result: str
    kind: str
    rest: str
    is_root: bool

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.-]+)", self.rest.split(")", 1)[0])

    def called(self, attribute: str) -> str:
        """The name of the computation that an attribute (body, condition, calls) refers to; empty if there is none."""
        found = re.search(rf"\b(?:{attribute})=%?([\w.-]+)", self.rest)
        return found[1] if found else ""


_Program = dict[str, list[_Instruction]]


def traffic(hlo: str) -> Traffic:
    """What a compiled program moves, its loops as often as they run."""
    program, entry = _parse(hlo)
    return _of_computation(program, entry)


def _parse(hlo: str) -> tuple[_Program, str]:
    """The instructions of each computation, and the name of the one that is run first."""
    program: _Program = {}
    entry, current = "", []
    for line in hlo.splitlines():
        if opened := _COMPUTATION.match(line):
            current = program.setdefault(opened["name"], [])
            entry = opened["name"] if opened["entry"] else entry
        elif found := _INSTRUCTION.match(line):
            current.append(_Instruction(*found.group("name", "result", "kind", "rest"), is_root=bool(found["root"])))
    return program, entry


def _of_computation(program: _Program, name: str) -> Traffic:
    total = Traffic()
    values = {instruction.name: instruction.result for instruction in program[name]}
    for instruction in program[name]:
        if instruction.kind == "while":
            body = _of_computation(program, instruction.called("body"))
            total.add(body, _trips(program[instruction.called("condition")]))
        elif instruction.kind in ("call", "async-start") and instruction.called("calls|to_apply") in program:
            total.add(_of_computation(program, instruction.called("calls|to_apply")))
        else:
            total.add(Traffic(_hbm_bytes(program, instruction, values)))
    for kind, collective in _collectives(program, name):
        total.add(Traffic(collectives={kind: collective}))
    return total


def _trips(condition: list[_Instruction]) -> int:
    """How often a loop runs that counts from 0 to a constant, as those of ``lax.scan`` do."""
    bounds = [int(found[1]) for i in condition if (found := re.match(r"(\d+)\)", i.rest)) and i.kind == "constant"]
    return max(bounds, default=1)


def _hbm_bytes(program: _Program, instruction: _Instruction, values: dict[str, str]) -> float:
    kind, rest = instruction.kind, instruction.rest
    if kind in _FREE or kind.endswith("-done") or any(f'"{call}"' in rest for call in _FREE_CALLS):
        return 0.0
    if kind == "copy-start":  # (to, from, semaphore)
        return sum(_sizes(instruction.result)[:2])
    if kind == "slice-start":  # ((from), part, semaphore)
        part = _sizes(instruction.result, in_hbm=False)[1]
        return part * sum(size > 0 for size in _sizes(instruction.result)[:2])
    if kind == "fusion" and not instruction.called("calls").startswith(_SCATTER):
        return _of_fusion(program, instruction, values)
    return sum(_sizes(instruction.result)) + sum(sum(_sizes(values.get(name, ""))) for name in instruction.operands)


def _of_fusion(program: _Program, fusion: _Instruction, values: dict[str, str]) -> float:
    """Operands and results; of those that are only cut from, or only written into, just that part."""
    inner = program[fusion.called("calls")]
    root, sizes = _root(inner), _sizes(fusion.result)
    if "AsyncCollectiveStart" in root.rest:  # gives (what is sent, what is received, ...)
        return sum(sum(_sizes(values.get(name, ""))) for name in fusion.operands) + sizes[1]
    if "AsyncCollectiveDone" in root.rest:
        return 0.0
    parameters = _parameters(inner)
    read = sum(
        min(sum(_sizes(values.get(name, ""))), _read(program, inner, parameters[index].name))
        for index, name in enumerate(fusion.operands)
        if index in parameters
    )
    parts = [_find(inner, name) for name in root.operands] if root.kind == "tuple" else [root]
    written = (min(size, _written(program, inner, part)) for size, part in zip(sizes, parts, strict=False))
    return read + sum(written)


def _read(program: _Program, inner: list[_Instruction], name: str) -> float:
    """Bytes that a fusion reads of one of its values."""
    total = 0.0
    for user in inner:
        if name not in user.operands:
            continue
        if user.kind == "dynamic-slice":
            total += sum(_sizes(user.result, in_hbm=False))
        elif user.kind == "tuple" or user.kind in COLLECTIVES:  # handed on; sent beside the fusion
            continue
        elif user.kind == "bitcast":
            total += _read(program, inner, user.name)
        elif user.kind == "fusion":
            within = program[user.called("calls")]
            parameter = _parameters(within)[user.operands.index(name)]
            total += _read(program, within, parameter.name)
            if _behind_bitcasts(within, _root(within)) is parameter:
                total += _read(program, inner, user.name)
        elif user.kind != "dynamic-update-slice" or name != user.operands[0]:  # which writes in place
            return math.inf
    return total


def _written(program: _Program, inner: list[_Instruction], value: _Instruction) -> float:
    """Bytes that a fusion writes of one of its results."""
    value = _behind_bitcasts(inner, value)
    if value.kind == "parameter" or value.kind in COLLECTIVES:  # handed on
        return 0.0
    if value.kind == "dynamic-update-slice":
        return sum(_sizes(_find(inner, value.operands[1]).result, in_hbm=False))
    if value.kind == "fusion":
        within = program[value.called("calls")]
        return _written(program, within, _root(within))
    return math.inf


def _parameters(inner: list[_Instruction]) -> dict[int, _Instruction]:
    return {int(i.rest.split(")", 1)[0]): i for i in inner if i.kind == "parameter"}


def _find(inner: list[_Instruction], name: str) -> _Instruction:
    return next(i for i in inner if i.name == name)


def _root(inner: list[_Instruction]) -> _Instruction:
    return next(i for i in inner if i.is_root)


def _behind_bitcasts(inner: list[_Instruction], value: _Instruction) -> _Instruction:
    while value.kind == "bitcast":
        value = _find(inner, value.operands[0])
    return value


def _sizes(types: str, *, in_hbm: bool = True) -> list[float]:
    """Bytes of each array in the text of a type; by default 0 for one that is not in HBM."""
    return [
        0.0
        if in_hbm and "S(" in (array["layout"] or "")
        else float(_BYTES.get(array["dtype"], 0) * math.prod(int(size) for size in array["shape"].split(",") if size))
        for array in _ARRAY.finditer(types)
    ]


def _collectives(program: _Program, name: str) -> Iterator[tuple[str, Collective]]:
    """The collectives of a computation, and of those of its fusions that start one; others only go on with one."""
    for instruction in program[name]:
        kind = instruction.kind.removesuffix("-start")
        fused = instruction.called("calls") if kind == "fusion" else ""
        if kind in COLLECTIVES:
            yield kind, _collective(instruction, kind)
        elif fused.startswith(_SCATTER):
            yield "reduce-scatter", _scatter(next(i for i in program[fused] if i.kind == "all-reduce"))
        elif fused and "AsyncCollectiveStart" in _root(program[fused]).rest:
            yield from _collectives(program, fused)


def _collective(instruction: _Instruction, kind: str) -> Collective:
    """Sent bytes are those of a ring (Patarasuk & Yuan, 2009).

    Of n chips, each sends (n - 1) / n of the whole, and an all-reduce does so twice.
    """
    chips, parts = _group_size(instruction.rest), _sizes(instruction.result, in_hbm=False)
    # The asynchronous start of a gather or a permutation gives its operand along with its result.
    is_pair = instruction.kind.endswith("-start") and kind != "all-reduce"
    whole = max(parts, default=0.0) if is_pair else sum(parts)
    whole *= chips if kind == "reduce-scatter" else 1
    share = 1.0 if kind == "collective-permute" else (chips - 1) / chips
    return Collective(1, whole, whole * share * (2 if kind == "all-reduce" else 1))


def _scatter(all_reduce: _Instruction) -> Collective:
    """An all-reduce of whose result each chip keeps its part, which TPUs run as one operation."""
    both_ways = _collective(all_reduce, "all-reduce")
    return Collective(1, both_ways.bytes, both_ways.sent / 2)


def _group_size(attributes: str) -> int:
    """Chips that take part, in any of the three ways to write them: by mesh axes (or parts of one), counted, listed."""
    if by_axes := re.search(r"replica_groups=mesh\[(.*?)\] ?\{(.*?)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", by_axes[1]))
        named = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", by_axes[2])
        return math.prod(int(part or sizes[name]) for name, part in named)
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return listed[1].count(",") + 1
    if counted := re.search(r"replica_groups=\[(\d+),(\d+)\]", attributes):
        return int(counted[2])
    return 2
