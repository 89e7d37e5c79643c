"""The paper's method as pure functions: `encode_image` is from an image to its elements, `decode_elements` back.

`decode_elements` is one program, for training and for batches. `StepByStep` computes the same with the host between
the steps of sampling.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from elements_jax.diffusion.preserve import Preserve, blend, feather, latent_cells
from elements_jax.diffusion.samplers import Point, Sampler, ddim_sample
from elements_jax.diffusion.schedule import (
    PredictNoise,
    make_schedule,
    noise_from_velocity,
    with_guidance,
    with_preserved_region,
)
from elements_jax.elements import ImageElements, element_tokens, extract_patches
from elements_jax.models.functional import Params
from elements_jax.models.networks import Networks
from elements_jax.models.unet import Context
from elements_jax.parallel.sharding import batch_sharding, shard_over_batch


class Conditions(NamedTuple):
    """What every step of sampling reads; the axis of examples is the first of every array."""

    context: Context
    """Of the conditioned and the unconditioned predictions, which are one batch."""
    clean: Float[Array, "B h w Z"] | None
    """Latents of the images to preserve,"""
    inside: Bool[Array, "B h w"] | None
    """and where they may change."""


def encode_image(
    networks: Networks, params: Mapping[str, Params], image: Float[Array, "B H W 3"], label_map: Int[Array, "B H W"]
) -> ImageElements:
    """S = {(E(a_n), p_n)}: the elements of images in [-1, 1] under a label map (Section 3.2).

    `params` holds those of the "encoder". Labels outside [0, N) belong to no element.
    """
    config = networks.config.elements
    # In bfloat16 the encoder rounds the patches anyway.
    precision = lax.Precision.HIGHEST if networks.config.dtype == "float32" else lax.Precision.DEFAULT
    patches = extract_patches(
        image, label_map, num_elements=config.num_elements, patch_size=config.patch_size, precision=precision
    )
    content = networks.encoder(params["encoder"], patches.pixels)
    return ImageElements(content, patches.position, patches.valid)


def decode_elements(
    networks: Networks,
    params: Mapping[str, Params],
    elements: ImageElements,
    prompt: Int[Array, "B L"],
    negative_prompt: Int[Array, "B L"],
    noise: Float[Array, "B h w Z"],
    guidance: Float[Array, " G"],
    steps: int,
    sampler: Sampler = ddim_sample,
    preserve: Preserve | None = None,
    **renewal: Array,
) -> Float[Array, "B H W 3"]:
    """D(z_T, C, S): images in [-1, 1] from elements and prompt tokens, by guided sampling (Section 3.3 and 4.1).

    `params` holds those of "text_encoder", "unet" and "vae"; `negative_prompt` is what guidance leads away from, the
    tokens of "" in the paper; `guidance` is the weight of text and elements together, or one of each; `preserve` keeps
    its images outside its regions, but for a feather; `renewal` goes to the sampler.
    """
    conditions = condition(networks, params, elements, prompt, negative_prompt, guidance, preserve)
    predict = predictor(networks, params["unet"], conditions, guidance)
    latent = sampler(predict, make_schedule(networks.config.diffusion), noise, steps, **renewal)
    return decode_latent(networks, params["vae"], latent, preserve)


def condition(
    networks: Networks,
    params: Mapping[str, Params],
    elements: ImageElements,
    prompt: Int[Array, "B L"],
    negative_prompt: Int[Array, "B L"],
    guidance: Float[Array, " G"],
    preserve: Preserve | None = None,
) -> Conditions:
    """Keys and values of text and elements, which are projected once and not once a step; and what is preserved."""
    config = networks.config
    tokens = element_tokens(elements, config.elements.frequencies)
    texts = networks.text_encoder(params["text_encoder"], jnp.concatenate([prompt, negative_prompt]))
    text, negative = jnp.split(texts, 2)
    context = networks.unet.module(params["unet"]).context(
        jnp.concatenate([text] + [negative] * len(guidance)),
        jnp.concatenate([tokens] * len(guidance) + [jnp.zeros_like(tokens)]),
    )
    if preserve is None:
        return Conditions(context, None, None)
    # Under the feather's slope the latent is the input's: what fades into the input is like it already.
    clean = networks.vae.module(params["vae"]).encode(_original(preserve))[0] * config.vae.scaling_factor
    cell = config.elements.image_size // config.latent_size
    return Conditions(context, clean, latent_cells(_weight(networks, preserve) == 1, cell))


def predictor(networks: Networks, params: Params, conditions: Conditions, guidance: Float[Array, " G"]) -> PredictNoise:
    """The guided prediction of the noise in a latent; `params` are the UNet's."""
    config, unet = networks.config, networks.unet.module(params)
    schedule = make_schedule(config.diffusion)

    def predict_noise(latent: Float[Array, "B h w Z"], timestep: Int[Array, " B"]) -> Float[Array, "B h w Z"]:
        predicted = unet(latent, timestep, conditions.context)
        if config.diffusion.prediction == "v":
            return noise_from_velocity(schedule, predicted, latent, timestep)
        return predicted

    predict = with_guidance(predict_noise, guidance)
    if conditions.clean is None or conditions.inside is None:
        return predict
    return with_preserved_region(predict, schedule, conditions.clean, conditions.inside)


def decode_latent(
    networks: Networks, params: Params, latent: Float[Array, "B h w Z"], preserve: Preserve | None = None
) -> Float[Array, "B H W 3"]:
    """Images of sampled latents, with the pixels that are preserved; `params` are the VAE's."""
    image = networks.vae.module(params).decode(latent / networks.config.vae.scaling_factor)
    return image if preserve is None else blend(_original(preserve), image, _weight(networks, preserve))


def _original(preserve: Preserve) -> Float[Array, "B H W 3"]:
    return jnp.asarray(preserve.image) / 127.5 - 1


def _weight(networks: Networks, preserve: Preserve) -> Float[Array, "B H W"]:
    return feather(jnp.asarray(preserve.region), max(1, networks.config.elements.image_size // 128))


def jit_decode(networks: Networks, mesh: Mesh) -> Any:
    """`decode_elements` for a mesh, of its arguments by name: (those shared by all images, those of a batch)."""

    def decode(shared, batch, **static):
        return decode_elements(networks, **shared, **batch, **static)

    return jax.jit(shard_over_batch(decode, mesh), static_argnames=("steps", "sampler"))


class Cancelled(Exception):
    """Decoding was asked to end before it was done."""


class StepByStep:
    """`decode_elements` for a mesh, as a program for each of its parts. The host can watch and end the sampling.

    A program that calls the host back could do so too, but JAX does not keep such a program on disk.
    """

    def __init__(self, networks: Networks, mesh: Mesh):
        def start(noise, steps, sampler, renewal):
            return sampler.start(make_schedule(networks.config.diffusion), noise, steps, **renewal)

        def conditions(shared, batch):
            return condition(networks, **shared, **batch)

        def step(shared, batch, sampler):
            predict = predictor(networks, shared["params"], batch["conditions"], shared["guidance"])
            return sampler.step(predict, batch["state"], shared["point"])

        def finish(shared, batch):
            return decode_latent(networks, shared, **batch)

        split = batch_sharding(mesh)
        self._start = jax.jit(start, static_argnames=("steps", "sampler"), out_shardings=(split, None))
        self._condition = jax.jit(shard_over_batch(conditions, mesh), out_shardings=split)
        self._step = jax.jit(shard_over_batch(step, mesh), static_argnames="sampler", out_shardings=split)
        self._finish = jax.jit(shard_over_batch(finish, mesh), out_shardings=split)

    def __call__(
        self, shared: Mapping[str, Any], batch: Mapping[str, Any], steps: int, sampler: Sampler, report: Callable
    ) -> Float[Array, "B H W 3"]:
        """`report` is called before each step with its timestep, once all is compiled. Raises Cancelled for False."""
        params, guidance = shared["params"], shared["guidance"]
        renewal = {name: {**shared, **batch}[name] for name in ("eta", "keys") if name in batch or name in shared}
        given = {name: value for name, value in batch.items() if name not in ("noise", "keys")}
        preserve = {"preserve": batch["preserve"]}

        def shared_by_steps(point: Point) -> dict[str, Any]:
            return {"params": params["unet"], "guidance": guidance, "point": point}

        state, points = self._start(batch["noise"], steps, sampler, renewal)
        points = jax.device_get(points)
        each = [jax.tree.map(lambda array, i=i: array[i], points) for i in range(steps)]
        # The last program is compiled while the others are.
        with ThreadPoolExecutor(1) as thread:
            finish = thread.submit(
                lambda: self._finish.lower(params["vae"], {"latent": state[0], **preserve}).compile()
            )
            of_images = {"params": dict(params), "guidance": guidance}
            conditions = self._condition(of_images, given)
            self._step.lower(
                shared_by_steps(each[0]), {"conditions": conditions, "state": state}, sampler=sampler
            ).compile()
            finish.result()

        for point in each:
            if not report(int(point[0])):
                raise Cancelled
            after = self._step(shared_by_steps(point), {"conditions": conditions, "state": state}, sampler=sampler)
            jax.block_until_ready(state)  # one step ahead of the devices: they never wait, and reports are of now
            state = after
        return self._finish(params["vae"], {"latent": state[0], **preserve})
