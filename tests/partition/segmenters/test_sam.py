"""MobileSAM is the published network; kinds of checkpoints are detected, and a wrong one is one clear error."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator, sam_model_registry
from segment_anything.modeling import Sam

from partition.assignment import query_grid
from partition.config import PartitionConfig
from partition.masks import MaskFilter
from partition.photos import read_photo
from partition.segmenters.mobile_sam import WindowAttention
from partition.segmenters.sam import ObjectMasks, SamSegmenter, affinity, build_mobile_sam, detect_kind, load_sam
from partition.segmenters.sam_points import decode_points
from partition.sources.sample import read_sample


def test_every_tensor_of_mobile_sam_is_used_but_the_classifiers(shared_data: Path, mobile_sam: Sam) -> None:
    weights = torch.load(shared_data / "weights" / "mobile_sam.pt", weights_only=True)
    assert len(weights) == 439
    classifier = [f"image_encoder.{part}.{kind}" for part in ("norm_head", "head") for kind in ("weight", "bias")]
    assert set(weights) - set(mobile_sam.state_dict()) == set(classifier)
    assert set(mobile_sam.state_dict()) < set(weights)
    for name, value in mobile_sam.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)


def test_window_attention_by_hand() -> None:
    """One token, head and pair at a time, as in the TinyViT paper. Tolerance: float32 in another order."""
    torch.manual_seed(0)
    heads, window, channels = 2, 3, 8
    attention = WindowAttention(channels, heads, window).eval()
    torch.nn.init.normal_(attention.attention_biases)
    x = torch.randn(1, window**2, channels)
    with torch.no_grad():
        qkv = attention.qkv(attention.norm(x))[0].reshape(window**2, heads, 3, channels // heads)
        out = torch.zeros(window**2, heads, channels // heads)
        for head in range(heads):
            for i in range(window**2):
                logits = torch.stack([qkv[i, head, 0] @ qkv[j, head, 1] for j in range(window**2)]) / 2  # sqrt(4)
                for j in range(window**2):
                    apart = abs(i // window - j // window) * window + abs(i % window - j % window)
                    logits[j] += attention.attention_biases[head, apart]
                out[i, head] = logits.softmax(0) @ qkv[:, head, 2]
        expected = attention.proj(out.flatten(1))
        torch.testing.assert_close(attention(x)[0], expected, rtol=1e-5, atol=1e-5)


def test_weights_loaded_after_eval_count() -> None:
    """The published encoder caches its attention biases at `.eval()` and would ignore these weights."""
    attention = WindowAttention(8, 2, 3).eval()
    x = torch.randn(1, 9, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = attention(x)
        biases = torch.linspace(0, 3, 18).reshape(2, 9)
        attention.load_state_dict({**attention.state_dict(), "attention_biases": biases})
        assert (attention(x) - before).abs().max() > 1e-3


def test_mobile_sam_finds_the_disc(mobile_sam: Sam, disc: tuple[np.ndarray, np.ndarray]) -> None:
    """The real weights work: a point on the disc gives its mask, a point next to it the rest, in batches of any
    size."""
    image, inside = disc
    segmenter = SamSegmenter(mobile_sam, PartitionConfig(size=128, grid=2))
    embedding, points = segmenter.embed(image[None])[0], torch.tensor([[74.5, 60.5], [13, 115], [60, 50]]) / 128
    s = segmenter.scores(embedding, points)
    found = s[:, 1::2, 1::2].numpy() > 0.5  # 256 -> 128
    for mask, truth in zip(found, [inside, ~inside, inside], strict=True):
        assert (mask & truth).sum() / (mask | truth).sum() > 0.95
    single = SamSegmenter(mobile_sam, PartitionConfig(mask="single")).scores(embedding, points[1:2])
    assert single.shape == s[:1].shape
    assert (single - s[1:2]).abs().max() > 0.01  # a separate mask, not one of the three
    segmenter.points_at_once = 1
    # Tolerance: float32 matrix products of other shapes.
    torch.testing.assert_close(segmenter.scores(embedding, points), s, rtol=0, atol=1e-4)


def test_points_are_decoded_as_the_published_decoder_does() -> None:
    """In float64 with random weights, only the order of sums differs. Tolerance: 1e-9 of the largest number."""
    torch.manual_seed(0)
    model = build_mobile_sam().eval()
    for parameter in model.parameters():  # also those that start at zero or one
        torch.nn.init.normal_(parameter, std=0.1)
    model, embedding, points = model.double(), torch.randn(1, 256, 64, 64).double(), torch.rand(5, 2).double()
    model.prompt_encoder.pe_layer._pe_encoding = partial(encode_positions, model.prompt_encoder.pe_layer)
    with torch.inference_mode():
        coordinates = 1024 * points[:, None] - 0.5
        prompts, dense = model.prompt_encoder((coordinates, torch.ones(5, 1)), boxes=None, masks=None)
        places = model.prompt_encoder.get_dense_pe()
        expected = model.mask_decoder.predict_masks(embedding, places, prompts, dense)
        found = map(torch.cat, zip(*decode_points(model, embedding, points, chunk=2), strict=True))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * float(theirs.abs().max()))


def encode_positions(layer: torch.nn.Module, coords: torch.Tensor) -> torch.Tensor:
    """Encode positions as SAM does, but in the given precision: SAM converts coordinates to float32."""
    angles = 2 * torch.pi * ((2 * coords.double() - 1) @ layer.positional_encoding_gaussian_matrix)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@pytest.mark.slow
def test_mixed_precision_changes_little(mobile_sam: Sam, disc: tuple[np.ndarray, np.ndarray]) -> None:
    """bfloat16 keeps 8 bits; s is compared as a mask, where it matters."""
    image, _ = disc
    points = query_grid(2)
    masks = []
    for precision in ("float32", "bfloat16"):
        segmenter = SamSegmenter(mobile_sam, PartitionConfig(size=128, grid=2), precision)
        s = segmenter.scores(segmenter.embed(image[None])[0], points)
        assert s.dtype == torch.float32
        masks.append(s > 0.5)
    assert (masks[0] != masks[1]).float().mean() < 0.01


def test_a_batch_is_segmented_like_its_single_images(mobile_sam: Sam, disc: tuple[np.ndarray, np.ndarray]) -> None:
    image, _ = disc
    segmenter = SamSegmenter(mobile_sam, PartitionConfig(size=128, grid=4, beta=4))
    batch = np.stack([image, image[::-1]])
    for alone, (assignment, objects) in zip(batch, segmenter.segment(batch, MaskFilter()), strict=True):
        # Where two queries have similar scores, float32 may decide differently in a batch.
        ((expected, of_one),) = segmenter.segment(alone[None], MaskFilter())
        assert np.mean(assignment != expected) < 0.001
        assert len(objects) == len(of_one) > 0


def test_affinity_of_each_choice() -> None:
    areas = torch.tensor([[9, 4, 2, 0], [1, 3, 0, 5]])
    logits = torch.where(torch.arange(9).reshape(3, 3) < areas[..., None, None], 1.0, -1.0)
    iou = torch.tensor([[1.0, 0.1, 0.2, 0.9], [1.0, 0.3, 0.8, 0.5]])
    s = logits.sigmoid()
    torch.testing.assert_close(affinity(logits, iou, "best"), s[[0, 1], [3, 2]])
    torch.testing.assert_close(affinity(logits, iou, "smallest"), s[[0, 1], [2, 1]])  # one with a pixel
    torch.testing.assert_close(affinity(logits, iou, "single"), s[:, 0])
    torch.testing.assert_close(affinity(logits, iou, "mean"), (s[:, 1] + s[:, 2] + s[:, 3]) / 3)


def test_object_masks_are_filtered_and_distinct() -> None:
    def disc_logits(radius: float, sharpness: float = 40.0) -> torch.Tensor:
        y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
        return sharpness * (radius - torch.hypot(y - 16, x - 16))

    logits = torch.stack(
        [
            disc_logits(6),
            disc_logits(6.2),  # the same mask, trusted more
            disc_logits(10),
            disc_logits(13, sharpness=0.1),  # not stable: most logits are near zero
            disc_logits(12),  # not trusted
            disc_logits(1),  # too small
            disc_logits(15.9),  # too large
            disc_logits(-1),  # nothing
        ]
    )
    trusted = torch.tensor([0.9, 0.95, 0.9, 0.99, 0.5, 0.9, 0.9, 0.99])
    objects = ObjectMasks((64, 64), MaskFilter(min_area=0.01, max_area=0.5))
    objects.add(logits[:3], trusted[:3])
    objects.add(logits[3:], trusted[3:])
    large, small = objects.distinct()
    assert large.sum() / 64**2 == pytest.approx(np.pi * 10**2 / 32**2, rel=0.05)
    assert small.sum() / 64**2 == pytest.approx(np.pi * 6.2**2 / 32**2, rel=0.05)
    nothing = ObjectMasks((64, 64), MaskFilter())
    nothing.add(logits[-1:], trusted[-1:])
    assert nothing.distinct().shape == (0, 64, 64)


@pytest.mark.slow
def test_objects_equal_those_of_the_published_generator(shared_data: Path, mobile_sam: Sam) -> None:
    """On a photograph. The published generator resizes images and masks in another way, so this compares IoU, not
    bits."""
    path = min((shared_data / "data" / "bsds500" / "images" / "train").glob("*.jpg"))
    image = read_photo(read_sample(path, path.name), 512).image
    keep = MaskFilter(min_area=0, max_area=1)
    ((_, ours),) = SamSegmenter(mobile_sam, PartitionConfig()).segment(image[None], keep)
    generator = SamAutomaticMaskGenerator(mobile_sam, points_per_side=16, points_per_batch=16)
    theirs = np.array([mask["segmentation"] for mask in generator.generate(image)])
    assert abs(len(ours) - len(theirs)) <= 0.1 * len(theirs)
    flat = ours.reshape(len(ours), -1).astype(np.float32), theirs.reshape(len(theirs), -1).astype(np.float32)
    shared = flat[0] @ flat[1].T
    iou = shared / (flat[0].sum(1)[:, None] + flat[1].sum(1) - shared)
    assert np.mean(iou.max(axis=0) > 0.9) > 0.9


@pytest.mark.parametrize("kind", ["vit_b", "vit_l", "vit_h"])
def test_official_kinds_are_detected_by_their_tensors(kind: str) -> None:
    with torch.device("meta"):
        weights = sam_model_registry[kind]().state_dict()
    assert detect_kind(weights, "here") == kind


def test_a_checkpoint_of_another_kind_lists_every_tensor(shared_data: Path, tmp_path: Path) -> None:
    weights = torch.load(shared_data / "weights" / "mobile_sam.pt", weights_only=True)
    weights["mask_decoder.iou_token.weight"] = torch.zeros(1, 7)
    del weights["prompt_encoder.no_mask_embed.weight"], weights["image_encoder.neck.3.bias"]
    weights["image_encoder.surplus"] = torch.zeros(1)
    torch.save(weights, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"odd\.pt: not a checkpoint of mobile-sam") as raised:
        load_sam(tmp_path / "odd.pt")
    for line in (
        "missing: image_encoder.neck.3.bias, prompt_encoder.no_mask_embed.weight",
        "unexpected: image_encoder.surplus",
        "misshapen: mask_decoder.iou_token.weight (1, 7) instead of (1, 256)",
    ):
        assert line in str(raised.value)


def test_a_kind_given_by_name_is_held_to_it(shared_data: Path) -> None:
    with pytest.raises(ValueError, match=r"not a checkpoint of vit_b\n  missing: image_encoder.blocks.0.attn"):
        load_sam(shared_data / "weights" / "mobile_sam.pt", "vit_b")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04cut short"])
def test_errors_name_a_file_that_is_not_a_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.pt: not a PyTorch checkpoint"):
        load_sam(tmp_path / "file.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "expected a mapping"),
        ({"model": {"a": torch.zeros(1)}}, "expected a mapping"),
        ({"unet.weight": torch.zeros(1)}, "it starts with unet.weight"),
        ({}, "it starts with nothing"),
    ],
)
def test_other_networks_checkpoints_are_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(ValueError, match=message):
        load_sam(tmp_path / "file.pt")


@pytest.mark.slow
def test_a_vit_b_checkpoint_is_read_as_it_is(tmp_path: Path) -> None:
    model = sam_model_registry["vit_b"]()
    torch.save(model.state_dict(), tmp_path / "sam_vit_b.pth")
    loaded, kind = load_sam(tmp_path / "sam_vit_b.pth")
    assert kind == "vit_b"
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)
    segmenter = SamSegmenter(loaded, PartitionConfig(size=64, grid=2))
    assignment = segmenter(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    assert assignment.shape == (64, 64)
    assert set(np.unique(assignment)) <= set(range(4))
