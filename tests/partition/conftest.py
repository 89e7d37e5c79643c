"""The real MobileSAM, read once; images with known objects; and a folder of photos for jobs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from segment_anything.modeling import Sam

from elements_jax.scenes.drawn import write_folder
from partition.segmenters.sam import load_sam


@pytest.fixture(scope="session")
def mobile_sam(shared_data: Path) -> Sam:
    model, kind = load_sam(shared_data / "weights" / "mobile_sam.pt")
    assert kind == "mobile-sam"
    return model


@pytest.fixture(scope="session")
def disc() -> tuple[np.ndarray, np.ndarray]:
    """An image of an orange disc on blue, 128 px, with a little noise; and the disc's pixels."""
    y, x = np.mgrid[:128, :128]
    inside = (x - 74.0) ** 2 + (y - 60.0) ** 2 < 30**2
    image = np.where(inside[..., None], (235, 130, 30), (30, 60, 150))
    return (image + np.random.default_rng(0).integers(-8, 9, image.shape)).astype(np.uint8), inside


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six scenes with captions and masks, and four files that only look like photos."""
    folder = tmp_path / "photos"
    write_folder(folder, range(6), 64)
    whole = (folder / "scene-0000000.png").read_bytes()
    (folder / "scene-0000000a.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    (folder / "text.webp").write_text("no photo")
    (folder / "below").mkdir()
    (folder / "below" / "folder.png").mkdir()
    (folder / "below" / "ok.png").write_bytes(whole)
    jpeg = folder / "cut.jpg"
    Image.effect_noise((200, 200), 90).save(jpeg)
    jpeg.write_bytes(jpeg.read_bytes()[:2000])
    return folder
