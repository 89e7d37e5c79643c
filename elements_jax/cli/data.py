"""Commands that write pictures and records: `elements scenes`, `photo-scenes` and `cache`."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from elements_jax.arguments import PathOrURL
from elements_jax.bounds import COUNT, SEED, require_within
from elements_jax.cli.arguments import Out, Records


@dataclass(frozen=True)
class Scenes:
    """Write synthetic scenes as a folder of pictures, captions and object masks, for `elements partition`."""

    out: Out
    """Folder to write; the object masks go to its subfolder `masks`."""
    count: int = 10_000
    """Pictures."""
    first: int = 0
    """Seed of the first picture; the others follow."""
    size: int = 64
    """Side of a picture in pixels."""

    def __post_init__(self) -> None:
        require_within(self, count=(1, SEED[1]), size=(8, 8192), first=(0, SEED[1] - self.count))

    def run(self) -> None:
        """Render and write."""
        from elements_jax.scenes.drawn import write_folder

        write_folder(self.out, range(self.first, self.first + self.count), self.size)


@dataclass(frozen=True)
class PhotoScenes:
    """Cut objects out of photographs, put them on other photographs, and write the pictures as a folder, for
    `elements partition`: edits of them have a true result (`elements scenes-benchmark --photographs`)."""

    records: Records
    """Folder of records with object masks (`elements partition --masks auto`), of the size of the pictures."""
    out: Out
    """Folder to write; the object masks go to its subfolder `masks`."""
    count: int = 128
    """Pictures."""
    first: int = 0
    """Seed of the first picture; the others follow."""
    split: str = "val"
    """Of the records."""

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
    """Compute once what stage 2 takes of the VAE's encoder and the text encoder, and write records that hold it.

    Training reads them with `--train.cached`, and spends nothing on these networks. The same command again does the
    shards that are not there yet.
    """

    records: Records
    """Folder of records, as `elements partition` writes it."""
    out: Out
    """Folder for the records with their features."""
    model: Annotated[PathOrURL, tyro.conf.arg(metavar="FOLDER")]
    """Model folder, or a Stable Diffusion in diffusers' layout, of the same VAE and text encoder as is trained with."""
    batch_size: int = 4
    """Images that each device takes at once."""

    def __post_init__(self) -> None:
        require_within(self, batch_size=COUNT)

    def run(self) -> None:
        """Compute and write."""
        from train.input.cache import cache

        cache(self.records, self.out, self.model, self.batch_size)
