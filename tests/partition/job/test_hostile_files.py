"""Files that would hang a job, fill the memory or stop it are named, and the rest is written."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from elements_jax.data.atomic import read_file
from partition.__main__ import main
from partition.masks import MaskFilter, MaskFolder
from partition.sources.sample import Sample
from tests.helpers.jobs import SMALL, manifest

COMMAND = [*SMALL, "--segmenter", "grid"]


def png(seed: int = 0, side: int = 64) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_pipes_and_devices_are_failures(tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    (folder / "a.png").write_bytes(png())
    os.mkfifo(folder / "b.jpg")
    (folder / "c.jpg").symlink_to("/dev/zero")
    assert main([str(folder), str(out), *COMMAND]) == 0
    found = manifest(out)
    assert [found[name]["status"] for name in ("a.png", "b.jpg", "c.jpg")] == ["written", "failed", "failed"]
    assert "b.jpg: expected a regular file" in found["b.jpg"]["reason"]


def test_a_tar_that_is_a_pipe_is_a_failure(tmp_path: Path) -> None:
    folder, out = tmp_path / "tars", tmp_path / "out"
    folder.mkdir()
    os.mkfifo(folder / "0.tar")
    with tarfile.open(folder / "1.tar", "w") as tar:
        add(tar, "x.png", png())
    assert main([str(folder), str(out), *COMMAND]) == 0
    assert "not a regular file" in manifest(out)["0.tar"]["reason"]
    assert manifest(out)["1/x"]["status"] == "written"


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def test_files_above_the_limit_are_failures(tmp_path: Path) -> None:
    folder, tars = tmp_path / "photos", tmp_path / "tars"
    folder.mkdir(), tars.mkdir()
    large = png(side=1024)
    assert len(large) > 3 << 20
    for name, content in (("a.png", png()), ("b.png", large)):
        (folder / name).write_bytes(content)
    with tarfile.open(tars / "0.tar", "w") as tar:
        for name, content in (("a.png", large), ("b.png", png())):
            add(tar, name, content)
    for source, small, too_large in ((folder, "a.png", "b.png"), (tars, "0/b", "0/a")):
        out = tmp_path / f"out-{source.name}"
        assert main([str(source), str(out), *COMMAND, "--largest-file", "1"]) == 0
        found = manifest(out)
        assert found[small]["status"] == "written"
        assert "3 MiB; the limit is 1 MiB" in found[too_large]["reason"]


@pytest.mark.parametrize("size", [1 << 40, 1 << 33, 1 << 28])
def test_a_pax_header_that_claims_any_size_fails_its_tar_only(tmp_path: Path, size: int) -> None:
    folder, out = tmp_path / "tars", tmp_path / "out"
    folder.mkdir()
    bomb = tarfile.TarInfo("bomb")
    bomb.type, bomb.size = tarfile.XHDTYPE, size
    (folder / "0.tar").write_bytes(bomb.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with tarfile.open(folder / "1.tar", "w") as tar:
        add(tar, "x.png", png())
    assert main([str(folder), str(out), *COMMAND]) == 0
    assert f"a header claims {size} bytes" in manifest(out)["0.tar"]["reason"]
    assert manifest(out)["1/x"]["status"] == "written"


def test_masks_of_other_names_and_kinds_are_read_or_counted(tmp_path: Path) -> None:
    photos, masks, out = tmp_path / "photos", tmp_path / "masks", tmp_path / "out"
    photos.mkdir(), (masks / "a").mkdir(parents=True)
    (photos / "a.png").write_bytes(png())
    disc = np.zeros((64, 64), np.uint8)
    disc[8:24, 8:24] = 255
    Image.fromarray(disc).save(masks / "a" / "1.PNG")
    Image.fromarray(disc.T).save(masks / "a" / "2.jpg")
    os.mkfifo(masks / "a" / "3.png")
    assert main([str(photos), str(out), *COMMAND, "--masks", str(masks)]) == 0
    found = manifest(out)["a.png"]
    assert found["object_masks"] == 1
    assert found["masks_left_out"] == {"an image that is not a PNG": 1, "not readable": 1}
    summary = json.loads((out / "partition-train.json").read_bytes())
    assert summary["masks_left_out"] == found["masks_left_out"]
    in_folder = MaskFolder(masks).find(Sample("a.png", b""), (64, 64), MaskFilter())
    [mask] = [each for each in in_folder if isinstance(each, np.ndarray)]
    np.testing.assert_array_equal(mask, disc > 0)


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(bytes(2 << 20))
    assert read_file(tmp_path / "file") == bytes(2 << 20)
    for path, message in ((tmp_path, "a folder"), (tmp_path / "pipe", "a pipe"), (Path("/dev/zero"), "a device")):
        with pytest.raises(ValueError, match=f"{path}: .*{message}"):
            read_file(path)
    with pytest.raises(ValueError, match="file: 2 MiB; the limit is 1 MiB"):
        read_file(tmp_path / "file", 1 << 20)
