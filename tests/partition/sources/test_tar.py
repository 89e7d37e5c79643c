"""Samples of tar files: complete ones are read, and all damage is reported."""

import gzip
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partition.sources.plan import plan_shards
from partition.sources.sample import Failure, Ignored, Sample
from partition.sources.tar import TarShard
from tests.helpers.sources import ids, ignored, read, touch, write_tar


class TestTars:
    def test_img2datasets_layout(self, tmp_path: Path) -> None:
        metadata = {"caption": "a cat", "key": "000010001", "status": "success", "AESTHETIC_SCORE": 6.4}
        for number in (1, 0):
            write_tar(
                tmp_path / f"0000{number}.tar",
                (f"0000{number}0000.jpg", b"jpeg"),
                (f"0000{number}0000.txt", b"a dog"),
                (f"0000{number}0000.json", json.dumps(metadata).encode()),
                (f"0000{number}0001.jpg", b"jpeg too"),
                (f"0000{number}0001.json", json.dumps(metadata).encode()),
            )
            touch(tmp_path, f"0000{number}_stats.json", f"0000{number}.parquet")
        shards = plan_shards(str(tmp_path), 1)
        assert [shard.name for shard in shards] == ["00000.tar", "00001.tar"]
        assert [shard.count for shard in shards] == [None, None]
        assert shards[0].bytes == (tmp_path / "00000.tar").stat().st_size
        assert read(shards[:1]) == [
            Sample("00000/000000000", b"jpeg", "a dog", metadata),
            Sample("00000/000000001", b"jpeg too", "a cat", metadata),
        ]

    def test_tars_of_the_same_name_in_different_folders_keep_apart(self, tmp_path: Path) -> None:
        for name in ("a/0.tar", "a/b/0.tar", "0.TAR"):
            write_tar(tmp_path / name, ("x.jpg", b""))
        assert ids(read(plan_shards(str(tmp_path), 1))) == ["0/x", "a/0/x", "a/b/0/x"]
        assert ids(read(plan_shards(str(tmp_path / "a" / "0.tar"), 1))) == ["0/x"]

    @pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_keys_end_at_the_first_dot_of_the_last_part(self, tmp_path: Path, format: int) -> None:
        long = "folder/" * 20 + "x" * 90
        tar = write_tar(
            tmp_path / "0.tar",
            ("./v1.0/a.JPG", b"1"),
            ("./v1.0/a.seg.png", b"not the image"),
            ("./v1.0/a.cls", b"no part of a sample"),
            ("./v1.0/a.txt", b"caption"),
            ("v1.0/._b.jpg", b"hidden"),
            ("/../c.png", b"2"),
            (f"{long}.png", b"3"),
            ("d.cls", b"no sample"),
            format=format,
        )
        assert read(plan_shards(str(tar), 1)) == [
            Sample("0/v1.0/a", b"1", "caption"),
            Sample("0/c", b"2"),
            Sample(f"0/{long}", b"3"),
        ]
        assert ignored(plan_shards(str(tar), 1)) == [
            Ignored("0/v1.0/a.seg.png", ".seg.png"),
            Ignored("0/v1.0/a.cls", ".cls"),
            Ignored("0/d.cls", ".cls"),
        ]

    @pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".TAR.GZ"])
    def test_a_compressed_archive_is_read_as_the_plain_one(self, tmp_path: Path, suffix: str) -> None:
        members = [("a.jpg", b"1" * 70_000), ("a.txt", b"caption"), ("000.000.jpg", b"2"), ("b.png", b"")]
        plain = write_tar(tmp_path / "plain" / "0.tar", *members)
        packed = tmp_path / "packed" / f"0{suffix}"
        packed.parent.mkdir()
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        shards, expected = plan_shards(str(packed.parent), 1), plan_shards(str(plain), 1)
        assert read(shards) == read(expected)
        assert ignored(shards) == ignored(expected) == [Ignored("0/000.000.jpg", ".000.jpg")]
        assert read(plan_shards(str(packed), 1)) == read(expected)

    def test_a_compressed_archive_that_is_cut_or_damaged(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, 4000, np.uint8).tobytes()
        tar = write_tar(tmp_path / "0.tar", ("a.jpg", noise), ("b.jpg", noise), ("c.jpg", noise))
        whole = gzip.compress(tar.read_bytes())
        path = tmp_path / "0.tgz"
        for cut in range(0, len(whole) - 8, 97):
            path.write_bytes(whole[:cut])
            *samples, rest = read([TarShard(path, "0.tgz", cut)])
            assert rest.source_id == "0.tgz"
            assert "cut short or damaged" in rest.reason
            assert all(sample == Sample(sample.source_id, noise) for sample in samples if isinstance(sample, Sample))
        path.write_bytes(whole[:5000] + b"damage" + whole[5006:])
        assert any(isinstance(each, Failure) for each in read([TarShard(path, "0.tgz", len(whole))]))

    def test_a_name_that_is_not_utf_8_makes_an_id_that_is(self, tmp_path: Path) -> None:
        path = tmp_path / "0.tar"
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
            tar.addfile(tarfile.TarInfo("café.jpg"))
        assert read(plan_shards(str(path), 1)) == [Sample("0/caf\\xe9", b"")]

    def test_a_hard_link_is_the_file_that_came_before(self, tmp_path: Path) -> None:
        folder = tmp_path / "photos"
        folder.mkdir()
        (folder / "a.jpg").write_bytes(b"1" * 700)
        (folder / "a.txt").write_bytes(b"caption")
        for name in ("b.jpg", "c.jpg"):
            (folder / name).hardlink_to(folder / "a.jpg")
        (folder / "b.txt").hardlink_to(folder / "a.txt")
        with tarfile.open(tmp_path / "0.tar", "w") as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, path.name)
            kinds = [member.type for member in tar.getmembers()]
        assert kinds.count(tarfile.LNKTYPE) == 3
        photo = b"1" * 700
        samples = read(plan_shards(str(tmp_path / "0.tar"), 1))
        assert samples == [Sample("0/a", photo, "caption"), Sample("0/b", photo, "caption"), Sample("0/c", photo)]
        (tmp_path / "0.tgz").write_bytes(gzip.compress((tmp_path / "0.tar").read_bytes()))
        links = [Ignored(f"0/{name}", "a link") for name in ("b.jpg", "b.txt", "c.jpg")]
        assert ignored(plan_shards(str(tmp_path / "0.tgz"), 1)) == links

    def test_a_hard_link_to_no_earlier_file_is_ignored(self, tmp_path: Path) -> None:
        path = tmp_path / "0.tar"
        with tarfile.open(path, "w") as tar:
            for name, target in (("a.jpg", "a.jpg"), ("b.jpg", "/etc/passwd"), ("c.jpg", "d.jpg")):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.LNKTYPE, target
                tar.addfile(member)
            tar.addfile(tarfile.TarInfo("d.jpg"))
        assert ignored(plan_shards(str(path), 1)) == [Ignored(f"0/{name}.jpg", "a link") for name in "abc"]
        assert read(plan_shards(str(path), 1)) == [Sample("0/d", b"")]

    def test_only_files_count(self, tmp_path: Path) -> None:
        path = tmp_path / "0.tar"
        with tarfile.open(path, "w") as tar:
            for name, kind in (("d.jpg", tarfile.DIRTYPE), ("l.jpg", tarfile.SYMTYPE), ("f.jpg", tarfile.REGTYPE)):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, "f.jpg"
                tar.addfile(member)
        assert ids(read(plan_shards(str(path), 1))) == ["0/f"]
        assert ignored(plan_shards(str(path), 1)) == [Ignored("0/l.jpg", "a link")]

    def test_samples_that_are_none_are_failures(self, tmp_path: Path) -> None:
        tar = write_tar(
            tmp_path / "0.tar",
            ("a.txt", b""),
            ("a.json", b"{}"),
            ("b.jpg", b""),
            ("b.png", b""),
            ("c.jpg", b"c"),
            ("c.txt", b"\xff"),
            ("d.jpg", b"d"),
            ("d.json", b"{"),
            ("e.jpg", b"e"),
            ("f.jpg", b"f"),
            ("e.txt", b"e"),
        )
        found = read(plan_shards(str(tar), 1))
        assert ids(found) == ["0/a", "0/b", "0/c", "0/d", "0/e", "0/f", "0/e"]
        reasons = {number: sample.reason for number, sample in enumerate(found) if isinstance(sample, Failure)}
        expected = {
            0: "expected one image and at most one .txt and one .json, got a.txt, a.json",
            1: "expected one image and at most one .txt and one .json, got b.jpg, b.png",
            2: "c.txt: not UTF-8",
            3: "d.json: not JSON",
            6: "e.txt: its other files are not next to it",
        }
        assert reasons.keys() == expected.keys()
        assert all(reasons[number].startswith(start) for number, start in expected.items())

    @pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
    def test_an_archive_that_is_cut_anywhere(self, tmp_path: Path, format: int) -> None:
        """Cut at, around and inside every block: complete samples are read, then there is one Failure for the rest."""
        names = ["a.jpg", "a.txt", "é" * 60 + ".jpg", "b.cls", "b.jpg"]
        contents = [b"1" * 600, b"caption", b"2" * 1024, b"3" * 10, b"4" * 512]
        path = write_tar(tmp_path / "0.tar", *zip(names, contents, strict=True), format=format)
        whole = path.read_bytes()
        with tarfile.open(path) as tar:
            members = {member.name: member for member in tar.getmembers()}
            end = tar.offset
        complete = read(plan_shards(str(path), 1))
        assert [type(sample) for sample in complete] == [Sample] * 3
        # The next sample's header shows that a sample is complete.
        known = [members[names[2]].offset_data, members["b.jpg"].offset_data, end + 1024]

        for cut in sorted({block + odd for block in range(0, len(whole), 512) for odd in (0, 1, 255, 511)}):
            path.write_bytes(whole[:cut])
            found = read([TarShard(path, "0.tar", cut)])
            if cut >= end + 1024:  # only padding is lost
                assert found == complete
                continue
            samples = sum(cut >= position for position in known)
            assert found[:samples] == complete[:samples], cut
            *failed, rest = found[samples:]
            assert isinstance(rest, Failure)
            assert rest.source_id == "0.tar"
            assert rest.reason.startswith(f"cut short or damaged after {samples} samples were read: ")
            assert all(isinstance(sample, Failure) for sample in failed)
            assert ids(failed) in ([], ids(complete[samples : samples + 1])), cut
            started = [0, *known][samples] if samples else members["a.jpg"].offset_data
            if cut >= max(started, members["a.jpg"].offset_data):
                assert ids(failed) == ids(complete[samples : samples + 1]), cut

    def test_the_reason_says_where_the_archive_ends(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "0.tar", ("a.jpg", b"a"), ("b.jpg", b"b" * 600))
        path.write_bytes(path.read_bytes()[:1800])
        assert read(plan_shards(str(path), 1)) == [
            Sample("0/a", b"a"),
            Failure("0/b", "0.tar is cut short or damaged within this sample's files"),
            Failure(
                "0.tar", "cut short or damaged after 1 samples were read: the archive ends at byte 1800, within b.jpg"
            ),
        ]

    @pytest.mark.parametrize("content", [b"", b"no archive", b"no archive" * 2000, b"\x1f\x8b\x08" + bytes(2000)])
    def test_a_file_that_is_not_an_archive_is_one_failure(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "0.tar").write_bytes(content)
        (failure,) = read(plan_shards(str(tmp_path), 1))
        assert isinstance(failure, Failure)
        assert failure.reason.startswith("cut short or damaged after 0 samples")

    @pytest.mark.parametrize("size", [1 << 40, 1 << 63, 1 << 80])
    def test_a_size_that_no_file_has_is_damage(self, tmp_path: Path, size: int) -> None:
        path = write_tar(tmp_path / "0.tar", ("a.jpg", b"a"))
        member = tarfile.TarInfo("b.jpg")
        member.size = size
        path.write_bytes(path.read_bytes()[:1024] + member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
        sample, failed, rest = read(plan_shards(str(tmp_path), 1))
        assert sample == Sample("0/a", b"a")
        assert ids([failed, rest]) == ["0/b", "0.tar"]

    def test_an_archive_that_is_gone_is_one_failure(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "0.tar", ("a.jpg", b""))
        shards = plan_shards(str(tmp_path), 1)
        path.unlink()
        (failure,) = read(shards)
        assert isinstance(failure, Failure)
        assert "No such file" in failure.reason

    def test_an_empty_archive_has_no_samples(self, tmp_path: Path) -> None:
        assert read(plan_shards(str(write_tar(tmp_path / "0.tar")), 1)) == []

    @pytest.mark.parametrize("more", [bytes(20_000), None], ids=["zeros", "another archive"])
    def test_data_after_the_end_marker_is_reported(self, tmp_path: Path, more: bytes | None) -> None:
        path = write_tar(tmp_path / "0.tar", ("a.jpg", b""), ("b.jpg", b""))
        path.write_bytes(path.read_bytes() + (path.read_bytes() if more is None else more))
        sample, _, failure = read(plan_shards(str(path), 1))
        assert sample == Sample("0/a", b"")
        assert isinstance(failure, Failure)
        assert "at byte 1024 there is neither a file nor the end mark of an archive" in failure.reason

    @given(st.data())
    def test_damage_anywhere_never_raises(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        """Samples before the damage are read."""
        path = write_tar(
            tmp_path_factory.mktemp("damaged") / "0.tar",
            ("a.jpg", b"a" * 600),
            ("b.jpg", b"b" * 10),
            ("é" * 100 + ".jpg", b"c" * 512),
            ("d.jpg", b""),
        )
        content = bytearray(path.read_bytes())
        start = data.draw(st.integers(0, 6 * 1024))
        damage = data.draw(st.binary(min_size=1, max_size=600))
        content[start : start + len(damage)] = damage
        path.write_bytes(content)
        found = read(plan_shards(str(path), 1))
        if start >= 2048:
            assert found[0] == Sample("0/a", b"a" * 600)
