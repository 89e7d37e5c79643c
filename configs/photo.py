"""A model of photographs that two CPU cores can train from scratch: 256 px, 256 elements.

At 128 px (`photo_128`) and 256 px the networks differ only in the pixels that a query paints, so a model of 128 px
starts one of 256 px (`--init`), and stage 1 costs the same. The numbers are this project's own.

The budget at 128 px. An image costs three times the arithmetic of the trained networks
(`train.cost.flops.training_cost`), and once that of the others. The hours are at 100 GFLOP/s, about what two busy CPU
cores do:

    stage         GFLOP an image                                    images     PFLOP    hours
    vae           27: encoder 1.7, decoder 4.9, VGG-16 on 64 px      9,000       0.2        1
    autoencoder   17: encoder 0.8, light decoder 2.4, VGG-16        16,000       0.3        1
    diffusion     15: UNet 2.8, light decoder 2.4, encoders 4.2    300,000       4.5       13
"""

from dataclasses import replace

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
        image_size=256,
        grid=16,
        patch_size=8,  # a cell's own size at 128 px: 16 px would cost half of stage 1, and 64 numbers hold 8 x 8 px
        content_channels=64,  # twice the paper's: a small decoder cannot guess what 32 leave out
        frequencies=8,  # the finest has a period of 2 px at 256 px
    ),
    encoder=EncoderConfig(
        base_channels=16,
        multipliers=(1, 4),  # 8 -> 4 -> 2, then the 2 x 2 convolution
        norm_groups=8,
    ),
    decoder=DecoderConfig(
        blocks=1,  # half the time of two; `nearest` does what the other would have to learn
        channels=128,
        self_heads=4,
        cross_heads=4,  # not the paper's 1: in different directions, they tell where in its element a query is
        query_grid=32,  # a query paints a quarter of a grid cell, mostly of one element; larger squares show several
        nearest=4,
    ),
    vae=VAEConfig(
        block_out_channels=(32, 64, 64),  # 256 px -> a latent of 64 x 64: reconstruction costs little there
        layers_per_block=1,
        latent_channels=8,
        norm_groups=8,
        scaling_factor=1.0,  # measured and replaced when the VAE is trained
        middle_attention=False,  # over 4096 pixels it would cost as much as all convolutions
    ),
    text=TextConfig(vocab_size=1024, max_length=24, hidden_size=64, intermediate_size=256, layers=2, heads=4),
    diffusion=DiffusionConfig(
        prediction="v",
        guidance=1.0,
        sample_steps=8,
        draft_error=0.4,  # the light decoder's is 0.25 at 128 px, 0.31 at 256 px, and larger in holes
    ),
    unet=UNetConfig(
        block_out_channels=(64, 96, 160),
        attention_levels=(False, True, True),
        layers_per_block=1,
        heads=4,
        norm_groups=16,
        position_frequencies=3,
        beside_latent=8,  # the draft
    ),
)
MODEL_128 = replace(MODEL, elements=replace(MODEL.elements, image_size=128))

VAE = VAETrainConfig(
    steps=20_000,
    batch_size=2,
    optimizer="muon",  # after 500 photographs, two of them had 22.5 dB, with AdamW 18.0
    learning_rate=1e-3,
    schedule="wsd",
    decay_fraction=0.6,
    warmup=50,
    ema_decay=0.998,
    perceptual_weight=0.2,
    perceptual_crop=64,  # VGG-16 on complete images would take three quarters of the time
    sample_every=1000,
    checkpoint_every=1000,
)

AUTOENCODER = AutoencoderTrainConfig(
    steps=20_000,
    batch_size=2,  # more steps of fewer images learn faster here
    optimizer="muon",  # after 800 photographs 22.1 dB, AdamW 20.9
    learning_rate=1e-3,
    betas=(0.9, 0.95),  # Appendix C.2
    schedule="wsd",
    decay_fraction=0.5,
    final_fraction=0.03,
    warmup=50,
    ema_decay=0.998,
    perceptual_weight=0.1,
    perceptual_crop=64,
    element_dropout=0.5,  # the editor shows what the light decoder fills in while a person drags
    sample_every=1000,
    checkpoint_every=1000,
)

DIFFUSION = DiffusionTrainConfig(
    steps=50_000,
    batch_size=8,
    optimizer="muon",
    learning_rate=1e-3,
    schedule="wsd",
    decay_fraction=0.4,
    final_fraction=0.03,
    warmup=50,
    ema_decay=0.998,
    sample_every=1000,
    checkpoint_every=1000,
    element_dropout=0.5,  # half of the batches learn to fill holes of the size of objects, half to be faithful
    drop_text=0.1,
    drop_elements=0.05,
    drop_both=0.05,
    text_from_scratch=True,
)

PRESET = Preset(model=MODEL, vae=VAE, autoencoder=AUTOENCODER, diffusion=DIFFUSION)
PRESET_128 = replace(PRESET, model=MODEL_128)
