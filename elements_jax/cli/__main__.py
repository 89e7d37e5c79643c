import sys

from elements_jax.cli.main import main

sys.exit(main())
