"""Every image of a source is read once, in order, with the files next to it; failures say why."""

import dataclasses
import os
from pathlib import Path

import pytest

from partition.sources.plan import plan_shards
from partition.sources.sample import Failure, Sample, read_sample
from tests.helpers.sources import ids, read, touch, write_tar


class TestFolders:
    def test_finds_photos_but_no_masks_hidden_or_skipped_files(self, tmp_path: Path) -> None:
        touch(tmp_path, "b.JPG", "a/z.png", "a.webp", "notes.txt", "masks/b.png", "a/masks/z.png", ".cache/t.jpg")
        touch(tmp_path, "._b.jpg", "out/p.png")
        found = read(plan_shards(str(tmp_path), 10, skip=[tmp_path / "a" / ".." / "out"]))
        assert found == [Sample(name, name.encode()) for name in ("a/z.png", "a.webp", "b.JPG")]

    @pytest.mark.parametrize(("size", "counts"), [(1, [1] * 7), (3, [2, 2, 3]), (4, [3, 4]), (7, [7]), (99, [7])])
    def test_shards_are_even_and_cover_everything(self, tmp_path: Path, size: int, counts: list[int]) -> None:
        names = [f"{i}.png" for i in range(7)]
        touch(tmp_path, *names)
        shards = plan_shards(str(tmp_path), size)
        assert [shard.count for shard in shards] == counts
        assert ids(read(shards)) == names
        assert len({shard.name for shard in shards}) == len(shards)
        assert all(shard.bytes is None for shard in shards)

    def test_a_shards_name_changes_with_its_photos(self, tmp_path: Path) -> None:
        for folder in ("one", "two"):
            touch(tmp_path / folder, "a.png", "b.png", "d.png")
        one, two = (plan_shards(str(tmp_path / folder), 3)[0].name for folder in ("one", "two"))
        assert one == two
        assert one.startswith("a.png to d.png (")
        (tmp_path / "two" / "b.png").rename(tmp_path / "two" / "c.png")
        assert plan_shards(str(tmp_path / "two"), 3)[0].name != one

    def test_captions_and_metadata_are_next_to_photos(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"{letter}.png" for letter in "abcdefgh"))
        (tmp_path / "a.txt").write_text("\ufeffa café\r\n", encoding="utf-8")
        (tmp_path / "a.json").write_text('\ufeff{"caption": "not this", "similarity": 0.3}', encoding="utf-8")
        (tmp_path / "c.json").write_text('{"caption": " from JSON ", "AESTHETIC_SCORE": 6.5}')
        (tmp_path / "d.json").write_text('{"caption": null}')
        (tmp_path / "h.json").write_text(r'{"caption": "half a \ud83d smile"}')
        (tmp_path / "e.txt").write_bytes(b"\xff\xfe\xfa")
        (tmp_path / "f.json").write_text('{"caption": ')
        (tmp_path / "g.json").write_text("[1]")
        a, b, c, d, e, f, g, h = read(plan_shards(str(tmp_path), 10))
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
        shards = plan_shards(str(tmp_path), 10)
        (tmp_path / "a.png").unlink()
        failure, sample = read(shards)
        assert isinstance(failure, Failure)
        assert "No such file" in failure.reason
        assert sample == Sample("b.png", b"b.png")

    def test_a_name_that_is_not_utf_8_makes_an_id_that_is(self, tmp_path: Path) -> None:
        (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"photo")
        assert read(plan_shards(str(tmp_path), 10)) == [Sample("caf\\xe9.png", b"photo")]

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["notes.txt"], "found no photographs, .tar files or"),
            (["0.tar", "a/1.jpg", "2.jpg"], "both .tar files, such as 0.tar, and 2 photographs, such as 2.jpg"),
        ],
    )
    def test_a_folder_that_is_not_a_source_is_an_error(self, tmp_path: Path, names: list[str], message: str) -> None:
        touch(tmp_path, *names)
        with pytest.raises(ValueError, match=message):
            plan_shards(str(tmp_path), 10)

    def test_a_path_that_is_not_a_source_is_an_error(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.jpg")
        for source in (tmp_path / "nowhere", tmp_path / "a.jpg"):
            with pytest.raises(ValueError, match=f"{source}: no such folder, .tar file, or list of paths"):
                plan_shards(str(source), 10)
        with pytest.raises(ValueError, match="at least 1 image, got 0"):
            plan_shards(str(tmp_path), 0)

    def test_one_photograph_can_be_read(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.png", "a.txt")
        assert read_sample(tmp_path / "a.png", "name") == Sample("name", b"a.png", "a.txt")


class TestLists:
    def test_photographs_in_the_lists_order(self, tmp_path: Path) -> None:
        """Relative paths start from the list's folder; ids do not depend on how a path is written."""
        touch(tmp_path, "here/b.jpg", "here/b.txt", "here/a/c.png", "there/d.png")
        lines = ["b.jpg", "", "./a/x/../c.png", f"{tmp_path}/there/d.png  ", "../there/e.png"]
        (tmp_path / "here" / "list.txt").write_text("\ufeff" + "\r\n".join(lines))
        shards = plan_shards(str(tmp_path / "here" / "list.txt"), 2)
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
        shards = plan_shards("tars.lst", 1)
        assert [shard.name for shard in shards] == ["b/0.tar", "a/0.tar"]
        assert read(shards) == [Sample("b/0/x", b"b/0.tar"), Sample("a/0/x", b"a/0.tar")]

    def test_all_that_is_wrong_is_one_error(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.jpg", "0.tar")
        lines = ["a.jpg", "0.tar", "1.tar", "./a.jpg", "notes.md"]
        (tmp_path / "list.txt").write_text("\n".join(lines))
        with pytest.raises(ValueError, match="not a list of paths") as error:
            plan_shards(str(tmp_path / "list.txt"), 10)
        for line in (
            "line 3: no such file: 1.tar",
            "line 4: ./a.jpg repeats line 1",
            "line 5: notes.md is neither a photograph",
            "lines 2 and 1: .tar files and photographs need separate lists",
        ):
            assert line in str(error.value)

    def test_errors_of_a_long_list_are_cut_short(self, tmp_path: Path) -> None:
        (tmp_path / "list.txt").write_text("\n".join(f"{i}.tar" for i in range(50)))
        with pytest.raises(ValueError, match="and 40 more"):
            plan_shards(str(tmp_path / "list.txt"), 10)
        (tmp_path / "list.txt").write_text("\n\n")
        with pytest.raises(ValueError, match="no line"):
            plan_shards(str(tmp_path / "list.txt"), 10)


def test_shards_are_frozen(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan_shards(str(tmp_path), 5)[0].name = "b"  # type: ignore[misc]
