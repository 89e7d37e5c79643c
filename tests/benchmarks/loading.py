"""Time and peak memory of `ElementsPipeline.from_pretrained` and `save_pretrained` at Stable Diffusion 1.5's size.

python tests/benchmarks/loading.py [FOLDER]

It writes a model folder of random numbers to FOLDER (out/loading), 4.8 GB, and its half in float16; each line is a
separate process. The operating system has the files in memory, so the disk is not timed.
"""

import multiprocessing
import resource
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file


def write_model(folder: Path) -> None:
    """Write a model folder of the paper's size."""
    from elements_jax.checkpoints.model_folder import save_network, write_config
    from elements_jax.config import ModelConfig
    from elements_jax.models.networks import Networks
    from train.start import write_tokenizer

    config, rng = ModelConfig(), np.random.default_rng(0)
    write_config(folder, config)
    write_tokenizer(folder / "tokenizer", ["a cat"], config.text)
    for name in ("vae", "text_encoder", "unet", "encoder", "decoder"):
        shapes = getattr(Networks(config), name).shapes()
        save_network(folder, name, {key: rng.random(spec.shape, np.float32) for key, spec in shapes.items()})


def write_half(folder: Path, half: Path) -> None:
    """Write Stable Diffusion's part of a model folder in float16."""
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        shutil.copytree(folder / part, half / part, ignore=shutil.ignore_patterns("*.safetensors"))
        for path in (folder / part).glob("*.safetensors"):
            tensors = {name: value.astype(np.float16) for name, value in load_file(path).items()}
            save_file(tensors, half / part / f"{path.stem}.fp16.safetensors")


def load(folder: Path) -> None:
    """Load, and print time and memory."""
    import warnings

    import jax

    from elements_jax.pipeline.pipeline import ElementsPipeline

    warnings.simplefilter("ignore")
    jax.numpy.zeros(1).block_until_ready()  # start JAX first
    before, start = peak(), time.perf_counter()
    pipeline = jax.block_until_ready(ElementsPipeline.from_pretrained(folder).params)
    seconds = time.perf_counter() - start
    size = sum(value.nbytes for params in pipeline.values() for value in params.values())
    print(
        f"{folder}: loaded in {seconds:.1f} s; peak {(peak()) / 2**30:.2f} GiB, of which {before / 2**30:.2f} before; "
        f"parameters {size / 2**30:.2f} GiB; peak / parameters {peak() / size:.2f}",
        flush=True,
    )


def peak() -> int:
    """Return the peak resident memory of this process in bytes, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Write the folders if they do not exist, then measure."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out/loading")
    half = folder.with_name(f"{folder.name}-half")
    processes = multiprocessing.get_context("spawn")
    steps = [] if folder.exists() else [(write_model, (folder,)), (write_half, (folder, half))]
    steps += [(load, (folder,)), (load, (half,))]
    for step, arguments in steps:
        process = processes.Process(target=step, args=arguments)
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
