"""``python -m flowsmith.commands`` is ``flowsmith``."""

import sys

from flowsmith.commands.command_line import main

if __name__ == "__main__":
    sys.exit(main())
