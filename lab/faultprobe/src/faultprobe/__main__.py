"""`python -m faultprobe`."""

import sys

from faultprobe.cli import main

sys.exit(main())
