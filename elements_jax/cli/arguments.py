"""Arguments that several commands share."""

from typing import Annotated

import tyro

from elements_jax.arguments import PathOrURL

Photograph = Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO")]
Records = Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="RECORDS")]
Scripts = Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="SCRIPTS")]
Out = Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
Model = Annotated[str, tyro.conf.arg(metavar="MODEL")]
ModelOrPhoto = Annotated[str | None, tyro.conf.arg(metavar="MODEL")]
File = Annotated[PathOrURL | None, tyro.conf.arg(metavar="FILE")]
