"""Presets by name: a model, and how its stages are trained. Each module gives the source of its numbers."""

from configs import ablations, photo, sd15, tiny, vae_baselines
from train.config import Preset

PRESETS: dict[str, Preset] = {
    "tiny": tiny.PRESET,
    "photo": photo.PRESET,
    "photo_128": photo.PRESET_128,
    "sd15": sd15.PRESET,
    **ablations.PRESETS,
    **vae_baselines.PRESETS,
}
