"""What a compiled program says of itself in its text: messages between devices, and what its loops move."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_DTYPE_BITS = {"pred": 8, "bf16": 16}
_NO_MEMORY = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call"}
_SLICES = {"slice", "dynamic-slice"}
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.+?) ([a-z][a-z\-]*)\((.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_ARRAY = re.compile(r"([a-z]+\d*)\w*\[([\d,]*)\]")


@dataclass(frozen=True)
class Messages:
    """All messages of one kind in a step."""

    count: int
    sent: float
    """Bytes that each device sends, by rings: (n - 1) / n of the whole array, and twice that for an all-reduce."""


@dataclass(frozen=True)
class _Instruction:
    name: str
    kind: str
    arrays: list[float]  # bytes of each array of its result
    rest: str  # operands and attributes

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.rest.split("), ")[0])

    @property
    def size(self) -> float:
        return sum(self.arrays)

    def called(self, attribute: str) -> str:
        """The computation that an attribute names."""
        return re.findall(rf"{attribute}=%?([\w.\-]+)", self.rest)[0]


class Program:
    """The text of a compiled program (`compiled.as_text()`), read."""

    def __init__(self, text: str):
        self._computations: dict[str, list[_Instruction]] = {}
        for line in text.splitlines():
            if start := _COMPUTATION.match(line):
                current = self._computations.setdefault(start[2], [])
                if start[1]:
                    self._entry = start[2]
            elif found := _INSTRUCTION.match(line):
                name, result, kind, rest = found.groups()
                current.append(_Instruction(name, kind, [_bytes(*array) for array in _ARRAY.findall(result)], rest))

    def messages(self) -> dict[str, Messages]:
        """Messages by kind, those in loops as often as they are sent."""
        found: dict[str, Messages] = {}
        for times, _, instruction in self._executed():
            kind = instruction.kind.removesuffix("-start")
            if kind in KINDS:
                before = found.get(kind, Messages(0, 0.0))
                found[kind] = Messages(before.count + times, before.sent + times * _sent(kind, instruction))
        return found

    def traffic(self) -> float:
        """Bytes between chip and memory: operands and results of all that is executed, with all turns of loops."""
        return sum(times * moved for times, moved in self._traffic())

    def repeated_traffic(self) -> float:
        """Of them those after a loop's first turn: the compilers' own counts take every loop for one turn."""
        return sum((times - 1) * moved for times, moved in self._traffic())

    def _traffic(self) -> Iterator[tuple[int, float]]:
        for times, sizes, instruction in self._executed():
            if instruction.kind not in _NO_MEMORY:
                yield times, self._moved(instruction, sizes)

    def _moved(self, instruction: _Instruction, sizes: dict[str, float]) -> float:
        """Operands and results, but of what is sliced or updated in place the part alone."""
        if instruction.kind in _SLICES:
            return 2 * instruction.size
        read = [sizes.get(operand, 0.0) for operand in instruction.operands]
        if instruction.kind != "fusion":
            return sum(read) + instruction.size
        inside = self._computations[instruction.called("calls")]
        wrote = instruction.size
        by_name = {one.name: one for one in inside}
        for parameter in (one for one in inside if one.kind == "parameter"):
            users = [one for one in inside if parameter.name in one.operands]
            kinds = {user.kind for user in users if user.operands[0] == parameter.name}
            number = int(parameter.rest.split(")")[0])
            if kinds and kinds <= _SLICES:
                read[number] = sum(user.size for user in users)
            elif kinds == {"dynamic-update-slice"}:
                read[number] = 0.0
                wrote += sum(by_name[user.operands[1]].size - user.size for user in users)
        return sum(read) + wrote

    def _executed(self) -> Iterator[tuple[int, dict[str, float], _Instruction]]:
        """(how often, bytes of the results beside it by name, instruction) of all but the insides of fusions."""
        waiting = [(1, self._entry)]
        while waiting:
            times, name = waiting.pop()
            sizes = {instruction.name: instruction.size for instruction in self._computations[name]}
            for instruction in self._computations[name]:
                yield times, sizes, instruction
                if instruction.kind == "while":
                    waiting.append((times * self._turns(instruction.called("condition")), instruction.called("body")))
                elif instruction.kind == "call":
                    waiting.append((times, instruction.called("to_apply")))

    def _turns(self, condition: str) -> int:
        """Of a counted loop, whose condition compares with a constant; of any other the least, one."""
        inside = self._computations[condition]
        constants = {one.name: int(one.rest.split(")")[0]) for one in inside if one.kind == "constant"}
        compared = [name for one in inside if one.kind in ("compare", "fusion") for name in one.operands]
        return max((constants[name] for name in compared if name in constants), default=1)


def _sent(kind: str, instruction: _Instruction) -> float:
    arrays = [size for size in instruction.arrays if size > 4]
    if instruction.kind.endswith("-start") and kind in ("all-gather", "collective-permute"):
        arrays = arrays[len(arrays) // 2 :]  # the first half are its operands
    groups = re.search(r"replica_groups=(?:\{\{([\d,]+)\}|\[\d+,(\d+)\])", instruction.rest)
    devices = 2 if groups is None else len(groups[1].split(",")) if groups[1] else int(groups[2])
    whole = sum(arrays) * (devices if kind == "reduce-scatter" else 1)
    if kind == "collective-permute":
        return whole
    return whole * (devices - 1) / devices * (2 if kind == "all-reduce" else 1)


def _bytes(dtype: str, shape: str) -> float:
    bits = _DTYPE_BITS.get(dtype) or int(re.sub(r"\D", "", dtype) or 0)
    return math.prod(int(side) for side in shape.split(",") if side) * bits / 8
