"""Train one stage: ``python train.py --config reward.yaml | vocabulary.yaml | grpo.yaml``.

A bare name is looked up here, then in ``configs/``. Every setting can be given on the command line
(``--model.lr 1e-4 --trainer.max_steps 10``), ``--print_config`` shows all of them, ``--run_name`` names the
folder in ``runs/``, and the same command resumes a run that was stopped.
"""

import sys

from flowsmith.interrupts import leave_on_interrupt

if __name__ == "__main__":
    leave_on_interrupt()
    # Importing the rooms lets a config say `class_path: GRPOModule`.
    import callbacks  # noqa: F401
    import datamodules  # noqa: F401
    import lightning_modules  # noqa: F401
    from lightning_modules.command_line import main

    sys.exit(main("fit"))
