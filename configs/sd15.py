"""The paper's model: Stable Diffusion 1.5 at 512 px with 256 elements.

    elements train autoencoder sd15 --data records --model mine
    elements train diffusion sd15 --data records --model mine --init stable-diffusion-v1-5/stable-diffusion-v1-5

It has not been trained here. The paper reports 23.0 dB PSNR and 0.338 LPIPS for reconstruction (Table 1).
"""

from elements_jax.config import ModelConfig
from train.config import AutoencoderTrainConfig, DiffusionTrainConfig, Preset, VAETrainConfig

MODEL = ModelConfig()

VAE = VAETrainConfig(  # only for a new VAE: stage 2 uses Stable Diffusion's unchanged
    steps=246_803,  # the original kl-f8's, in its authors' table
    batch_size=96,  # 12 on each of 8 devices
    learning_rate=4.5e-6 * 96,  # LDM: base rate 4.5e-6 for each image of the batch
    betas=(0.5, 0.9),  # LDM
    weight_decay=0.0,  # LDM trains with Adam
)

AUTOENCODER = AutoencoderTrainConfig(
    steps=680_000,  # 30 epochs of 2.9 M images at batch 128 (Appendix C.2)
    batch_size=128,  # over 8 GPUs (Appendix C.2)
    learning_rate=1e-4,  # Appendix C.2
    betas=(0.9, 0.95),  # Appendix C.2
    weight_decay=0.01,  # Appendix C.2
    sample_every=5000,
    checkpoint_every=5000,
)

DIFFUSION = DiffusionTrainConfig(
    steps=180_000,  # Appendix C.2
    batch_size=64,  # over 8 GPUs (Appendix C.2)
    learning_rate=6.4e-5,  # Appendix C.2
    betas=(0.9, 0.999),  # Appendix C.2
    weight_decay=0.01,  # Appendix C.2
    sample_every=5000,
    checkpoint_every=5000,
)

PRESET = Preset(model=MODEL, vae=VAE, autoencoder=AUTOENCODER, diffusion=DIFFUSION)
