"""Every image of a source comes out once, in order, with what lies beside it; what cannot be read says why."""

import dataclasses
import io
import json
import os
import pickle
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elements_jax.records import write_tfrecord
from elements_jax.schema import Record
from partition.samples import Failure, Sample, Shard, read_sample
from partition.sources import plan
from partition.tar_shards import TarShard
from partition.tfds_metadata import write_metadata


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(name.encode())


def read(shards: Sequence[Shard]) -> list[Sample | Failure]:
    return [sample for shard in pickle.loads(pickle.dumps(shards)) for sample in shard.samples()]


def ids(found: Sequence[Sample | Failure]) -> list[str]:
    return [sample.source_id for sample in found]


def write_tar(path: Path, *members: tuple[str, bytes], format: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


class TestFolders:
    def test_photos_are_found_below_the_folder_but_for_masks_hidden_and_skipped_ones(self, tmp_path: Path) -> None:
        touch(tmp_path, "b.JPG", "a/z.png", "a.webp", "notes.txt", "masks/b.png", "a/masks/z.png", ".cache/t.jpg")
        touch(tmp_path, "._b.jpg", "out/p.png")
        found = read(plan(str(tmp_path), 10, skip=[tmp_path / "a" / ".." / "out"]))
        assert found == [Sample(name, name.encode()) for name in ("a/z.png", "a.webp", "b.JPG")]

    @pytest.mark.parametrize(("size", "counts"), [(1, [1] * 7), (3, [2, 2, 3]), (4, [3, 4]), (7, [7]), (99, [7])])
    def test_shards_are_even_and_together_the_whole(self, tmp_path: Path, size: int, counts: list[int]) -> None:
        names = [f"{i}.png" for i in range(7)]
        touch(tmp_path, *names)
        shards = plan(str(tmp_path), size)
        assert [shard.count for shard in shards] == counts
        assert ids(read(shards)) == names
        assert len({shard.name for shard in shards}) == len(shards)
        assert all(shard.bytes is None for shard in shards)

    def test_a_shards_name_tells_that_its_photos_changed(self, tmp_path: Path) -> None:
        for folder in ("one", "two"):
            touch(tmp_path / folder, "a.png", "b.png", "d.png")
        one, two = (plan(str(tmp_path / folder), 3)[0].name for folder in ("one", "two"))
        assert one == two
        assert one.startswith("a.png to d.png (")
        (tmp_path / "two" / "b.png").rename(tmp_path / "two" / "c.png")
        assert plan(str(tmp_path / "two"), 3)[0].name != one

    def test_captions_and_metadata_lie_beside_photos(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"{letter}.png" for letter in "abcdefgh"))
        (tmp_path / "a.txt").write_text("\ufeffa café\r\n", encoding="utf-8")
        (tmp_path / "a.json").write_text('\ufeff{"caption": "not this", "similarity": 0.3}', encoding="utf-8")
        (tmp_path / "c.json").write_text('{"caption": " from JSON ", "AESTHETIC_SCORE": 6.5}')
        (tmp_path / "d.json").write_text('{"caption": null}')
        (tmp_path / "h.json").write_text(r'{"caption": "half a \ud83d smile"}')
        (tmp_path / "e.txt").write_bytes(b"\xff\xfe\xfa")
        (tmp_path / "f.json").write_text('{"caption": ')
        (tmp_path / "g.json").write_text("[1]")
        a, b, c, d, e, f, g, h = read(plan(str(tmp_path), 10))
        assert a == Sample("a.png", b"a.png", "a café", {"caption": "not this", "similarity": 0.3})
        assert b == Sample("b.png", b"b.png")
        assert c == Sample("c.png", b"c.png", "from JSON", {"caption": " from JSON ", "AESTHETIC_SCORE": 6.5})
        assert d == Sample("d.png", b"d.png", "", {"caption": None})
        assert isinstance(h, Sample)
        assert h.caption == "half a ? smile"
        for sample, reason in ((e, "e.txt: not UTF-8"), (f, "f.json: not JSON"), (g, "g.json: expected a JSON object")):
            assert isinstance(sample, Failure)
            assert sample.reason.startswith(reason)

    def test_a_photo_that_is_gone_is_a_failure(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.png", "b.png")
        shards = plan(str(tmp_path), 10)
        (tmp_path / "a.png").unlink()
        failure, sample = read(shards)
        assert isinstance(failure, Failure)
        assert "No such file" in failure.reason
        assert sample == Sample("b.png", b"b.png")

    def test_a_name_that_is_not_utf_8_makes_an_id_that_is(self, tmp_path: Path) -> None:
        (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"photo")
        assert read(plan(str(tmp_path), 10)) == [Sample("caf\\xe9.png", b"photo")]

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["notes.txt"], "no photographs there, nor .tar files"),
            (["0.tar", "a/1.jpg", "2.jpg"], "both .tar files, such as 0.tar, and 2 photographs, such as 2.jpg"),
        ],
    )
    def test_a_folder_that_is_no_source_is_an_error(self, tmp_path: Path, names: list[str], message: str) -> None:
        touch(tmp_path, *names)
        with pytest.raises(ValueError, match=message):
            plan(str(tmp_path), 10)

    def test_what_is_no_source_is_an_error(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.jpg")
        for source in (tmp_path / "nowhere", tmp_path / "a.jpg"):
            with pytest.raises(ValueError, match=f"{source}: no such folder, .tar file, or list of paths"):
                plan(str(source), 10)
        with pytest.raises(ValueError, match="at least 1 image, got 0"):
            plan(str(tmp_path), 0)

    def test_one_photograph_is_read_alone(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.png", "a.txt")
        assert read_sample(tmp_path / "a.png", "name") == Sample("name", b"a.png", "a.txt")


class TestLists:
    def test_photographs_in_the_lists_order(self, tmp_path: Path) -> None:
        """Relative paths start from the list's folder; ids stay the same for paths that are written otherwise."""
        touch(tmp_path, "here/b.jpg", "here/b.txt", "here/a/c.png", "there/d.png")
        lines = ["b.jpg", "", "./a/x/../c.png", f"{tmp_path}/there/d.png  ", "../there/e.png"]
        (tmp_path / "here" / "list.txt").write_text("\ufeff" + "\r\n".join(lines))
        shards = plan(str(tmp_path / "here" / "list.txt"), 2)
        assert [shard.count for shard in shards] == [2, 2]
        outside = f"{tmp_path}/there".lstrip("/")
        *samples, missing = read(shards)
        assert samples == [
            Sample("b.jpg", b"here/b.jpg", "here/b.txt"),
            Sample("a/c.png", b"here/a/c.png"),
            Sample(f"{outside}/d.png", b"there/d.png"),
        ]
        assert isinstance(missing, Failure)
        assert missing.source_id == f"{outside}/e.png"
        assert "No such file" in missing.reason

    def test_tar_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("a/0.tar", "b/0.tar"):
            write_tar(tmp_path / name, ("x.jpg", name.encode()))
        (tmp_path / "tars.lst").write_text("b/0.tar\na/0.tar\n")
        monkeypatch.chdir(tmp_path)
        shards = plan("tars.lst", 1)
        assert [shard.name for shard in shards] == ["b/0.tar", "a/0.tar"]
        assert read(shards) == [Sample("b/0/x", b"b/0.tar"), Sample("a/0/x", b"a/0.tar")]

    def test_all_that_is_wrong_is_one_error(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.jpg", "0.tar")
        lines = ["a.jpg", "0.tar", "1.tar", "./a.jpg", "notes.md"]
        (tmp_path / "list.txt").write_text("\n".join(lines))
        with pytest.raises(ValueError, match="not a list of paths") as error:
            plan(str(tmp_path / "list.txt"), 10)
        for line in (
            "line 3: no such file: 1.tar",
            "line 4: ./a.jpg is line 1 already",
            "line 5: notes.md is neither a photograph",
            "lines 2 and 1: .tar files and photographs need a list each",
        ):
            assert line in str(error.value)

    def test_errors_of_a_long_list_are_cut_short(self, tmp_path: Path) -> None:
        (tmp_path / "list.txt").write_text("\n".join(f"{i}.tar" for i in range(50)))
        with pytest.raises(ValueError, match="and 40 more"):
            plan(str(tmp_path / "list.txt"), 10)
        (tmp_path / "list.txt").write_text("\n\n")
        with pytest.raises(ValueError, match="no line"):
            plan(str(tmp_path / "list.txt"), 10)


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
        shards = plan(str(tmp_path), 1)
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
        assert ids(read(plan(str(tmp_path), 1))) == ["0/x", "a/0/x", "a/b/0/x"]
        assert ids(read(plan(str(tmp_path / "a" / "0.tar"), 1))) == ["0/x"]

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
        assert read(plan(str(tar), 1)) == [
            Sample("0/v1.0/a", b"1", "caption"),
            Sample("0/c", b"2"),
            Sample(f"0/{long}", b"3"),
        ]

    def test_a_name_that_is_not_utf_8_makes_an_id_that_is(self, tmp_path: Path) -> None:
        path = tmp_path / "0.tar"
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
            tar.addfile(tarfile.TarInfo("café.jpg"))
        assert read(plan(str(path), 1)) == [Sample("0/caf\\xe9", b"")]

    def test_only_files_count(self, tmp_path: Path) -> None:
        path = tmp_path / "0.tar"
        with tarfile.open(path, "w") as tar:
            for name, kind in (("d.jpg", tarfile.DIRTYPE), ("l.jpg", tarfile.SYMTYPE), ("f.jpg", tarfile.REGTYPE)):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, "f.jpg"
                tar.addfile(member)
        assert ids(read(plan(str(path), 1))) == ["0/f"]

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
        found = read(plan(str(tar), 1))
        assert ids(found) == ["0/a", "0/b", "0/c", "0/d", "0/e", "0/f", "0/e"]
        reasons = {number: sample.reason for number, sample in enumerate(found) if isinstance(sample, Failure)}
        expected = {
            0: "expected one image and at most one .txt and one .json, got a.txt, a.json",
            1: "expected one image and at most one .txt and one .json, got b.jpg, b.png",
            2: "c.txt: not UTF-8",
            3: "d.json: not JSON",
            6: "e.txt: its other files do not lie beside it",
        }
        assert reasons.keys() == expected.keys()
        assert all(reasons[number].startswith(start) for number, start in expected.items())

    @pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
    def test_an_archive_that_is_cut_anywhere(self, tmp_path: Path, format: int) -> None:
        """At every block, around it and in its middle: whole samples come out, then one Failure for the rest."""
        names = ["a.jpg", "a.txt", "é" * 60 + ".jpg", "b.cls", "b.jpg"]
        contents = [b"1" * 600, b"caption", b"2" * 1024, b"3" * 10, b"4" * 512]
        path = write_tar(tmp_path / "0.tar", *zip(names, contents, strict=True), format=format)
        whole = path.read_bytes()
        with tarfile.open(path) as tar:
            members = {member.name: member for member in tar.getmembers()}
            end = tar.offset
        complete = read(plan(str(path), 1))
        assert [type(sample) for sample in complete] == [Sample] * 3
        # A sample is known to be whole where the next one's header is.
        known = [members[names[2]].offset_data, members["b.jpg"].offset_data, end + 1024]

        for cut in sorted({block + odd for block in range(0, len(whole), 512) for odd in (0, 1, 255, 511)}):
            path.write_bytes(whole[:cut])
            found = read([TarShard(path, "0.tar", cut)])
            if cut >= end + 1024:  # no more than padding is lost
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
        assert read(plan(str(path), 1)) == [
            Sample("0/a", b"a"),
            Failure("0/b", "0.tar is cut short or damaged within this sample's files"),
            Failure(
                "0.tar", "cut short or damaged after 1 samples were read: the archive ends at byte 1800, within b.jpg"
            ),
        ]

    @pytest.mark.parametrize("content", [b"", b"no archive", b"no archive" * 2000, b"\x1f\x8b\x08" + bytes(2000)])
    def test_what_is_no_archive_is_one_failure(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "0.tar").write_bytes(content)
        (failure,) = read(plan(str(tmp_path), 1))
        assert isinstance(failure, Failure)
        assert failure.reason.startswith("cut short or damaged after 0 samples")

    @pytest.mark.parametrize("size", [1 << 40, 1 << 63, 1 << 80])
    def test_a_size_that_no_file_has_is_damage(self, tmp_path: Path, size: int) -> None:
        path = write_tar(tmp_path / "0.tar", ("a.jpg", b"a"))
        member = tarfile.TarInfo("b.jpg")
        member.size = size
        path.write_bytes(path.read_bytes()[:1024] + member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
        sample, failed, rest = read(plan(str(tmp_path), 1))
        assert sample == Sample("0/a", b"a")
        assert ids([failed, rest]) == ["0/b", "0.tar"]

    def test_an_archive_that_is_gone_is_one_failure(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "0.tar", ("a.jpg", b""))
        shards = plan(str(tmp_path), 1)
        path.unlink()
        (failure,) = read(shards)
        assert isinstance(failure, Failure)
        assert "No such file" in failure.reason

    def test_an_empty_archive_has_no_samples(self, tmp_path: Path) -> None:
        assert read(plan(str(write_tar(tmp_path / "0.tar")), 1)) == []

    @pytest.mark.parametrize("more", [bytes(20_000), None], ids=["zeros", "another archive"])
    def test_what_follows_the_end_is_not_lost_in_silence(self, tmp_path: Path, more: bytes | None) -> None:
        path = write_tar(tmp_path / "0.tar", ("a.jpg", b""), ("b.jpg", b""))
        path.write_bytes(path.read_bytes() + (path.read_bytes() if more is None else more))
        sample, _, failure = read(plan(str(path), 1))
        assert sample == Sample("0/a", b"")
        assert isinstance(failure, Failure)
        assert "at byte 1024 there is neither a file nor the end mark of an archive" in failure.reason

    @given(st.data())
    def test_damage_anywhere_is_no_exception(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        """And what comes before it comes out."""
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
        found = read(plan(str(path), 1))
        if start >= 2048:
            assert found[0] == Sample("0/a", b"a" * 600)


def stored(folder: Path, captions: Sequence[str]) -> Iterator[Record]:
    image = np.zeros((8, 8, 3), np.uint8)
    label_map = np.zeros((8, 8), np.uint16)
    for number, caption in enumerate(captions):
        yield Record(image, label_map, caption, np.zeros((0, 8, 8), bool), f"{number}.png", {"num_elements": 4})


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """A folder that `tfds.builder_from_directory` reads: seven records in three files, and a test split."""
    for split, shard, shards, captions in (
        ("train", 0, 3, "abc"),
        ("train", 1, 3, ""),
        ("train", 2, 3, "defg"),
        ("test", 0, 1, "xy"),
    ):
        path = tmp_path / f"elements-{split}.tfrecord-{shard:05d}-of-{shards:05d}"
        write_tfrecord(path, (record.to_example("png") for record in stored(tmp_path, captions)))
    write_metadata(tmp_path)
    return tmp_path


class TestTfds:
    @pytest.mark.parametrize("size", [1, 2, 5, 100])
    def test_every_example_in_order_however_it_is_cut(self, records: Path, size: int) -> None:
        pytest.importorskip("tensorflow_datasets")
        shards = plan(f"tfds:{records}", size)
        assert [shard.count for shard in shards] == [len(read([shard])) for shard in shards]
        assert max(shard.count or 0 for shard in shards) <= size
        assert shards[0].name == f"elements/train[0:{shards[0].count}]"
        found = read(shards)
        assert ids(found) == [f"elements/train/{number:07d}" for number in range(7)]
        first = next(stored(records, "a"))
        for sample, caption in zip(found, "abcdefg", strict=True):
            assert isinstance(sample, Sample)
            assert sample.caption == caption
            assert sample.encoded.startswith(b"\x89PNG")
            assert sample.metadata.keys() == {"source_id", "settings"}
            assert json.loads(sample.metadata["settings"]) == first.settings

    def test_another_split(self, records: Path) -> None:
        pytest.importorskip("tensorflow_datasets")
        assert ids(read(plan(f"tfds:{records}:test", 5))) == ["elements/test/0000000", "elements/test/0000001"]

    def test_the_order_and_the_bytes_are_those_that_tensorflow_datasets_reads(self, records: Path) -> None:
        tfds = pytest.importorskip("tensorflow_datasets")
        pytest.importorskip("tensorflow")
        builder = tfds.builder_from_directory(records)
        order = tfds.ReadConfig(interleave_cycle_length=1)
        decoders = {"image": tfds.decode.SkipDecoding()}
        examples = list(tfds.as_numpy(builder.as_dataset("train", decoders=decoders, read_config=order)))
        found = read(plan(f"tfds:{records}", 3))
        for sample, example in zip(found, examples, strict=True):
            assert isinstance(sample, Sample)
            assert sample.encoded == example["image"]
            assert sample.caption.encode() == example["caption"]

    def test_array_records_with_nested_features_and_numbers(self, tmp_path: Path) -> None:
        tfds = pytest.importorskip("tensorflow_datasets")
        from elements_jax import scenes_dataset

        class Few(scenes_dataset.Scenes):
            name = "few"
            MAX_EXAMPLES = 3

            def _split_generators(self, dl_manager: object) -> dict:
                return {"test": self._generate_examples(range(3))}

        builder = Few(config="64px", data_dir=tmp_path, file_format="array_record")
        builder.download_and_prepare()
        found = read(plan(f"tfds:{builder.data_dir}:test", 2))
        expected = {example["seed"]: example for example in builder.as_data_source("test")}
        assert ids(found) == [f"few/test/{number:07d}" for number in range(3)]
        assert len(expected) == 3
        for sample in found:
            assert isinstance(sample, Sample)
            assert sample.caption == expected[sample.metadata["seed"]]["caption"].decode()
            decoded = tfds.features.Image().decode_example_np(sample.encoded)
            np.testing.assert_array_equal(decoded, expected[sample.metadata["seed"]]["image"])

    def test_a_damaged_record_is_one_failure_and_a_damaged_file_another(self, records: Path) -> None:
        pytest.importorskip("tensorflow_datasets")
        shards = plan(f"tfds:{records}", 100)
        for shard, position in ((0, 100), (2, 3)):  # within the first record's data, and within its length
            path = records / f"elements-train.tfrecord-{shard:05d}-of-00003"
            content = bytearray(path.read_bytes())
            content[position] ^= 255
            path.write_bytes(content)
        found = read(shards)
        assert ids(found) == [
            *(f"elements/train/{number:07d}" for number in range(3)),
            "elements/train[0:7] elements-train.tfrecord-00002-of-00003",
        ]
        reasons = [sample.reason if isinstance(sample, Failure) else "" for sample in found]
        assert "checksum does not fit" in reasons[0]
        assert reasons[1:3] == ["", ""]
        assert reasons[3].startswith("none of its 4 examples read")

    def test_errors(self, records: Path) -> None:
        pytest.importorskip("tensorflow_datasets")
        for source, expected in {
            f"tfds:{records}:valid": "there is no split 'valid', but test, train",
            "tfds:no_such_data_set": "neither a prepared folder nor a known data set",
            "tfds:": "expected tfds:NAME",
        }.items():
            with pytest.raises(ValueError, match=expected):
                plan(source, 5)

    def test_a_set_without_images_is_an_error(self, records: Path) -> None:
        pytest.importorskip("tensorflow_datasets")
        features = json.loads((records / "features.json").read_text())
        del features["content"]["features"]["image"]
        (records / "features.json").write_text(json.dumps(features))
        with pytest.raises(ValueError, match="expected a feature `image`"):
            plan(f"tfds:{records}", 5)

    def test_without_tensorflow_datasets_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ValueError, match=r"pip install 'elements-jax\[tfds\]'"):
            plan("tfds:mnist", 5)


def test_shards_are_frozen(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan(str(tmp_path), 5)[0].name = "b"  # type: ignore[misc]
