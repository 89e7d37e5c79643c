"""Object masks of every layout come out as pycocotools and a plain oracle read them; what does not fit is named."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco

from partition.masks import DEFAULT_FILTER, CocoFile, MaskFilter, MaskFolder, MaskSource, mask_source

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
    """COCO's uncompressed layout, by its definition."""
    counts, value = [0], 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def find(source: MaskSource, source_id: str, keep: MaskFilter = DEFAULT_FILTER) -> list[np.ndarray]:
    return list(source.find(source_id, SHAPE, keep))


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
        ("mask", "message"),
        [
            (Image.new("L", SHAPE), r"p\.png: expected the photo's 8 x 6 pixels, got 6 x 8"),
            (Image.new("RGB", SHAPE[::-1]), r"p\.png: a label map has one channel, this has 3"),
        ],
    )
    def test_a_label_map_that_does_not_fit_is_named(self, tmp_path: Path, mask: Image.Image, message: str) -> None:
        mask.save(tmp_path / "p.png")
        with pytest.raises(ValueError, match=message):
            find(MaskFolder(tmp_path), "p.jpg")

    def test_a_damaged_png_is_named(self, tmp_path: Path) -> None:
        Image.effect_noise((64, 64), 50).save(tmp_path / "p.png")
        (tmp_path / "p.png").write_bytes((tmp_path / "p.png").read_bytes()[:1000])
        with pytest.raises(ValueError, match=r"p\.png: "):
            find(MaskFolder(tmp_path), "p.jpg")


class TestRunLengths:
    @given(arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 20))))
    @example(np.zeros((1, 1), bool))
    @example(np.ones((500, 700), bool))
    def test_roundtrip(self, tmp_path_factory: pytest.TempPathFactory, mask: np.ndarray) -> None:
        folder = tmp_path_factory.mktemp("masks")
        write(folder / "p.json", [compress(mask), run_lengths(mask)])
        assert_same(list(MaskFolder(folder).find("p.jpg", mask.shape, DEFAULT_FILTER)), mask, mask)

    def test_large_masks_as_pycocotools_reads_them(self, tmp_path: Path) -> None:
        """Blobs whose runs are long, short, growing and shrinking, so that differences of every size and sign occur."""
        rng = np.random.default_rng(0)
        for density in (0.5, 0.01, 0.0001):
            mask = rng.random((600, 900)) < density
            mask = np.logical_xor.accumulate(mask, axis=1)
            write(tmp_path / "p.json", [compress(mask)])
            assert_same(list(MaskFolder(tmp_path).find("p.jpg", mask.shape, DEFAULT_FILTER)), mask)

    @given(st.text(max_size=30) | st.lists(st.integers(-5, 60) | st.floats() | st.none(), max_size=10))
    def test_anything_else_is_a_value_error(self, tmp_path_factory: pytest.TempPathFactory, counts: Any) -> None:
        folder = tmp_path_factory.mktemp("masks")
        write(folder / "p.json", [{"size": list(SHAPE), "counts": counts}])
        try:
            (mask,) = find(MaskFolder(folder), "p.jpg")
        except ValueError as error:
            assert "p.json: annotation 0: " in str(error)  # noqa: PT017
        else:
            assert mask.shape == SHAPE

    def test_a_cut_string_is_an_error_wherever_it_is_cut(self, tmp_path: Path) -> None:
        counts = compress(np.random.default_rng(0).random(SHAPE) < 0.5)["counts"]
        for length in range(len(counts)):
            write(tmp_path / "p.json", [{"size": list(SHAPE), "counts": counts[:length]}])
            with pytest.raises(
                ValueError, match=r"p\.json: annotation 0: (not COCO's string|expected runs of 6 x 8 = 48)"
            ):
                find(MaskFolder(tmp_path), "p.jpg")


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
        ("content", "message"),
        [
            ("{", "not JSON"),
            ("[" * 100_000, "not JSON"),
            ("3", "expected a list of annotations, or an object with `annotations`"),
            ('{"caption": "a dog"}', "expected a list of annotations"),
            ("[3]", "annotation 0: "),
            ('[{"segmentation": 3}]', "annotation 0: "),
            ('[{"caption": "a dog"}]', "annotation 0: KeyError 'size'"),
            ('[{"predicted_iou": "high"}]', "annotation 0: TypeError"),
            (
                '[{"size": [6, 8], "counts": [48]}, {"size": [8, 6], "counts": [48]}]',
                r"annotation 1: .* \[6, 8\] of the",
            ),
            (
                '[{"size": [6, 8], "counts": [40]}]',
                r"annotation 0: expected runs of 6 x 8 = 48 pixels together, got 40",
            ),
            ('[{"size": [6, 8], "counts": [50, -2]}]', "annotation 0: expected runs"),
        ],
    )
    def test_errors_name_the_file_and_the_annotation(self, tmp_path: Path, content: str, message: str) -> None:
        (tmp_path / "p.json").write_text(content)
        with pytest.raises(ValueError, match=rf"p\.json: {message}"):
            find(MaskFolder(tmp_path), "p.jpg")


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
            ({"annotations": [{"image_id": 99}]}, "not COCO's `images` and `annotations`: KeyError 99"),
            (
                {"images": [{"id": 7, "file_name": "0001.jpg"}] * 2, "annotations": []},
                "its 2 images have the same id or name",
            ),
            ({"annotations": [{"image_id": 7, "segmentation": [[1, 2, 3, 4]]}]}, "annotation 0: expected polygons"),
            (
                {"annotations": [{"image_id": 7, "segmentation": [[1, 2, 3, 4, 5, None]]}]},
                "annotation 0: expected polygons",
            ),
            (
                {"images": [{"id": 7, "file_name": "0001.jpg", "width": 9}], "annotations": []},
                "with 9 x 6 pixels, but the",
            ),
        ],
    )
    def test_errors_name_the_file(
        self, tmp_path: Path, content: dict[str, Any], change: dict[str, Any], message: str
    ) -> None:
        write(tmp_path / "instances.json", content | change)
        with pytest.raises(ValueError, match=rf"instances\.json: .*{message}"):
            find(CocoFile(tmp_path / "instances.json"), "0001.jpg")

    def test_an_annotation_is_named_by_its_number_in_the_file(self, tmp_path: Path, content: dict[str, Any]) -> None:
        content["annotations"][2]["segmentation"]["size"] = [1, 2]
        write(tmp_path / "instances.json", content)
        with pytest.raises(ValueError, match="annotation 2: expected the size"):
            find(CocoFile(tmp_path / "instances.json"), "0001.jpg")


def test_a_path_is_a_folder_or_a_coco_file(tmp_path: Path) -> None:
    write(tmp_path / "instances.json", {})
    assert mask_source(tmp_path) == MaskFolder(tmp_path)
    assert mask_source(tmp_path / "instances.json") == CocoFile(tmp_path / "instances.json")
    with pytest.raises(ValueError, match="neither a folder of masks nor a COCO file"):
        mask_source(tmp_path / "nowhere.json")
