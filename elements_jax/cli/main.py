"""The `elements` command. `COMMANDS` lists what it does.

It reaches for `partition` (as `photographs` does) and `train` only when their command is called, so that each command
needs no more than its own packages.
"""

import importlib
import sys
from collections.abc import Sequence

from elements_jax.cli.batch import Batch
from elements_jax.cli.command import exit_code, parsed, run_to_end, run_with_local_paths
from elements_jax.cli.data import Cache, PhotoScenes, Scenes
from elements_jax.cli.edit import Edit, Encode, Reconstruct
from elements_jax.cli.editor import Editor

COMMANDS = """\
commands:
  partition    divide photographs into image elements and write records (PyTorch, SAM); `partition inspect` shows them
  cache        compute once what stage 2 takes of VAE and text encoder, and write records that hold it
  train        train one stage of a model from records
  compile      a training step for TPUs or GPUs that are not here: what it needs, and how fast it can be
  editor       edit photographs in the browser, on a page of this machine's own
  encode       one photograph to its elements: a file to edit, and a picture with their numbers
  edit         run an edit script on a photograph, at its own size, or on an encoded file
  batch        run many edit scripts on records, on every device
  reconstruct  decode a photograph from its unedited elements
  compare      run several methods, ours and baselines, on the same edit scripts
  evaluate     judge reconstructions, pictures or edits: PSNR, SSIM, LPIPS, FID, and what edits should keep
  scenes       write the synthetic pictures that `tiny` trains on
  photo-scenes  write objects of photographs on other photographs, whose edits have a true result
  study        ask people which of two edits is better: the page, its analysis, and grids of pictures
  benchmark    run a public benchmark of edits, and write what its own scorer reads
  scenes-benchmark  edits of held-out scenes by several methods, and how near each comes to the true result

`elements COMMAND --help` says more.
"""
ELSEWHERE = {
    "partition": "partition.__main__",
    "train": "elements_jax.cli.train",
    "compile": "elements_jax.cli.compile",
    "study": "elements_jax.cli.evaluation.study",
    "benchmark": "elements_jax.cli.evaluation.benchmark",
    "evaluate": "elements_jax.cli.evaluation.evaluate",
    "compare": "elements_jax.cli.evaluation.compare",
    "scenes-benchmark": "elements_jax.cli.evaluation.scenes_benchmark",
}
"""Modules with a `main(arguments) -> exit code`."""
HERE = {
    "cache": Cache,
    "encode": Encode,
    "editor": Editor,
    "edit": Edit,
    "batch": Batch,
    "reconstruct": Reconstruct,
    "scenes": Scenes,
    "photo-scenes": PhotoScenes,
}
"""Commands with a `run`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Errors of the user's making end with one line on stderr and exit code 1."""
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ELSEWHERE:
        return run_to_end(lambda: importlib.import_module(ELSEWHERE[name]).main(rest))
    if name not in HERE:
        asked_for_help = name in ("-h", "--help")
        stream = sys.stdout if asked_for_help else sys.stderr
        code = run_to_end(lambda: print(f"usage: elements COMMAND ...\n\n{COMMANDS}", end="", file=stream))
        return code if asked_for_help else 2
    keep = ["out"] if name == "batch" else []  # it uploads shard by shard
    return exit_code(lambda: run_with_local_paths(parsed(HERE[name], rest, f"elements {name}"), keep))
