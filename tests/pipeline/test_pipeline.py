"""The pipeline with a small random model: shapes, seeds, compilation and errors."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elements_jax.checkpoints.model_folder import write_config
from elements_jax.diffusion.preserve import Preserve
from elements_jax.diffusion.samplers import ddim_sample, euler_sample
from elements_jax.diffusion.schedule import make_schedule
from elements_jax.editing import edits
from elements_jax.editing.edits import stack
from elements_jax.elements import ImageElements, element_tokens
from elements_jax.models.networks import Networks
from elements_jax.pipeline.pipeline import ElementsPipeline, to_uint8
from tests.helpers.models import stage_1_of
from tests.helpers.records import SMALL, record


def test_encode_gives_each_image_its_elements(pipeline):
    records = [record(0), record(1)]
    images, label_maps = (np.stack([getattr(r, name) for r in records]) for name in ("image", "label_map"))
    elements = pipeline.encode_batch(images, label_maps).elements
    assert elements.content.shape == (2, 4, SMALL.elements.content_channels)
    assert elements.valid.all()
    alone = pipeline.encode(records[1].image, records[1].label_map).elements
    np.testing.assert_allclose(alone.content, elements.content[1], atol=1e-5)
    share = np.bincount(records[1].label_map[records[1].label_map < 4], minlength=4)
    assert (share > 0).all()


def test_decode_depends_only_on_seed_prompt_and_elements(pipeline):
    canvas = pipeline.encode(record(0).image, record(0).label_map)
    deleted = edits.delete(canvas, edits.element_mask(4, [0]))

    def decode(canvas, prompt, seed):
        return pipeline.decode_batch(stack([canvas]).elements, [prompt], seeds=[seed])[0]

    picture = decode(canvas, "a red square", 0)
    assert picture.shape == (16, 16, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(decode(canvas, "a red square", 0), picture)
    for other in (decode(canvas, "a red square", 1), decode(canvas, "a blue", 0), decode(deleted, "a red square", 0)):
        assert (other != picture).any()


def test_an_image_does_not_depend_on_the_rest_of_its_batch(pipeline):
    first, second = (pipeline.encode(record(i).image, record(i).label_map) for i in range(2))
    both = pipeline.decode_batch(stack([first, second]).elements, ["a red square", ""], seeds=[3, 4])
    alone = pipeline.decode_batch(stack([second]).elements, [""], seeds=[4])
    assert np.abs(both[1].astype(int) - alone[0]).max() <= 1  # rounding to 8 bits


def test_prompt_seed_guidance_and_edit_do_not_recompile(pipeline):
    canvas = pipeline.encode(record(0).image, record(0).label_map)
    pipeline.decode_batch(stack([canvas]).elements, ["a"], seeds=[0], guidance=2.0)
    compiled = pipeline._decode._cache_size()
    moved = edits.move(canvas, edits.element_mask(4, [1]), jnp.float32([0.1, 0.2]))
    pipeline.decode_batch(stack([moved]).elements, ["a blue square"], seeds=[9], guidance=5.0)
    assert pipeline._decode._cache_size() == compiled


def test_guidance_one_is_only_the_conditional_prediction(pipeline):
    """eps(0) + 1 (eps(c) - eps(0)) = eps(c): checked against sampling without guidance's second half."""
    canvas = stack([pipeline.encode(record(0).image, record(0).label_map)])
    ours = pipeline.decode_batch(canvas.elements, ["a red square"], seeds=[0], guidance=1.0)
    networks = Networks(SMALL)
    unet = networks.unet.module(pipeline.params["unet"])
    text = networks.text_encoder(pipeline.params["text_encoder"], jnp.asarray(pipeline.tokenizer("a red square"))[None])
    context = unet.context(text, element_tokens(canvas.elements, SMALL.elements.frequencies))
    noise = jax.random.normal(jax.random.key(0), (SMALL.latent_size, SMALL.latent_size, 4))[None]
    latent = ddim_sample(lambda z, t: unet(z, t, context), make_schedule(SMALL.diffusion), noise, 2)
    image = networks.vae.module(pipeline.params["vae"]).decode(latent / SMALL.vae.scaling_factor)
    np.testing.assert_allclose(ours[0], np.clip((image[0] + 1) * 127.5, 0, 255), atol=1.0)


def test_separate_guidance_of_equal_weights_is_joint_guidance(pipeline):
    elements = stack([pipeline.encode(record(0).image, record(0).label_map)]).elements
    joint, separate, other = (
        pipeline.decode_batch(elements, ["a red square"], seeds=[0], guidance=weights).astype(int)
        for weights in (3.0, (3.0, 3.0), (1.0, 3.0))
    )
    assert np.abs(joint - separate).max() <= 1  # rounding to 8 bits
    assert (joint != other).any()


def test_ddim_noise_follows_the_seed_and_vanishes_with_eta(pipeline):
    elements = stack([pipeline.encode(record(0).image, record(0).label_map)]).elements

    def decode(eta, seed):
        return pipeline.decode_batch(elements, [""], seeds=[seed], eta=eta).astype(int)

    np.testing.assert_array_equal(decode(1.0, 0), decode(1.0, 0))
    assert (decode(1.0, 0) != decode(0.0, 0)).any()
    assert np.abs(decode(0.0, 0) - decode(None, 0)).max() <= 1  # rounding to 8 bits
    with pytest.raises(ValueError, match="eta is only for DDIM"):
        pipeline.decode_batch(elements, [""], seeds=[0], sampler=euler_sample, eta=0.5)


def deletions(pipeline: ElementsPipeline, *seeds: int) -> tuple[ImageElements, Preserve]:
    """Images whose top left element is deleted, and the parts to preserve."""
    records = [record(seed) for seed in seeds]
    before = [pipeline.encode(r.image, r.label_map) for r in records]
    after = [edits.delete(canvas, edits.element_mask(4, [0])) for canvas in before]
    regions = [edits.edited_region(*pair) for pair in zip(before, after, strict=True)]
    return stack(after).elements, Preserve(np.stack([r.image for r in records]), jnp.stack(regions))


def test_preserves_input_pixels_and_samples_the_edited_region(pipeline):
    elements, preserve = deletions(pipeline, 0)
    kept = pipeline.decode_batch(elements, [""], seeds=[0], preserve=preserve)[0]
    anew = pipeline.decode_batch(elements, [""], seeds=[0])[0]
    image, region = preserve.image[0], np.asarray(preserve.region[0])
    ys, xs = np.nonzero(region)
    far = np.ones((16, 16), bool)
    far[: ys.max() + 4, : xs.max() + 4] = False  # in such a small image the feather is one pixel and reaches three
    assert far.sum() > 30
    np.testing.assert_array_equal(kept[far], image[far])
    assert (anew[far] != image[far]).mean() > 0.9
    assert (kept[region] != image[region]).mean() > 0.9


def test_an_edit_of_nothing_preserves_every_value_of_a_pixel(pipeline):
    canvas = pipeline.encode(record(0).image, record(0).label_map)
    image = np.arange(16 * 16 * 3).astype(np.uint8).reshape(1, 16, 16, 3)
    preserve = Preserve(image, edits.edited_region(canvas, canvas)[None])
    np.testing.assert_array_equal(
        pipeline.decode_batch(stack([canvas]).elements, ["a"], seeds=[5], preserve=preserve), image
    )


def test_an_edit_of_everything_preserves_nothing(pipeline):
    elements, preserve = deletions(pipeline, 0)
    everything = Preserve(preserve.image, np.ones((1, 16, 16), bool))
    kept, anew = (pipeline.decode_batch(elements, [""], seeds=[0], preserve=p).astype(int) for p in (everything, None))
    assert np.abs(kept - anew).max() <= 1  # rounding to 8 bits


def test_the_preserved_latent_reaches_into_the_region(pipeline):
    """The edited region is sampled next to the input: another input outside gives another image inside."""
    elements, preserve = deletions(pipeline, 0)
    inside = np.asarray(preserve.region)[..., None]
    other = Preserve(np.where(inside, preserve.image, 255 - preserve.image), preserve.region)
    one, two = (pipeline.decode_batch(elements, [""], seeds=[0], preserve=p) for p in (preserve, other))
    assert (one[0, 0, 0] != two[0, 0, 0]).any()


def test_preservation_does_not_mix_a_batch_or_recompile(pipeline):
    elements, preserve = deletions(pipeline, 0, 1)
    both = pipeline.decode_batch(elements, ["a red square", ""], seeds=[3, 4], preserve=preserve)
    alone = pipeline.decode_batch(*deletions(pipeline, 1)[:1], [""], seeds=[4], preserve=deletions(pipeline, 1)[1])
    assert np.abs(both[1].astype(int) - alone[0]).max() <= 1  # rounding to 8 bits
    compiled = pipeline._decode._cache_size()
    elements, preserve = deletions(pipeline, 2)
    pipeline.decode_batch(elements, ["a blue square"], seeds=[0], preserve=preserve)
    assert pipeline._decode._cache_size() == compiled


def test_what_cannot_be_preserved_is_refused(pipeline):
    elements, preserve = deletions(pipeline, 0)
    wrong_size = Preserve(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8), bool))
    too_many = Preserve(np.zeros((2, 16, 16, 3), np.uint8), np.zeros((2, 16, 16), bool))
    wrong_type = jax.tree.map(lambda leaf: leaf.astype(np.float32), preserve)
    for wrong, message in (
        (wrong_size, r"preserve\.image: expected uint8 of shape \(1, 16, 16, 3\), not uint8 of \(1, 8, 8, 3\)"),
        (too_many, r"preserve\.image: expected uint8 of shape \(1, 16, 16, 3\), not uint8 of \(2, 16, 16, 3\)"),
        (wrong_type, r"preserve\.image: expected uint8 of .*, not float32 of"),
    ):
        with pytest.raises(ValueError, match=message):
            pipeline.decode_batch(elements, [""], seeds=[0], preserve=wrong)


def test_a_prompt_that_is_too_long_is_cut_with_a_warning(pipeline):
    elements = stack([pipeline.encode(record(0).image, record(0).label_map)]).elements
    with pytest.warns(UserWarning, match=r"a prompt is truncated to 6 tokens, without: 'blue square'"):
        cut = pipeline.decode_batch(elements, ["a red square a blue square"], seeds=[0])
    np.testing.assert_array_equal(cut, pipeline.decode_batch(elements, ["a red square a"], seeds=[0]))


@pytest.mark.parametrize(
    ("image", "label_map", "message"),
    [
        (
            np.zeros((8, 8, 3), np.uint8),
            np.zeros((8, 8), int),
            r"uint8 image of \(16, 16, 3\), not uint8 of \(8, 8",
        ),
        (np.zeros((1, 16, 16, 3), np.uint8), np.zeros((1, 16, 16), int), r"not uint8 of \(1, 16, 16, 3\)"),
        (np.zeros((16, 16, 3)), np.zeros((16, 16), int), "not float64 of"),
        (np.zeros((16, 16, 3), np.uint8), np.zeros((16, 8), int), r"label map .* not int64 of \(16, 8\)"),
        (np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16)), "label map .* not float64"),
    ],
)
def test_other_shapes_and_types_are_refused(pipeline, image, label_map, message):
    with pytest.raises(ValueError, match=message):
        pipeline.encode(image, label_map)


def test_decode_is_a_batch_of_one(pipeline):
    canvas = pipeline.encode(record(0).image, record(0).label_map)
    expected = pipeline.decode_batch(stack([canvas]).elements, ["a red square"], seeds=[3], steps=1)[0]
    np.testing.assert_array_equal(pipeline.decode(canvas, "a red square", seed=3, steps=1), expected)
    assert repr(canvas) == "Canvas(16 x 16 px, 4 elements)"
    assert re.fullmatch(r"ElementsPipeline\(16 px, 4 elements, 0\.\d M parameters\)", repr(pipeline))


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is neither a model folder, .* nor a Stable Diffusion .*unet/config"):
        ElementsPipeline.from_pretrained(tmp_path)


def test_missing_networks_are_listed(tmp_path):
    write_config(tmp_path, SMALL)
    with pytest.raises(FileNotFoundError, match="is not complete") as error:
        ElementsPipeline.from_pretrained(tmp_path)
    for name in ("vae", "text_encoder", "unet", "elements holds no encoder", "elements holds no decoder", "attention"):
        assert name in str(error.value)


def test_stage_1_model_reconstructs_and_says_it_cannot_decode(tmp_path, pipeline):
    stage_1_of(pipeline).save_pretrained(tmp_path)
    light = ElementsPipeline.from_pretrained(tmp_path)
    assert (light.has_diffusion, pipeline.has_diffusion) == (False, True)
    canvas = light.encode(record(0).image, record(0).label_map)
    elements = stack([canvas]).elements
    np.testing.assert_array_equal(light.reconstruct(elements), pipeline.reconstruct(elements))
    image, region = record(0).image[None], np.zeros((1, 16, 16), bool)
    np.testing.assert_array_equal(light.reconstruct(elements, preserve=Preserve(image, region)), image)
    with pytest.raises(ValueError, match="no diffusion decoder yet: `elements train diffusion` adds it"):
        light.decode(canvas)


def test_a_configuration_of_another_version_names_the_field(tmp_path, model_folder):
    value = json.loads((model_folder / "elements" / "config.json").read_text())
    value["unet"]["colour"] = value["unet"].pop("heads")
    (tmp_path / "elements").mkdir()
    (tmp_path / "elements" / "config.json").write_text(json.dumps(value))
    with pytest.raises(
        ValueError, match=r"config\.json is not a model configuration: unet must have .*'colour', 'heads'"
    ):
        ElementsPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_picture_that_is_not_finite_is_an_error(value):
    image = jnp.zeros((2, 4, 4, 3))
    assert (to_uint8(image) == 128).all()
    with pytest.raises(ValueError, match="a decoded image has values that are not finite: the guidance is too large"):
        to_uint8(image.at[1, 3, 3, 2].set(value))
