"""The partition job from and to object stores: the same bytes as on a disk, also over a bad line, and clear errors."""

import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from elements_jax.scenes.drawn import write_folder
from partition.__main__ import main
from tests.helpers.jobs import SMALL, contents
from tests.object_stores.conftest import BUCKET, Store

ARGUMENTS = [*SMALL, "--segmenter", "slic", "--held-out", "0.3"]


def without_lock(folder: Path) -> dict:
    """Return a job's output without the lock, which only a folder on a disk has."""
    return {name: content for name, content in contents(folder).items() if name != ".lock"}


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write ten tar files of four scenes."""
    photos, tars = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("tars")
    write_folder(photos, range(40), 64)
    scenes = sorted(photos.glob("*.png"))
    for number in range(10):
        with tarfile.open(tars / f"{number:05d}.tar", "w") as tar:
            for scene in scenes[4 * number : 4 * number + 4]:
                for path in (scene, scene.with_suffix(".txt")):
                    tar.add(path, path.name)
    return tars


@pytest.fixture(scope="module")
def local(tars: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("local")
    assert main([str(tars), str(out), *ARGUMENTS]) == 0
    return without_lock(out)


@pytest.mark.parametrize("name", ["s3", "gcs", "unreliable_s3"])
def test_a_store_gives_the_bytes_of_a_disk(
    name: str, tars: Path, local: dict[str, bytes], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store: Store = request.getfixturevalue(name)
    store.copy(str(tars), f"{store.root}/tars")
    job = ["partition", f"{store.root}/tars", f"{store.root}/records", *ARGUMENTS]
    store.run(*job)
    store.copy(f"{store.root}/records", str(tmp_path / "records"))
    assert contents(tmp_path / "records") == local
    assert "10 of 10 shards" not in store.run(*job)


def test_tar_files_in_a_store_equal_those_on_a_disk(s3: Store, tars: Path, tmp_path: Path) -> None:
    s3.copy(str(tars), f"{s3.root}/tars")
    arguments = [*ARGUMENTS, "--format", "webdataset"]
    assert main([str(tars), str(tmp_path / "local"), *arguments]) == 0
    s3.run("partition", f"{s3.root}/tars", f"{s3.root}/records", *arguments)
    s3.copy(f"{s3.root}/records", str(tmp_path / "records"))
    assert contents(tmp_path / "records") == without_lock(tmp_path / "local")


@pytest.mark.slow  # the job must still be running when it is killed
def test_photographs_in_a_store_killed_in_the_middle(
    s3: Store, tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    write_folder(photos, range(40), 64)
    (photos / "broken.jpg").write_bytes(b"no picture")
    s3.copy(str(photos), f"{s3.root}/photos")
    arguments = [*ARGUMENTS, "--shard-size", "4", "--masks"]
    assert main([str(photos), str(tmp_path / "local"), *arguments, str(photos / "masks")]) == 0

    command = ["partition", f"{s3.root}/photos", f"{s3.root}/records", *arguments, f"{s3.root}/photos/masks"]
    job = s3.start(*command)
    deadline = time.monotonic() + 100
    while not s3.find("records/manifest"):
        assert job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    job.kill()
    job.communicate()
    assert 0 < len(s3.find("records/manifest")) < 11
    assert "of 11 shards are already done" in s3.run(*command)
    s3.copy(f"{s3.root}/records", str(tmp_path / "records"))
    assert contents(tmp_path / "records") == without_lock(tmp_path / "local")

    # Parts of unfinished uploads cost money; we must not remove those of others.
    ours, others = ("records/elements-train.tfrecord-00000-of-00011", "elsewhere/file")
    client = s3_client(s3)
    for key in (ours, others):
        client.create_multipart_upload(Bucket=BUCKET, Key=key)
    # Failures are retried, and missing records are written again.
    shutil.copy(photos / "scene-0000000.png", photos / "broken.jpg")
    s3.copy(str(photos), f"{s3.root}/photos")
    assert "41 images written" in s3.run(*command, "--retry-failed")
    unfinished = client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert [upload["Key"] for upload in unfinished] == [others]


def s3_client(store: Store) -> Any:
    import boto3

    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=store.environment["AWS_ENDPOINT_URL"], **keys)


@pytest.mark.parametrize(
    ("source", "out", "error"),
    [
        ("{root}/nothing", "{root}/records", "error: {root}/nothing: nothing exists there"),
        ("s3://no-such-bucket/tars", "{root}/records", "error: s3://no-such-bucket/tars: "),
        ("{root}/tars", "s3://no-such-bucket/records", "error: s3://no-such-bucket/records: "),
    ],
)
def test_a_wrong_url_is_one_line(source: str, out: str, error: str, s3: Store, tars: Path) -> None:
    s3.copy(str(tars), f"{s3.root}/tars")
    source, out, error = (text.format(root=s3.root) for text in (source, out, error))
    printed = s3.run("partition", source, out, *ARGUMENTS, code=1)
    assert error in printed
    assert "Traceback" not in printed
    assert len(printed.strip().splitlines()) == 1


def test_no_credentials_are_one_line(s3: Store, tmp_path: Path) -> None:
    nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": str(tmp_path)}
    printed = s3.run("partition", f"{s3.root}/tars", str(tmp_path / "out"), *ARGUMENTS, code=1, **nobody)
    assert printed.startswith(f"error: {s3.root}/tars: ")
    assert "Unable to locate credentials" in printed
    assert not (tmp_path / "out").exists()
