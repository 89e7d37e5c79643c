"""ElementsPipeline: encodes an image into elements, which can be edited, and decodes them into an image.

`elements_jax.models.method` contains the method as pure functions, which training also uses; the pipeline adds
parameters, prompts and compilation.
"""

import json
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from elements_jax.checkpoints.model_folder import CLIP_TOKENIZER, read_model, save_network, write_config
from elements_jax.checkpoints.tokenizer import PromptTokenizer
from elements_jax.config import ElementsConfig, ModelConfig
from elements_jax.data.record import DROPPED, Record
from elements_jax.diffusion.preserve import Preserve
from elements_jax.diffusion.samplers import Sampler, ddim_sample
from elements_jax.diffusion.schedule import guidance_weights
from elements_jax.editing.edits import Canvas, stack, unstack
from elements_jax.elements import ImageElements
from elements_jax.models.functional import Params
from elements_jax.models.method import StepByStep, encode_image, jit_decode, reconstruct_elements
from elements_jax.models.networks import Networks
from elements_jax.parallel.sharding import make_mesh, replicated, shard_over_batch


class ElementsPipeline:
    """A trained model, ready to encode, edit and decode; its functions are compiled once per shape.

    pipeline = ElementsPipeline.from_pretrained("tiny")
    canvas = pipeline.encode(image, label_map)
    canvas = move(canvas, [17, 18], by=(0.25, 0))
    picture = pipeline.decode(canvas, "a red circle", seed=0)

    Batches are split over the devices of a mesh, by default only the first device; their size must be a multiple of the
    number of devices.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Mapping[str, Params],
        tokenizer: PromptTokenizer | None,
        mesh: Mesh | None = None,
    ):
        """Build a pipeline. A model with only stage 1 has the parameters "encoder" and "decoder", and no tokenizer."""
        mesh = mesh or make_mesh(1, 1, jax.local_devices()[:1])
        self.config = config
        self.params = jax.device_put(dict(params), replicated(mesh))
        self.tokenizer = tokenizer
        networks = Networks(config)

        def encode(params, batch):
            return encode_image(networks, params, **batch)

        def reconstruct(params, batch):
            return reconstruct_elements(networks, params, **batch)

        self._encode = jax.jit(shard_over_batch(encode, mesh))
        self._reconstruct = jax.jit(shard_over_batch(reconstruct, mesh))
        self._decode = jit_decode(networks, mesh)
        self._step_by_step = StepByStep(networks, mesh)
        shape = config.latent_size, config.latent_size, config.vae.latent_channels

        def noise(keys):  # a fixed type, so that the numbers do not depend on JAX's default
            return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(jnp.stack(keys))

        self._noise = jax.jit(noise)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, tokenizer: str | Path = CLIP_TOKENIZER, mesh: Mesh | None = None
    ) -> "ElementsPipeline":
        """Open a model. Needs no PyTorch; half precision is read as float32.

        Args:
            source: "photo" or "tiny"; a model folder (`elements_jax.checkpoints.model_folder`); Stable Diffusion 1, in
                diffusers' layout or as its original single safetensors file; or the name of a repository on the
                Hugging Face hub.
            tokenizer: for a Stable Diffusion without one, as a single file: folder or repository of CLIP's vocabulary.
            mesh: devices to split batches over; by default only the first.

        Parameters that Stable Diffusion lacks are initialized at random, with a warning; its UNet still computes the
        same, since the new attention starts at zero.

        Raises FileNotFoundError that lists missing networks, or ValueError that lists every tensor that does not fit,
        or for Stable Diffusion Inpainting, whose UNet also reads a masked image.
        """
        config, params, tokenize = read_model(source, tokenizer)
        if config.unet.beside_latent and not config.diffusion.has_draft:
            raise ValueError(f"{source} is Stable Diffusion Inpainting, whose UNet does not support elements")
        networks = Networks(config)
        if "encoder" not in params:
            warnings.warn(f"{source} is a Stable Diffusion: its element attention is new and untrained", stacklevel=2)
            for name in ("encoder", "decoder", "unet"):
                params[name] = getattr(networks, name).init_missing(params.get(name, {}), jax.random.key(0))
        return cls(config, params, tokenize, mesh)

    def save_pretrained(self, folder: str | Path, *, half: bool = False) -> None:
        """Write a model folder. Diffusers' and transformers' PyTorch classes can read the standard parts.

        `half` writes float16, at half the size.
        """
        write_config(Path(folder), self.config)
        if self.tokenizer is not None:
            self.tokenizer.save(Path(folder) / "tokenizer")
        dtype = jnp.float16 if half else jnp.float32
        for name, params in self.params.items():
            save_network(Path(folder), name, {parameter: value.astype(dtype) for parameter, value in params.items()})

    @property
    def image_size(self) -> int:
        """Size of the model's images in pixels."""
        return self.config.elements.image_size

    @property
    def has_diffusion(self) -> bool:
        """Whether stage 2 was trained; otherwise only the light decoder makes images, with `reconstruct`."""
        return self.tokenizer is not None

    @property
    def grid(self) -> int:
        """The model supports grid x grid elements."""
        return self.config.elements.grid

    def encode(self, image: np.ndarray, label_map: np.ndarray) -> Canvas:
        """Encode an image into elements, ready for edits.

        Args:
            image: uint8 (H, W, 3), with the model's size.
            label_map: (H, W), the number of each pixel's element, or `DROPPED`.

        Raises ValueError for a wrong shape or type.
        """
        return unstack(self.encode_batch(np.asarray(image)[None], np.asarray(label_map)[None]))[0]

    def encode_batch(self, image: np.ndarray, label_map: np.ndarray) -> Canvas:
        """Encode images (B, H, W, 3) under label maps (B, H, W); see `encode`."""
        size = self.image_size
        if image.shape[1:] != (size, size, 3) or image.dtype != np.uint8:
            raise ValueError(f"expected a uint8 image of ({size}, {size}, 3), not {image.dtype} of {image.shape[1:]}")
        if label_map.shape != image.shape[:3] or label_map.dtype.kind not in "iu":
            raise ValueError(
                f"expected an integer label map of ({size}, {size}), not {label_map.dtype} of {label_map.shape[1:]}"
            )
        batch = {"image": image / np.float32(127.5) - 1, "label_map": np.asarray(label_map, np.int32)}
        labels = np.where(label_map == DROPPED, self.config.elements.num_elements, label_map).astype(np.int32)
        return Canvas(self._encode(self.params, batch), jnp.asarray(labels))

    def decode(self, canvas: Canvas, prompt: str = "", *, seed: int = 0, **settings: Any) -> UInt8[np.ndarray, "H W 3"]:
        """Decode a canvas to an image; for `settings` see `decode_batch`."""
        return self.decode_batch(stack([canvas]).elements, [prompt], seeds=[seed], **settings)[0]

    def decode_batch(
        self,
        elements: ImageElements,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        guidance: float | tuple[float, float] | None = None,
        steps: int | None = None,
        sampler: Sampler = ddim_sample,
        eta: float | None = None,
        preserve: Preserve | None = None,
        negative_prompts: Sequence[str] | None = None,
        report: Callable[[int], bool] | None = None,
    ) -> UInt8[np.ndarray, "B H W 3"]:
        """Decode a batch of elements to images, each with a prompt ("" for none) and a seed.

        Args:
            guidance: one weight for text and elements, or (text, elements); by default the configuration's. A weight of
                1 halves the work of a step: it needs no prediction without the condition.
            steps: number of sampling steps; by default the configuration's.
            sampler: one of `elements_jax.diffusion.samplers`.
            eta: fresh noise in each step of DDIM: 0 for none, 1 for DDPM.
            preserve: the input images and the edited regions (`edits.edited_region`). Farther than 3 r pixels from its
                region, an image equals its input bit for bit; within r it is decoded; in between the two are blended.
                r is 1/128 of the image's side, at least 1. By default everything is decoded, as in the paper.
            negative_prompts: prompts that guidance steers away from; by default "", as in the paper.
            report: called before each step with its timestep, after compilation; return False to cancel. It changes the
                images only by rounding.

        A new number of images, steps or weights, or another sampler, recompiles; prompts, seeds and values do not.
        Raises `Cancelled` if `report` returns False, and ValueError for an invalid number of steps, for eta with
        another sampler, for images to preserve that are not uint8 images of the model's size, one per prompt, and for
        a model with only stage 1.
        """
        if self.tokenizer is None:
            raise ValueError("the model has no diffusion decoder yet: `elements train diffusion` adds it")
        if eta is not None and sampler is not ddim_sample:
            raise ValueError("eta is only for DDIM: no other sampler draws fresh noise")
        negative_prompts = [""] * len(prompts) if negative_prompts is None else negative_prompts
        for prompt in (*prompts, *negative_prompts):
            if cut := self.tokenizer.cut(prompt):
                limit = self.config.text.max_length
                warnings.warn(f"a prompt is truncated to {limit} tokens, without: {cut!r}", stacklevel=2)
        size = self.config.elements.image_size
        if preserve is not None:
            _check_preserve(preserve, (len(prompts), size, size))
        keys = [jax.random.key(seed) for seed in seeds]
        shared = {
            "params": self.params,
            "guidance": guidance_weights(self.config.diffusion.guidance if guidance is None else guidance),
        }
        batch = {
            "elements": elements,
            "prompt": jnp.asarray(np.stack([self.tokenizer(prompt) for prompt in prompts])),
            "negative_prompt": jnp.asarray(np.stack([self.tokenizer(prompt) for prompt in negative_prompts])),
            "noise": self._noise(keys),
            "preserve": preserve,
        }
        if eta is not None:
            shared["eta"], batch["keys"] = jnp.float32(eta), jnp.stack(keys)
        steps = self.config.diffusion.sample_steps if steps is None else steps
        if report is not None:
            return to_uint8(self._step_by_step(shared, batch, steps, sampler, report))
        return to_uint8(self._decode(shared, batch, steps=steps, sampler=sampler))

    def __repr__(self) -> str:
        parameters = sum(value.size for params in self.params.values() for value in params.values())
        return f"ElementsPipeline({self.image_size} px, {self.grid**2} elements, {parameters / 1e6:.1f} M parameters)"

    def checksum(self) -> str:
        """Return the CRC-32 of configuration and parameters, which identifies the model."""
        return checksum(self.config, self.params)

    def reconstruct(self, elements: ImageElements, *, preserve: Preserve | None = None) -> UInt8[np.ndarray, "B H W 3"]:
        """Decode blurry images with stage 1's light decoder: fast, without a prompt, and limited to what the elements
        contain. For `preserve` see `decode_batch`.

        Raises ValueError for a model without it, whose content encoder was trained in stage 2, and for images to
        preserve that are not uint8 images of the model's size, one per image.
        """
        if "decoder" not in self.params:
            raise ValueError("the model has no light decoder: its content encoder was trained in stage 2")
        if preserve is not None:
            _check_preserve(preserve, (len(elements.valid), self.image_size, self.image_size))
        return to_uint8(self._reconstruct(self.params["decoder"], {"elements": elements, "preserve": preserve}))


def checksum(config: ModelConfig, params: Mapping[str, Params]) -> str:
    """Return the CRC-32 of a model's configuration and parameters."""
    crc = zlib.crc32(json.dumps(asdict(config), sort_keys=True).encode())
    for network, values in sorted(params.items()):
        for name, value in sorted(values.items()):
            crc = zlib.crc32(np.asarray(value).tobytes(), zlib.crc32(f"{network}.{name}".encode(), crc))
    return f"{crc:08x}"


def require_fit(record: Record, config: ElementsConfig) -> None:
    """Raise ValueError if a record's image size or number of elements differs from the model's."""
    height, width = record.image.shape[:2]
    have, want = (height, width, record.settings["num_elements"]), (config.image_size,) * 2 + (config.num_elements,)
    if have != want:
        described = ["images of {} x {} px in {} elements".format(*each) for each in (want, have)]
        raise ValueError(f"the model takes {described[0]}, but record {record.source_id!r} has {described[1]}")


def _check_preserve(preserve: Preserve, shape: tuple[int, int, int]) -> None:
    for name, value, wanted, dtype in (
        ("image", preserve.image, (*shape, 3), np.uint8),
        ("region", preserve.region, shape, np.bool_),
    ):
        if value.shape != wanted or value.dtype != dtype:
            raise ValueError(
                f"preserve.{name}: expected {np.dtype(dtype)} of shape {wanted}, not {value.dtype} of {value.shape}"
            )


def to_uint8(image: Float[Array, "*B H W 3"]) -> UInt8[np.ndarray, "*B H W 3"]:
    """Convert pixels in [-1, 1] to 0 to 255. Raises ValueError for values that are not finite."""
    pixels, finite = jax.device_get(_to_uint8(image))
    if not finite:
        raise ValueError(
            "a decoded image has values that are not finite: the guidance is too large, or the parameters are damaged"
        )
    return pixels


@jax.jit  # without jit, five operations would compile separately
def _to_uint8(image):
    return jnp.clip(jnp.round((image + 1) * 127.5), 0, 255).astype(jnp.uint8), jnp.isfinite(image).all()
