"""Scaling on paper: bytes that a device sends per step against its arithmetic, from reports of `elements compile`.

    for slice in "v5e:2x4 1" "v5e:8x8 8" "v5e:16x16 32"; do
      set -- $slice
      elements compile sd15 --topology $1 --train.data-parallel $2 --train.fsdp 8 --train.batch-size $((32 * $2)) \
        --config.dtype bfloat16 --report reports/$1.json
    done
    python tests/benchmarks/scaling.py reports/*.json

With P parameters on a mesh of d x f devices the arithmetic is: parameters gathered in bfloat16, 2 P (f - 1) / f bytes;
gradients summed and split in float32, 4 P (f - 1) / f; and the parts summed over `data`, 2 (4 P / f) (d - 1) / d.
"""

import json
from pathlib import Path

import tyro

from configs import sd15
from elements_jax.models.networks import Networks
from train.cost.chips import CHIPS


def expected_bytes(parameters: int, data: int, fsdp: int) -> float:
    """Return the bytes that a device sends in a step, by the arithmetic above."""
    split = (fsdp - 1) / fsdp
    return parameters * (2 * split + 4 * split + 2 * 4 / fsdp * (data - 1) / data)


def main(reports: tyro.conf.Positional[tuple[Path, ...]]) -> None:
    """Print a row for each report.

    Args:
        reports: JSON files that `elements compile --report` wrote.
    """
    parameters = sum(shape.size for shape in Networks(sd15.MODEL).unet.shapes().values())
    print("| chips | mesh | images a chip | arithmetic | memory | sent | by the arithmetic | messages | of the step |")
    print("|---|---|---|---|---|---|---|---|---|")
    for report in sorted((json.loads(path.read_text()) for path in reports), key=lambda report: report["devices"]):
        mesh, times = report["mesh"], report["times"]
        sent = sum(messages["sent"] for messages in report["messages"].values())
        print(
            f"| {report['devices']} | {mesh['data']} x {mesh['fsdp']} | {report['batch_size'] / report['devices']:g} "
            f"| {1e3 * times['arithmetic']:.0f} ms | {1e3 * times['memory traffic']:.0f} ms | {sent / 1e9:.2f} GB "
            f"| {expected_bytes(parameters, **mesh) / 1e9:.2f} GB | {1e3 * times['messages']:.0f} ms "
            f"| {times['messages'] / report['least_time']:.0%} |"
        )
    print(f"\nA chip sends {CHIPS[report['chip']].interconnect / 1e9:.0f} GB/s over all its links.")


if __name__ == "__main__":
    tyro.cli(main)
