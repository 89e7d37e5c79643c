import sys

from elements_jax.cli.train import main

sys.exit(main())
