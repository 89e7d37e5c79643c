"""Our configuration <-> the JSON files that diffusers and transformers read, one per part of a model folder."""

from collections.abc import Mapping
from typing import Any

from elements_jax.config import DiffusionConfig, ModelConfig, TextConfig, UNetConfig, VAEConfig

Json = dict[str, Any]


def to_diffusers(config: ModelConfig) -> dict[str, Json]:
    """Return the JSON files of a folder by path, in the form that diffusers' and transformers' classes read.

    Every setting that affects the arithmetic is written, even defaults, so that reading can compare them.
    """
    unet, vae, text, diffusion = config.unet, config.vae, config.text, config.diffusion
    return {
        "unet/config.json": {
            "_class_name": "UNet2DConditionModel",
            "sample_size": config.latent_size,
            "in_channels": vae.latent_channels + unet.beside_latent + 2 * 2 * unet.position_frequencies,
            "out_channels": vae.latent_channels,
            "block_out_channels": list(unet.block_out_channels),
            "down_block_types": ["CrossAttnDownBlock2D" if yes else "DownBlock2D" for yes in unet.attention_levels],
            "mid_block_type": "UNetMidBlock2DCrossAttn",
            "up_block_types": ["CrossAttnUpBlock2D" if yes else "UpBlock2D" for yes in unet.attention_levels[::-1]],
            "layers_per_block": unet.layers_per_block,
            "attention_head_dim": unet.heads,
            "cross_attention_dim": text.hidden_size,
            "norm_num_groups": unet.norm_groups,
            "norm_eps": 1e-5,
            "act_fn": "silu",
            "center_input_sample": False,
            "class_embed_type": None,
            "addition_embed_type": None,
            "downsample_padding": 1,
            "dual_cross_attention": False,
            "encoder_hid_dim_type": None,
            "flip_sin_to_cos": True,
            "freq_shift": 0,
            "mid_block_scale_factor": 1,
            "num_attention_heads": None,
            "num_class_embeds": None,
            "only_cross_attention": False,
            "resnet_time_scale_shift": "default",
            "time_embedding_type": "positional",
            "transformer_layers_per_block": 1,
            "use_linear_projection": False,
        },
        "vae/config.json": {
            "_class_name": "AutoencoderKL",
            "sample_size": config.elements.image_size,
            "in_channels": 3,
            "out_channels": 3,
            "block_out_channels": list(vae.block_out_channels),
            "down_block_types": ["DownEncoderBlock2D"] * len(vae.block_out_channels),
            "up_block_types": ["UpDecoderBlock2D"] * len(vae.block_out_channels),
            "layers_per_block": vae.layers_per_block,
            "latent_channels": vae.latent_channels,
            "norm_num_groups": vae.norm_groups,
            "scaling_factor": vae.scaling_factor,
            "shift_factor": None,
            "act_fn": "silu",
            "mid_block_add_attention": vae.middle_attention,
            "use_quant_conv": True,
            "use_post_quant_conv": True,
        },
        "text_encoder/config.json": {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.max_length,
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
        },
        "scheduler/scheduler_config.json": {
            "_class_name": "DDIMScheduler",
            "num_train_timesteps": diffusion.train_timesteps,
            "beta_start": diffusion.beta_start,
            "beta_end": diffusion.beta_end,
            "beta_schedule": "scaled_linear",
            "trained_betas": None,
            "prediction_type": {"epsilon": "epsilon", "v": "v_prediction"}[diffusion.prediction],
            "timestep_spacing": "leading",
            "steps_offset": 1,
            "set_alpha_to_one": False,
            "clip_sample": False,
            "thresholding": False,
            "rescale_betas_zero_snr": False,
        },
    }


_IGNORED_KEYS = {"_class_name", "architectures", "model_type", "sample_size"} | {
    "timestep_spacing",
    "steps_offset",
    "set_alpha_to_one",
    "clip_sample",
    "thresholding",
}
"""Keys without effect here: labels, the training size, and the scheduler's stepping, which `samplers` replaces."""


def differing_parts(one: ModelConfig, other: ModelConfig) -> list[str]:
    """Return the folder parts (`unet`, `vae`, `text_encoder`, `scheduler`) that differ between two models."""
    theirs = to_diffusers(other)
    return [
        path.partition("/")[0]
        for path, settings in to_diffusers(one).items()
        if any(theirs[path][name] != wanted for name, wanted in settings.items() if name not in _IGNORED_KEYS)
    ]


def from_diffusers(files: Mapping[str, Json]) -> ModelConfig:
    """Read the configuration of a Stable Diffusion 1 from the JSON of its parts, with default element settings.

    Element attention starts at zero, so that the network still computes what Stable Diffusion computes. The only known
    variant is Stable Diffusion Inpainting.

    Raises one ValueError that lists every setting that is missing or unsupported.
    """
    problems: list[str] = []

    def read(path: str, name: str, kind: Any, default: Any = None) -> Any:
        value = files[path].get(name, default)
        if not isinstance(value, kind) or isinstance(value, bool):
            problems.append(f"expected {kind.__name__} as {name} of {path}, found {value!r}")
            value = kind()
        return tuple(value) if kind is list else value

    unet, vae, text, scheduler = to_diffusers(ModelConfig())
    latent_channels = read(vae, "latent_channels", int)
    inpainting = 1 + latent_channels  # a mask, and the latent of the masked image
    beside_latent = inpainting if files[unet].get("in_channels") == latent_channels + inpainting else 0
    try:
        config = ModelConfig(
            unet=UNetConfig(
                block_out_channels=read(unet, "block_out_channels", list),
                attention_levels=tuple(kind == "CrossAttnDownBlock2D" for kind in read(unet, "down_block_types", list)),
                layers_per_block=read(unet, "layers_per_block", int),
                heads=read(unet, "attention_head_dim", int),
                norm_groups=read(unet, "norm_num_groups", int, 32),
                zero_init_elements=True,
                beside_latent=beside_latent,
            ),
            vae=VAEConfig(
                block_out_channels=read(vae, "block_out_channels", list),
                layers_per_block=read(vae, "layers_per_block", int),
                latent_channels=latent_channels,
                norm_groups=read(vae, "norm_num_groups", int, 32),
                middle_attention=files[vae].get("mid_block_add_attention", True) is not False,
                scaling_factor=read(vae, "scaling_factor", float, 0.18215),  # SD 1.5's own file predates the field
            ),
            text=TextConfig(
                vocab_size=read(text, "vocab_size", int),
                max_length=read(text, "max_position_embeddings", int),
                hidden_size=read(text, "hidden_size", int),
                intermediate_size=read(text, "intermediate_size", int),
                layers=read(text, "num_hidden_layers", int),
                heads=read(text, "num_attention_heads", int),
            ),
            diffusion=DiffusionConfig(
                train_timesteps=read(scheduler, "num_train_timesteps", int),
                beta_start=read(scheduler, "beta_start", float),
                beta_end=read(scheduler, "beta_end", float),
                prediction="v" if files[scheduler].get("prediction_type") == "v_prediction" else "epsilon",
            ),
        )
    except ValueError as error:  # a field is out of bounds
        problems = problems or [str(error)]
        raise ValueError("this is not a Stable Diffusion 1:\n  " + "\n  ".join(problems)) from error
    problems = problems or [
        f"expected {wanted!r} as {name} of {path}, found {files[path][name]!r}"
        for path, ours in to_diffusers(config).items()
        for name, wanted in ours.items()
        if name not in _IGNORED_KEYS and name in files[path] and files[path][name] != wanted
    ]
    if problems:
        raise ValueError("this is not a Stable Diffusion 1:\n  " + "\n  ".join(problems))
    return config
