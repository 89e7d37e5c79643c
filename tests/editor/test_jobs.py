"""The queue: its order, its end, and its failures."""

import json
import threading
import time
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from elements_jax.editor import jobs
from tests.editor.conftest import DELETE, SMALL_LIMITS, StepByStep, app_of, script, served, upload, wait_until


def submit(client: Any, **fields: Any) -> Any:
    body = {"image": upload(client), "script": script(DELETE, **fields.pop("script", {})), **fields}
    return client.post("/api/jobs", json=body)


def state(client: Any, id: str) -> dict[str, Any]:
    response = client.get(f"/api/jobs/{id}")
    assert response.status_code == 200, response.text
    return response.json()


def test_jobs_wait_their_turn_and_report_their_steps(slow_client: TestClient, stepping: StepByStep) -> None:
    first, second, third = (submit(slow_client, variants=2).json()["id"] for _ in range(3))
    wait_until(lambda: state(slow_client, first)["step"] == 1)
    assert [state(slow_client, id)["status"] for id in (first, second, third)] == ["running", "queued", "queued"]
    assert [state(slow_client, id)["position"] for id in (first, second, third)] == [0, 1, 2]
    stepping.go_on()
    wait_until(lambda: state(slow_client, first)["step"] == 2)
    stepping.go_on()
    wait_until(lambda: state(slow_client, first)["variant"] == 1)
    assert state(slow_client, first)["results"] == [f"/api/jobs/{first}/0.png"]
    assert slow_client.get(f"/api/jobs/{first}/0.png").status_code == 200
    assert slow_client.get(f"/api/jobs/{first}/1.png").status_code == 404
    stepping.go_on(2)
    wait_until(lambda: state(slow_client, first)["status"] == "done")
    wait_until(lambda: state(slow_client, second)["status"] == "running")
    assert state(slow_client, third)["position"] == 1


def test_a_full_queue_says_when_to_come_again(slow_client: TestClient, stepping: StepByStep) -> None:
    running = submit(slow_client).json()["id"]
    wait_until(lambda: state(slow_client, running)["status"] == "running")
    queued = [submit(slow_client) for _ in range(SMALL_LIMITS.queue)]
    assert {response.status_code for response in queued} == {202}
    refused = submit(slow_client)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert "queue is full" in refused.json()["error"]
    slow_client.delete(f"/api/jobs/{queued[0].json()['id']}")
    assert submit(slow_client).status_code == 202


def test_cancel_queued_and_running(slow_client: TestClient, stepping: StepByStep) -> None:
    first, second, third = (submit(slow_client).json()["id"] for _ in range(3))
    wait_until(lambda: state(slow_client, first)["step"] == 1)
    assert slow_client.delete(f"/api/jobs/{second}").json()["status"] == "cancelled"
    assert state(slow_client, third)["position"] == 1
    assert slow_client.delete(f"/api/jobs/{first}").json()["status"] == "cancelled"
    stepping.go_on()  # the current step
    wait_until(lambda: state(slow_client, third)["status"] == "running")
    stepping.go_on(2)
    wait_until(lambda: state(slow_client, third)["status"] == "done")
    assert [state(slow_client, id)["status"] for id in (first, second)] == ["cancelled", "cancelled"]
    assert slow_client.delete(f"/api/jobs/{third}").json()["status"] == "done"  # too late, without harm


def test_a_failing_job_ends_only_itself(
    slow_client: TestClient, stepping: StepByStep, caplog: pytest.LogCaptureFixture
) -> None:
    bad = submit(slow_client, script={"prompt": "fail"}).json()["id"]
    good = submit(slow_client).json()["id"]
    wait_until(lambda: state(slow_client, bad)["status"] == "failed")
    assert state(slow_client, bad)["error"] == "decoding failed: RuntimeError: no memory"
    assert "no memory" in caplog.text
    stepping.go_on(2)
    wait_until(lambda: state(slow_client, good)["status"] == "done")


def test_what_cannot_be_decoded_says_why(client: TestClient) -> None:
    """The real decoder fails: euler draws no noise."""
    id = submit(client, script={"sampling": {"sampler": "euler", "eta": 0.5}}).json()["id"]
    wait_until(lambda: state(client, id)["status"] == "failed")
    assert state(client, id)["error"] == "eta is only for DDIM: no other sampler draws fresh noise"
    done = submit(client).json()["id"]
    wait_until(lambda: state(client, done)["status"] == "done")


def test_the_oldest_that_ended_are_forgotten(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "KEPT", 2)
    ids = []
    for _ in range(4):
        ids.append(submit(client).json()["id"])
        wait_until(lambda: state(client, ids[-1])["status"] == "done")
    assert [client.get(f"/api/jobs/{id}").status_code for id in ids] == [404, 404, 200, 200]
    assert "forgotten" in client.get(f"/api/jobs/{ids[0]}").json()["error"]
    monkeypatch.setattr(jobs, "KEPT_BYTES", 1)  # the last stays, however large
    id = submit(client).json()["id"]
    wait_until(lambda: state(client, id)["status"] == "done")
    assert [client.get(f"/api/jobs/{id}/0.png").status_code for id in (*ids[2:], id)] == [404, 404, 200]


def test_a_job_is_cancelled_when_its_last_listener_leaves(stepping: StepByStep) -> None:
    """Clients of a real server close their connections, of a queued and of a running job."""
    stepping.go_on(2)
    with (
        served(app_of(stepping, limits=SMALL_LIMITS)) as address,
        httpx2.Client(base_url=address) as client,
    ):
        running, queued, unheard = (submit(client).json()["id"] for _ in range(3))
        wait_until(lambda: state(client, running)["step"] == 1)
        with listener(address, running), listener(address, running):
            with listener(address, queued):
                assert state(client, queued)["status"] == "queued"
            wait_until(lambda: state(client, queued)["status"] == "cancelled")
        wait_until(lambda: state(client, running)["status"] == "cancelled")
        stepping.go_on(3)
        wait_until(lambda: state(client, unheard)["status"] == "done")  # nobody ever listened to it


def test_one_of_two_listeners_may_leave(stepping: StepByStep) -> None:
    stepping.go_on(2)
    with (
        served(app_of(stepping, limits=SMALL_LIMITS)) as address,
        httpx2.Client(base_url=address) as client,
    ):
        id = submit(client).json()["id"]
        wait_until(lambda: state(client, id)["step"] == 1)
        with listener(address, id) as stays:
            with listener(address, id):
                pass
            time.sleep(0.3)
            assert state(client, id)["status"] == "running"
            stepping.go_on(2)
            wait_until(lambda: stays[-1]["status"] == "done")
        assert state(client, id)["status"] == "done"


class listener:
    """Listen to a job's events in a thread, and close the connection at the end."""

    def __init__(self, address: str, id: str):
        self._url = f"{address}/api/jobs/{id}/events"
        self.states: list[dict[str, Any]] = []

    def __enter__(self) -> list[dict[str, Any]]:
        self._client = httpx2.Client(timeout=30)
        self._response = self._client.send(self._client.build_request("GET", self._url), stream=True)
        assert self._response.status_code == 200
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        wait_until(lambda: self.states)
        return self.states

    def _read(self) -> None:
        try:
            for line in self._response.iter_lines():
                if line.startswith("data: "):
                    self.states.append(json.loads(line.removeprefix("data: ")))
        except (httpx2.HTTPError, httpx2.StreamError, OSError):
            pass

    def __exit__(self, *_: object) -> None:
        stream = self._response.extensions["network_stream"]
        stream.get_extra_info("socket").shutdown(2)
        self._thread.join()
        self._client.close()
