"""A model small enough to train on two CPU cores: 64 px, 64 elements, from scratch.

    elements train vae tiny --data records --model tiny
    elements train autoencoder tiny --data records --model tiny
    elements train diffusion tiny --data records --model tiny

The card of the included model (the README in its folder) has the records, the hours and the scores. The numbers are
this project's own, chosen by trial on the `scenes` set; comments say where the paper uses another one.
"""

from elements_jax.config import (
    DecoderConfig,
    DiffusionConfig,
    ElementsConfig,
    EncoderConfig,
    ModelConfig,
    TextConfig,
    UNetConfig,
    VAEConfig,
)
from train.config import AutoencoderTrainConfig, DiffusionTrainConfig, Preset, VAETrainConfig

MODEL = ModelConfig(
    elements=ElementsConfig(
        image_size=64,
        grid=8,  # cells of 8 px
        patch_size=8,  # a cell's own size
        frequencies=6,  # the finest has a period of 4 px; more would be noise at 64 px
    ),
    encoder=EncoderConfig(
        base_channels=16,
        multipliers=(1, 4),  # 8 -> 4 -> 2, then the 2 x 2 convolution
        norm_groups=8,
    ),
    decoder=DecoderConfig(
        blocks=2,
        channels=128,
        self_heads=4,
        cross_heads=1,  # as the paper's
        query_grid=16,  # a query paints 4 x 4 px; four queries an element, as in the paper
    ),
    vae=VAEConfig(
        block_out_channels=(32, 32, 64),  # 64 px -> a latent of 16 x 16
        layers_per_block=1,
        latent_channels=4,
        norm_groups=8,
        scaling_factor=1.0,  # measured and replaced when the VAE is trained
    ),
    text=TextConfig(
        vocab_size=256,  # words of the captions
        max_length=32,  # the longest caption has 25 words and commas, and needs a start and an end
        hidden_size=64,
        intermediate_size=256,
        layers=2,
        heads=4,
    ),
    diffusion=DiffusionConfig(
        prediction="v",  # from random weights the noise prediction of SD takes far longer to get colours right
        guidance=1.5,  # nearest to the truth of 1, 1.25, 1.5, 2 and the paper's 3, which exaggerates contrast here
    ),
    unet=UNetConfig(
        block_out_channels=(64, 128),
        attention_levels=(True, True),
        layers_per_block=1,
        heads=2,
        norm_groups=16,
        position_frequencies=4,  # the finest has a period of 4 px of the latent
    ),
)

VAE = VAETrainConfig(
    steps=3600,
    batch_size=8,  # more steps of fewer images learn faster here
    learning_rate=1.5e-3,
    schedule="cosine",
    warmup=100,
    ema_decay=0.99,
    sample_every=600,
    checkpoint_every=300,
)

AUTOENCODER = AutoencoderTrainConfig(
    steps=2200,
    batch_size=8,
    learning_rate=1e-3,
    betas=(0.9, 0.95),  # Appendix C.2
    schedule="cosine",
    final_fraction=0.02,
    warmup=100,
    ema_decay=0.99,
    sample_every=500,
    checkpoint_every=300,
)

DIFFUSION = DiffusionTrainConfig(
    steps=6000,
    batch_size=16,
    learning_rate=1e-3,
    schedule="cosine",
    warmup=100,
    ema_decay=0.995,
    sample_every=600,
    checkpoint_every=300,
    drop_text=0.1,  # not the paper's 0.3 and 0.1: Stable Diffusion knows what words look like, this learns it here,
    drop_elements=0.3,  # and while it has all elements, it can do without words
    own_mask_probability=0.5,  # otherwise variation is not learnt: few masks of other images cover an object
    text_from_scratch=True,
)

PRESET = Preset(model=MODEL, vae=VAE, autoencoder=AUTOENCODER, diffusion=DIFFUSION)
