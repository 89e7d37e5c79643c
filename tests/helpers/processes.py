"""Training in separate processes, with fake devices."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]  # where `python -m` finds `tests` and the packages
PATIENCE = 240
"""Seconds after which a process that should have ended counts as hanging."""


def start(*arguments: object, devices: int = 1, **environment: object) -> subprocess.Popen:
    """Start Python with `arguments` and this many fake devices."""
    variables = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # the programs run faster than they compile
        # Otherwise collectives of many fake devices on few cores can deadlock.
        "PJRT_NPROC": "16",
    }
    variables |= {name: str(value) for name, value in environment.items()}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, env=variables, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    """Wait for a process and return (exit code, output, errors)."""
    try:
        printed, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return process.returncode, printed, errors
