"""A real SLURM on this machine: two nodes on loopback, every file of it in one folder, nothing in /etc touched.

Debian's packages ``slurm-wlm`` and ``munge`` are enough. The first node bears the machine's own name, for Lightning
takes the master's address from the list of nodes.
"""

import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from tests.resume.world import wait_for

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "sinfo", "squeue")
_CONF = """\
ClusterName=flowsmith
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
# A requeued job waits until the credentials of its last start are void: 120 s where it is not said.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPort={controller}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdSpoolDir={folder}/spool.%n
StateSaveLocation={folder}/state
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=2
ReturnToService=2
JobRequeue=1
KillWait=5
NodeName={host} NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=1
NodeName={host}-2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=1
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Return what a cluster lacks here, None if nothing."""
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: apt-get install slurm-wlm munge)"
    if os.geteuid() != 0:
        return "SLURM's daemons start tasks for others and want to be root"
    return None


class Cluster:
    """Daemons that run while the context is open."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.host = folder, socket.gethostname()
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM", "SBATCH", "SRUN"))
        }
        self.environment |= {"PATH": _PATH, "SLURM_CONF": str(folder / "slurm.conf")}
        self.environment |= {"FLOWSMITH_PYTHON": sys.executable}

    def __enter__(self) -> "Cluster":
        folder = self.folder
        folder.chmod(0o755)
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        controller, first, second = _free_ports(3)
        ports = {"controller": controller, "first": first, "second": second}
        conf = _CONF.format(folder=folder, host=self.host, user=getpass.getuser(), **ports)
        (folder / "slurm.conf").write_text(conf)
        (folder / "state").mkdir()
        nodes = (self.host, f"{self.host}-2")
        munged = [f"--{name}={folder}/munge.{name.partition('-')[0]}" for name in ("socket", "pid-file")]
        munged += [f"--key-file={key}", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed"]
        try:
            self._start("munged", "--foreground", *munged)
            wait_for((folder / "munge.socket").is_socket, 10, self.logs)
            self._start("slurmctld", "-D", "-f", str(folder / "slurm.conf"))
            for node in nodes:
                self._start("slurmd", "-D", "-N", node, "-f", str(folder / "slurm.conf"))
            idle = ["idle"] * len(nodes)
            wait_for(lambda: self.ask("sinfo", "-N", "-h", "-o", "%T").split() == idle, 30, self.logs)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if len(self._daemons) > 2:
            self.ask("scancel", "--full", "--signal=KILL", "--me")
            self.ask("scancel", "--me")
            with suppress(AssertionError):  # the daemons end all the same
                wait_for(lambda: not self.ask("squeue", "-h"), 20)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _start(self, program: str, *options: str) -> None:
        path = shutil.which(program, path=_PATH)
        assert path is not None
        with (self.folder / f"{program}.out").open("ab") as out:
            self._daemons.append(
                subprocess.Popen(
                    [path, *options], env=self.environment, stdout=out, stderr=out, cwd=self.folder
                )
            )

    def ask(self, *command: str) -> str:
        """Run one of SLURM's programs and return what it prints."""
        done = subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            executable=_found(command[0]),
        )
        return done.stdout.strip()

    def submit(self, checkout: Path, *words: str, more: dict[str, str] | None = None) -> int:
        """Submit from a folder; return the job's number."""
        done = subprocess.run(
            ["sbatch", "--parsable", *words],
            env=self.environment | (more or {}), cwd=checkout, capture_output=True, text=True, timeout=60,
            executable=_found("sbatch"),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return int(done.stdout.strip())

    def facts(self, job: int | str) -> dict[str, str]:
        """Return what ``scontrol show job`` tells of a job."""
        return dict(re.findall(r"(\w+)=(\S*)", self.ask("scontrol", "show", "job", str(job))))

    def wait(self, job: int | str, *states: str, seconds: float = 180) -> dict[str, str]:
        """Return a job's facts once it is in one of the states."""

        def told() -> str:
            return f"job {self.facts(job)}\n{self.logs()}"

        wait_for(lambda: self.facts(job).get("JobState") in states, seconds, told)
        return self.facts(job)

    def logs(self) -> str:
        """Return the ends of the daemons' logs."""
        files = sorted({*self.folder.glob("*.log"), *self.folder.glob("*.out")})
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-2000:]}" for file in files)


def _found(program: str) -> str:
    path = shutil.which(program, path=_PATH)
    assert path is not None, program
    return path


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
