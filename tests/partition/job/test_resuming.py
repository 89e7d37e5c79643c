"""A job that was stopped in any way resumes by the same command and loses nothing; another job is refused."""

import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from elements_jax.data.lock import locked
from elements_jax.data.tfrecord import write_tfrecord
from elements_jax.scenes.drawn import write_folder
from partition.__main__ import main
from partition.job import worker
from tests.helpers.jobs import SMALL, contents, manifest, read


def test_rerunning_the_command_does_only_the_missing_work(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [str(photos), str(out), *SMALL, "--segmenter", "grid", "--shard-size", "2"]
    assert main(command) == 0
    before = contents(out)
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.tfrecord-*")}
    (out / "manifest" / "train-00002-of-00006.jsonl").unlink()
    (out / "elements-train.tfrecord-00004-of-00006").unlink()
    (out / ".elements-train.tfrecord-00002-of-00006.1.unfinished").write_bytes(b"half a rec")
    capsys.readouterr()
    assert main([*command, "--overwrite"]) == 0  # it is the same job, so nothing is overwritten
    assert "4 of 6 shards are already done" in capsys.readouterr().out
    assert contents(out) == before
    again = {path for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert again == {out / f"elements-train.tfrecord-0000{number}-of-00006" for number in (2, 4)}


def test_failed_images_are_tried_again_on_request(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [str(photos), str(out), *SMALL, "--segmenter", "grid", "--shard-size", "2"]
    assert main(command) == 0
    (photos / "cut.jpg").write_bytes((photos / "scene-0000000.png").read_bytes())
    assert main(command) == 0
    assert manifest(out)["cut.jpg"]["status"] == "failed"
    assert main([*command, "--retry-failed"]) == 0
    assert manifest(out)["cut.jpg"]["status"] == "written"
    assert [record.source_id for record in read(out)][:2] == ["below/ok.png", "cut.jpg"]


def test_a_job_resumes_only_with_its_own_settings_and_images(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [str(photos), str(out), *SMALL, "--segmenter", "grid"]
    assert main(command) == 0
    before = contents(out)
    assert main([*command, "--filters.min-side", "65"]) == 1
    error = capsys.readouterr().err
    assert "train-00000-of-00001.jsonl already exists, made with other settings: filters" in error
    assert "--overwrite starts from scratch" in error
    (photos / "new.png").write_bytes((photos / "scene-0000000.png").read_bytes())
    assert main(command) == 1
    assert "made of other images" in capsys.readouterr().err
    assert contents(out) == before
    assert main([*command, "--overwrite"]) == 0
    assert "new.png" in manifest(out)


def test_records_without_their_job_are_not_overwritten(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    of_another_job = out / "elements-val.tfrecord-00000-of-00002"
    write_tfrecord(of_another_job, [])
    command = [str(photos), str(out), *SMALL, "--segmenter", "grid", "--held-out", "0.5"]
    assert main(command) == 1
    assert (
        "elements-val.tfrecord-00000-of-00002 already exists, made by another job; --overwrite"
        in capsys.readouterr().err
    )
    assert main([*command, "--overwrite"]) == 0
    assert not of_another_job.exists()


def make_tar(path: Path, images: dict[str, bytes]) -> None:
    """Write a tar file as img2dataset does."""
    with tarfile.open(path, "w") as tar:
        for key, image in images.items():
            files = {"json": json.dumps({"caption": f"about {key}"}).encode(), "png": image}
            for suffix, content in files.items():
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def test_a_truncated_tar_is_redone_once_it_is_complete(photos: Path, tmp_path: Path) -> None:
    images = {f"00000000{i}": (photos / f"scene-000000{i}.png").read_bytes() for i in range(5)}
    tars = tmp_path / "tars"
    tars.mkdir()
    make_tar(tars / "00000.tar", images)
    make_tar(tars / "00001.tar", {"000000009": images["000000000"]})
    whole = (tars / "00000.tar").read_bytes()
    (tars / "00000.tar").write_bytes(whole[: len(whole) // 2])
    command = [str(tars), str(tmp_path / "out"), *SMALL, "--segmenter", "grid"]
    assert main(command) == 0
    cut = manifest(tmp_path / "out")
    assert cut["00000.tar"]["status"] == "failed"
    assert "cut short" in cut["00000.tar"]["reason"]
    good = [name for name, line in cut.items() if line["status"] == "written"]
    assert good[-1] == "00001/000000009"
    assert 1 < len(good) < 6
    (tars / "00000.tar").write_bytes(whole)
    assert main(command) == 0
    records = read(tmp_path / "out")
    assert [record.source_id for record in records] == [*(f"00000/{key}" for key in images), "00001/000000009"]
    assert records[0].caption == "about 000000000"
    assert all(line["status"] == "written" for line in manifest(tmp_path / "out").values())


def processes_of(session: int) -> list[int]:
    """Return the running processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, fields = path.read_text().rpartition(") ")
        except OSError:
            continue
        state, _, _, of, *_ = fields.split()
        if int(of) == session and state != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize(
    "engine", [["--workers", "2"], pytest.param(["--devices", "cpu", "cpu"], marks=pytest.mark.slow)]
)
def test_a_job_killed_at_random_equals_an_undisturbed_one(tmp_path: Path, engine: list[str]) -> None:
    photos = tmp_path / "photos"
    write_folder(photos, range(60), 64)
    arguments = [*SMALL[:-2], *engine, "--segmenter", "slic", "--shard-size", "4", "--held-out", "0.3"]

    def start(out: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "partition", str(photos), str(tmp_path / out), *arguments]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, start_new_session=True, **silent)

    begin = time.monotonic()
    assert start("undisturbed").wait() == 0
    seconds = time.monotonic() - begin
    random = np.random.default_rng(0)
    for _ in range(6):
        job = start("killed")
        time.sleep(random.uniform(0.3, 0.95) * seconds)
        job.kill()
        job.wait()
        deadline = time.monotonic() + 20
        while processes_of(job.pid):  # the pool's processes end with the job
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert start("killed").wait() == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


def test_a_full_disk_stops_the_job_and_it_resumes_with_room(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [str(photos), str(out), *SMALL, "--segmenter", "grid", "--shard-size", "4"]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, limits[1]))  # in place of a full disk: files end at 9 kB
    try:
        assert main(command) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capsys.readouterr().err.endswith("elements-train.tfrecord-00001-of-00003: file too large\n")
    assert not list(out.rglob("*.unfinished"))
    assert not (out / "partition-train.json").exists()
    assert main(command) == 0
    assert main([str(photos), str(tmp_path / "undisturbed"), *command[2:]]) == 0
    assert contents(out) == contents(tmp_path / "undisturbed")


def test_a_process_that_is_killed_is_one_clear_error(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker, "divide", killed)
    command = [str(photos), str(tmp_path / "out"), *SMALL[:-2], "--segmenter", "grid", "--workers", "2"]
    assert main(command) == 1
    assert "a process of the job was killed" in capsys.readouterr().err


def killed(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_folder_that_another_job_is_writing_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with locked(out, "elements partition --split train"):
        assert main([str(photos), str(out), *SMALL, "--segmenter", "grid"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {out} is in use by `elements partition --split train`, process {os.getpid()} on ")
    assert not list(out.glob("*.json"))
    assert main([str(photos), str(out), *SMALL, "--segmenter", "grid"]) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_stopped_by_a_signal_prints_one_line(tmp_path: Path, number: int) -> None:
    """SIGINT goes to all of its processes, as from a terminal, and SIGTERM to the first."""
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("these tests run in the background of a shell, whose programs ignore SIGINT")
    photos, out = tmp_path / "photos", tmp_path / "out"
    write_folder(photos, range(800), 64)
    arguments = [str(photos), str(out), *SMALL[:-2], "--workers", "2", "--segmenter", "slic", "--shard-size", "2"]
    command = [sys.executable, "-m", "partition", *arguments]
    job = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while not list(out.glob("manifest/*.jsonl")):
        assert job.poll() is None
        time.sleep(0.05)
    (os.killpg if number == signal.SIGINT else os.kill)(job.pid, number)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 128 + number
    assert "Traceback" not in errors
    assert "leaked" not in errors
    assert errors.splitlines()[-1] == ("interrupted" if number == signal.SIGINT else "ended by SIGTERM")
    assert not list(out.rglob("*.unfinished"))
