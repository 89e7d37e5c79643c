"""Checkpoints by name, and in transformers' layout."""

import hashlib
from functools import partial
from pathlib import Path

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn
from transformers import SamConfig, SamModel

from partition.segmenters import checkpoints
from partition.segmenters.checkpoints import Published, find_checkpoint, from_transformers


def small_sam() -> Sam:
    encoder = ImageEncoderViT(
        img_size=64,
        depth=2,
        embed_dim=32,
        num_heads=2,
        mlp_ratio=2,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=2,
        global_attn_indexes=(1,),
    )
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048)
    prompts = PromptEncoder(256, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_chans=16)
    return Sam(encoder, prompts, MaskDecoder(transformer_dim=256, transformer=transformer))


@torch.inference_mode()
def test_transformers_layout_gives_the_same_masks() -> None:
    torch.manual_seed(0)
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "window_size": 2,
        "global_attn_indexes": [1],
        "mlp_dim": 64,
    }
    prompts = {"image_size": 64, "image_embedding_size": 4}
    theirs = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompts)).eval()
    for parameter in theirs.parameters():  # biases and positions start at zero
        nn.init.normal_(parameter, std=0.1)
    ours = small_sam().eval()
    weights = from_transformers(theirs.state_dict())
    ours.load_state_dict(weights)  # strict: none missing or left over

    pixels = torch.randn(1, 3, 64, 64)
    point = torch.tensor([[[20.0, 30.0]]])
    expected = theirs(
        pixel_values=pixels, input_points=point[:, None], input_labels=torch.ones(1, 1, 1, dtype=torch.int)
    )
    embedding = ours.image_encoder(pixels)
    torch.testing.assert_close(embedding, theirs.get_image_embeddings(pixels), rtol=1e-4, atol=1e-4)
    sparse, dense = ours.prompt_encoder(points=(point, torch.ones(1, 1)), boxes=None, masks=None)
    masks, scores = ours.mask_decoder(
        embedding, ours.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=True
    )
    torch.testing.assert_close(masks, expected.pred_masks[:, 0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(scores, expected.iou_scores[:, 0], rtol=1e-3, atol=1e-4)


def test_a_folder_of_transformers_is_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert find_checkpoint(tmp_path) == tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match=r"no such file: .*nothing; and it is not one of mobile-sam, vit_b"):
        find_checkpoint(tmp_path / "nothing")


def test_a_named_checkpoint_is_the_published_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mobile_sam.pt"
    file.write_bytes(b"weights")
    asked = []

    def download(repository: str, name: str) -> str:
        asked.append((repository, name))
        return str(file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    right = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setitem(checkpoints.PUBLISHED, "mobile-sam", Published("a/b", "c.pt", right))
    assert find_checkpoint(Path("mobile-sam")) == file
    assert asked == [("a/b", "c.pt")]
    file.write_bytes(b"others")
    with pytest.raises(ValueError, match="is not the published file: its SHA-256 is"):
        find_checkpoint(Path("mobile-sam"))
