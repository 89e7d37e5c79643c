"""After the warm-up, jobs with the model's own settings compile nothing, and no program is compiled twice."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from jax import monitoring

from elements_jax.pipeline.session import EditSession
from tests.editor.conftest import LOCAL, app_of, noise, script, upload, wait_until

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compilations() -> Iterator[list[float]]:
    """Seconds of every later compilation."""
    seconds: list[float] = []

    def listen(event: str, duration: float, **_: object) -> None:
        if event == COMPILED:
            seconds.append(duration)

    monitoring.register_event_duration_secs_listener(listen)
    yield seconds
    monitoring.unregister_event_duration_listener(listen)


def run(client: TestClient, edits: list[dict], **fields: object) -> None:
    """Run an edit of a photograph."""
    images = {"other.png": upload(client, noise(20, 20, seed=9))}
    body = {"image": upload(client, noise(16, 24)), "images": images, "script": script(*edits, **fields)}
    id = client.post("/api/jobs", json=body).json()["id"]
    wait_until(lambda: client.get(f"/api/jobs/{id}").json()["status"] in ("done", "failed"))
    assert client.get(f"/api/jobs/{id}").json()["error"] is None


AT = {"object": {"box": [0.25, 0.25, 0.5, 0.5]}}
EDITS = [
    [{"edit": "move", **AT, "by": [0.25, 0.1]}],
    [{"edit": "move", **AT, "by": [-0.25, 0.0]}, {"edit": "resize", "object": {"point": [0.9, 0.9]}, "scale": 0.5}],
    [{"edit": "delete", **AT}, {"edit": "duplicate", "object": {"box": [0.5, 0.5, 1, 1]}, "by": [-0.25, -0.25]}],
    [{"edit": "delete", **AT}, {"edit": "compose", "image": "other.png", **AT, "scale": 0.5}],
]


def test_nothing_is_compiled_after_the_warm_up(editing: EditSession, compilations: list[float]) -> None:
    with TestClient(app_of(editing), base_url=LOCAL) as client:
        run(client, EDITS[0])  # waits for the warm-up, which does the same first
        compilations.clear()
        for seed, edits in enumerate(EDITS):
            run(client, edits, prompt="a red square", negative_prompt="blue", seed=seed)
            assert compilations == []


def test_a_second_run_of_other_settings_compiles_nothing(client: TestClient, compilations: list[float]) -> None:
    for fields in ({"detail": "decoder"}, {"sampling": {"sampler": "dpm", "steps": 7, "element_guidance": 2.0}}):
        for edits in EDITS:
            run(client, edits, **fields)
        assert compilations or "sampling" not in fields  # no other test samples in 7 steps
        compilations.clear()
        for seed, edits in enumerate(EDITS):
            run(client, edits, seed=seed, **fields)
        assert compilations == []
