"""From a command line to an exit code."""

import logging
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Sequence

from lightning.fabric.utilities.rank_zero import rank_zero_only

from callbacks.preemption import Stopped, StopSignals, requeue_job
from flowsmith.errors import FlowsmithError
from lightning_modules.command_line.processes import is_of_lost_rank, is_rank_zero
from lightning_modules.command_line.stage_cli import AlreadyFinished, Mode, StageCLI

# Expected here: run folders are meant to be resumed, and small data needs no workers. The last is between
# Lightning and torch.
_EXPECTED = (
    "Checkpoint directory .* exists and is not empty",
    "The '.*' does not have many workers",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    "Found .* module.*in eval mode at the start of training",  # what is frozen is meant to be
    "`past_key_values` is deprecated",  # its successor is not in the oldest transformers that is supported
    "Using ModelCheckpoint with manual optimization",  # it saves after updates, and a cycle is several of them
    r"torch\.distributed\.nn\.functional\.all_gather is deprecated",  # Lightning's
    r"It is recommended to use .*sync_dist=True",  # what callbacks log is of all processes before it is logged
    "The `srun` command is available",  # on a machine of a cluster one process needs no srun; more are counted
)
# Says which rank's end ends all others, which nothing else does.
_HEARD = "lightning.fabric.strategies.launchers.subprocess_script"
_PATIENCE = 15.0  # seconds in which all ranks are ended when one is gone; Lightning looks every five
_PRECEDENCE = 3.0  # seconds that rank 0 has to tell of what every rank met


def main(mode: Mode, arguments: Sequence[str] | None = None) -> int:
    """Run one stage.

    Args:
        mode: What to do where neither config nor command line says it.
        arguments: In place of the process's own.

    Returns:
        0 when done, 1 after a mistake of the input, 128 + signal after a stop. The ranks that Lightning
        started return 0 after a stop, because it kills the whole run when one of them does not.
    """
    # The stage says itself what it does.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger(_HEARD).setLevel(logging.INFO)
    for message in _EXPECTED:
        warnings.filterwarnings("ignore", message=message)
    cli: StageCLI | None = None
    with StopSignals() as signals:
        try:
            cli = StageCLI(mode, signals, sys.argv[1:] if arguments is None else arguments)
            cli.execute()
        except AlreadyFinished as finished:
            print(finished, flush=True)
        except Stopped as stop:
            return _stopped(cli, stop)
        except FlowsmithError as error:
            return _mistaken(error)
        except Exception as error:
            if cli is None and (cause := _cause(error)) is not None:
                return _mistaken(cause)
            if signals.received is None:
                if is_of_lost_rank(error):
                    time.sleep(_PATIENCE)
                raise
            # Most likely another rank stopped first and ended a collective under this one; shown in case it
            # is not so.
            traceback.print_exc()
            return _stopped(cli, Stopped(signals.received, at_once=True))
    return 0


def _cause(error: BaseException) -> FlowsmithError | None:
    """Return the mistake behind an error of the parser, which wraps whatever a constructor raises."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, FlowsmithError):
        found = found.__cause__ or found.__context__
    return found


def _mistaken(error: FlowsmithError) -> int:
    """Tell of a mistake, once where every process meets it: rank 0 ends the others when it leaves."""
    if is_rank_zero():
        print(f"error: {error}", file=sys.stderr, flush=True)
    else:
        time.sleep(_PRECEDENCE)
        rank = getattr(rank_zero_only, "rank", 0)
        print(f"error on rank {rank}: {error}", file=sys.stderr, flush=True)
    return 1


def _stopped(cli: StageCLI | None, stop: Stopped) -> int:
    if stop.signal == signal.SIGUSR1 and not stop.requeued:
        requeue_job()  # by whichever rank leaves first, for with it srun ends the others
    if cli is None:
        print(f"stopped by {stop.signal.name} while starting; the same command begins again", flush=True)
        return int(stop.code)
    kept = "what was under way is given up" if stop.at_once else "everything is saved"
    cli.say(f"stopped by {stop.signal.name}; {kept}; the same command goes on from there")
    return 0 if cli.launched_by_rank_zero() else stop.code
