"""`Scenes`: the synthetic set as a TensorFlow Datasets builder; each scene has three edits and their true results.

builder = Scenes(data_dir=folder, file_format="array_record")  # this format needs no TensorFlow
builder.download_and_prepare()
for example in builder.as_data_source("test"): ...
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from elements_jax.scenes.drawn import render, sample_edits, scene

SEEDS = {"train": range(20_000), "test": range(1_000_000, 1_001_000)}
"""The scenes of each split."""


@dataclasses.dataclass
class SceneConfig(tfds.core.BuilderConfig):
    """A variant of the dataset."""

    size: int = 64
    """Image size in pixels."""


class Scenes(tfds.core.GeneratorBasedBuilder):
    """Textured shapes on textured backgrounds. Everything follows from the seed, which is the example's key."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [SceneConfig(name=f"{size}px", size=size) for size in (64, 512)]  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        image = (self.builder_config.size, self.builder_config.size, 3)
        edit = {
            "kind": tfds.features.ClassLabel(names=["move", "resize", "delete"]),
            "k": tfds.features.Scalar(np.int32, doc="The shape that is edited: its number in the label map."),
            "dx": tfds.features.Scalar(np.float32, doc="Shift of a move to the right, in widths of the image."),
            "dy": tfds.features.Scalar(np.float32, doc="Downward shift of a move, in heights of the image."),
            "scale": tfds.features.Scalar(np.float32, doc="Factor of a resize about the shape's centre."),
            "x": tfds.features.Scalar(np.float32, doc="The shape's centre before the edit, in [0, 1]."),
            "y": tfds.features.Scalar(np.float32),
            "image": tfds.features.Image(shape=image, doc="The true image after the edit."),
        }
        features = {
            "seed": tfds.features.Scalar(np.int64),
            "image": tfds.features.Image(shape=image),
            "label_map": tfds.features.Image(shape=(*image[:2], 1), doc="k where the k-th shape shows, 0 elsewhere."),
            "caption": tfds.features.Text(),
            "edits": tfds.features.Sequence(edit),
        }
        return self.dataset_info_from_configs(
            description="Textured shapes on textured backgrounds: captions, object masks, and true results of edits.",
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        return {split: self._generate_examples(seeds) for split, seeds in SEEDS.items()}

    def _generate_examples(self, seeds: range) -> Iterator[tuple[int, dict[str, Any]]]:
        for seed in seeds:
            original = scene(seed, self.builder_config.size)
            # As Pillow images, since tfds would encode arrays with TensorFlow.
            image, label_map = map(Image.fromarray, render(original))
            edits = []
            for edit in sample_edits(original, seed):
                x, y = original.shapes[edit.k - 1].centre
                truth = Image.fromarray(render(original.edited(edit))[0])
                edits.append(dataclasses.asdict(edit) | {"x": x, "y": y, "image": truth})
            fields = {"image": image, "label_map": label_map, "caption": original.caption, "edits": edits}
            yield seed, {"seed": seed, **fields}
