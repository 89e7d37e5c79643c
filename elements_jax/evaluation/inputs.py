"""Images on disk to evaluate: two folders, or a results folder."""

import contextlib
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageOps

from elements_jax.data.index import RecordIndex
from elements_jax.data.record import Record
from elements_jax.editing.script import EditError
from elements_jax.evaluation import results
from elements_jax.evaluation.displacement import displacement
from elements_jax.evaluation.judge import Arrays, Samples
from elements_jax.evaluation.results import Case, open_picture

SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".avif"}
SHOWN = 10
"""Maximum number of missing files listed in an error."""


def find_pictures(folder: Path) -> dict[str, Path]:
    """Find the images below a folder, by path without suffix, in order.

    Raises ValueError if there are none, or two with the same name.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of images")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            name = str(path.relative_to(folder).with_suffix(""))
            if name in found:
                raise ValueError(f"{path} and {found[name].name} have the same name; remove one of them")
            found[name] = path
    if not found:
        raise ValueError(f"{folder}: contains no images ({', '.join(sorted(SUFFIXES))})")
    return found


def made_by(paths: Iterable[Path]) -> str | None:
    """Return the checksum of the model that made the images, if all contain the same one, as ours do."""
    found = set()
    for path in paths:
        try:
            with Image.open(path) as image:
                found.add(image.info.get("weights"))
        except (OSError, SyntaxError, ValueError):
            return None  # reading its pixels will report what is wrong
    return found.pop() if len(found) == 1 else None


def _as_seen(picture: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """Turn a picture by its EXIF tag, lay transparent pixels on white, and convert it to 8-bit sRGB, as `partition`."""
    profile = picture.info.get("icc_profile")
    upright = ImageOps.exif_transpose(picture)
    if upright.mode == "I" or upright.mode.startswith("I;16"):
        upright = Image.fromarray((np.asarray(upright).clip(0, 65535) >> 8).astype(np.uint8))
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    if upright.mode not in ("RGB", "L", "CMYK"):
        upright = upright.convert("RGB")
    if profile:
        with contextlib.suppress(OSError, ValueError, ImageCms.PyCMSError):  # a damaged one, or of another kind
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(upright, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            upright = converted or upright  # None only where it converts in place
    return np.asarray(upright.convert("RGB"))


def folder_pair(pictures: Path, truths: Path) -> Samples:
    """Pair images with the truths of the same names. Raises ValueError that lists images without a counterpart."""
    ours, theirs = find_pictures(pictures), find_pictures(truths)
    for folder, names in ((truths, ours.keys() - theirs.keys()), (pictures, theirs.keys() - ours.keys())):
        if names:
            raise ValueError(f"{folder} lacks {len(names)} of {len(ours | theirs)} images: {_some(names)}")
    return of_files(pictures.name, {"picture": ours, "truth": theirs})


def of_files(method: str, files: Mapping[str, Mapping[str, Path]], reference: str = "truth") -> Samples:
    """Make samples from files; `files` maps each array of a sample to paths by name."""
    names = list(files["picture"])

    def read(numbers: Sequence[int]) -> list[Arrays]:
        return [
            {key: _as_seen(open_picture(paths[names[number]])) for key, paths in files.items()} for number in numbers
        ]

    weights = made_by(files["picture"].values())
    return Samples(method, names, [""] * len(names), read, weights, reference)


def of_results(folder: Path, methods: Sequence[str], records: Path | None) -> list[Samples]:
    """Make samples of the results of methods in a results folder.

    Args:
        methods: names of their folders; empty for all.
        records: the edited records; their label maps give the target and source regions.

    Raises ValueError that names what a method lacks, or OSError.
    """
    cases = results.read_cases(folder)
    if not cases:
        raise ValueError(f"{folder / results.CASES}: holds no case")
    there = results.methods(folder)
    if unknown := set(methods) - set(there):
        raise ValueError(f"{folder}: has no method {_some(unknown)}; it has {', '.join(there) or 'no method'}")
    if not there:
        raise ValueError(f"{folder}: contains no results of its cases")
    index = None if records is None else RecordIndex(records)

    def has_all(part: str) -> bool:
        return all(results.path_of(folder, part, case).is_file() for case in cases)

    reference = "truth" if has_all("truth") else "input"
    found = []
    for method in methods or there:
        if lacks := [case.name for case in cases if not results.path_of(folder, method, case).is_file()]:
            raise ValueError(
                f"{folder / method} lacks {len(lacks)} of {len(cases)} images: {_some(lacks)}; methods must be "
                "compared on the same cases: choose the complete ones with --methods"
            )

        def read(numbers: Sequence[int], method: str = method) -> list[Arrays]:
            return [_of_case(folder, method, cases[number], index) for number in numbers]

        weights = made_by(results.path_of(folder, method, case) for case in cases)
        names, kinds = [case.name for case in cases], [case.kind for case in cases]
        found.append(Samples(method, names, kinds, read, weights, reference))
    return found


def kept(samples: Samples, folder: Path, count: int) -> Samples:
    """Return the same samples, whose first `count` reconstructions are added to a results folder as they are read.

    Raises ValueError if the folder holds other cases, or images of this method.
    """
    cases = [Case(name, "reconstruction", "") for name in samples.names[:count]]
    if not (folder / results.CASES).is_file():
        results.write_cases(folder, cases)
    elif [case.name for case in results.read_cases(folder)] != samples.names[:count]:
        raise ValueError(f"{folder} holds other cases: choose a new folder, or the same records and --count")
    if samples.method in (*results.PARTS, *results.methods(folder)):
        raise ValueError(f"{folder} already holds {samples.method!r}: choose another --name")

    def read(numbers: Sequence[int]) -> list[Arrays]:
        found = samples.read(numbers)
        for number, arrays in zip(numbers, found, strict=True):
            results.save(folder, "input", cases[number], arrays["truth"])
            results.save(folder, samples.method, cases[number], arrays["picture"])
        return found

    return dataclasses.replace(samples, read=read)


def _of_case(folder: Path, method: str, case: Case, index: RecordIndex | None) -> Arrays:
    arrays = {"picture": results.picture(folder, method, case)}
    for part in ("truth", "input"):
        if results.path_of(folder, part, case).is_file():
            arrays[part] = results.picture(folder, part, case)
    if results.path_of(folder, "region", case).is_file():
        arrays["region"] = results.region(folder, case)
    if index is not None and case.script is not None:

        def open_record(source_id: str) -> Record:
            if source_id not in index:
                raise EditError(f"no record has source_id {source_id!r}")
            return index[source_id]

        try:
            arrays |= displacement(case.script, open_record(case.source_id), open_record)
        except EditError as error:
            raise ValueError(f"{folder / results.CASES}: case {case.name!r}: {error}") from error
    return arrays


def _some(names: Sequence[str] | set[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more
