"""Presets by name: a model, and how its stages are trained. Every number stands in one module with its source."""

from configs import photo, sd15, table_1, table_2, tiny
from train.config import Preset

PRESETS: dict[str, Preset] = {
    "tiny": tiny.PRESET,
    "photo": photo.PRESET,
    "photo_128": photo.PRESET_128,
    "sd15": sd15.PRESET,
    **table_1.PRESETS,
    **table_2.PRESETS,
}
