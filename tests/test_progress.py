"""Messages during long operations."""

import io
import re
import sys
import threading

import pytest

from elements_jax import progress


class Screen(io.StringIO):
    """Text that was written, and whether there was any."""

    def __init__(self, terminal: bool):
        super().__init__()
        self.terminal, self.written = terminal, threading.Event()

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        count = super().write(text)
        self.written.set()
        return count


@pytest.mark.parametrize(
    ("terminal", "expected"),
    [(False, r"compiling \.\.\.\ncompiling, \d+ s, done\n"), (True, r"(\rcompiling, \d+ s)+\r\x1b\[K")],
)
def test_a_long_wait_is_shown(terminal, expected, monkeypatch):
    screen = Screen(terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "SOON", 0.01)
    with progress.waiting("compiling"):
        assert screen.written.wait(30)
    assert re.fullmatch(expected, screen.getvalue())


def test_what_fails_is_not_done(monkeypatch):
    screen = Screen(terminal=False)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "SOON", 0.01)
    with pytest.raises(ValueError, match="no"), progress.waiting("compiling"):  # noqa: PT012
        assert screen.written.wait(30)
        raise ValueError("no")
    assert screen.getvalue() == "compiling ...\n"


def test_what_is_done_soon_says_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SOON", 60)
    with progress.waiting("compiling"):
        pass
    assert capsys.readouterr().err == ""


def test_the_bar_starts_with_the_first_step_and_ends_full(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SOON", 60)
    with progress.sampling(3, "edit") as report:
        assert capsys.readouterr().err == ""
        assert all(report() for _ in range(3))
    assert "3/3" in capsys.readouterr().err
