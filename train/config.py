"""How a model is trained: one frozen dataclass, with a subclass for the few settings of each stage.

Presets are instances in `configs/`; every field can be overridden on the command line (`--train.steps 500`).
"""

import math
from dataclasses import dataclass
from typing import Literal, NoReturn

from elements_jax.bounds import ANY_SIZE, SEED, FieldError, require_above_zero, require_within
from elements_jax.config import ModelConfig, Remat


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of every stage. The defaults are Stable Diffusion's where the paper gives none."""

    steps: int
    """Updates of the parameters in the complete run."""
    minutes: float | None = None
    """Train for this many minutes instead of `steps`, from the start of the command to its end, which includes
    compiling, the last samples, checkpoint and export. `schedule` then runs over the training time; the warm-up still
    counts steps. The same command resumes for as many minutes again, without another warm-up, and with the schedule
    from its beginning. So if you rent accelerators for a quarter of an hour at a time, give all runs but the last the
    schedule `constant`, and the last one `wsd`. Order and draws are the same as in a run by steps; the number of steps
    and their learning rates depend on the machine and are not reproducible."""
    batch_size: int
    """Images in an update, over all devices."""
    accumulate: int = 1
    """Parts of the batch whose gradients are computed one by one and averaged: less memory, the same update."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`adamw` is the paper's. `muon` orthogonalises the updates of all kernels, and learns faster from few steps."""
    learning_rate: float
    """Peak of the learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of Adam's two moments."""
    weight_decay: float = 0.01
    """Decoupled decay of every parameter (Appendix C.2)."""
    schedule: Literal["constant", "cosine", "wsd"] = "constant"
    """Learning rate after the warm-up: `constant` stays at the peak; `cosine` falls along a cosine to `final_fraction`
    of the peak; `wsd` (warm-up, stable, decay) stays, then falls linearly to there over the last `decay_fraction` of
    the run."""
    final_fraction: float = 0.1
    """Learning rate at the end of `cosine` and `wsd`, as a fraction of the peak."""
    decay_fraction: float = 0.2
    """Last fraction of the run, in which `wsd` lowers the learning rate."""
    warmup: int = 1000
    """Steps over which the learning rate rises linearly from zero (no figure in the paper)."""
    clip_norm: float = 1.0
    """Largest global norm of the gradient; a larger gradient is scaled down to it (no figure in the paper)."""
    first_moment: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the first moment; bfloat16 takes half the memory."""
    max_consecutive_skips: int = 10
    """Most consecutive updates with a non-finite loss or gradient; they are skipped. One more stops the run."""
    ema_decay: float = 0.9999
    """Decay of the averaged parameters, which are exported; it starts lower: min(decay, (1 + step) / (10 + step))."""
    seed: int = 0
    """Seed of the initial parameters, the order of the examples and every draw."""
    log_every: int = 50
    """Steps between lines on the terminal and scalars in TensorBoard."""
    sample_every: int = 2000
    """Steps between sample grids and validation metrics, which use the averaged parameters."""
    sample_count: int = 8
    """Held-out images in a sample grid."""
    checkpoint_every: int = 2000
    """Steps between checkpoints; each also exports the averaged parameters to the model folder."""
    keep: int = 2
    """Checkpoints kept; older ones are deleted."""
    keep_every: int | None = None
    """Checkpoints whose step is a multiple of this are never deleted."""
    travel: float | None = None
    """With every checkpoint also write `travel.safetensors` into the run's folder, of at most this many MB, from which
    `--resume` continues on another machine: parameters and averages as float16, the optimiser's moments as bfloat16 if
    they fit."""
    workers: int = 0
    """Processes that read and decode records; 0 reads in the training process."""
    in_memory: bool = False
    """Decode all records once, before the first step, and keep them in this host's memory. Reading then costs nothing,
    and the batches are the same."""
    flip: bool = False
    """Mirror half of the images, left to right, with their label maps and object masks."""
    crop: float = 1.0
    """Enlarge a random square of every image to the image's size; the square's side is at least this fraction of the
    image's. 1 uses images unchanged. Enlarging blurs images a little, and the model learns that blur."""
    profile: tuple[int, int] | None = None
    """First and last step (exclusive) to trace; the trace goes to the run's folder, and TensorBoard shows it."""
    data_parallel: int = -1
    """Devices over which only the batch is split; -1 takes the rest of the devices."""
    fsdp: int = 1
    """Devices over which parameters, optimiser state and batch are split; -1 takes the rest of the devices."""

    def __post_init__(self) -> None:
        counts = ("steps", "batch_size", "accumulate", "log_every", "sample_every", "sample_count", "checkpoint_every")
        require_within(self, **dict.fromkeys((*counts, "keep", "keep_every", "perceptual_crop"), (1, ANY_SIZE)))
        require_within(self, **dict.fromkeys(("warmup", "max_consecutive_skips", "adversarial_start"), (0, ANY_SIZE)))
        require_within(self, **dict.fromkeys(("learning_rate", "weight_decay", "kl_weight"), (0, math.inf)))
        require_within(self, **dict.fromkeys(("perceptual_weight", "adversarial_weight"), (0, math.inf)))
        require_within(self, **dict.fromkeys(("final_fraction", "element_dropout", "own_mask_probability"), (0, 1)))
        require_within(self, **dict.fromkeys(("drop_text", "drop_elements", "drop_both"), (0, 1)))
        require_within(
            self, seed=SEED, workers=(0, 4096), discriminator_channels=(1, 4096), discriminator_levels=(1, 8)
        )
        require_above_zero(self, "minutes", "clip_norm", "travel")
        for name in ("data_parallel", "fsdp"):
            if not (getattr(self, name) == -1 or 1 <= getattr(self, name) <= ANY_SIZE):
                self._refuse(name, "must be -1, for all other devices, or at least 1")
        if not all(0 <= decay < 1 for decay in self.betas):
            self._refuse("betas", "must be at least 0 and below 1")
        if not 0 <= self.ema_decay < 1:
            self._refuse("ema_decay", "must be at least 0 and below 1")
        if self.profile is not None and not 1 <= self.profile[0] < self.profile[1]:
            self._refuse("profile", "must be a first step of at least 1 and a later last one")
        for name in ("decay_fraction", "crop"):
            if not 0 < getattr(self, name) <= 1:
                self._refuse(name, "must be above 0 and at most 1")
        if self.in_memory and self.workers:
            self._refuse("workers", "must be 0 with in_memory, which reads in the training process")

    def _refuse(self, name: str, expected: str) -> NoReturn:
        raise FieldError(self, (name,), f"{expected}, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class AutoencoderTrainConfig(TrainConfig):
    """Stage 1: content encoder and light decoder (Section 3.2). The defaults are the paper's: mean squared error, and
    no dropped elements."""

    perceptual_weight: float = 0.0
    """Weight of LPIPS, by VGG-16, which is added to the mean squared error; its parameters come with
    `pip install 'elements-jax[eval]'`."""
    perceptual_crop: int | None = None
    """Side in pixels of a random square of each image that LPIPS compares; None compares complete images."""
    element_dropout: float = 0.0
    """Probability that an object mask is laid over the image and every element it touches is deleted, as in stage 2, so
    that the light decoder learns to fill holes."""


@dataclass(frozen=True, kw_only=True)
class VAETrainConfig(TrainConfig):
    """The KL autoencoder of Latent Diffusion Models (LDM; Rombach et al. 2022, appendix G), by default without its
    perceptual and adversarial losses. The weights are LDM's, for losses that are summed over an image."""

    reconstruction: Literal["l1", "l2"] = "l1"
    """Absolute or squared error of each number of each pixel."""
    kl_weight: float = 1e-6
    """Weight of the divergence from a unit Gaussian; 0 makes a plain autoencoder, which draws nothing."""
    perceptual_weight: float = 0.0
    """Weight of LPIPS, by VGG-16, which is added to the mean error (1 in LDM); its parameters come with
    `pip install 'elements-jax[eval]'`."""
    perceptual_crop: int | None = None
    """Side in pixels of a random square of each image that LPIPS compares; None compares complete images. VGG-16 can
    cost more than the autoencoder: a square of half the side costs a quarter."""
    adversarial_weight: float = 0.0
    """Size of the gradient from a patch discriminator at the decoder's last layer, as a fraction of the gradient from
    reconstruction and LPIPS there (0.5 in LDM); 0 means no discriminator."""
    adversarial_start: int = 50_001
    """Updates before the discriminator starts to learn and to count (50,001 in LDM)."""
    discriminator_channels: int = 64
    """Channels of the discriminator's first layer; each later layer has twice as many, up to eight times this."""
    discriminator_levels: int = 3
    """Layers of the discriminator that halve the image: 3 make patches of 70 x 70 px, 2 of 34 x 34."""


@dataclass(frozen=True, kw_only=True)
class DiffusionTrainConfig(TrainConfig):
    """Stage 2: the diffusion decoder (Section 3.3)."""

    encoder: Literal["frozen", "unfrozen", "joint"] = "frozen"
    """The content encoder: `frozen` keeps stage 1's unchanged; `unfrozen` trains it further with this stage's loss;
    `joint` trains a new one from random weights, without a stage 1 (Section 4.4)."""
    random_partition: bool = True
    """Extract elements with the label map of another example, so that edges of elements say nothing about edges of
    objects (Section 4.4)."""
    element_dropout: float = 1.0
    """Probability that another example's object mask is laid over the image and every element it touches is
    deleted (Section 3.3). The paper gives no probability; 1 is our choice."""
    own_mask_probability: float = 0.0
    """Probability that the mask is one of the image's own objects instead, if the caption is kept. A model that learns
    from few examples then sees often enough that only the words say what fills a hole (not in the paper)."""
    drop_text: float = 0.3
    """Probability that only the text is dropped (Appendix C.2)."""
    drop_elements: float = 0.1
    """Probability that only the elements are dropped (Appendix C.2)."""
    drop_both: float = 0.1
    """Probability that both are dropped (Appendix C.2)."""
    remat: Remat = "none"
    """Values that the UNet's gradient recomputes instead of keeping, for less memory and more time: `none`; those
    between convolutions and products (`elementwise`); or all inside a block (`blocks`)."""
    cached: bool = False
    """Read the moments of the latents and the features of the captions from the records, where `elements cache` wrote
    them, instead of computing them."""
    text_from_scratch: bool = False
    """If the model folder has no text encoder, start a random one, with a tokenizer of the captions' own words, instead
    of stopping. For small models that are trained from scratch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cached and (self.flip or self.crop < 1):
            self._refuse("cached", "must not be combined with flip or crop: the cached latents are of complete images")
        drops = ("drop_text", "drop_elements", "drop_both")
        if (total := sum(getattr(self, name) for name in drops)) > 1:
            raise FieldError(self, drops, f"exclude each other, so they must sum to at most 1, got {total:g}")
        if self.random_partition and self.batch_size < 2:
            self._refuse("batch_size", "must be 2 or more: random_partition takes another example's label map")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model, and how each of its stages is trained; None for a stage that it does not have."""

    model: ModelConfig
    vae: VAETrainConfig | None = None
    autoencoder: AutoencoderTrainConfig | None = None
    diffusion: DiffusionTrainConfig | None = None
