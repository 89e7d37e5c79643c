"""Every endpoint, by what it answers."""

import base64
import io
import re

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from elements_jax.editing.script import EditScript
from elements_jax.editor.server import make_app
from elements_jax.pipeline.session import Editing
from tests.editor.conftest import LOCAL, encode, noise, script, upload, wait_until


def test_the_model_is_described(client: TestClient, editing: Editing) -> None:
    model = client.get("/api/model").json()
    assert model["name"] == "small"
    assert (model["image_size"], model["num_elements"], model["steps"]) == (16, 4, 2)
    assert model["guidance"] == editing.pipeline.config.diffusion.guidance
    assert model["samplers"] == ["ddim", "euler", "dpm"]
    assert (model["segmenter"], model["select_objects"], model["notice"]) == ("grid", False, None)
    assert model["limits"] == {"upload_bytes": 200_000, "pixels": 250_000, "variants": 8, "queue": 3}


@pytest.mark.parametrize(
    ("height", "width", "fit", "box", "said"),
    [
        (20, 20, "crop", [0, 0, 16, 16], "20 x 20 px, shown at 16 x 16 px."),
        (20, 40, "crop", [0, 0, 16, 16], "Cropped to the centre square (50 % of your photo)"),
        (20, 40, "pad", [0, 4, 16, 12], "All of your photo, with margins"),
    ],
)
def test_upload_says_what_was_cropped_or_padded(
    client: TestClient, height: int, width: int, fit: str, box: list[int], said: str
) -> None:
    response = client.post(f"/api/images?fit={fit}", content=encode(noise(height, width)))
    assert response.status_code == 201
    answer = response.json()
    assert (answer["width"], answer["height"], answer["box"]) == (width, height, box)
    assert answer["said"].startswith(said)
    picture = client.get(f"/api/images/{answer['id']}.png")
    assert picture.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(picture.content)).size == (16, 16)


def test_a_turned_photograph_has_the_size_it_is_seen_in(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    answer = client.post("/api/images", content=encode(noise(20, 40), "jpeg", exif=exif)).json()
    assert (answer["width"], answer["height"]) == (20, 40)


def test_an_id_is_that_of_bytes_and_fit(client: TestClient) -> None:
    image, other = noise(16, 16, seed=1), noise(16, 16, seed=2)
    assert upload(client, image) == upload(client, image)
    assert len({upload(client, image), upload(client, image, "pad"), upload(client, other)}) == 3


def test_canvas_shows_elements_and_preview(client: TestClient) -> None:
    image = noise(16, 16)
    body = {"image": upload(client, image), "script": script({"edit": "delete", "elements": [3]})}
    canvas = client.post("/api/canvas", json=body).json()
    assert canvas["size"] == 16
    assert [element["number"] for element in canvas["elements"]] == [0, 1, 2]
    assert canvas["elements"][1] == {"number": 1, "x": 0.75, "y": 0.25, "width": 0.5, "height": 0.5}
    labels = np.frombuffer(base64.b64decode(canvas["label_map"]), "<u2").reshape(16, 16)
    expected = np.kron([[0, 1], [2, 4]], np.ones((8, 8), int))  # N where no element is
    np.testing.assert_array_equal(labels, expected)
    assert canvas["free"] == 1
    kind, encoded = canvas["preview"].split(",")
    assert kind == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded)))), image)


def test_compose_takes_the_picture_of_that_name(client: TestClient) -> None:
    here, there = noise(16, 16, seed=3), noise(16, 16, seed=4)
    edits = [
        {"edit": "delete", "elements": [3]},
        {"edit": "compose", "image": "../bird.png", "elements": [0], "by": [0.5, 0.5]},
    ]
    body = {"image": upload(client, here), "images": {"../bird.png": upload(client, there)}, "script": script(*edits)}
    canvas = client.post("/api/canvas", json=body).json()
    preview = np.asarray(Image.open(io.BytesIO(base64.b64decode(canvas["preview"].split(",")[1]))))
    np.testing.assert_array_equal(preview[8:, 8:], there[:8, :8])
    np.testing.assert_array_equal(preview[:8], here[:8])


def test_objects_are_the_elements_that_the_mask_covers(editing: Editing, client: TestClient) -> None:
    asked = []

    def select(image: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
        asked.append((image, positive, negative))
        mask = np.zeros((16, 16), bool)
        mask[:9, :12] = True  # all of element 0, half of element 1, an eighth of 2
        mask[0, 12] = True  # and a pixel
        return mask

    app = make_app(editing, name="small", segmenter="grid", select_object=select)
    with TestClient(app, base_url=LOCAL) as with_sam:
        image = noise(16, 16)
        body = {"image": upload(with_sam, image), "script": script(), "positive": [[0.25, 0.5]]}
        assert with_sam.get("/api/model").json()["select_objects"]
        assert with_sam.post("/api/objects", json=body).json() == {"elements": [0, 1]}
        with_sam.post("/api/objects", json=body | {"negative": [[1, 0], [0, 1]]})
    (seen, positive, negative), (*_, negatives) = asked
    np.testing.assert_array_equal(seen, image)
    assert positive.tolist() == [[0.25, 0.5]]
    assert (negative.shape, negatives.tolist()) == ((0, 2), [[1, 0], [0, 1]])
    response = client.post("/api/objects", json=body | {"image": upload(client, image)})
    assert response.status_code == 409
    assert "--checkpoint" in response.json()["error"]


def test_scripts_are_read_from_json_and_from_results(client: TestClient, editing: Editing) -> None:
    wanted = EditScript(prompt="a cat", seed=7)
    for content in (wanted.to_json().encode(), editing.png(noise(16, 16), wanted)):
        response = client.post("/api/scripts", content=content)
        assert response.status_code == 200
        assert EditScript.from_fields(response.json()["script"]) == wanted


def test_a_job_gives_a_picture_for_each_seed_as_the_library_does(client: TestClient, editing: Editing) -> None:
    image = noise(16, 16)
    edits = ({"edit": "move", "elements": [1], "by": [0, 0.5]},)
    fields = script(*edits, prompt="a red square", seed=5)
    response = client.post("/api/jobs", json={"image": upload(client, image), "script": fields, "variants": 2})
    assert response.status_code == 202
    id = response.json()["id"]
    assert response.json()["results"] == []
    wait_until(lambda: client.get(f"/api/jobs/{id}").json()["status"] == "done")
    job = client.get(f"/api/jobs/{id}").json()
    assert job["results"] == [f"/api/jobs/{id}/0.png", f"/api/jobs/{id}/1.png"]
    assert (job["position"], job["variant"], job["variants"], job["steps"], job["error"]) == (0, 2, 2, 2, None)
    photo = editing.open(encode(image), "crop")
    for k, path in enumerate(job["results"]):
        wanted = EditScript.from_fields(fields | {"seed": 5 + k})
        edited = editing.edit(photo, wanted, lambda name: photo)
        assert client.get(path).content == editing.png(editing.decode(photo, edited, wanted), wanted)
    assert client.get(f"/api/jobs/{id}/2.png").status_code == 404


def test_events_tell_each_step_until_the_end(client: TestClient) -> None:
    body = {"image": upload(client), "script": script(sampling={"steps": 3}), "variants": 2}
    id = client.post("/api/jobs", json=body).json()["id"]
    with client.stream("GET", f"/api/jobs/{id}/events") as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        states = [line.removeprefix("data: ") for line in events.iter_lines() if line.startswith("data: ")]
    assert '"status":"done"' in states[-1]
    assert client.get(f"/api/jobs/{id}/events").text.count("data: ") == 1  # of one that has ended: its end


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
