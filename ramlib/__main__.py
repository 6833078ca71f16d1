"""`python -m ramlib` is the command `ramlib`."""

import sys

from ramlib.cli import main

sys.exit(main())
