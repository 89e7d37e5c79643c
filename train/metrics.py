"""Where the figures of a run go: a terse line on the terminal, and TensorBoard."""

import time
from pathlib import Path

import jax
import numpy as np
from jaxtyping import UInt8
from tensorboardX import SummaryWriter

from train import hosts
from train.config import TrainConfig
from train.pictures import save_png
from train.stage import Metrics


class Log:
    """Averages the figures of steps and reports them; use as a context manager."""

    def __init__(self, directory: Path, first_step: int, train: TrainConfig):
        self._train = train
        self._directory = directory
        self._writer = self._open(first_step)
        self._unread: Metrics | None = None
        self._window: list[dict[str, float]] = []
        self._clock: float | None = None
        self._skips = 0  # updates in a row

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.close()

    def step(self, step: int, metrics: Metrics) -> None:
        """Take in the figures of a step that has been started; waits for the step before it alone.

        Raises FloatingPointError after too many updates in a row that were skipped.

        So the host prepares a step while the device runs another, and never runs further ahead than one.
        """
        self._read()
        self._unread = metrics
        if step % self._train.log_every == 0 or step == self._train.steps:
            self._read()
            self._report(step)

    def _read(self) -> None:
        if self._unread is not None:
            self._window.append(figures := jax.device_get(self._unread))
            self._unread = None
            self._skips = self._skips + 1 if figures["skipped"] else 0
            if self._skips > self._train.skips_in_a_row:
                raise FloatingPointError(
                    f"{self._skips} updates in a row had a loss or gradient that is not finite (loss "
                    f"{figures['loss']:.4g}, norm of the gradient {figures['gradient_norm']:.4g}); the parameters are "
                    "those from before: they need a lower learning rate, or the data are damaged"
                )
        if self._clock is None and self._window:
            self._clock = time.monotonic()  # starts after the first step, which compiles
            self._timed_from = len(self._window)

    def _report(self, step: int) -> None:
        kept = [figures for figures in self._window if not figures["skipped"]] or self._window
        means = {name: float(np.mean([figures[name] for figures in kept])) for name in kept[0]}
        means["skipped"] = float(np.mean([figures["skipped"] for figures in self._window]))
        line = f"step {step}/{self._train.steps}  loss {means['loss']:.4g}"
        if means["skipped"]:
            line += f"  {means['skipped']:.0%} skipped"
        if "psnr" in means:
            line += f"  psnr {means['psnr']:.2f}"
        timed = len(self._window) - self._timed_from
        if timed and self._clock is not None:
            seconds = (time.monotonic() - self._clock) / timed
            means["images_per_second"] = self._train.batch_size / seconds
            minutes, rest = divmod(round(seconds * (self._train.steps - step)), 60)
            line += f"  {means['images_per_second']:.1f} images/s  {minutes}:{rest:02d} left"
        print(line, flush=True)
        self._scalars("train", step, means)
        self._window, self._timed_from, self._clock = [], 0, time.monotonic()

    def held_out(
        self, step: int, figures: dict[str, float], picture: UInt8[np.ndarray, "height width 3"], path: Path
    ) -> None:
        """Report the figures and the sample grid of the held-out batch; the grid also goes to `path`."""
        print("  held out: " + "  ".join(f"{name} {value:.4g}" for name, value in sorted(figures.items())), flush=True)
        self._scalars("held_out", step, figures)
        self._writer.add_image("samples", picture, step, dataformats="HWC")
        if hosts.first():
            save_png(path, picture)
        if self._clock is not None:  # time spent on samples is not time spent on steps
            self._clock, self._timed_from = time.monotonic(), len(self._window)

    def settle(self, step: int) -> None:
        """Bring all that was reported to the disk, since a run that starts from this step reports none of it again."""
        self._writer.close()  # its `flush` leaves what its thread has not taken in
        self._writer = self._open(step)

    def _open(self, step: int) -> SummaryWriter:
        return SummaryWriter(
            str(self._directory),
            purge_step=step + 1,  # hides what a killed run wrote beyond the step
            filename_suffix=f".{step:07d}",  # within a second, names are the same otherwise
            write_to_disk=hosts.first(),
        )

    def _scalars(self, group: str, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)
