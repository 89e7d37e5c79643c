"""The rooms of the repository and the arrows between them (docs/architecture.md): an import only points down."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "bounds": "",
    "arguments": "data",
    "config": "bounds data",
    "typing": "",
    "progress": "",
    "user_cache": "",
    "elements": "typing",
    "data": "user_cache",
    "scenes": "data",
    "parallel": "typing user_cache",
    "diffusion": "config typing",
    "fill": "",
    "editing": "config data elements typing",
    "models": "config diffusion elements parallel",
    "checkpoints": "config data models",
    "metrics": "checkpoints data models",
    "pipeline": "checkpoints config data diffusion editing elements models parallel",
    "photograph": "data editing fill pipeline",
    "evaluation": "checkpoints config data diffusion editing elements metrics models parallel pipeline scenes",
    "editor": "data diffusion editing photograph pipeline",
    "train": "bounds checkpoints config data diffusion elements metrics models parallel progress typing user_cache",
    "configs": "config train",
    "partition": "arguments bounds data",
}
"""The rooms that each room may import besides itself. `cli` is the roof and imports anything."""
ROOFS = {
    "train/__main__.py": "`python -m train` is `elements train`",
    "partition/__main__.py": "`python -m partition` is `elements partition`",
    "partition/diffusers_baselines.py": "an evaluation that needs PyTorch, which `elements_jax` never imports",
}
PAGE = ROOT / "elements_jax" / "editor" / "static"
PAGE_ALLOWED = {"model": {"model"}, "view": {"model", "view"}, "input": {"input", "model", "view"}}
"""What each folder of the page's JavaScript may import. `main.js` imports from all three."""
FORBIDDEN = {"partition": {"jax", "flax", "optax", "orbax"}, "elements_jax": {"torch"}, "train": {"torch"}}


PACKAGES = ("elements_jax", "train", "partition", "configs")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def room(module: str) -> str:
    """Return a module's room: a folder or file of `elements_jax`, or another package."""
    first, *rest = module.split(".")
    return rest[0] if first == "elements_jax" and rest else first


def room_of(path: Path) -> str:
    return room(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, at its top or in its functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_room_is_in_the_table():
    assert {room_of(path) for path in FILES} == {*ALLOWED, "elements_jax", "cli"}


@pytest.mark.parametrize("home", ALLOWED)
def test_a_room_imports_only_what_lies_below(home):
    rooms = {*ALLOWED, "cli"}
    allowed = {home, *ALLOWED[home].split()}
    for path in FILES:
        if room_of(path) == home and path.relative_to(ROOT).as_posix() not in ROOFS:
            imported = {room(module) for module in imports(path) if module.split(".")[0] in PACKAGES} & rooms
            assert imported <= allowed, f"{path.relative_to(ROOT)} imports {imported - allowed}"


def test_pytorch_and_jax_stay_apart():
    for top, forbidden in FORBIDDEN.items():
        for path in (ROOT / top).rglob("*.py"):
            used = {module.split(".")[0] for module in imports(path)} & forbidden
            assert not used, f"{path.relative_to(ROOT)} imports {used}"


@pytest.mark.parametrize("folder", PAGE_ALLOWED)
def test_page_imports_only_what_lies_below(folder):
    for path in (PAGE / folder).glob("*.js"):
        for target in re.findall(r'(?:from |import\()"([^"]+)"', path.read_text(encoding="utf-8")):
            imported = (path.parent / target).resolve()
            assert imported.is_file(), f"{path.name} imports {target}, which does not exist"
            assert imported.parent.name in PAGE_ALLOWED[folder], f"{path.relative_to(PAGE)} imports {target}"


def test_files_and_folders_stay_small():
    """A file has at most 350 lines, and a folder at most 15 files."""
    scripts, tests = list(PAGE.rglob("*.js")), sorted((ROOT / "tests").rglob("*.py"))
    for path in [*FILES, *scripts, *tests]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path
    for folder in {path.parent for path in [*FILES, *tests]}:
        assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 15, folder
    for folder in {path.parent for path in scripts}:
        assert len([path for path in folder.iterdir() if path.is_file()]) <= 15, folder


def test_names_of_tests_stay_short():
    """A name has at most 60 characters and says what holds; details go into the docstring."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert len(node.name) <= 60, f"{path.relative_to(ROOT)}: {node.name}"


def test_the_document_draws_the_arrows():
    """The picture has one arrow for every import that does not follow from others, and each points down."""

    def below(home: str) -> set[str]:
        return {room for direct in ALLOWED[home].split() for room in {direct, *below(direct)}}

    picture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("```")[1].strip()
    lines = re.findall(r"^(\w+) +-> ([\w, ]+?)(?:  |$)", picture, re.M)
    arrows = {home: set(rooms.split(", ")) for home, rooms in lines}
    free = re.split(r" {2,}", picture.splitlines()[-1])[0].split(", ")
    assert sorted([*arrows, *free]) == sorted(ALLOWED)
    assert not any(ALLOWED[home] for home in free)
    drawn = [*arrows, *free]
    for home, rooms in arrows.items():
        direct = set(ALLOWED[home].split())
        assert rooms == {room for room in direct if not any(room in below(other) for other in direct)}, home
        assert all(drawn.index(home) < drawn.index(room) for room in rooms), home
