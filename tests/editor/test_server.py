"""The answers of every endpoint."""

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from elements_jax.cli.photos import PhotoSegmenter, SegmenterOptions
from elements_jax.editing.script import EditScript, ObjectAt
from elements_jax.editor import wire
from elements_jax.editor.server import make_app
from elements_jax.photograph.edit import edit_photograph
from elements_jax.photograph.file import Photograph
from elements_jax.pipeline.session import EditSession
from tests.editor.conftest import DELETE, LOCAL, app_of, encode, find_exactly, noise, script, upload, wait_until
from tests.helpers.models import stage_1_of


def test_the_model_is_described(client: TestClient, editing: EditSession) -> None:
    model = client.get("/api/model").json()
    assert model["name"] == "small"
    assert (model["image_size"], model["steps"]) == (16, 2)
    assert model["guidance"] == editing.pipeline.config.diffusion.guidance
    assert model["samplers"] == ["ddim", "euler", "dpm"]
    assert (model["segmenter"], model["select_objects"], model["notice"]) == ("grid", True, None)
    assert model["limits"] == {"upload_bytes": 200_000, "pixels": 250_000, "variants": 8, "queue": 3}


@pytest.mark.parametrize(
    ("kind", "options", "view"),
    [("png", {}, "png"), ("jpeg", {}, "jpeg"), ("webp", {}, "jpeg"), ("tiff", {}, "png"), ("bmp", {}, "png")],
)
def test_an_upload_is_kept_and_shown_in_its_own_shape(
    client: TestClient, kind: str, options: dict[str, Any], view: str
) -> None:
    image = noise(20, 40)
    response = client.post("/api/images", content=encode(image, kind, **options))
    assert response.status_code == 201
    answer = response.json()
    assert (answer["width"], answer["height"], answer["format"]) == (40, 20, kind)
    assert (answer["shown"], answer["notes"]) == ([40, 20], [])
    shown = client.get(f"/api/images/{answer['id']}/view")
    assert shown.headers["content-type"] == f"image/{view}"
    picture = Image.open(io.BytesIO(shown.content))
    assert (picture.size, picture.mode) == ((40, 20), "RGB")
    if view == "png":
        np.testing.assert_array_equal(np.asarray(picture), image)


def test_a_large_photograph_is_shown_smaller(editing: EditSession) -> None:
    with TestClient(app_of(editing), base_url=LOCAL) as client:
        answer = client.post("/api/images", content=encode(np.zeros((1000, 4000, 3), np.uint8), "jpeg")).json()
        assert (answer["width"], answer["height"], answer["shown"]) == (4000, 1000, [2048, 512])
        view = client.get(f"/api/images/{answer['id']}/view").content
        assert Image.open(io.BytesIO(view)).size == (2048, 512)
        body = {"image": answer["id"], "object": {"box": [0, 0, 0.5, 1]}}
        mask = picture_of(client.post("/api/objects", json=body).json()["mask"])
        np.testing.assert_array_equal(mask, np.repeat([[255] * 1024 + [0] * 1024], 512, axis=0))


def test_gaps_are_filled_in_a_reduced_photograph(editing: EditSession) -> None:
    image = np.repeat(np.linspace(0, 255, 1200)[None, :, None], 900, axis=0).repeat(3, axis=2).astype(np.uint8)
    gap = np.zeros((900, 1200), np.uint8)
    gap[300:500, 400:600] = 255
    image[gap > 0] = (255, 0, 0)
    with TestClient(app_of(editing, limits=wire.Limits()), base_url=LOCAL) as client:
        path = f"/api/images/{upload(client, image)}/preview"
        response = client.post(path, content=encode(gap))
        assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
        filled = np.asarray(Image.open(io.BytesIO(response.content)))
        assert filled.shape == (384, 512, 4)
        small = np.asarray(Image.fromarray(gap).resize((512, 384))) > 127
        assert filled[small, 3].all()
        assert filled[..., 3].mean() < 1.5 * 255 * small.mean()
        expected = np.linspace(0, 255, 512)[None, :, None]
        assert np.abs(filled[..., :3] - expected)[small].mean() < 6  # the slope goes on
        assert client.post(path, content=encode(np.zeros_like(gap))).status_code == 422
        assert client.post(path, content=b"no mask").status_code == 415
        assert client.post(path, content=encode(gap[:, :100])).status_code == 422
        assert client.post("/api/images/none/preview", content=encode(gap)).status_code == 404


def test_a_turned_photograph_is_shown_upright(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = noise(20, 40)
    answer = client.post("/api/images", content=encode(image, "png", exif=exif)).json()
    assert (answer["width"], answer["height"], answer["shown"]) == (20, 40, [20, 40])
    view = client.get(f"/api/images/{answer['id']}/view").content
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(view))), np.rot90(image, -1))


def test_shows_transparency_and_says_what_is_not_kept(client: TestClient) -> None:
    image = np.dstack([noise(8, 8), np.arange(64, dtype=np.uint8).reshape(8, 8)])
    answer = client.post("/api/images", content=encode(image)).json()
    view = client.get(f"/api/images/{answer['id']}/view").content
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(view))), image)
    file = io.BytesIO()
    Image.fromarray(noise(8, 8)).quantize(4).save(file, "png")
    (note,) = client.post("/api/images", content=file.getvalue()).json()["notes"]
    assert "palette" in note


def test_a_result_that_carries_a_script_says_so(client: TestClient, editing: EditSession) -> None:
    content = editing.png(noise(16, 16), EditScript(prompt="a cat"))
    (note,) = client.post("/api/images", content=content).json()["notes"]
    assert "edit script" in note


def test_an_incomplete_file_is_called_so(client: TestClient) -> None:
    response = client.post("/api/images", content=encode(noise(200, 200), "jpeg")[:5000])
    assert (response.status_code, response.json()) == (415, {"error": "the file is incomplete (truncated)"})


def test_an_id_depends_only_on_the_bytes(client: TestClient) -> None:
    image, other = noise(16, 16, seed=1), noise(16, 16, seed=2)
    assert upload(client, image) == upload(client, image) != upload(client, other)


def picture_of(url: str) -> np.ndarray:
    kind, encoded = url.split(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


def test_an_object_is_the_mask_that_an_edit_there_selects(client: TestClient) -> None:
    image = np.full((16, 32, 3), 100, np.uint8)
    image[4:8, 8:20] = (220, 30, 30)
    drawn = np.zeros((16, 32), np.uint8)
    drawn[4:8, 8:20] = 255
    body = {"image": upload(client, image), "images": {"../mask.png": upload(client, np.dstack([drawn] * 3))}}
    for at in ({"point": [0.5, 0.4]}, {"box": [0.25, 0.25, 0.625, 0.5]}, {"mask": "../mask.png"}):
        response = client.post("/api/objects", json=body | {"object": at})
        assert response.status_code == 200, response.text
        np.testing.assert_array_equal(picture_of(response.json()["mask"]), drawn)


def test_where_nothing_is_found_it_says_so(editing: EditSession) -> None:
    def find(image: np.ndarray, at: ObjectAt) -> tuple[np.ndarray, float]:
        return np.zeros(image.shape[:2], bool), 1.0

    with TestClient(app_of(editing, find_object=find, points=False), base_url=LOCAL) as client:
        assert not client.get("/api/model").json()["select_objects"]
        response = client.post("/api/objects", json={"image": upload(client), "object": {"point": [0, 0]}})
        assert (response.status_code, response.json()) == (422, {"error": "no object was found there"})


def test_pieces_are_numbered_in_red_and_green(editing: EditSession) -> None:
    def pieces(image: np.ndarray) -> np.ndarray:
        return np.arange(image.shape[0] * image.shape[1], dtype=np.uint16).reshape(image.shape[:2])

    label = PhotoSegmenter(editing.pipeline.config.elements, SegmenterOptions("grid")).label
    app = make_app(editing, name="small", segmenter="grid", label=label, pieces=pieces)
    with TestClient(app, base_url=LOCAL) as client:
        response = client.get(f"/api/images/{upload(client, noise(20, 40))}/pieces")
    colours = np.asarray(Image.open(io.BytesIO(response.content))).astype(int)
    np.testing.assert_array_equal(colours[..., 0] + 256 * colours[..., 1], np.arange(800).reshape(20, 40))


def test_scripts_are_read_from_json_and_from_results(client: TestClient, editing: EditSession) -> None:
    wanted = EditScript(prompt="a cat", seed=7)
    for content in (wanted.to_json().encode(), editing.png(noise(16, 16), wanted)):
        response = client.post("/api/scripts", content=content)
        assert response.status_code == 200
        assert EditScript.from_fields(response.json()["script"]) == wanted


def test_job_returns_one_photograph_per_seed_as_the_library_does(client: TestClient, editing: EditSession) -> None:
    content = encode(noise(20, 30), "jpeg")
    image = client.post("/api/images", content=content).json()["id"]
    fields = script(DELETE, prompt="a red square", seed=5)
    response = client.post("/api/jobs", json={"image": image, "script": fields, "variants": 2})
    assert response.status_code == 202
    id = response.json()["id"]
    assert response.json()["results"] == []
    wait_until(lambda: client.get(f"/api/jobs/{id}").json()["status"] == "done")
    job = client.get(f"/api/jobs/{id}").json()
    assert job["results"] == [f"/api/jobs/{id}/0.jpeg", f"/api/jobs/{id}/1.jpeg"]
    assert (job["position"], job["variant"], job["variants"], job["steps"], job["error"]) == (0, 2, 2, 2, None)
    label = PhotoSegmenter(editing.pipeline.config.elements, SegmenterOptions("grid")).label
    photograph = Photograph.decode(content)
    for k, path in enumerate(job["results"]):
        wanted = EditScript.from_fields(fields | {"seed": 5 + k})
        edited = edit_photograph(editing, photograph, wanted, label, find_object=find_exactly)
        assert client.get(path).content == edited.encode(edited.pixels, "JPEG")
    for path in (f"/api/jobs/{id}/2.jpeg", f"/api/jobs/{id}/0.png", f"/api/jobs/{id}/2.jpeg/view"):
        assert client.get(path).status_code == 404


def test_stage_1_model_fills_holes_and_rejects_prompts(editing: EditSession) -> None:
    light = EditSession(stage_1_of(editing.pipeline), editing.open, "grid")
    with TestClient(app_of(light), base_url=LOCAL) as client:  # it warms up
        image = upload(client, noise(20, 30))

        def finished(**fields) -> dict:
            id = client.post("/api/jobs", json={"image": image, "script": script(DELETE, **fields)}).json()["id"]
            wait_until(lambda: client.get(f"/api/jobs/{id}").json()["status"] in ("done", "failed"))
            return client.get(f"/api/jobs/{id}").json()

        assert finished()["status"] == "done"
        assert "needs a model with a diffusion decoder" in finished(prompt="a red square")["error"]


def test_without_edits_the_photograph_is_returned_unchanged(client: TestClient) -> None:
    content = encode(noise(20, 30), "jpeg", quality=30)
    image = client.post("/api/images", content=content).json()["id"]
    id = client.post("/api/jobs", json={"image": image, "script": script()}).json()["id"]
    wait_until(lambda: client.get(f"/api/jobs/{id}").json()["status"] == "done")
    assert client.get(f"/api/jobs/{id}/0.jpeg").content == content


def test_events_report_each_step_until_the_end(client: TestClient) -> None:
    body = {"image": upload(client), "script": script(DELETE, sampling={"steps": 3}), "variants": 2}
    id = client.post("/api/jobs", json=body).json()["id"]
    with client.stream("GET", f"/api/jobs/{id}/events") as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        states = [line.removeprefix("data: ") for line in events.iter_lines() if line.startswith("data: ")]
    assert '"status":"done"' in states[-1]
    assert client.get(f"/api/jobs/{id}/events").text.count("data: ") == 1  # a finished job reports only its end


def test_the_page_is_served(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for path in re.findall(r'(?:src|href)="([^"#]+)"', page.text):
        assert client.get(path).status_code == 200, path


def test_the_api_page_has_every_operation_and_loads_nothing(client: TestClient) -> None:
    openapi = client.get("/openapi.json").json()
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for path, operations in openapi["paths"].items():
        for method in operations:
            assert f"<code>{method.upper()} {path}</code>" in page.text
    for word in ("http:", "https:", "<script", "<link", "<img", "src="):
        assert word not in page.text


def test_every_operation_declares_its_errors(client: TestClient) -> None:
    openapi = client.get("/openapi.json").json()
    for operations in openapi["paths"].values():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                if status >= "400":
                    error = {"$ref": "#/components/schemas/Error"}
                    assert response["content"] == {"application/json": {"schema": error}}
            assert ("403" in operation["responses"]) == (method not in ("get", "head"))
    assert "HTTPValidationError" not in openapi["components"]["schemas"]
