"""`python -m train STAGE PRESET`, which is `elements train`."""

import sys

from elements_jax.cli.command import run_to_end
from elements_jax.cli.train import main

sys.exit(run_to_end(main))
