"""The `elements` command; `COMMANDS` lists its commands.

`partition` and `train` are imported only by the commands that use them, so that each command needs only its own
packages.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence

from elements_jax import __version__
from elements_jax.cli.batch import Batch
from elements_jax.cli.command import exit_code, parsed, run_to_end, run_with_local_paths
from elements_jax.cli.data import Cache, PhotoScenes, Scenes
from elements_jax.cli.edit import Edit, Encode, Reconstruct
from elements_jax.cli.editor import Editor

COMMANDS = """\
commands:
  partition    segment photographs into image elements and write records (PyTorch, SAM); `partition inspect` shows them
  cache        write records with precomputed VAE latents and text features, for stage 2
  train        train one stage of a model from records
  compile      estimate memory and speed of a training step on TPUs or GPUs that are not present
  editor       edit photographs in the browser, on a page served by this machine
  encode       encode a photograph into elements: a file to edit, and an image with the element numbers
  edit         run an edit script on a photograph, at its own size, or on an encoded file
  batch        run many edit scripts on records, on all devices
  reconstruct  decode a photograph from its unedited elements
  compare      run several methods, ours and baselines, on the same edit scripts
  evaluate     compute PSNR, SSIM, LPIPS, FID and edit metrics of reconstructions, images or edits
  scenes       write the synthetic images that `tiny` trains on
  photo-scenes  write photographs with objects pasted from others, whose edits have a true result
  study        ask people which of two edits is better: the page, its analysis, and comparison grids
  benchmark    run a public benchmark of edits, and write the files that its scorer reads
  scenes-benchmark  edit held-out scenes by several methods, and score each against the true result

`elements COMMAND --help` describes a command; `elements --version` prints the version.
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
KEPT = {"batch": ["out"], "cache": ["out"], "edit": ["script"]}
"""Fields whose URLs these commands handle: they upload shard by shard; a script names images relative to itself."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. User errors print one line to stderr and exit with code 1."""
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ELSEWHERE:
        return run_to_end(lambda: importlib.import_module(ELSEWHERE[name]).main(rest))
    if name in ("-h", "--help"):
        return run_to_end(lambda: print(f"usage: elements COMMAND ...\n\n{COMMANDS}", end=""))
    if name == "--version":
        return run_to_end(lambda: print(f"elements-jax {__version__}"))
    if name not in HERE:
        alike = difflib.get_close_matches(name, [*HERE, *ELSEWHERE], n=1, cutoff=0.7)
        hint = f"did you mean {alike[0]}? " if alike else ""
        print(f"error: {name} is not a command; {hint}`elements --help` lists them", file=sys.stderr)
        return 2
    return exit_code(lambda: run_with_local_paths(parsed(HERE[name], rest, f"elements {name}"), KEPT.get(name, ())))
