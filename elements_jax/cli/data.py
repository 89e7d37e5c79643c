"""Commands that write images and records: `elements scenes`, `photo-scenes` and `cache`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from elements_jax.arguments import PathOrURL
from elements_jax.bounds import COUNT, SEED, require_within
from elements_jax.cli.arguments import Out, Records


@dataclass(frozen=True)
class Scenes:
    """Write synthetic scenes as a folder of images, captions and object masks, for `elements partition`."""

    out: Out
    """Folder to write; the object masks go to its subfolder `masks`."""
    count: int = 10_000
    """Number of images."""
    first: int = 0
    """Seed of the first image; the others count up from it."""
    size: int = 64
    """Image size in pixels."""

    def __post_init__(self) -> None:
        require_within(self, count=(1, SEED[1]), size=(8, 8192), first=(0, SEED[1] - self.count))

    def run(self) -> None:
        """Render and write."""
        from elements_jax.scenes.drawn import write_folder

        write_folder(self.out, range(self.first, self.first + self.count), self.size)


@dataclass(frozen=True)
class PhotoScenes:
    """Cut objects out of photographs, paste them on other photographs, and write the images as a folder for
    `elements partition`. Their edits have a true result (`elements scenes-benchmark --photographs`)."""

    records: Records
    """Folder of records with object masks (`elements partition --masks auto`), as large as the images to write."""
    out: Out
    """Folder to write; the object masks go to its subfolder `masks`."""
    count: int = 128
    """Number of images."""
    first: int = 0
    """Seed of the first image; the others count up from it."""
    split: str = "val"
    """Split of the records."""

    def __post_init__(self) -> None:
        require_within(self, count=(1, SEED[1]), first=(0, SEED[1] - self.count))

    def run(self) -> None:
        """Render and write."""
        from elements_jax.data.index import read_split
        from elements_jax.scenes.photographic import write_folder

        records = list(read_split(self.records, self.split).values())
        write_folder(records, self.out, range(self.first, self.first + self.count))


@dataclass(frozen=True)
class Cache:
    """Write records with precomputed outputs of the VAE's encoder and the text encoder, for stage 2.

    Training reads them with `--train.cached` and does not run these networks. Run the same command again to resume.
    """

    records: Records
    """Folder of records written by `elements partition`."""
    out: Out
    """Folder for the records with features."""
    model: Annotated[PathOrURL, tyro.conf.arg(metavar="FOLDER")]
    """Model folder, or Stable Diffusion in diffusers' layout, with the VAE and text encoder used for training."""
    batch_size: int = 4
    """Images encoded at once per device."""

    def __post_init__(self) -> None:
        require_within(self, batch_size=COUNT)

    def run(self) -> None:
        """Compute and write."""
        from train.input.cache import cache

        cache(self.records, self.out, self.model, self.batch_size)
