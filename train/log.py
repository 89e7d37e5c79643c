"""The metrics of a run, on the terminal and in TensorBoard."""

import dataclasses
import json
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.stages import Compiled
from jaxtyping import UInt8

from elements_jax.data import tfevents
from elements_jax.data.atomic import name_file
from elements_jax.data.tfrecord import framed
from elements_jax.parallel import hosts
from elements_jax.typing import Tree
from train.config import TrainConfig
from train.cost.chips import CHIPS
from train.sample_grid import save_png
from train.stage import Metrics, Ratio

WORTH_SAYING = 0.05
"""Share of the time from which waiting for input or checkpoints is shown on the terminal."""


class Log:
    """Averages the metrics of steps and reports them; use as a context manager."""

    def __init__(self, directory: Path, first_step: int, train: TrainConfig):
        self._train = train
        self._first_step, self._directory = first_step, directory
        self._events = Events(directory, first_step)
        self._unread: Metrics | None = None
        self._window: list[Metrics] = []
        self._clock: float | None = None
        self._seconds = defaultdict[str, float](float)  # not spent on steps, since the clock started
        self._least_seconds: float | None = None  # for a step at the chips' peak
        self._skips = 0  # updates in a row
        self._compiled: Callable[[], None] | None = None  # reports the step's cost, once
        self._tracing = False

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._tracing:
            jax.profiler.stop_trace()

    def compiled(self, params: Tree, flops: Callable[[], float], program: Compiled, seconds: float) -> None:
        """Report the size and cost of a step once, before the first metrics.

        Args:
            params: the trained parameters.
            flops: returns the FLOPs of a step on all devices by its arithmetic (`flops.training_cost`); it is called
                when there are metrics to report, and may wait for the thread that counts.
            program: the step. XLA's count of its operations includes recomputed ones.
            seconds: time that compiling took.
        """
        parameters = float(sum(leaf.size for leaf in jax.tree.leaves(params)))
        xla_flops = (program.cost_analysis() or {}).get("flops", np.nan) * jax.device_count()
        self._compiled = lambda: self._say_compiled(parameters, float(flops()), xla_flops, seconds)

    def _say_compiled(self, parameters: float, flops: float, xla_flops: float, seconds: float) -> None:
        print(
            f"{parameters / 1e6:.3g} M parameters, {flops / 1e12:.3g} TFLOP an update (XLA counts "
            f"{xla_flops / 1e12:.3g}), compiled in {seconds:.1f} s",
            flush=True,
        )
        figures = {"parameters": parameters, "flops": flops, "xla_flops": xla_flops, "seconds": seconds}
        self._scalars("compiled", self._first_step, figures)
        if chip := CHIPS.get(jax.devices()[0].device_kind):
            self._least_seconds = flops / (jax.device_count() * chip.flops)

    def goes_on(self, place: Mapping[str, Any]) -> None:
        """Report and keep the settings that differ from those of the checkpoint from which the run resumes."""
        before, now = place.get("settings", {}), json.loads(json.dumps(dataclasses.asdict(self._train)))
        changed = [f"{name} {before[name]} -> {now[name]}" for name in now if before.get(name, now[name]) != now[name]]
        if changed:
            line = f"resumes after step {self._first_step} with other settings: {', '.join(changed)}"
            print(line, flush=True)
            self._events.add(self._first_step, tfevents.text("settings", line))

    def profile(self, step: int) -> None:
        """Start or end the trace that `TrainConfig.profile` asks for; call it before each step."""
        first, end = self._train.profile or (0, 0)
        if (inside := first <= step < end) != self._tracing:
            self._read()
            if inside:
                jax.profiler.start_trace(self._directory)
            else:
                jax.profiler.stop_trace()
            self._tracing = inside

    @contextmanager
    def timed(self, what: Literal["input", "samples", "checkpoint"]) -> Iterator[None]:
        """Count the time spent inside. Except for input, wait for the current step first, which is not counted."""
        if what != "input":
            self._read()
        start = time.monotonic()
        yield
        self._seconds[what] += time.monotonic() - start

    def step(self, step: int, metrics: Metrics) -> None:
        """Accept the metrics of a step that was started; wait only for the step before it.

        So the host prepares a step while the device runs another, and is never more than one step ahead.

        Raises FloatingPointError after too many consecutive skipped updates.
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
            if self._skips > self._train.max_consecutive_skips:
                raise FloatingPointError(
                    f"{self._skips} updates in a row had a loss or gradient that is not finite (loss "
                    f"{figures['loss']:.4g}, norm of the gradient {figures['gradient_norm']:.4g}); the parameters are "
                    "those from before: lower the learning rate, or look for damaged data"
                )
        if self._clock is None and self._window:
            self._start_clock()  # after the first step, which waits for readers to start

    def _start_clock(self) -> None:
        self._clock, self._timed_from = time.monotonic(), len(self._window)
        self._seconds.clear()

    def _report(self, step: int) -> None:
        now = time.monotonic()
        if self._compiled is not None:
            self._compiled()
            self._compiled = None
        means = averaged([figures for figures in self._window if not figures["skipped"]] or self._window)
        means["skipped"] = averaged(self._window)["skipped"]
        of_total = f"/{self._train.steps}" if self._train.minutes is None else ""
        line = f"step {step}{of_total}  loss {means['loss']:.4g}"
        if means["skipped"]:
            line += f"  {means['skipped']:.0%} skipped"
        if "psnr" in means:
            line += f"  psnr {means['psnr']:.2f}"
        timed = len(self._window) - self._timed_from
        if timed and self._clock is not None:
            elapsed = now - self._clock - self._seconds["samples"]
            seconds = elapsed / timed
            means["images_per_second"] = self._train.batch_size / seconds
            means["images_per_second_per_chip"] = means["images_per_second"] / jax.device_count()
            means["input_wait"] = self._seconds["input"] / elapsed
            means["checkpoint_seconds"] = self._seconds["checkpoint"]
            minutes, rest = divmod(round(seconds * (self._train.steps - step)), 60)
            line += f"  {means['images_per_second']:.1f} images/s"
            if self._least_seconds is not None:
                means["mfu"] = self._least_seconds / seconds
                line += f"  MFU {means['mfu']:.0%}"
            if self._train.minutes is None:
                line += f"  {minutes}:{rest:02d} left"
            else:
                line += f"  {self._window[-1]['elapsed']:.0%} of {self._train.minutes:g} minutes"
            if means["input_wait"] > WORTH_SAYING:
                line += f"  {means['input_wait']:.0%} waiting for input"
            if (saving := self._seconds["checkpoint"] / elapsed) > WORTH_SAYING:
                line += f"  {saving:.0%} saving"
        print(line, flush=True)
        self._scalars("train", step, means)
        self._window = []
        self._start_clock()

    def evaluated(
        self, step: int, metrics: Metrics, image: UInt8[np.ndarray, "height width 3"], path: Path, *, held_out: bool
    ) -> None:
        """Report the metrics and the sample grid of the batch that is evaluated; the grid is also written to `path`.

        `held_out` tells whether it is of the split `val`, or, where there is none, of the examples trained on.
        """
        examples = "held out" if held_out else "seen in training"
        figures = averaged([metrics])
        shown = [f"{name} {figures[name]:.4g}" for name in sorted(metrics) if not isinstance(metrics[name], Ratio)]
        print(f"  {examples}: " + "  ".join(shown), flush=True)
        self._scalars(examples.replace(" ", "_"), step, figures)
        self._events.add(step, tfevents.image("samples", image))
        if hosts.is_main_process():
            save_png(path, image)

    def _scalars(self, group: str, step: int, figures: dict[str, float]) -> None:
        self._events.add(step, *[tfevents.scalar(f"{group}/{name}", value) for name, value in figures.items()])


class Events:
    """TensorBoard's file of a run's events. `add` returns when they are on disk: a resumed run does not repeat them."""

    def __init__(self, folder: Path, step: int):
        """Raise OSError naming the file. TensorBoard shows events of an earlier run up to `step`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{step:07d}"
        self._append(
            {"file_version": "brain.Event:2"},
            {"step": step + 1, "session_log": {"status": tfevents.START}},
        )

    def add(self, step: int, *values: dict[str, Any]) -> None:
        """Append values of `tfevents` to a step. Raises OSError naming the file."""
        self._append(*[{"step": step, "summary": {"value": [value]}} for value in values])

    def _append(self, *events: dict[str, Any]) -> None:
        if not hosts.is_main_process():
            return
        try:
            with self._path.open("ab") as file:
                file.writelines(
                    framed(tfevents.Event(wall_time=time.time(), **event).SerializeToString()) for event in events
                )
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            name_file(error, self._path)
            raise


def averaged(window: list[Metrics]) -> dict[str, float]:
    """Average metrics over steps; a `Ratio` without any example is left out."""
    means = {}
    for name in window[0]:
        mean: Any = jax.tree.map(lambda *values: float(np.mean(values)), *[figures[name] for figures in window])
        if not isinstance(mean, Ratio):
            means[name] = mean
        elif mean.number:
            means[name] = mean.sum / mean.number
    return means
