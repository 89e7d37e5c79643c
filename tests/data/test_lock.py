"""A folder has one owner at a time, and none after the owner ends."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from elements_jax.data.lock import OWNER, locked

HOLD = """
import sys, time
from pathlib import Path
from elements_jax.data.lock import locked
with locked(Path(sys.argv[1]), "elements partition --split train"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_owner_is_refused_and_told_of_the_first(holder: subprocess.Popen, tmp_path: Path) -> None:
    owner = rf"`elements partition --split train`, process {holder.pid} on \S+, started \d{{4}}-\d\d-\d\dT[\d:+]+"
    with pytest.raises(ValueError, match=rf"{tmp_path} is in use by {owner}; wait"), locked(tmp_path, "another"):
        pytest.fail("two owners")


def test_a_killed_owner_holds_nothing(holder: subprocess.Popen, tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / OWNER).exists()  # its leftover file
    with locked(tmp_path, "another"):
        assert "another" in (tmp_path / OWNER).read_text()
    assert not (tmp_path / OWNER).exists()


def test_a_folder_can_be_owned_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path / "new", "first"):
        raise KeyError
    with locked(tmp_path / "new", "second"):
        pass
