"""Compare random PyTorch networks, saved to a file and read through the real converter, with ours."""

import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch


@pytest.fixture(autouse=True)
def _one_torch_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def randomise():
    """Randomise every parameter of a PyTorch module: a norm's scale left at one would hide that it is unused."""

    def draw(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, 1 / math.sqrt(parameter[0].numel()), generator=generator)
                else:
                    parameter.normal_(1 if name.endswith("weight") else 0, 0.3, generator=generator)
        return module.eval()

    return draw


@pytest.fixture
def tensors_of(tmp_path: Path):
    """Save a module to a safetensors file, and return its parameters, read without PyTorch."""

    def save_and_read(module: torch.nn.Module) -> dict[str, np.ndarray]:
        path = tmp_path / "model.safetensors"
        safetensors.torch.save_file(module.state_dict(), path)
        return safetensors.numpy.load_file(path)

    return save_and_read


@pytest.fixture
def assert_same():
    """Compare ours (NHWC) with PyTorch's (NCHW if it has four axes), by the relative error in the 2-norm."""

    def compare(ours, theirs: torch.Tensor, tolerance: float = 1e-5) -> None:
        expected = theirs.detach().numpy()
        if expected.ndim == 4:
            expected = expected.transpose(0, 2, 3, 1)
        assert ours.shape == expected.shape
        error = np.linalg.norm(np.asarray(ours, np.float64) - expected) / np.linalg.norm(expected)
        assert error < tolerance, f"relative error {error:.1e}"

    return compare
