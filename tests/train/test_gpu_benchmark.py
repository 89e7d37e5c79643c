"""The benchmark for owners of a GPU, rehearsed with small networks on a CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tests.benchmarks.gpu", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_table_and_its_json_are_made(tmp_path):
    out = tmp_path / "gpu.json"
    done = run("--rehearse", "--sections", "vae-decode-4", "stage1-64", "--minutes", "30", "--out", str(out))
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    measured = {(one["section"], one["side"]): one for one in record["candidates"]}
    assert measured.keys() == {("vae-decode-4", "ours"), ("vae-decode-4", "eager"), ("stage1-64", "ours")}
    for one in measured.values():
        assert one["images_per_s"] > 0, one
    assert measured["stage1-64", "ours"]["skipped"] == 0
    assert record["flops"]["vae-decode-4"] > 0
    assert "VAE decodes 4 pictures" in done.stdout


def test_a_failed_measurement_is_reported_in_its_line(tmp_path):
    """With no time at all, nothing is begun, and the table is still printed."""
    out = tmp_path / "gpu.json"
    done = run("--rehearse", "--sections", "train-8", "sample-1", "--minutes", "0", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "train-8, compiled: not begun" in done.stdout
    assert all("why_not" in one for one in json.loads(out.read_text())["candidates"])


def test_an_unknown_section_is_one_clear_error():
    done = run("--sections", "train-9")
    assert done.returncode == 1
    assert "error: --sections: expected some of train-8" in done.stderr
