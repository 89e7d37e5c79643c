"""PyTorch's side: diffusers and transformers, bfloat16, channels last, fused attention, fused AdamW; and the partition.

Training has float32 weights under autocast, clipping, and an average of the parameters, like ours.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tests.benchmarks.gpu.turns import Measure, run, size_of, timed

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
torch.backends.cudnn.benchmark = True
torch.set_float32_matmul_precision("high")
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
ALPHA_BAR = torch.cumprod(1 - BETAS, 0)


def prepare(section: str, side: str, rehearse: bool) -> Measure:
    if not rehearse and DEVICE == "cpu":
        raise ImportError("PyTorch sees no GPU")
    compiled = side == "compiled"
    if section.startswith("train"):
        return training(size_of(section), compiled, rehearse)
    if section.startswith("sample"):
        return sampling(size_of(section), compiled, rehearse)
    if section.startswith("vae-decode"):
        return decoding(size_of(section), rehearse)
    return partition(section.removeprefix("partition-"), rehearse)


def unet(rehearse: bool) -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    widths = (32, 64, 64, 64) if rehearse else (320, 640, 1280, 1280)
    with torch.device(DEVICE):
        module = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, block_out_channels=widths)
    return module.to(memory_format=torch.channels_last)


def latents(size: int, rehearse: bool, **like: Any) -> torch.Tensor:
    side = 8 if rehearse else 64
    return torch.randn(size, 4, side, side, device=DEVICE, **like).to(memory_format=torch.channels_last)


def training(size: int, compiled: bool, rehearse: bool) -> Measure:
    size = min(size, 2) if rehearse else size
    module = unet(rehearse).train()
    parameters = list(module.parameters())
    average = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=6.4e-5, weight_decay=0.01, fused=DEVICE == "cuda")
    called: Callable = torch.compile(module) if compiled else module
    latent, text = latents(size, rehearse), torch.randn(size, 77, 768, device=DEVICE)
    alpha_bar = ALPHA_BAR.to(DEVICE)

    def step() -> torch.Tensor:
        noise, timestep = torch.randn_like(latent), torch.randint(0, 1000, (size,), device=DEVICE)
        kept = alpha_bar[timestep][:, None, None, None]
        noisy = kept.sqrt() * latent + (1 - kept).sqrt() * noise
        with torch.autocast(DEVICE, torch.bfloat16):
            predicted = called(noisy, timestep, encoder_hidden_states=text).sample
        loss = torch.nn.functional.mse_loss(predicted.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(average, parameters, 1e-4)
        return loss

    if compiled:
        ready(step)
    return lambda: timed(step, wait, size, runs=10) | about()


def sampling(size: int, compiled: bool, rehearse: bool) -> Measure:
    from transformers import CLIPTextConfig, CLIPTextModel

    steps = 2 if rehearse else 50
    module = unet(rehearse).eval().to(torch.bfloat16)
    layers = {"num_hidden_layers": 1 if rehearse else 12, "num_attention_heads": 12}
    with torch.device(DEVICE):
        text_encoder = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, **layers))
    text_encoder = text_encoder.eval().to(torch.bfloat16)
    decode = vae(rehearse)
    called: Callable = torch.compile(module) if compiled else module
    noise, tokens = latents(size, rehearse, dtype=torch.bfloat16), torch.randint(49000, (2 * size, 77), device=DEVICE)
    timesteps = [n * (1000 // steps) + 1 for n in range(steps)][::-1]
    on_device = [torch.full((), timestep, device=DEVICE) for timestep in timesteps]
    alpha_bar = ALPHA_BAR.tolist()

    @torch.inference_mode()
    def sample() -> torch.Tensor:
        text, latent = text_encoder(tokens).last_hidden_state, noise
        for n, timestep in enumerate(on_device):
            now, after = alpha_bar[timesteps[n]], alpha_bar[timesteps[n + 1] if n + 1 < steps else 0]
            with_text, without = called(torch.cat([latent] * 2), timestep, encoder_hidden_states=text).sample.chunk(2)
            eps = without + 3 * (with_text - without)
            clean = (latent - (1 - now) ** 0.5 * eps) / now**0.5
            latent = after**0.5 * clean + (1 - after) ** 0.5 * eps
        return decode(latent)

    if compiled:
        ready(sample)
    return lambda: timed(sample, wait, size, runs=4) | about()


def vae(rehearse: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    from diffusers import AutoencoderKL

    with torch.device(DEVICE):
        module = AutoencoderKL(
            block_out_channels=(32,) * 4 if rehearse else (128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
    module = module.eval().to(torch.bfloat16).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def decode(latent: torch.Tensor) -> torch.Tensor:
        return module.decode(latent / 0.18215).sample

    return decode


def decoding(size: int, rehearse: bool) -> Measure:
    decode, latent = vae(rehearse), latents(size, rehearse, dtype=torch.bfloat16)
    return lambda: timed(lambda: decode(latent), wait, size, runs=8) | about()


def partition(kind: str, rehearse: bool) -> Measure:
    """Run SAM's image encoder and 256 points for each of four images; the weights are random, the work is the same."""
    from segment_anything import sam_model_registry

    from partition.config import PartitionConfig
    from partition.segmenters.sam import SamSegmenter, build_mobile_sam

    with torch.device(DEVICE):
        model = build_mobile_sam() if kind == "mobile-sam" else sam_model_registry["vit_b" if rehearse else kind]()
    segmenter = SamSegmenter(model.to(DEVICE).eval(), PartitionConfig(grid=2) if rehearse else PartitionConfig())
    count = 1 if rehearse else 4
    images = np.random.default_rng(0).integers(0, 255, (count, 512, 512, 3), np.uint8)
    return lambda: timed(lambda: list(segmenter.segment(images)), wait, count, runs=1 if rehearse else 3) | about()


def ready(step: Callable[[], object]) -> None:
    """Compile by running once, then free the GPU's memory for others."""
    wait(step())
    if DEVICE == "cuda":
        torch.cuda.empty_cache()


def wait(_: object) -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def about() -> dict[str, Any]:
    if DEVICE == "cpu":
        return {"torch": torch.__version__}
    name, peak = torch.cuda.get_device_name(), torch.cuda.max_memory_allocated() / 1e9
    return {"torch": torch.__version__, "device": name, "memory_gb": peak}


if __name__ == "__main__":
    run(prepare)
