"""Table 2: convolutional autoencoders with as many latent numbers as the elements' codes (Appendix B).

A baseline is a model folder with only a VAE. The paper gives the losses, 32-fold downsampling and 32 channels. The rest
follows kl-f32, the autoencoder of Latent Diffusion Models with that downsampling (`autoencoder_kl_8x8x64.yaml`). As in
Stable Diffusion, and unlike in kl-f32, only the middle block has attention.
"""

from dataclasses import replace

from configs import sd15, tiny
from elements_jax.config import VAEConfig
from train.config import Preset

SD15 = replace(
    sd15.MODEL,
    vae=VAEConfig(
        block_out_channels=(128, 128, 256, 256, 512, 512),  # kl-f32's; 512 px -> 16 x 16 (Appendix B)
        latent_channels=32,  # 16 x 16 x 32 (Appendix B)
        scaling_factor=1.0,  # measured and replaced when it is trained
    ),
)
SD15_VAE = replace(
    sd15.VAE,
    steps=406_763,  # the original kl-f32's, in its authors' table
    kl_weight=1e-6,  # kl-f32
    adversarial_start=50_001,  # kl-f32
)

TINY = replace(
    tiny.MODEL,
    vae=replace(
        tiny.MODEL.vae,
        block_out_channels=(32, 32, 64, 64),  # 64 px -> 8 x 8
        latent_channels=32,  # 8 x 8 x 32, the same count as 64 elements of 32 numbers
    ),
)
TINY_VAE = replace(
    tiny.VAE,
    adversarial_start=1000,  # images have colours and rough shapes by then
    discriminator_channels=32,  # as the VAE's own
    discriminator_levels=2,  # patches of 34 x 34 px
)

PRESETS = {
    "sd15_ae": Preset(model=SD15, vae=replace(SD15_VAE, reconstruction="l2", kl_weight=0.0)),
    "sd15_vae_kl": Preset(model=SD15, vae=replace(SD15_VAE, reconstruction="l2")),
    "sd15_vae_kl_adv": Preset(
        model=SD15, vae=replace(SD15_VAE, perceptual_weight=1.0, adversarial_weight=0.5)
    ),  # LDM's
    "tiny_ae": Preset(model=TINY, vae=replace(TINY_VAE, reconstruction="l2", kl_weight=0.0)),
    "tiny_vae_kl": Preset(model=TINY, vae=replace(TINY_VAE, reconstruction="l2")),
    "tiny_vae_kl_adv": Preset(model=TINY, vae=replace(TINY_VAE, perceptual_weight=1.0, adversarial_weight=0.5)),
}
