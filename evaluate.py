"""Design flows, render them, judge the images: ``python evaluate.py --config collect.yaml | evaluate.yaml``.

The same command line as ``train.py``, but the trainer predicts: designers propose flows, the executor renders
them, judges score the images, and everything is written as it comes, so a run that was stopped goes on where
it was.
"""

import sys

from flowsmith.interrupts import leave_on_interrupt

if __name__ == "__main__":
    leave_on_interrupt()
    # Importing the rooms lets a config say `class_path: DesignModule`.
    import callbacks  # noqa: F401
    import datamodules  # noqa: F401
    import lightning_modules  # noqa: F401
    from lightning_modules.command_line import main

    sys.exit(main("predict"))
