"""Run every command and example of README.md and docs/, or check it against the program's own help.

A block of commands runs in its own folder, unless a comment before it names what a test machine lacks: `<!-- needs: a
GPU -->`. Every `elements` command, run or not, must name options that its `--help` knows.
"""

import contextlib
import functools
import io
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

import elements_jax
from elements_jax.cli.main import main

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / ".github").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- needs: (?P<needs>.+?) -->\n)?```(?P<kind>\w+)(?P<title>[^\n]*)\n(?P<body>.*?)^```$", re.M | re.S
)
FEWER_STEPS = {"edit": ["--steps", "2"]}  # for every command that decodes


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    needs: str | None
    kind: str
    title: str
    body: str


def blocks(document: Path) -> list[Block]:
    found = [Block(m["needs"], m["kind"], m["title"].strip(), m["body"]) for m in BLOCK.finditer(document.read_text())]
    assert len(found) == len(re.findall(r"^```\w", document.read_text(), re.M)), f"{document}: a block is not read"
    return found


def commands(body: str) -> list[list[str]]:
    """Return the words of every command of a shell block, without comments."""
    lines = body.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def named_commands(document: Path) -> list[list[str]]:
    """Return every `elements` command of a document, in blocks and in prose."""
    found = [words for block in blocks(document) if block.kind == "sh" for words in commands(block.body)]
    prose = BLOCK.sub("", document.read_text())
    found += [
        shlex.split(code.replace("\n", " "))
        for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose)
        if "elements " in code
    ]
    launched = [words[words.index("elements") :] for words in found if "elements" in words[:9]]
    return [words for words in launched if len(words) > 1 and words[1].islower()]


def help_of(words: list[str]) -> str:
    """Return the `--help` of a command and its subcommands."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return text.getvalue()


@pytest.fixture(scope="module")
def from_pretrained():
    """Models, opened once: otherwise every command would compile the same programs again."""
    return functools.cache(elements_jax.ElementsPipeline.from_pretrained)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_pretrained) -> Path:
    """A folder with the photographs that the examples name."""
    monkeypatch.setattr(elements_jax.ElementsPipeline, "from_pretrained", staticmethod(from_pretrained))
    for name, photograph in (("cat", skimage.data.chelsea()), ("photo", skimage.data.rocket())):
        picture = Image.fromarray(photograph)
        picture.thumbnail((160, 160))  # small, so that an edit is quick
        picture.save(tmp_path / f"{name}.jpg", quality=95)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_files(document: Path) -> None:
    """Write the files whose contents a document shows."""
    for block in blocks(document):
        if name := re.fullmatch(r'title="(.+)"', block.title):
            Path(name[1]).write_text(block.body)


def having(kind: str) -> list[Path]:
    return [path for path in DOCUMENTS if any(b.kind == kind and b.needs is None for b in blocks(path))]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", having("sh"), ids=relative)
@pytest.mark.usefixtures("folder")
def test_commands_run(document: Path):
    write_files(document)
    for block in blocks(document):
        if block.kind != "sh" or block.needs is not None:
            continue
        for words in commands(block.body):
            if words[0] == "elements":
                assert main([*words[1:], *FEWER_STEPS.get(words[1], [])]) == 0, shlex.join(words)
                written = [words[i + 1] for i, word in enumerate(words) if word in ("--out", "--drawing")]
                assert all(Path(name).stat().st_size for name in written)
            elif words[0] == "make":
                targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
                assert words[1] in targets, f"{shlex.join(words)}: the Makefile has no such target"
            else:
                assert words[:2] in (["pip", "install"], ["pre-commit", "install"]), (
                    f"{shlex.join(words)} is not run; say what it needs"
                )


@pytest.mark.parametrize("document", having("python"), ids=relative)
@pytest.mark.usefixtures("folder")
def test_python_runs_as_it_stands(document: Path):
    write_files(document)
    for block in blocks(document):
        if block.kind == "python":
            names: dict = {}
            exec(compile(block.body, relative(document), "exec"), names)
            if "image" in names:
                assert names["image"].shape == (64, 64, 3)
                assert names["image"].std() > 10


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_options_exist(document: Path):
    texts: dict[tuple[str, ...], str] = {}
    for words in named_commands(document):
        end = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
        depth = {"train": 4, "study": 3, "evaluate": 3, "benchmark": 3, "compile": 3}.get(words[1], 2)
        if words[1:3] in (["partition", "inspect"], ["partition", "steps"]):
            depth = 3
        start = tuple(words[1:depth])
        start = start[: max(1, end - 1)]
        if "COMMAND" in words:
            continue
        if start not in texts:
            texts[start] = help_of(list(start))
            assert "usage" in texts[start].lower(), f"`{shlex.join(words)}`: {texts[start]}"
        for option in (word for word in words if re.fullmatch(r"--[a-z][\w.-]*", word)):
            if option != "--help":
                assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", texts[start]), (
                    f"`{shlex.join(words)}`: {option}"
                )


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_links_lead_somewhere(document: Path):
    for target in re.findall(r"\]\(([^)]+)\)", BLOCK.sub("", document.read_text())):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), f"{relative(document)}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), re.M)
            anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{relative(document)}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_named_files_exist(document: Path):
    folders = "elements_jax|partition|train|tests|configs|docs"
    named = re.findall(rf"(?<![\w/.-])((?:{folders})/[\w./-]*\w)", document.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []
    modules = re.findall(r"python -m ((?:tests|partition|elements_jax)[\w.]+)", document.read_text())
    assert [
        m for m in modules if not any((ROOT / m.replace(".", "/")).with_suffix(s).exists() for s in (".py", ""))
    ] == []


def test_readme_is_three_screens():
    text = (ROOT / "README.md").read_bytes()
    assert len(text) <= 8192
    assert text.count(b"\n") <= 150


def test_changelog_has_a_release_or_unreleased():
    assert re.search(r"^## \[(Unreleased|\d+\.\d+\.\d+)\]", (ROOT / ".github" / "CHANGELOG.md").read_text(), re.M)
    assert elements_jax.__version__
