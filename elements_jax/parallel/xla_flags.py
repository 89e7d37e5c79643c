"""XLA flags for CPUs, on which `tiny` is trained."""

import os


def prefer_own_convolutions() -> None:
    """Use XLA's own convolutions, up to 1.8 times faster than its default library. Call before JAX's backend starts.

    The user's XLA_FLAGS take precedence.
    """
    os.environ.setdefault(
        "XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
    )
