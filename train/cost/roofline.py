"""The resources that a program needs on a chip, and its least time there: a roofline (Williams et al. 2009)."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

from elements_jax.data.atomic import new_file
from train.cost.chips import CHIPS
from train.cost.hlo import Messages


@dataclass(frozen=True)
class Report:
    """The work of one device in a program. Sizes in bytes, times in seconds."""

    program: str
    """Name for people, with the settings that change its size."""
    chip: str
    mesh: dict[str, int]
    batch_size: int
    compile_seconds: float
    memory_available: float
    memory: float
    """Total need: arguments, temporary arrays, and results that do not overwrite arguments."""
    arguments: float
    donated: float
    """The part of the arguments that results overwrite; in training it should be the state."""
    temporary: float
    model_flops: float
    """FLOPs of products and convolutions, each counted once."""
    flops: float
    """The same with recomputation in the gradient."""
    compiler_flops: float | None
    """The compiler's own count, if it gives one; it counts a loop as one iteration and ignores kernels."""
    traffic: float
    """Bytes between the chip and its memory (not VMEM) for operands and results, as `hlo` counts them."""
    messages: dict[str, Messages]

    @property
    def devices(self) -> int:
        """Devices in the mesh."""
        return math.prod(self.mesh.values())

    @property
    def times(self) -> dict[str, float]:
        """The least time that each resource takes."""
        chip = CHIPS[self.chip]
        return {
            "arithmetic": self.flops / chip.flops,
            "memory traffic": self.traffic / chip.bandwidth,
            "messages": sum(messages.sent for messages in self.messages.values()) / chip.interconnect,
        }

    @property
    def least_time(self) -> float:
        """Lower bound on the program's time, reached if all three overlap fully."""
        return max(self.times.values())

    @property
    def utilisation(self) -> float:
        """Model FLOP utilisation (Chowdhery et al. 2022) at `least_time`, an upper bound."""
        return self.model_flops / CHIPS[self.chip].flops / self.least_time

    def __str__(self) -> str:
        times = {name: f"{1e3 * seconds:.1f} ms" for name, seconds in self.times.items()}
        mesh = " x ".join(f"{name} {size}" for name, size in self.mesh.items())
        kinds = ", ".join(f"{kind} {found.count}: {gigabytes(found.sent)}" for kind, found in self.messages.items())
        counted = f"{self.compiler_flops / 1e12:.2f}" if self.compiler_flops else "none"
        sent = gigabytes(sum(found.sent for found in self.messages.values()))
        slowest = max(self.times, key=lambda name: self.times[name])
        return f"""\
{self.program}
  devices     {self.devices} x {self.chip}, mesh {mesh}, {self.batch_size / self.devices:g} images each
  compiled    in {self.compile_seconds:.0f} s
  memory      {gigabytes(self.memory)} of {gigabytes(self.memory_available)}: arguments {gigabytes(self.arguments)}, \
of which {gigabytes(self.donated)} are overwritten; temporary {gigabytes(self.temporary)}
  arithmetic  {self.flops / 1e12:.2f} TFLOP, of the model {self.model_flops / 1e12:.2f} \
(the compiler counts {counted}): {times["arithmetic"]}
  traffic     {gigabytes(self.traffic)}: {times["memory traffic"]}
  messages    {sent} sent ({kinds or "none"}): {times["messages"]}
  total       at least {1e3 * self.least_time:.1f} ms, bound by {slowest}: at most \
{self.batch_size / self.least_time:.0f} images/s, {self.utilisation:.0%} of the peak"""

    def save(self, path: Path) -> None:
        """Write the report as JSON, with the derived values."""
        value = dataclasses.asdict(self) | {
            name: getattr(self, name) for name in ("devices", "times", "least_time", "utilisation")
        }
        with new_file(path) as file:
            file.write((json.dumps(value, indent=2) + "\n").encode())


def gigabytes(size: float) -> str:
    """Format a number of bytes for people."""
    return f"{size / 1e9:.2f} GB"
