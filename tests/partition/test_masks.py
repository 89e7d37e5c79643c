"""Object masks of every layout equal those of pycocotools and a plain oracle; errors name what does not fit."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw, ImageFilter
from pycocotools import mask as coco

from elements_jax.scenes.drawn import render, scene
from partition.masks import DEFAULT_FILTER, CocoFile, LeftOut, MaskFilter, MaskFolder, MaskSource, mask_source

SHAPE = (6, 8)
LEFT = np.zeros(SHAPE, bool)
LEFT[:, :4] = True
TOP = np.zeros(SHAPE, bool)
TOP[:3] = True
SPOT = np.zeros(SHAPE, bool)
SPOT[2, 5] = True


def compress(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Encode COCO's uncompressed layout, by its definition."""
    counts, value = [0], 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def find(source: MaskSource, source_id: str, keep: MaskFilter = DEFAULT_FILTER) -> list[np.ndarray]:
    return [each for each in source.find(source_id, SHAPE, keep) if not isinstance(each, LeftOut)]


def left_out(source: MaskSource, source_id: str, keep: MaskFilter = DEFAULT_FILTER) -> list[LeftOut]:
    return [each for each in source.find(source_id, SHAPE, keep) if isinstance(each, LeftOut)]


def assert_same(found: Sequence[np.ndarray], *expected: np.ndarray) -> None:
    assert len(found) == len(expected)
    for have, want in zip(found, expected, strict=True):
        assert have.dtype == bool
        np.testing.assert_array_equal(have, want)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


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
        found = list(MaskFolder(tmp_path).find("p.jpg", (75, 100), DEFAULT_FILTER))
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
            found = list(MaskFolder(tmp_path).find(f"{name}.jpg", (64, 64), DEFAULT_FILTER))
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
        assert_same(list(MaskFolder(folder).find("p.jpg", mask.shape, DEFAULT_FILTER)), mask, mask)

    def test_large_masks_as_pycocotools_reads_them(self, tmp_path: Path) -> None:
        """The blobs' runs are long, short, growing and shrinking, so differences of every size and sign occur."""
        rng = np.random.default_rng(0)
        for density in (0.5, 0.01, 0.0001):
            mask = rng.random((600, 900)) < density
            mask = np.logical_xor.accumulate(mask, axis=1)
            write(tmp_path / "p.json", [compress(mask)])
            assert_same(list(MaskFolder(tmp_path).find("p.jpg", mask.shape, DEFAULT_FILTER)), mask)

    @given(st.text(max_size=30) | st.lists(st.integers(-5, 60) | st.floats() | st.none(), max_size=10))
    def test_anything_else_is_left_out(self, tmp_path_factory: pytest.TempPathFactory, counts: Any) -> None:
        folder = tmp_path_factory.mktemp("masks")
        write(folder / "p.json", [{"size": list(SHAPE), "counts": counts}])
        [found] = MaskFolder(folder).find("p.jpg", SHAPE, DEFAULT_FILTER)
        if isinstance(found, LeftOut):
            assert found.detail.startswith(f"{folder}/p.json: annotation 0: ")
        else:
            assert found.shape == SHAPE

    def test_a_truncated_string_is_left_out(self, tmp_path: Path) -> None:
        counts = compress(np.random.default_rng(0).random(SHAPE) < 0.5)["counts"]
        for length in range(len(counts)):
            write(tmp_path / "p.json", [{"size": list(SHAPE), "counts": counts[:length]}])
            [cut] = MaskFolder(tmp_path).find("p.jpg", SHAPE, DEFAULT_FILTER)
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
        [each] = MaskFolder(tmp_path).find("p.jpg", SHAPE, DEFAULT_FILTER)
        assert each.reason == reason
        assert re.search(rf"p\.json: {message}", each.detail)

    def test_a_bad_annotation_leaves_the_others(self, tmp_path: Path) -> None:
        write(tmp_path / "p.json", [compress(LEFT), {"segmentation": []}, 3, compress(TOP)])
        assert_same(find(MaskFolder(tmp_path), "p.jpg"), LEFT, TOP)
        assert len(left_out(MaskFolder(tmp_path), "p.jpg")) == 2


class TestCocoFile:
    @pytest.fixture
    def content(self) -> dict[str, Any]:
        names = ["0001.jpg", "a/0002.jpg", "0003.jpg"]
        images = [{"id": 7 + i, "file_name": name, "height": 6, "width": 8} for i, name in enumerate(names)]
        annotations = [
            {"image_id": 8, "segmentation": compress(TOP), "iscrowd": 0},
            {"image_id": 7, "segmentation": [[0, 0, 4, 0, 4, 6, 0, 6]], "iscrowd": 0},
            {"image_id": 7, "segmentation": run_lengths(SPOT), "iscrowd": 1},
            {"image_id": 7, "segmentation": compress(TOP), "predicted_iou": 0.1},
        ]
        return {"images": images, "annotations": annotations, "categories": []}

    @pytest.mark.parametrize(
        ("source_id", "expected"),
        [
            ("0001.jpg", [LEFT, SPOT]),
            ("train/0001.jpg", [LEFT, SPOT]),
            ("00003/0001", [LEFT, SPOT]),
            ("a/0002.jpg", [TOP]),
            ("b/0002.jpg", []),
            ("0003.jpg", []),
            ("0004.jpg", []),
        ],
    )
    def test_images_are_found_by_name(
        self, tmp_path: Path, content: dict[str, Any], source_id: str, expected: list[np.ndarray]
    ) -> None:
        write(tmp_path / "instances.json", content)
        assert_same(find(mask_source(tmp_path / "instances.json"), source_id), *expected)

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools' decode
    @given(
        st.lists(
            st.lists(st.floats(-3, 12), min_size=6, max_size=12).filter(lambda line: len(line) % 2 == 0), min_size=1
        )
    )
    def test_polygons_are_filled_as_pycocotools_does(
        self, tmp_path_factory: pytest.TempPathFactory, polygons: list[list[float]]
    ) -> None:
        path = tmp_path_factory.mktemp("coco") / "instances.json"
        annotations = [{"image_id": 0, "segmentation": polygons}]
        write(path, {"images": [{"id": 0, "file_name": "p.jpg"}], "annotations": annotations})
        inside = [np.array(line).reshape(-1, 2).clip(0, (8, 6)).ravel().tolist() for line in polygons]
        expected = np.any([coco.decode(coco.frPyObjects([line], 6, 8))[..., 0] for line in inside], axis=0)
        assert_same(find(CocoFile(path), "p.jpg"), expected)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"images": None}, "not COCO's `images` and `annotations`: TypeError"),
            (
                {"images": [{"id": 7, "file_name": "0001.jpg"}] * 2, "annotations": []},
                "its 2 images have the same id or name",
            ),
        ],
    )
    def test_rejects_a_file_that_is_not_coco_before_any_photograph(
        self, tmp_path: Path, content: dict[str, Any], change: dict[str, Any], message: str
    ) -> None:
        write(tmp_path / "instances.json", content | change)
        with pytest.raises(ValueError, match=rf"instances\.json: .*{message}"):
            mask_source(tmp_path / "instances.json")

    @pytest.mark.parametrize(
        ("change", "reason", "message"),
        [
            ({"segmentation": [[1, 2, 3, 4]]}, "a polygon of fewer than three points", "expected polygons of at least"),
            ({"segmentation": [[1, 2, 3, 4, 5, None]]}, "not readable", "expected polygons as lists of numbers"),
            ({"segmentation": []}, "no segmentation", "no segmentation"),
            ({"bbox": [0, 0, 2, 2]}, "no segmentation", "no segmentation"),
        ],
    )
    def test_one_bad_annotation_leaves_the_photographs_other_masks(
        self, tmp_path: Path, content: dict[str, Any], change: dict[str, Any], reason: str, message: str
    ) -> None:
        content["annotations"].append({"image_id": 7, **change})
        write(tmp_path / "instances.json", content)
        source = mask_source(tmp_path / "instances.json")
        assert_same(find(source, "0001.jpg"), LEFT, SPOT)
        untrusted, bad = left_out(source, "0001.jpg")
        assert (untrusted.reason, bad.reason) == ("scores below --mask-filter", reason)
        assert bad.detail.startswith(f"{tmp_path}/instances.json: annotation 4: {message}")

    def test_annotations_of_unlisted_images_are_counted(self, tmp_path: Path, content: dict[str, Any]) -> None:
        content["annotations"] += [{"image_id": 99}, {"image_id": [1]}, {}, None]
        write(tmp_path / "instances.json", content)
        source = mask_source(tmp_path / "instances.json")
        assert source.unlisted() == 4
        assert_same(find(source, "a/0002.jpg"), TOP)

    def test_a_photograph_of_another_size_has_no_masks(self, tmp_path: Path, content: dict[str, Any]) -> None:
        content["images"][0]["width"] = 9
        write(tmp_path / "instances.json", content)
        found = left_out(CocoFile(tmp_path / "instances.json"), "0001.jpg")
        assert [each.reason for each in found] == ["of another size than the photograph"] * 3
        assert "0001.jpg is listed with 9 x 6 pixels, but the photo has 8 x 6" in found[0].detail

    def test_an_annotation_is_named_by_its_number_in_the_file(self, tmp_path: Path, content: dict[str, Any]) -> None:
        content["annotations"][2]["segmentation"]["size"] = [1, 2]
        write(tmp_path / "instances.json", content)
        details = [each.detail for each in left_out(CocoFile(tmp_path / "instances.json"), "0001.jpg")]
        assert any("annotation 2: expected the size" in detail for detail in details)


def test_a_path_is_a_folder_or_a_coco_file(tmp_path: Path) -> None:
    write(tmp_path / "instances.json", {"images": [], "annotations": []})
    assert mask_source(tmp_path) == MaskFolder(tmp_path)
    assert mask_source(tmp_path / "instances.json") == CocoFile(tmp_path / "instances.json")
    with pytest.raises(ValueError, match="neither a folder of masks nor a COCO file"):
        mask_source(tmp_path / "nowhere.json")
