"""Stable Diffusion 1.5's networks at full size and 512 px: ours against diffusers in PyTorch and in Flax, float32.

    python tests/benchmarks/stable_diffusion.py --cases unet vae --turns 3

Weights are random. Every candidate has its own process and all cores; two at a time take turns, after each has run
once, which compiles. PyTorch is the installed version; Flax is in diffusers 0.39.0, the last version that had it, which
`make .venv/diffusers-0.39` installs separately.
"""

from typing import Literal

import tyro
from workers import compare

CASES = {
    "unet": "UNet, batch of 2, 77 tokens of text",
    "unet+elements": "the same; ours attends to 256 elements too",
    "train": "UNet, loss and gradient of all parameters, batch of 1",
    "train+elements": "the same; ours attends to 256 elements too",
    "sample": "10 steps of DDIM under guidance, a batch of 2 each",
    "sample+elements": "the same; ours attends to 256 elements too",
    "vae": "VAE's decoder, one picture",
    "text": "text encoder, 2 prompts",
}
AGAINST = {"sd_pytorch": CASES, "sd_flax": ("unet", "train")}  # diffusers' samplers in Flax no longer run

TOO_LARGE = {("sd_flax", "train")}  # for 24 GB together with ours: one process ends before the other starts

Case = Literal["unet", "unet+elements", "train", "train+elements", "sample", "sample+elements", "vae", "text"]


def main(
    cases: tuple[Case, ...] = tuple(CASES),  # type: ignore[assignment]
    turns: int = 5,
) -> None:
    """Print a line for each case and each candidate that has it.

    Args:
        cases: Cases to run.
        turns: Timed runs of each candidate.
    """
    print(f"{'':54} {'against':8} {'ours':>9} {'theirs':>9} {'ratio':>7} {'peak GB':>8} {'theirs':>7}")
    for case in cases:
        for candidate, has in AGAINST.items():
            if case in has:
                line = f"{CASES[case]:54} {candidate.removeprefix('sd_'):8}"
                try:
                    result = compare(("sd_ours", candidate), case, turns, together=(candidate, case) not in TOO_LARGE)
                except EOFError:
                    print(f"{line} did not run: a process ended, which where it says nothing ran out of memory")
                    continue
                print(
                    f"{line} {result.ours.seconds:7.3f} s {result.theirs.seconds:7.3f} s {result.ratio:6.2f}x"
                    f" {result.ours.gigabytes:8.1f} {result.theirs.gigabytes:7.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    tyro.cli(main)
