"""Stable Diffusion 1.5 in current diffusers and transformers with PyTorch, for `stable_diffusion.py` to time.

Attention is PyTorch's fused `scaled_dot_product_attention`, diffusers' default. Images are channels last, which is the
fastest layout for its convolutions on a CPU. Nothing here knows of elements: those cases run without them.
"""

import os
from collections.abc import Callable

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

torch.set_num_threads(len(os.sched_getaffinity(0)))  # as many as XLA takes
STEPS = 10


def unet() -> Callable[[], object]:
    """Predict the noise in a batch of two."""
    module, latent, text = load_unet(), latents(2), torch.randn(2, 77, 768)
    return torch.inference_mode()(lambda: module(latent, 500, encoder_hidden_states=text).sample)


def train() -> Callable[[], object]:
    """Compute the loss of one example and its gradient by every parameter; no optimiser, no checkpointing."""
    module, latent, noise, text = load_unet(), latents(1), latents(1), torch.randn(1, 77, 768)

    def step() -> None:
        module.zero_grad()
        predicted = module(latent, 500, encoder_hidden_states=text).sample
        torch.nn.functional.mse_loss(predicted, noise).backward()

    return step


def sample() -> Callable[[], object]:
    """Sample a latent from noise under guidance, like the loop of diffusers' StableDiffusionPipeline."""
    module, noise, text = load_unet(), latents(1), torch.randn(2, 77, 768)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )

    @torch.inference_mode()
    def decode() -> torch.Tensor:
        scheduler.set_timesteps(STEPS)
        latent = noise
        for timestep in scheduler.timesteps:
            both = torch.cat([latent] * 2)
            without, with_text = module(both, timestep, encoder_hidden_states=text).sample.chunk(2)
            latent = scheduler.step(without + 3 * (with_text - without), timestep, latent).prev_sample
        return latent

    return decode


def vae() -> Callable[[], object]:
    """Decode a latent to an image."""
    module = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
    )
    module, latent = prepared(module), latents(1)
    return torch.inference_mode()(lambda: module.decode(latent).sample)


def text() -> Callable[[], object]:
    """Compute the features of two prompts."""
    config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    module, tokens = prepared(CLIPTextModel(config)), torch.randint(49408, (2, 77))
    return torch.inference_mode()(lambda: module(tokens).last_hidden_state)


CASES = {
    "unet": unet,
    "unet+elements": unet,
    "train": train,
    "train+elements": train,
    "sample": sample,
    "sample+elements": sample,
    "vae": vae,
    "text": text,
}


def load_unet() -> torch.nn.Module:
    """Load the UNet with random weights."""
    return prepared(UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8))


def prepared(module: torch.nn.Module) -> torch.nn.Module:
    """Disable dropout, and use channels last."""
    return module.eval().to(memory_format=torch.channels_last)


def latents(batch: int) -> torch.Tensor:
    """Return noise of a latent's size."""
    return torch.randn(batch, 4, 64, 64).to(memory_format=torch.channels_last)
