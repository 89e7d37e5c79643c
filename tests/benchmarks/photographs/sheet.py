"""One edit on each of twelve free photographs, by `elements edit`, as a sheet: docs/images/sheet.jpg.

    apt-get download lomiri-wallpapers-16.04 && dpkg-deb -x lomiri-wallpapers-16.04*.deb wallpapers
    python tests/benchmarks/photographs/sheet.py wallpapers/usr/share/backgrounds mobile_sam.pt docs/images/sheet.jpg

Nothing is selected: these are all the photographs of that package under CC0 or CC BY, and three of scikit-image's.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import skimage.data
import tyro
from PIL import Image, ImageOps

from elements_jax.cli.edit import Edit
from elements_jax.cli.photos import DEFAULT_SOURCE

COLUMNS, WIDTH, HEIGHT, GAP = 3, 300, 230, 8

EDITS: dict[str, dict[str, Any]] = {
    "Picture_0B_by_freespace": {"edit": "move", "object": {"box": [0.40, 0.35, 0.71, 0.76]}, "by": [0.14, 0.0]},
    "Picture_1A_by_freespace": {"edit": "delete", "object": {"box": [0.63, 0.28, 0.90, 1.0]}},
    "Wine_by_Jakkub_Mede": {"edit": "delete", "object": {"box": [0.45, 0.11, 0.54, 0.34]}},
    "aitzgorri_by_Aitzol_Berasategi": {"edit": "delete", "object": {"box": [0.68, 0.40, 0.80, 0.69]}},
    "friends_by_Aitzol_Berasategi": {"edit": "delete", "object": {"box": [0.45, 0.44, 0.67, 0.66]}},
    "life_by_Aitzol_Berasategi": {"edit": "delete", "object": {"box": [0.79, 0.0, 0.90, 0.60]}},
    "picosdeeuropa_by_Aitzol_Berasategi": {
        "edit": "compose",
        "image": "aitzgorri_by_Aitzol_Berasategi.jpg",
        "object": {"box": [0.68, 0.40, 0.80, 0.64]},
        "by": [0.08, 0.22],
    },
    "seeding_by_Clements_Engelhardt": {
        "edit": "duplicate",
        "object": {"box": [0.74, 0.67, 0.89, 0.89]},
        "by": [-0.25, 0.06],
    },
    "sunset_by_Aitzol_Berasategi": {"edit": "delete", "object": {"box": [0.62, 0.62, 0.98, 1.0]}},
    "astronaut": {"edit": "delete", "object": {"box": [0.68, 0.0, 0.91, 0.62]}},
    "coffee": {"edit": "resize", "object": {"box": [0.52, 0.55, 0.70, 0.82]}, "scale": 0.6},
    "rocket": {"edit": "duplicate", "object": {"box": [0.47, 0.30, 0.54, 0.97]}, "by": [-0.12, 0.0]},
}


def main(
    wallpapers: Annotated[Path, tyro.conf.Positional],
    checkpoint: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
) -> None:
    """Run the edits, print their seconds, and write the sheet.

    Args:
        wallpapers: Folder with the package's photographs.
        checkpoint: SAM's or MobileSAM's weights, which find each object in its box.
        out: JPEG file of the sheet: each photograph, and beside it its edit.
    """
    source = replace(DEFAULT_SOURCE, checkpoint=checkpoint, segmenter="slic")
    rows = -(-len(EDITS) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (2 * WIDTH + 2 * GAP) - GAP, rows * (HEIGHT + GAP) - GAP), "white")
    with tempfile.TemporaryDirectory() as folder:
        for n, (name, edit) in enumerate(EDITS.items()):
            photo = wallpapers / f"{name}.jpg"
            if not photo.exists():
                photo = Path(folder, f"{name}.png")
                Image.fromarray(getattr(skimage.data, name)()).save(photo)
            script, edited = Path(folder, "edit.json"), Path(folder, f"{name}-edited{photo.suffix}")
            named = {"image": str(wallpapers.absolute() / edit["image"])} if "image" in edit else {}
            script.write_text(json.dumps({"version": 1, "edits": [edit | named]}))
            start = time.perf_counter()
            Edit(photo=photo, script=script, out=edited, source=source).run()
            print(f"{name}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
            left, top = n % COLUMNS * (2 * WIDTH + 2 * GAP), n // COLUMNS * (HEIGHT + GAP)
            for file, x in ((photo, left), (edited, left + WIDTH + GAP // 2)):
                with Image.open(file) as image:
                    small = ImageOps.contain(ImageOps.exif_transpose(image).convert("RGB"), (WIDTH, HEIGHT))
                sheet.paste(small, (x + (WIDTH - small.width) // 2, top + (HEIGHT - small.height) // 2))
    sheet.save(out, quality=88, optimize=True)


if __name__ == "__main__":
    tyro.cli(main)
