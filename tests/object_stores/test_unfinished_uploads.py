"""Parts of unfinished uploads cost money: only those below the job's own folder are removed."""

import pytest

from elements_jax.data.object_store import abort_uploads, as_path
from tests.object_stores.conftest import BUCKET, Store
from tests.object_stores.test_partition import s3_client
from train.mirror import mirrored

OTHERS = ("elsewhere/file", "records", "records-2/file")


@pytest.fixture
def client(s3: Store, monkeypatch: pytest.MonkeyPatch):
    """Client of a bucket with unfinished uploads of one part each."""
    s3.enter(monkeypatch)
    client = s3_client(s3)
    for key in ("records/a", "records/manifest/b", *OTHERS):
        upload = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        client.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=b"part")
    return client


@pytest.mark.parametrize("slash", ["", "/"])
def test_those_below_the_folder_are_removed(client, s3: Store, slash: str) -> None:
    abort_uploads(as_path(f"{s3.root}/records{slash}"))
    left = client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert sorted(upload["Key"] for upload in left) == sorted(OTHERS)


def test_those_of_a_bucket_are_removed(client, s3: Store) -> None:
    abort_uploads(as_path(s3.root))
    assert "Uploads" not in client.list_multipart_uploads(Bucket=BUCKET)


def test_a_run_removes_those_of_its_model_folder(client, s3: Store) -> None:
    with mirrored(as_path(f"{s3.root}/records")):
        assert len(client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]) == 2 + len(OTHERS)
    left = client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert sorted(upload["Key"] for upload in left) == sorted(OTHERS)


def test_a_store_that_cannot_be_listed_stops_no_job(s3: Store, monkeypatch, capsys) -> None:
    path = as_path(f"{s3.root}/records")

    def refused(bucket: str) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(path.fs, "list_multipart_uploads", refused)
    abort_uploads(path)
    said = f"unfinished uploads, if any, are left: {s3.root}/records: Access Denied\n"
    assert capsys.readouterr().out == said
