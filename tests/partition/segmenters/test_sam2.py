"""SAM 2 gives the masks of transformers, and segments photographs like the other segmenters."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from partition.__main__ import main
from partition.config import PartitionConfig
from partition.segmenters.checkpoints import find_sam2
from partition.segmenters.sam2 import Sam2Segmenter, load_sam2
from tests.helpers.jobs import SMALL, read

transformers = pytest.importorskip("transformers")
SIDE = 64


def small_model() -> Any:
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[SIDE, SIDE],
        window_positional_embedding_background_size=[4, 4],
        num_query_pool_stages=3,
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[8, 4, 4, 4],
        global_attention_blocks=[3],
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=32,
    )
    prompts = {"hidden_size": 32, "image_size": SIDE}
    decoder = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
    config = transformers.Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    model = transformers.Sam2Model(config).eval()
    torch.manual_seed(0)
    for parameter in model.parameters():  # biases and positions start at zero
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sam2")
    small_model().save_pretrained(folder)
    return folder


@torch.inference_mode()
def test_masks_are_those_of_transformers(folder: Path) -> None:
    model = load_sam2(folder)
    segmenter = Sam2Segmenter(model, PartitionConfig(size=SIDE, grid=4))
    segmenter.points_at_once = 2
    images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    points = torch.tensor([[0.2, 0.7], [0.5, 0.5], [0.9, 0.1]])

    size = {"height": SIDE, "width": SIDE}
    processor = transformers.Sam2Processor(transformers.Sam2ImageProcessor(size=size), target_size=SIDE)
    prompts = [[[(point * SIDE - 0.5).tolist()] for point in points]] * 2  # the model adds half a pixel
    inputs = processor(images=[Image.fromarray(image) for image in images], input_points=prompts, return_tensors="pt")
    expected = model(**inputs)

    for number, embedding in enumerate(segmenter.embed(images)):
        logits, iou = map(torch.cat, zip(*segmenter.decode(embedding, points), strict=True))
        assert logits.shape == (3, 3, 16, 16)
        torch.testing.assert_close(logits, expected.pred_masks[number], rtol=1e-3, atol=1e-3 * logits.std().item())
        torch.testing.assert_close(iou, expected.iou_scores[number], rtol=1e-3, atol=1e-4)
        assert logits.std() > 0.1


def test_photographs_become_records(folder: Path, photos: Path, tmp_path: Path) -> None:
    small = [*SMALL[:2], "--grid", "4", *SMALL[4:], "--mask-filter.min-iou", "-9", "--mask-filter.min-stability", "0"]
    command = [str(photos), str(tmp_path / "out"), *small, "--segmenter", "sam2", "--checkpoint", str(folder)]
    assert main(command) == 0
    records = read(tmp_path / "out")
    assert len(records) == 7
    assert all(record.settings["segmenter"] == "sam2" for record in records)
    assert any(len(record.object_masks) for record in records)
    assert main(command) == 0  # it goes on, as it is the same checkpoint


def test_the_single_mask_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="SAM 2 gives three candidate masks"):
        Sam2Segmenter(load_sam2(folder), PartitionConfig(mask="single"))


def test_errors_name_a_folder_that_is_not_sam_2(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--checkpoint: .*nothing is neither a folder with config\.json"):
        find_sam2(tmp_path / "nothing")
    assert find_sam2(folder) == folder / "model.safetensors"
    for name, content in {
        "kind": {"model_type": "sam"},
        "tensors": {**json.loads((folder / "config.json").read_text()), "model_type": "sam2"},
    }.items():
        other = tmp_path / name
        other.mkdir()
        (other / "config.json").write_text(json.dumps(content))
        (other / "model.safetensors").write_bytes(b"no tensors")
        with pytest.raises(ValueError, match=f"{name}: not a SAM 2 as transformers writes it: "):
            load_sam2(other)


def test_a_name_is_a_repository_on_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, allow_patterns: list[str]) -> str:
        asked.append((repository, *allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert find_sam2(Path("facebook/sam2.1-hiera-tiny")) == folder / "model.safetensors"
    assert asked == [("facebook/sam2.1-hiera-tiny", "config.json", "model.safetensors")]
