"""Object masks of every layout in a folder equal a plain oracle; errors name what does not fit."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw, ImageFilter

from elements_jax.scenes.drawn import render, scene
from partition.masks import DEFAULT_FILTER, CocoFile, LeftOut, MaskFilter, MaskFolder, mask_source
from partition.sources.sample import Sample
from tests.helpers.partition.masks import (
    LEFT,
    SHAPE,
    SPOT,
    TOP,
    assert_same,
    compress,
    find,
    left_out,
    run_lengths,
    write,
)


class TestFilter:
    @pytest.mark.parametrize(
        ("annotation", "trusted"),
        [
            ({}, True),
            ({"area": 3}, True),
            ({"predicted_iou": 0.88, "stability_score": 0.95}, True),
            ({"predicted_iou": 0.87, "stability_score": 0.99}, False),
            ({"predicted_iou": 1.02}, True),  # SAM's estimate may exceed 1
            ({"stability_score": 0.94}, False),
        ],
    )
    def test_numbers_of_sam(self, annotation: dict[str, float], trusted: bool) -> None:
        assert MaskFilter().trusts(annotation) == trusted
        assert MaskFilter(min_iou=0, min_stability=0).trusts(annotation)

    def test_area(self) -> None:
        assert MaskFilter().fits(LEFT)
        assert not MaskFilter(max_area=0.49).fits(LEFT)
        assert not MaskFilter(min_area=0.51, max_area=1).fits(LEFT)
        assert not MaskFilter(min_area=0).fits(np.zeros(SHAPE, bool))
        with pytest.raises(ValueError, match=r"0 <= min <= max <= 1, got 0\.3 and 0\.2"):
            MaskFilter(min_area=0.3, max_area=0.2)


class TestPngs:
    def test_a_label_map(self, tmp_path: Path) -> None:
        Image.fromarray((LEFT + 2 * TOP).astype(np.uint8)).save(tmp_path / "p.png")
        assert_same(find(MaskFolder(tmp_path), "p.jpg"), LEFT & ~TOP, TOP & ~LEFT, LEFT & TOP)

    @pytest.mark.parametrize("how", ["smooth", "blurred", "several"])
    def test_an_anti_aliased_label_map_is_left_out(self, tmp_path: Path, how: str) -> None:
        """Each value at its edges would become a ring object."""
        large = Image.new("L", (400, 300))
        draw = ImageDraw.Draw(large)
        draw.ellipse((40, 40, 200, 220), fill=255)
        draw.polygon([(250, 50), (380, 90), (300, 250)], fill=128 if how == "several" else 255)
        small = large.resize((100, 75), Image.Resampling.BICUBIC)
        (small.filter(ImageFilter.GaussianBlur(1)) if how == "blurred" else small).save(tmp_path / "p.png")
        found = list(MaskFolder(tmp_path).find(Sample("p.jpg", b""), (75, 100), DEFAULT_FILTER))
        [only] = found
        assert only.reason == "a label map with blurred edges"
        assert str(tmp_path / "p.png") in only.detail

    @pytest.mark.parametrize("seed", range(8))
    def test_sharp_label_maps_are_taken(self, tmp_path: Path, seed: int) -> None:
        """The label maps are of drawn scenes, and of touching blobs with many labels."""
        _, labels = render(scene(seed, 64))
        rng = np.random.default_rng(seed)
        at, centres = np.indices((64, 64)), rng.uniform(0, 64, (40, 2, 1, 1))
        blobs = ((at - centres) ** 2).sum(1).argmin(0).astype(np.uint8)
        for name, label_map in (("drawn", labels), ("blobs", blobs)):
            Image.fromarray(label_map).save(tmp_path / f"{name}.png")
            found = list(MaskFolder(tmp_path).find(Sample(f"{name}.jpg", b""), (64, 64), DEFAULT_FILTER))
            assert len(found) == len(np.unique(label_map[label_map > 0]))
            assert all(isinstance(each, np.ndarray) for each in found)

    def test_one_object_each(self, tmp_path: Path) -> None:
        folder = tmp_path / "a" / "p"
        folder.mkdir(parents=True)
        grey = LEFT.astype(np.uint8) * 255
        colour = np.dstack([np.zeros_like(grey), TOP * np.uint8(255), TOP * np.uint8(255)])
        Image.fromarray(grey).convert("1").save(folder / "1.png")
        Image.fromarray(np.dstack([colour, np.full(SHAPE, 255, np.uint8)])).save(folder / "2.png")  # opaque everywhere
        Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "3.png")
        Image.new("L", SHAPE[::-1]).save(folder / "4.png")
        assert_same(find(MaskFolder(tmp_path), "a/p.jpg"), LEFT, TOP, LEFT, LEFT & ~LEFT)

    @pytest.mark.parametrize(
        ("mask", "reason", "message"),
        [
            (
                Image.new("L", SHAPE),
                "of another size than the photograph",
                "p.png: expected the photo's 8 x 6 pixels, got 6 x 8",
            ),
            (Image.new("RGB", SHAPE[::-1]), "not readable", "p.png: a label map has one channel, this has 3"),
        ],
    )
    def test_a_mask_that_does_not_fit_is_left_out(
        self, tmp_path: Path, mask: Image.Image, reason: str, message: str
    ) -> None:
        mask.save(tmp_path / "p.png")
        (tmp_path / "p").mkdir()
        Image.fromarray(TOP.astype(np.uint8)).save(tmp_path / "p" / "1.png")
        assert_same(find(MaskFolder(tmp_path), "p.jpg"), TOP)
        assert left_out(MaskFolder(tmp_path), "p.jpg") == [LeftOut(reason, f"{tmp_path}/{message}")]

    def test_a_damaged_png_is_left_out(self, tmp_path: Path) -> None:
        (tmp_path / "p").mkdir()
        for path in (tmp_path / "p.png", tmp_path / "p" / "1.png"):
            Image.effect_noise((64, 64), 50).save(path)
            path.write_bytes(path.read_bytes()[:1000])
        Image.fromarray(TOP.astype(np.uint8)).save(tmp_path / "p" / "2.png")
        assert_same(find(MaskFolder(tmp_path), "p.jpg"), TOP)
        named = left_out(MaskFolder(tmp_path), "p.jpg")
        assert [each.reason for each in named] == ["not readable"] * 2
        assert [each.detail.partition(": ")[0] for each in named] == [f"{tmp_path}/p.png", f"{tmp_path}/p/1.png"]


class TestRunLengths:
    @given(arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 20))))
    @example(np.zeros((1, 1), bool))
    @example(np.ones((500, 700), bool))
    def test_roundtrip(self, tmp_path_factory: pytest.TempPathFactory, mask: np.ndarray) -> None:
        folder = tmp_path_factory.mktemp("masks")
        write(folder / "p.json", [compress(mask), run_lengths(mask)])
        assert_same(list(MaskFolder(folder).find(Sample("p.jpg", b""), mask.shape, DEFAULT_FILTER)), mask, mask)

    def test_large_masks_as_pycocotools_reads_them(self, tmp_path: Path) -> None:
        """The blobs' runs are long, short, growing and shrinking, so differences of every size and sign occur."""
        rng = np.random.default_rng(0)
        for density in (0.5, 0.01, 0.0001):
            mask = rng.random((600, 900)) < density
            mask = np.logical_xor.accumulate(mask, axis=1)
            write(tmp_path / "p.json", [compress(mask)])
            assert_same(list(MaskFolder(tmp_path).find(Sample("p.jpg", b""), mask.shape, DEFAULT_FILTER)), mask)

    @given(st.text(max_size=30) | st.lists(st.integers(-5, 60) | st.floats() | st.none(), max_size=10))
    def test_anything_else_is_left_out(self, tmp_path_factory: pytest.TempPathFactory, counts: Any) -> None:
        folder = tmp_path_factory.mktemp("masks")
        write(folder / "p.json", [{"size": list(SHAPE), "counts": counts}])
        [found] = MaskFolder(folder).find(Sample("p.jpg", b""), SHAPE, DEFAULT_FILTER)
        if isinstance(found, LeftOut):
            assert found.detail.startswith(f"{folder}/p.json: annotation 0: ")
        else:
            assert found.shape == SHAPE

    def test_a_truncated_string_is_left_out(self, tmp_path: Path) -> None:
        counts = compress(np.random.default_rng(0).random(SHAPE) < 0.5)["counts"]
        for length in range(len(counts)):
            write(tmp_path / "p.json", [{"size": list(SHAPE), "counts": counts[:length]}])
            [cut] = MaskFolder(tmp_path).find(Sample("p.jpg", b""), SHAPE, DEFAULT_FILTER)
            assert re.search("p.json: annotation 0: (not COCO's string|expected runs of 6 x 8 = 48)", cut.detail)


class TestSidecars:
    """The layouts of STEM.json."""

    @pytest.fixture
    def annotations(self) -> list[dict[str, Any]]:
        return [
            {"segmentation": compress(LEFT), "area": 24, "predicted_iou": 0.9, "stability_score": 0.96},
            {"segmentation": run_lengths(TOP), "area": 24, "predicted_iou": 0.9, "stability_score": 0.9},
            {"segmentation": compress(SPOT), "area": 1},
        ]

    def test_sa_1b(self, tmp_path: Path, annotations: list[dict[str, Any]]) -> None:
        image = {"image_id": 1, "width": 8, "height": 6, "file_name": "sa_1.jpg"}
        write(tmp_path / "sa_1.json", {"image": image, "annotations": annotations})
        assert_same(find(MaskFolder(tmp_path), "sa_1.jpg"), LEFT, SPOT)
        assert_same(find(MaskFolder(tmp_path), "sa_1.jpg", MaskFilter(min_stability=0.9)), LEFT, TOP, SPOT)

    def test_lists_of_annotations_and_of_run_lengths(self, tmp_path: Path, annotations: list[dict[str, Any]]) -> None:
        write(tmp_path / "p.json", annotations)
        assert_same(find(MaskFolder(tmp_path), "p.jpg"), LEFT, SPOT)
        write(tmp_path / "p.json", [annotation["segmentation"] for annotation in annotations])
        assert_same(find(MaskFolder(tmp_path), "p.jpg"), LEFT, TOP, SPOT)

    @pytest.mark.parametrize(
        ("source_id", "stem"),
        [("p.jpg", "p"), ("a/p.x.PNG", "a/p.x"), ("00003/000030001", "00003/000030001"), ("0/v1.0/p", "0/v1.0/p")],
    )
    def test_names(self, tmp_path: Path, source_id: str, stem: str) -> None:
        write(tmp_path / f"{stem}.json", [compress(LEFT)])
        assert_same(find(MaskFolder(tmp_path), source_id), LEFT)
        assert_same(find(MaskFolder(tmp_path), "q.jpg"))

    def test_all_kinds_are_taken_together(self, tmp_path: Path) -> None:
        write(tmp_path / "p.json", [compress(SPOT)])
        Image.fromarray(LEFT.astype(np.uint8)).save(tmp_path / "p.png")
        (tmp_path / "p").mkdir()
        Image.fromarray(TOP.astype(np.uint8)).save(tmp_path / "p" / "1.png")
        assert_same(find(MaskFolder(tmp_path), "p.jpg"), LEFT, TOP, SPOT)

    @pytest.mark.parametrize(
        ("content", "reason", "message"),
        [
            ("{", "not readable", "not JSON"),
            ("[" * 100_000, "not readable", "not JSON"),
            ("3", "not readable", "expected a list of annotations, or an object with `annotations`"),
            ('{"caption": "a dog"}', "not readable", "expected a list of annotations"),
            ("[3]", "not readable", "annotation 0: "),
            ('[{"segmentation": 3}]', "not readable", "annotation 0: "),
            ('[{"caption": "a dog"}]', "no segmentation", "annotation 0: no segmentation"),
            ('[{"segmentation": []}]', "no segmentation", "annotation 0: no segmentation"),
            ('[{"predicted_iou": "high"}]', "not readable", "annotation 0: TypeError"),
            ('[{"predicted_iou": 0.1}]', "scores below --mask-filter", "annotation 0: scores below --mask-filter"),
            (
                '[{"size": [6, 8], "counts": [40]}]',
                "not readable",
                r"annotation 0: expected runs of 6 x 8 = 48 pixels together, got 40",
            ),
            ('[{"size": [6, 8], "counts": [50, -2]}]', "not readable", "annotation 0: expected runs"),
            (
                '[{"size": [8, 6], "counts": [48]}]',
                "of another size than the photograph",
                r"annotation 0: .* \[6, 8\] of the",
            ),
        ],
    )
    def test_skipped_annotations_are_named_with_their_file(
        self, tmp_path: Path, content: str, reason: str, message: str
    ) -> None:
        (tmp_path / "p.json").write_text(content)
        [each] = MaskFolder(tmp_path).find(Sample("p.jpg", b""), SHAPE, DEFAULT_FILTER)
        assert each.reason == reason
        assert re.search(rf"p\.json: {message}", each.detail)

    def test_a_bad_annotation_leaves_the_others(self, tmp_path: Path) -> None:
        write(tmp_path / "p.json", [compress(LEFT), {"segmentation": []}, 3, compress(TOP)])
        assert_same(find(MaskFolder(tmp_path), "p.jpg"), LEFT, TOP)
        assert len(left_out(MaskFolder(tmp_path), "p.jpg")) == 2


def test_a_path_is_a_folder_or_a_coco_file(tmp_path: Path) -> None:
    write(tmp_path / "instances.json", {"images": [], "annotations": []})
    assert mask_source(tmp_path) == MaskFolder(tmp_path)
    assert mask_source(tmp_path / "instances.json") == CocoFile(tmp_path / "instances.json")
    with pytest.raises(ValueError, match="neither a folder of masks nor a COCO file"):
        mask_source(tmp_path / "nowhere.json")
