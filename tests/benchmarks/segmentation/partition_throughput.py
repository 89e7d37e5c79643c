"""The partition of photographs with MobileSAM: this project against the plain use of SAM's published predictor.

    python tests/benchmarks/segmentation/partition_throughput.py --images 3

All start from the same image embedding and decode the same 256 points; then pixels are assigned, ours in chunks, theirs
with all 256 score maps at image size. `loop` asks the predictor for one point after the other, `batched` for 64 at
once, like its automatic mask generator. Then it prints images per second of the complete job, and seconds of its parts.
"""

import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from torch.nn import functional as F

from partition.assignment import assign_elements, compute_centroids, distance, query_grid
from partition.config import PartitionConfig
from partition.job.job import Job, begin
from partition.job.worker import Segmented, ShardWorker, finish, load, record_settings
from partition.photos import read_photo
from partition.segmenters.sam import SamSegmenter, affinity, load_sam
from partition.segmenters.sam_points import decode_points
from partition.sources.sample import read_sample

CONFIG = PartitionConfig()


class Predictor:
    """The published predictor, fed with an embedding."""

    def __init__(self, model: Sam, points_at_once: int):
        self.predictor = SamPredictor(model)
        self.points_at_once = points_at_once

    def decode(self, embedding: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return candidate masks (N, 3, 256, 256) and the predictions of their IoU."""
        predictor = self.predictor
        predictor.features, predictor.is_image_set = embedding, True
        predictor.original_size = predictor.input_size = (1024, 1024)
        found = []
        for some in (1024 * points.float() - 0.5)[:, None].split(self.points_at_once):
            _, predicted_iou, logits = predictor.predict_torch(some, torch.ones(some.shape[:2]))
            found.append((logits, predicted_iou))
        logits, predicted_iou = map(torch.cat, zip(*found, strict=True))
        return logits, predicted_iou

    def assign(self, s: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
        """Run Algorithm 2 with one tensor for each of its formulas."""
        grid = query_grid(CONFIG.grid)
        s = F.interpolate(s[None].double(), size, mode="bilinear", align_corners=False)[0]
        centroids = compute_centroids(s.argmax(0), empty=grid)
        centroids = CONFIG.centroid_ratio * centroids + (1 - CONFIG.centroid_ratio) * grid
        return (s - CONFIG.beta * distance(centroids, size, CONFIG.distance)).argmax(0).numpy()


class Ours:
    """The steps of `SamSegmenter`, in two parts for the clock."""

    def __init__(self, model: Sam):
        self.segmenter = SamSegmenter(model, CONFIG)

    def decode(self, embedding: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode as `Predictor.decode` does."""
        chunks = decode_points(self.segmenter.model, embedding, points, self.segmenter.points_at_once)
        logits, predicted_iou = map(torch.cat, zip(*chunks, strict=True))
        return logits[:, 1:], predicted_iou[:, 1:]

    def assign(self, s: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
        """Run Algorithm 2."""
        return assign_elements(lambda _: s, size, CONFIG).numpy()


def clocked(run: Callable[..., Any], *arguments: object) -> tuple[Any, float, float]:
    """Return a result, its seconds, and the additional memory of the process in GB."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current size
    before, start = _memory("VmRSS"), time.perf_counter()
    result = run(*arguments)
    return result, time.perf_counter() - start, _memory("VmHWM") - before


def _memory(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1e6 if found else float("nan")


@torch.inference_mode()
def main(
    shared: Path = Path(os.environ.get("ELEMENTS_DATA", "../shared")),  # noqa: B008
    images: int = 3,
) -> None:
    """Print the cost of both, image by image, and the distance between their masks.

    Args:
        shared: Folder with `weights/mobile_sam.pt` and `data/bsds500/images/val`; by default $ELEMENTS_DATA, or else
            ../shared.
        images: Number of photographs, evenly spaced in the split.
    """
    paths = sorted((shared / "data" / "bsds500" / "images" / "val").glob("*.jpg"))
    paths = [paths[i * len(paths) // images] for i in range(images)]
    model, _ = load_sam(shared / "weights" / "mobile_sam.pt")
    candidates = {"ours": Ours(model), "batched": Predictor(model, 64), "loop": Predictor(model, 1)}
    points, rows = query_grid(CONFIG.grid), []
    for path in paths:
        image = read_photo(read_sample(path, path.name), CONFIG.size).image
        embedding = candidates["ours"].segmenter.embed(image[None])[0]
        row, results = {}, {}
        for name, candidate in candidates.items():
            (logits, iou), decode, decode_memory = clocked(candidate.decode, embedding, points)
            s = affinity(F.pad(logits, (0, 0, 0, 0, 1, 0)), F.pad(iou, (1, 0)), CONFIG.mask)  # without the single mask
            g, assign, assign_memory = clocked(candidate.assign, s, image.shape[:2])
            row[name] = (decode, assign, max(decode_memory, assign_memory))
            results[name] = (logits, g)
        rows.append(row)
        for name, (logits, g) in results.items():
            print(
                f"{path.stem:8} {name:8} decode {row[name][0]:6.2f} s  assign {row[name][1]:5.2f} s  "
                f"{row[name][2]:5.1f} GB  {sum(row[name][:2]) / sum(row['ours'][:2]):5.1f}x ours  logits differ by "
                f"{(logits - results['ours'][0]).abs().max() / logits.abs().max():.1e} of the largest, "
                f"{np.mean(g != results['ours'][1]):.4%} of pixels",
                flush=True,
            )
    for name in candidates:
        ratio = statistics.median(sum(row[name][:2]) / sum(row["ours"][:2]) for row in rows)
        print(f"decode and assign, {name}: {ratio:.1f} times the time of ours (median)")
    _job(shared, paths, candidates["ours"])


def _job(shared: Path, paths: list[Path], ours: Ours) -> None:
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder, "photos.txt")
        listed.write_text("\n".join(str(path.absolute()) for path in paths))
        job = Job(str(listed), Path(folder, "records"), checkpoint=shared / "weights" / "mobile_sam.pt")
        begin(job)
        with ShardWorker(job, "cpu") as worker:
            worker.run(0)  # its processes start meanwhile
            _, seconds, memory = clocked(worker.run, 0)
        print(f"the whole job: {len(paths) / seconds:.3f} images/s, {memory:.1f} GB beside the model")
        sums = dict.fromkeys(("read", "embed", "decode", "assign", "finish"), 0.0)

        def part(name: str, run: Callable[..., Any], *arguments: object) -> Any:
            result, seconds, _ = clocked(run, *arguments)
            sums[name] += seconds
            return result

        settings = record_settings(CONFIG, "")
        for sample in job.shards[0].samples():
            loaded = part("read", load, sample, job, ())
            embedding = part("embed", ours.segmenter.embed, loaded.photo.image[None])
            s = part("decode", ours.segmenter.scores, embedding, query_grid(CONFIG.grid))
            g = part("assign", ours.assign, s, loaded.photo.image.shape[:2])
            part("finish", finish, Segmented(loaded, g, loaded.photo.object_masks), job, settings)
        print("of one image, seconds: " + ", ".join(f"{name} {total / len(paths):.2f}" for name, total in sums.items()))


if __name__ == "__main__":
    tyro.cli(main)
