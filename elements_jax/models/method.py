"""The paper's method as pure functions: `encode_image` maps an image to its elements, `decode_elements` maps back.

`decode_elements` is one program, for training and for batches. `StepByStep` computes the same, but returns to the
host between sampling steps.
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
    """Inputs of every sampling step; every array has a leading axis of examples."""

    context: Context
    """Context of the conditioned and unconditioned predictions, which form one batch."""
    draft: Float[Array, "B h w Z"] | None
    """Latents of the light decoder's images, for a model that diffuses what they lack."""
    clean: Float[Array, "B h w Z"] | None
    """Latents of the images to preserve."""
    inside: Bool[Array, "B h w"] | None
    """Where they may change."""


def encode_image(
    networks: Networks, params: Mapping[str, Params], image: Float[Array, "B H W 3"], label_map: Int[Array, "B H W"]
) -> ImageElements:
    """Encode images in [-1, 1] under a label map to elements S = {(E(a_n), p_n)} (Section 3.2).

    `params` contains the "encoder". Labels outside [0, N) belong to no element.
    """
    config = networks.config.elements
    # In bfloat16, the encoder rounds the patches anyway.
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
    """Decode elements and prompt tokens to images in [-1, 1], D(z_T, C, S), by guided sampling (Section 3.3 and 4.1).

    `params` contains "text_encoder", "unet" and "vae", and "decoder" for a model with drafts. Guidance steers away from
    `negative_prompt`, the tokens of "" in the paper. `guidance` has one weight for text and elements together, one for
    each, or none for the conditioned prediction alone. `preserve` keeps its images outside its regions, except for a
    feather. `renewal` is passed to the sampler.
    """
    conditions = condition(networks, params, elements, prompt, negative_prompt, guidance, preserve)
    predict = predictor(networks, params["unet"], conditions, guidance)
    latent = sampler(predict, make_schedule(networks.config.diffusion), noise, steps, **renewal)
    return decode_latent(networks, params["vae"], latent, conditions.draft, preserve)


def condition(
    networks: Networks,
    params: Mapping[str, Params],
    elements: ImageElements,
    prompt: Int[Array, "B L"],
    negative_prompt: Int[Array, "B L"],
    guidance: Float[Array, " G"],
    preserve: Preserve | None = None,
) -> Conditions:
    """Project text and elements to keys and values once, not once per step, and encode the images to preserve."""
    config = networks.config
    tokens = element_tokens(elements, config.elements.frequencies)
    texts = networks.text_encoder(params["text_encoder"], jnp.concatenate([prompt, negative_prompt]))
    text, negative = jnp.split(texts, 2)
    context = networks.unet.module(params["unet"]).context(
        jnp.concatenate([text] + [negative] * len(guidance)),
        _with_nothing(tokens, guidance),
    )
    draft = draft_latent(networks, params, elements) if config.diffusion.has_draft else None
    if preserve is None:
        return Conditions(context, draft, None, None)
    # Under the feather the latent is the input's, so that what fades into the input already resembles it.
    clean = networks.vae.module(params["vae"]).encode(_original(preserve))[0] * config.vae.scaling_factor
    if draft is not None:
        clean = (clean - draft) / config.diffusion.draft_error
    cell = config.elements.image_size // config.latent_size
    return Conditions(context, draft, clean, latent_cells(_weight(networks, preserve) == 1, cell))


def _with_nothing(given: Float[Array, "B ..."], guidance: Float[Array, " G"]) -> Float[Array, "GB ..."]:
    """Return what the predictions of `with_guidance` read: zeros in the unconditioned one, if there is one."""
    return jnp.concatenate([given] * len(guidance) + [jnp.zeros_like(given)]) if len(guidance) else given


def draft_latent(networks: Networks, params: Mapping[str, Params], elements: ImageElements) -> Float[Array, "B h w Z"]:
    """Return the latents of the light decoder's images, from which a small diffusion decoder starts.

    The paper has nothing of the kind. The UNet reads the draft, and what is diffused is the latent's difference from
    it (Whang et al. 2022), so that it need not learn again what stage 1 has learned.
    """
    drawn = networks.decoder(params["decoder"], elements)
    mean, _ = networks.vae.module(params["vae"]).encode(drawn)
    return mean * networks.config.vae.scaling_factor


def predictor(networks: Networks, params: Params, conditions: Conditions, guidance: Float[Array, " G"]) -> PredictNoise:
    """Return the guided noise predictor; `params` are the UNet's."""
    config = networks.config
    # Cast here, outside the loop over steps: XLA would cast the weights again in every step, half of its traffic.
    unet = networks.unet.module(networks.unet.cast(params))
    schedule = make_schedule(config.diffusion)

    def predict_noise(latent: Float[Array, "B h w Z"], timestep: Int[Array, " B"]) -> Float[Array, "B h w Z"]:
        read = latent
        if (draft := conditions.draft) is not None:  # hidden, like the elements, from the unconditioned prediction
            read = jnp.concatenate([latent, _with_nothing(draft, guidance)], axis=-1)
        predicted = unet(read, timestep, conditions.context)
        if config.diffusion.prediction == "v":
            return noise_from_velocity(schedule, predicted, latent, timestep)
        return predicted

    predict = with_guidance(predict_noise, guidance)
    if conditions.clean is None or conditions.inside is None:
        return predict
    return with_preserved_region(predict, schedule, conditions.clean, conditions.inside)


def decode_latent(
    networks: Networks,
    params: Params,
    latent: Float[Array, "B h w Z"],
    draft: Float[Array, "B h w Z"] | None,
    preserve: Preserve | None,
) -> Float[Array, "B H W 3"]:
    """Decode sampled latents to images, with preserved pixels blended in; `params` are the VAE's."""
    if draft is not None:
        latent = draft + networks.config.diffusion.draft_error * latent
    image = networks.vae.module(params).decode(latent / networks.config.vae.scaling_factor)
    return _preserving(networks, image, preserve)


def reconstruct_elements(
    networks: Networks, params: Params, elements: ImageElements, preserve: Preserve | None = None
) -> Float[Array, "B H W 3"]:
    """Decode elements to images in [-1, 1] with stage 1's light decoder, whose parameters `params` are (Section 3.2).

    `preserve` keeps its images as in `decode_elements`.
    """
    return _preserving(networks, networks.decoder(params, elements), preserve)


def _preserving(
    networks: Networks, image: Float[Array, "B H W 3"], preserve: Preserve | None
) -> Float[Array, "B H W 3"]:
    return image if preserve is None else blend(_original(preserve), image, _weight(networks, preserve))


def _original(preserve: Preserve) -> Float[Array, "B H W 3"]:
    return jnp.asarray(preserve.image) / 127.5 - 1


def _weight(networks: Networks, preserve: Preserve) -> Float[Array, "B H W"]:
    return feather(jnp.asarray(preserve.region), max(1, networks.config.elements.image_size // 128))


def jit_decode(networks: Networks, mesh: Mesh) -> Any:
    """Compile `decode_elements` for a mesh. It takes two dicts of arguments: shared by all images, and batched."""

    def decode(shared, batch, **static):
        return decode_elements(networks, **shared, **batch, **static)

    return jax.jit(shard_over_batch(decode, mesh), static_argnames=("steps", "sampler"))


class Cancelled(Exception):
    """Decoding was cancelled."""


class StepByStep:
    """`decode_elements` for a mesh, as one program per part, so that the host can watch and cancel the sampling.

    A program with host callbacks could do so, too, but JAX does not cache such programs on disk.
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

        self._has_draft = networks.config.diffusion.has_draft
        split = batch_sharding(mesh)
        cast = networks.unet.cast  # does nothing in float32, where a program would copy the weights
        self._cast = cast if networks.config.dtype == "float32" else jax.jit(cast)
        self._start = jax.jit(start, static_argnames=("steps", "sampler"), out_shardings=(split, None))
        self._condition = jax.jit(shard_over_batch(conditions, mesh), out_shardings=split)
        self._step = jax.jit(shard_over_batch(step, mesh), static_argnames="sampler", out_shardings=split)
        self._finish = jax.jit(shard_over_batch(finish, mesh), out_shardings=split)

    def __call__(
        self, shared: Mapping[str, Any], batch: Mapping[str, Any], steps: int, sampler: Sampler, report: Callable
    ) -> Float[Array, "B H W 3"]:
        """Decode. After compiling, call `report` with the timestep before each step. Raises Cancelled for False."""
        params, guidance = shared["params"], shared["guidance"]
        unet = self._cast(params["unet"])  # once, not in every step
        renewal = {name: {**shared, **batch}[name] for name in ("eta", "keys") if name in batch or name in shared}
        given = {name: value for name, value in batch.items() if name not in ("noise", "keys")}
        preserve = {"preserve": batch["preserve"]}

        def shared_by_steps(point: Point) -> dict[str, Any]:
            return {"params": unet, "guidance": guidance, "point": point}

        state, points = self._start(batch["noise"], steps, sampler, renewal)
        points = jax.device_get(points)
        each = [jax.tree.map(lambda array, i=i: array[i], points) for i in range(steps)]
        # The last program is compiled in parallel with the others.
        with ThreadPoolExecutor(1) as thread:
            shaped = {"latent": state[0], "draft": state[0] if self._has_draft else None, **preserve}
            finish = thread.submit(lambda: self._finish.lower(params["vae"], shaped).compile())
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
            jax.block_until_ready(state)  # stay one step ahead: devices never wait, and reports are current
            state = after
        return self._finish(params["vae"], {"latent": state[0], "draft": conditions.draft, **preserve})
