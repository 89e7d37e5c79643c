"""Twenty clients at once, for minutes: every job ends or is refused with a reason, and memory stays flat."""

import collections
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from configs.tiny import MODEL
from tests.editor.conftest import noise, script, upload
from tests.helpers.models import write_random_model

CLIENTS = 20
SECONDS = 180


class Load:
    """The clients' requests and their outcomes."""

    def __init__(self, address: str):
        self.address = address
        self.end = time.monotonic() + SECONDS
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.waits: list[float] = []
        self.problems: list[str] = []

    def client(self, seed: int) -> None:
        """Upload, edit, queue and listen, again and again; one in ten leaves before the end."""
        draw = random.Random(seed)
        try:
            with httpx2.Client(base_url=self.address, timeout=120) as client:
                while time.monotonic() < self.end:
                    started = time.monotonic()
                    self.outcomes[self._run(client, draw)] += 1
                    self.waits.append(time.monotonic() - started)
        except Exception as error:
            self.problems.append(f"client {seed}: {error!r}")

    def _run(self, client: Any, draw: random.Random) -> str:
        image = upload(client, noise(draw.randrange(64, 300), draw.randrange(64, 300), draw.randrange(10**6)))
        edits = []
        for _ in range(draw.randrange(1, 4)):
            left, top = draw.uniform(0, 0.7), draw.uniform(0, 0.7)
            at = {"object": {"box": [left, top, left + draw.uniform(0.1, 0.3), top + draw.uniform(0.1, 0.3)]}}
            assert client.post("/api/objects", json={"image": image, **at}).status_code == 200
            by = [draw.uniform(-0.5, 0.5), draw.uniform(-0.5, 0.5)]
            edits.append({"edit": "duplicate", **at, "by": by} if edits else {"edit": "delete", **at})
        fields = script(*edits, seed=draw.randrange(2**20), sampling={"steps": 4})
        response = client.post("/api/jobs", json={"image": image, "script": fields, "variants": draw.randrange(1, 4)})
        if response.status_code == 429:
            assert "full" in response.json()["error"]
            time.sleep(int(response.headers["Retry-After"]))
            return "refused"
        assert response.status_code == 202, response.text
        id = response.json()["id"]
        leaves = draw.random() < 0.1
        with client.stream("GET", f"/api/jobs/{id}/events") as events:
            for line in events.iter_lines():
                if leaves and '"status":"running"' in line:
                    break
        if leaves:
            return "left"
        job = client.get(f"/api/jobs/{id}").json()
        assert job["status"] == "done", job
        assert all(client.get(path).content.startswith(b"\x89PNG") for path in job["results"])
        return "done"


def resident(process: int) -> float:
    """Return the resident memory of a process in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads memory from /proc")
def test_twenty_clients(tmp_path: Path) -> None:
    model = write_random_model(tmp_path / "model", MODEL)
    command = [sys.executable, "-m", "elements_jax.cli", "editor", "--no-open", "--port", "0", "--model", model]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = re.search(r"http://localhost:\d+", process.stdout.readline() + process.stdout.readline())
            assert address is not None
            load = Load(address[0])
            clients = [threading.Thread(target=load.client, args=(seed,)) for seed in range(CLIENTS)]
            for client in clients:
                client.start()
            memory = []
            while any(client.is_alive() for client in clients):
                memory.append(resident(process.pid))
                time.sleep(1)
            assert httpx2.get(f"{address[0]}/api/model").status_code == 200
        finally:
            process.terminate()
    quarter = len(memory) // 4
    quarters = [float(np.mean(memory[n * quarter : (n + 1) * quarter])) for n in range(4)]
    print(f"resident memory of each quarter: {', '.join(f'{value:.0f} MB' for value in quarters)}")
    assert load.problems == []
    assert load.outcomes["done"] >= CLIENTS
    assert quarters[3] < 1.1 * quarters[1]
