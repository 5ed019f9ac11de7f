"""A SLURM cluster of two nodes with one core each, all of it on this machine and in one folder."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

PROGRAMS = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "squeue": "slurm-client"}
NODES = ("node1", "node2")
START_S = 30  # how long the daemons may take to start, or to end
# cred_expire: SLURM starts a job that was queued again only after this time, by default 120 s.
# NODE_FAIL is noticed after SlurmdTimeout. Jobs that ended stay in squeue for MinJobAge.
SETTINGS = """\
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=2,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=5
OverTimeLimit=0
MinJobAge=60
SlurmdTimeout=10
ReturnToService=2
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=500
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=500
PartitionName=low Nodes=node1,node2 Default=YES PriorityTier=1 PreemptMode=REQUEUE MaxTime=INFINITE State=UP
PartitionName=high Nodes=node1,node2 PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
"""


def install() -> None:
    """Installs SLURM's Debian packages that are missing."""
    if missing := sorted({package for program, package in PROGRAMS.items() if not shutil.which(program)}):
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *missing], check=True)


class Cluster:
    """The daemons are child processes, in the foreground; ``stop`` ends them, and all jobs before."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o711)  # munged wants its socket to be open to all
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        settings = SETTINGS.format(folder=folder, host=socket.gethostname(), ports=_free_ports(3))
        (folder / "slurm.conf").write_text(settings)
        (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
        (folder / "munge.key").chmod(0o400)
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (folder / name).mkdir()
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")  # for all commands of this trial

    def start(self) -> None:
        files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid",
                 "log-file": "munge.log", "seed-file": "munge.seed"}  # fmt: skip
        self._start(
            "munged", "--foreground", *(f"--{key}={self.folder / name}" for key, name in files.items())
        )
        wait_until((self.folder / "munge.socket").exists, "munged did not start")
        self._start("slurmctld", "-D", "-i")
        self.start_nodes()

    def _start(self, program: str, *arguments: str, name: str = "") -> None:
        with (self.folder / f"{name or program}.output").open("ab") as output:
            self.daemons[name or program] = subprocess.Popen(
                [program, *arguments], stdout=output, stderr=output, start_new_session=True
            )

    def start_nodes(self) -> None:
        """Starts the nodes that are not running, and waits for all."""
        for node in NODES:
            if node not in self.daemons:
                self._start("slurmd", "-D", "-N", node, name=node)
        wait_until(lambda: self.idle_nodes() == len(NODES), "the nodes did not start")

    def kill_node(self, node: str) -> None:
        """As a power cut would: the daemon, the steps and the jobs on this node.

        The daemons go first, so that none can report the end of a job.
        """
        self.daemons[node].kill()
        self.daemons.pop(node).wait()
        jobs = _processes_with(f"SLURMD_NODENAME={node}")
        for pid in [*{parent for pid in jobs if (parent := _step_daemon_of(pid))}, *jobs]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def idle_nodes(self) -> int:
        states = _output("sinfo", "--noheader", "--Node", "--partition=low", "--format=%T").split()
        return states.count("idle")

    def states(self) -> list[str]:
        """The states of the jobs that have not ended."""
        return _output("squeue", "--noheader", "--array", "--format=%T").split()

    def version(self) -> str:
        return _output("sinfo", "--version").strip()

    def stop(self) -> None:
        if "slurmctld" in self.daemons:
            subprocess.run(["scancel", "--full", "--user=root"], check=False)
            with suppress(TimeoutError):
                wait_until(lambda: not self.states(), "jobs did not end")
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=START_S)
            daemon.kill()
            daemon.wait()
        self.daemons.clear()
        for pid in self.processes():  # steps of a node that was killed
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes(self) -> list[int]:
        """The processes of this cluster and of its jobs that are running, without the trial's own."""
        conf = f"SLURM_CONF={self.folder / 'slurm.conf'}"
        return [pid for pid in _processes_with(conf) if pid != os.getpid()]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for item in sockets:
        item.bind(("127.0.0.1", 0))
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


def _processes_with(variable: str) -> list[int]:
    """The processes with this environment variable."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may end meanwhile
            if variable.encode() in (process / "environ").read_bytes().split(b"\0"):
                pids.append(int(process.name))
    return pids


def _step_daemon_of(pid: int) -> int | None:
    """The slurmstepd that has started this process."""
    with suppress(OSError):
        while pid > 1:
            name, _, fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")
            if name.endswith("(slurmstepd"):
                return pid
            pid = int(fields.split()[1])
    return None


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


def wait_until(condition, message: str, timeout: float = START_S) -> None:
    """Raises TimeoutError with this message if the condition does not come true."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(message)
        time.sleep(0.2)
