"""Object masks of a COCO file equal those of pycocotools; errors name what does not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from partition.masks import CocoFile, mask_source
from tests.helpers.partition.masks import LEFT, SPOT, TOP, assert_same, compress, find, left_out, run_lengths, write


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
