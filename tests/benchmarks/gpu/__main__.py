"""Ours against PyTorch on one GPU, at Stable Diffusion 1.5's size, random weights in bfloat16: one table, one JSON.

    python -m tests.benchmarks.gpu --out gpu.json                       # under five minutes on a host with 16 cores
    python -m tests.benchmarks.gpu --sections train-8 sample-1 --minutes 3
    python -m tests.benchmarks.gpu --rehearse                           # the same with small networks, on a CPU

PyTorch's side is diffusers and transformers: fused attention, channels last, fused AdamW; eager, and under
torch.compile. Their UNet reads no elements; ours attends to 256 of them. Our partition is itself PyTorch, so it has one
column. Every candidate is a process. All compile at the same time; then each is measured with the GPU to itself. If one
is not ready in time, fails, or lacks a package, its line says so, and the others are still measured.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

SECTIONS: dict[str, tuple[str, tuple[str, ...]]] = {  # its name in the table, and the sides that have it
    "train-8": ("UNet training step, batch 8", ("ours", "eager", "compiled")),
    "train-32": ("UNet training step, batch 32", ("ours", "eager")),
    "sample-1": ("50 guided steps, text encoder, VAE, batch 1", ("ours", "eager", "compiled")),
    "sample-4": ("50 guided steps, text encoder, VAE, batch 4", ("ours", "eager")),
    "vae-decode-4": ("VAE decodes 4 pictures", ("ours", "eager")),
    "vae-step-32": ("VAE step of the preset photo, with LPIPS", ("ours",)),
    "stage1-64": ("stage 1 step of the preset photo", ("ours",)),
    "partition-vit_h": ("partition, SAM vit_h, 256 points", ("eager",)),
    "partition-mobile-sam": ("partition, MobileSAM, 256 points", ("eager",)),
}
MODULES = {"ours": "ours", "eager": "pytorch", "compiled": "pytorch", "count": "ours"}
MEASURING = 0.4
"""Share of the time reserved for measuring."""
LONGEST = 40
"""Most seconds for measuring one candidate."""


@dataclass
class Candidate:
    """A process that prepares a section, waits for its turn, measures and ends."""

    section: str
    side: str
    figures: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen | None = None
    said: queue.Queue = field(default_factory=queue.Queue)

    def start(self, rehearse: bool) -> None:
        command = [sys.executable, "-m", f"tests.benchmarks.gpu.{MODULES[self.side]}", self.section, self.side]
        environment = os.environ | {
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # several processes share the GPU
            "PYTHONUNBUFFERED": "1",
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        if rehearse or self.side == "count":
            environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(
            command + ["--rehearse"] * rehearse,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()
        self._error = ""
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def _listen(self) -> None:
        """Read the figures that the process prints, one line of JSON each; None when it has ended."""
        for line in self.process.stdout:
            if line.startswith("{"):
                self.said.put(json.loads(line))
        self.said.put(None)

    def _drain(self) -> None:
        self._error = self.process.stderr.read()

    def wait(self, seconds: float) -> bool:
        """Wait for the next figures; return False, with the reason among the figures, if none come."""
        try:
            said = self.said.get(timeout=max(seconds, 0.01))
        except queue.Empty:
            self.end(f"not done after {seconds:.0f} s")
            return False
        if said is None:
            self.process.wait()
            self._reader.join(5)
            self.figures["error"] = self._error[-4000:]
            lines = self._error.strip().splitlines() or [f"exit code {self.process.returncode}"]
            self.end(lines[-1][:300])
            return False
        self.figures |= said
        if "missing" in said:
            self.end(said["missing"])
            return False
        return True

    def go(self, seconds: float) -> None:
        """Start the measurement."""
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self.end("ended before its turn")
            return
        if self.wait(seconds):
            self.end()

    def end(self, why: str | None = None) -> None:
        """Stop the process, and note why if it has not measured."""
        if why is not None and "why_not" not in self.figures:
            self.figures["why_not"] = why
            print(f"  {self.section}, {self.side}: {why}", flush=True)
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def main(
    sections: tuple[str, ...] = tuple(SECTIONS),
    out: Path | None = None,
    minutes: float = 5,
    at_once: int = max(2, (os.cpu_count() or 2) // 2),
    rehearse: bool = False,
) -> None:
    """Print the table.

    Args:
        sections: Rows to measure; by default all.
        out: JSON file for all measurements.
        minutes: Time limit; candidates that are not ready after 60 % of it are left out.
        at_once: Candidates to prepare at the same time; each takes a core or two.
        rehearse: Use small networks on a CPU, to check that everything runs; the figures mean nothing.
    """
    if unknown := set(sections) - set(SECTIONS):
        sys.exit(f"error: --sections: expected some of {', '.join(SECTIONS)}, got {', '.join(sorted(unknown))}")
    began = time.monotonic()
    prepared_by, ends_by = (began + 60 * minutes * share for share in (1 - MEASURING, 1))
    counting = Candidate("count", "count")
    candidates = [Candidate(section, side) for section in sections for side in SECTIONS[section][1]]
    print(f"preparing {len(candidates)} candidates, {at_once} at once", flush=True)
    slots = threading.Semaphore(at_once)

    def prepare(candidate: Candidate) -> None:
        with slots:
            if time.monotonic() < prepared_by:
                candidate.start(rehearse)
                if candidate.wait(prepared_by - time.monotonic()):
                    candidate.figures["prepared"] = time.monotonic() - began
                    print(f"  ready after {candidate.figures['prepared']:.0f} s: {candidate.section}, {candidate.side}")
            else:
                candidate.end("not begun: raise --minutes or --at-once, or choose --sections")

    threads = [threading.Thread(target=prepare, args=(candidate,)) for candidate in (counting, *candidates)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("measuring", flush=True)
    for candidate in candidates:
        if "why_not" not in candidate.figures:
            left = ends_by - time.monotonic()
            if left > 2:
                candidate.go(min(left, LONGEST))
            else:
                candidate.end("no time left to measure it")
    counting.end()
    print(table(candidates, counting.figures))
    if out is not None:
        record = {
            "rehearsal": rehearse,
            "seconds": time.monotonic() - began,
            "flops": counting.figures,
            "candidates": [{"section": c.section, "side": c.side} | c.figures for c in candidates],
        }
        out.write_text(json.dumps(record, indent=1) + "\n")


def table(candidates: list[Candidate], flops: dict[str, float]) -> str:
    """Format images per second of each side, our speed relative to PyTorch's, and ours as a share of the chip's
    peak."""
    found = {(c.section, c.side): c.figures for c in candidates}
    device = next((f["device"] for f in found.values() if "device" in f), "no device")
    lines = [f"{device}; images a second (milliseconds); ready: seconds from the start, while the others compile too"]
    lines.append(
        f"{'':46} {'ours':>18} {'eager':>18} {'compiled':>18} {'/eager':>7} {'/comp.':>7} {'peak':>5} {'ready':>6}"
    )
    for section in dict.fromkeys(c.section for c in candidates):
        row = [found.get((section, side), {}) for side in ("ours", "eager", "compiled")]
        rates = [figures.get("images_per_s") for figures in row]
        cells = [
            f"{rate:.1f} ({1e3 * figures['median']:.0f} ms)" if rate else "-"
            for rate, figures in zip(rates, row, strict=True)
        ]
        ratios = [f"{rates[0] / rate:.2f}x" if rates[0] and rate else "-" for rate in rates[1:]]
        share = "-"
        if rates[0] and row[0].get("peak_flops") and section in flops:
            share = f"{flops[section] * rates[0] / row[0]['peak_flops']:.0%}"
        ready = f"{row[0]['prepared']:.0f}" if "prepared" in row[0] else "-"
        text = " ".join(f"{cell:>18}" for cell in cells)
        lines.append(f"{SECTIONS[section][0]:46} {text} {ratios[0]:>7} {ratios[1]:>7} {share:>5} {ready:>6}")
    lines += [f"{c.section}, {c.side}: {c.figures['why_not']}" for c in candidates if "why_not" in c.figures]
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(main)
