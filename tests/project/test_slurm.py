"""The job scripts of slurm/: rendered, checked, and the generic one run by a Slurm of its own on this machine.

That Slurm (munged, slurmctld, slurmd) lives in a temporary directory with its own ports and key; one that already
runs here is not touched. Without Slurm's programs these tests skip.
"""

from __future__ import annotations

import math
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from sqd_mpi.files import records
from tests.gpu_shim import SHIM
from tests.support.launching import FOREIGN
from tests.support.paths import ROOT
from tests.support.problems import all_strings, make_hamiltonian

sys.path.insert(0, str(ROOT / "slurm"))
import render  # noqa: E402

GPU_MACHINES = ["generic-gpu", "frontier", "lumi-g", "perlmutter-gpu"]
MACHINES = ["generic", "generic-gpu", "frontier", "lumi-g", "perlmutter-cpu", "perlmutter-gpu"]
SLURM_PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel", "sbcast"]
START_SECONDS = 120
JOB_SECONDS = 240
SIGNAL_LEAD = 128

# Nodes that exist only on paper, of the shapes in the sites' documentation, to test requests against.
CONFIGURATION = """
ClusterName=sqd_mpi_test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SchedulerParameters=sched_interval=1
KillWait=20
FirstJobId={first_job}
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
SuspendProgram=/bin/true
ResumeProgram=/bin/true
SuspendTime=86400
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 Gres=gpu:1 State=UNKNOWN
NodeName=mi250x[1-4] Sockets=1 CoresPerSocket=64 ThreadsPerCore=1 Gres=gpu:8 Features=nvme State=CLOUD
NodeName=a100x[1-4] Sockets=1 CoresPerSocket=64 ThreadsPerCore=2 Gres=gpu:4 Features=gpu State=CLOUD
NodeName=milan[1-4] Sockets=2 CoresPerSocket=64 ThreadsPerCore=2 Features=cpu State=CLOUD
PartitionName=here Nodes={host} Default=YES State=UP
PartitionName=batch Nodes=mi250x[1-4] State=UP
PartitionName=standard-g Nodes=mi250x[1-4] State=UP
PartitionName=other Nodes=a100x[1-4],milan[1-4] State=UP
"""
PARTITIONS = {"generic": "here", "generic-gpu": "other", "perlmutter-cpu": "other", "perlmutter-gpu": "other"}

# A Python whose solver waits, at the fourth sigma of a run that does not resume, for a signal.
SLOW_PYTHON = """#!{python}
import os, signal, sys, time
arguments = sys.argv[1:]
if arguments[:3] != ["-m", "sqd_mpi", "run"] or "--resume" in arguments:
    os.execv({python!r}, [{python!r}, *arguments])
arrived = []
signal.signal(signal.SIGUSR1, lambda number, _: arrived.append(number))
from sqd_mpi.solver.sigma import SigmaOperator
from sqd_mpi.__main__ import run

plain, count = SigmaOperator.matvec, 0

def matvec(self, vector, out):
    global count
    count += self.grid.n_ranks > 1
    if count == 4:
        handlers = {{number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)}}
        for number in handlers:
            signal.signal(number, lambda number, _: arrived.append(number))
        deadline = time.monotonic() + 200
        while not arrived and time.monotonic() < deadline:
            time.sleep(0.05)
        for number in arrived:
            handlers[number](number, None)
    plain(self, vector, out)

SigmaOperator.matvec = matvec
sys.argv = arguments[1:]
sys.exit(run())
"""


def settings_of(machine: str, *changes: str) -> dict[str, str]:
    return render.load_settings(machine, changes=["account=abc123", *changes])


def job_of(folder: Path, *options: str, nodes: int = 2) -> render.Job:
    return render.Job(folder / "input.h5", folder / "job.sh", folder / "result.h5", "job", nodes, options)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("on_time_limit=chain", "packed_environment=/shared/env.tar.gz", "setup=export A=1"),
        ("on_time_limit=stop", "kernel_cache=", "partition=", "modules=", "checkpoint_every="),
    ],
)
def test_scripts_are_sound_shell(machine, changes, tmp_path):
    folder = tmp_path / "a folder's"
    text = render.render(machine, settings_of(machine, *changes), job_of(folder, "--grid", "auto"))
    assert "{{" not in text and not re.search(r"^%", text, re.MULTILINE)
    script = tmp_path / "job.sh"
    script.write_text(text)
    subprocess.run(["bash", "-n", script], check=True, timeout=120)
    # sbatch reads its lines up to the first command only; each has an explanation above it
    lines = text.splitlines()
    first_command = next(k for k, line in enumerate(lines) if line and not line.startswith("#"))
    assert all(not line.startswith("#SBATCH") for line in lines[first_command:])
    assert not [b for a, b in zip(lines, lines[1:], strict=False) if b.startswith("#SBATCH") and not a.startswith("#")]
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", script], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("machine", MACHINES)
def test_the_program_accepts_the_options(machine, tmp_path):
    job = job_of(tmp_path, "--tol", "1e-5", "--nroots=2")
    options = render.run_options(settings_of(machine), job)
    assert options[:2] == ["--threads", settings_of(machine)["threads"]] and "--checkpoint-every" in options
    assert render.check_run_options(options, job.input)
    assert f"options=({' '.join(options)})" in render.render(machine, settings_of(machine), job)
    assert ("--backend gpu" in " ".join(options)) == (machine in GPU_MACHINES)


@pytest.mark.parametrize("machine", GPU_MACHINES)
def test_gpu_machines_keep_compiled_kernels_on_the_node(machine, tmp_path):
    text = render.render(machine, settings_of(machine, "local_directory=/node/disk"), job_of(tmp_path))
    done = shell_lines(text, r"^export (local_directory|SQD_MPI_GPU_CACHE|MPICH_GPU)", "USER=me", "env")
    values = dict(line.partition("=")[::2] for line in done.splitlines())
    assert values["SQD_MPI_GPU_CACHE"] == values["CUPY_CACHE_DIR"] == "/node/disk/sqd_mpi-kernels-me-gpu"
    assert values["MPICH_GPU_SUPPORT_ENABLED"] == "0"


@pytest.mark.parametrize("machine", GPU_MACHINES)
def test_mpi_on_gpu_memory_must_be_asked_for(machine, tmp_path):
    settings, job = settings_of(machine, "gpu_aware_mpi=yes"), job_of(tmp_path)
    assert "--gpu-aware-mpi" in render.run_options(settings, job)
    assert "--gpu-aware-mpi" not in render.run_options(settings_of(machine), job)
    assert render.check_run_options(render.run_options(settings, job), job.input)
    assert "export MPICH_GPU_SUPPORT_ENABLED=1\n" in render.render(machine, settings, job)


@pytest.mark.parametrize(
    ("machine", "variable", "shown"),
    [
        ("lumi-g", "ROCR_VISIBLE_DEVICES", [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]),
        ("perlmutter-gpu", "CUDA_VISIBLE_DEVICES", [3, 2, 1, 0, 3, 2]),
    ],
)
def test_every_rank_is_shown_the_device_of_its_number(machine, variable, shown, tmp_path):
    text = render.render(machine, settings_of(machine), job_of(tmp_path))
    for local_rank, device in enumerate(shown):
        environment = f"SLURM_LOCALID={local_rank} SLURM_NTASKS=8"
        output = shell_lines(text, r"^launch\+?=", environment, f'"${{launch[@]: -3}}" printenv {variable}')
        assert output.split() == [str(device)]


def shell_lines(script: str, pattern: str, environment: str, command: str) -> str:
    """Output of a command after those lines of a script that match, in an environment of NAME=VALUE words."""
    lines = [line for line in script.splitlines() if re.search(pattern, line)]
    values = {"PATH": os.environ["PATH"], **dict(word.partition("=")[::2] for word in environment.split())}
    program = ["bash", "-c", "\n".join([*lines, command])]
    return subprocess.run(program, env=values, capture_output=True, text=True, check=True, timeout=120).stdout


def test_every_machine_has_settings_and_a_template():
    assert render.machines() == MACHINES
    assert sorted(path.stem for path in render.TEMPLATES.glob("*.sh")) == sorted(MACHINES)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("nowhere --input i.h5", "unknown machine 'nowhere'"),
        ("generic", "--input FILE"),
        ("frontier --input i.h5", "frontier needs account"),
        ("generic --input i.h5 --set threads=0", "threads needs a positive integer; got '0'"),
        ("generic --input i.h5 --set time=3h", "time needs a wall time"),
        ("generic --input i.h5 --set time=00:04:00", "signal_lead needs fewer seconds than the wall time 00:04:00"),
        ("generic --input i.h5 --set color=red", "unknown setting 'color'"),
        ("generic --input i.h5 --set threads", "--set needs KEY=VALUE"),
        ("generic --input i.h5 --set python=$(rm)", "python needs"),
        ("generic --input i.h5 --set on_time_limit=chain", "needs -o"),
        ("generic --input i.h5 --set checkpoint_every=often", "checkpoint_every needs"),
        ("generic --input i.h5 --nodes 0", "--nodes needs positive integers"),
        ("generic --input i.h5 --nodes 1,2", "need -o FOLDER"),
        ("generic --input i.h5 --name a;b", "--name needs letters"),
        ("generic --input i.h5 --nonsense", "--nonsense"),
        ("generic --input i.h5 --submit", "--submit needs -o"),
        ("generic --input i.h5 --settings missing.ini", "cannot read the settings missing.ini"),
        ("generic --input i.h5 -- --resume", "--resume is set by the script"),
        (
            "generic --input i.h5 -- --gpu-aware-mpi",
            "--gpu-aware-mpi is set by the script; use --set gpu_aware_mpi=yes",
        ),
        ("generic --input i.h5 --set gpu_aware_mpi=yes", "gpu_aware_mpi = yes needs backend = gpu; got ''"),
        ("generic --input i.h5 --set gpu_aware_mpi=1", "gpu_aware_mpi needs yes or no; got '1'"),
        ("generic --input i.h5 --set devices_per_node=all", "devices_per_node needs a number of GPUs"),
        ("generic-gpu --input i.h5 --set devices_per_node=", "generic-gpu needs devices_per_node"),
        ("generic --input i.h5 --set backend=fpga", "--backend needs"),
        ("generic --input i.h5 -- --threads 3", "--threads is set by the script"),
        ("generic --input i.h5 -- --tolerance 1", "'--tolerance'"),
        ("generic --input i.h5 -- --tol", "--tol"),
        ("generic --input i.h5 -- --tol -1", "--tol needs a positive number"),
        ("generic --input i.h5 -- --grid 2,1,1,1", "--grid 2,1,1,1 needs 2 ranks; 1 nodes of 8 ranks have 8"),
    ],
)
def test_bad_settings_are_one_sentence(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert render.main(arguments.split()) == 2
    output, errors = capsys.readouterr()
    assert sentence in errors.splitlines()[-1] and errors.splitlines()[-1].startswith("render.py: error: ")
    assert output == "" and list(tmp_path.iterdir()) == []


def test_one_job_for_each_number_of_nodes(tmp_path, capsys):
    (tmp_path / "input.h5").touch()
    command = f"generic --input {tmp_path}/input.h5 --nodes 1,2,8 --name h2o -o {tmp_path}/study -- --tol 1e-5"
    assert render.main(command.split()) == 0
    output, errors = capsys.readouterr()
    scripts = [tmp_path / "study" / f"h2o-{n}nodes.sh" for n in (1, 2, 8)]
    assert output.split() == [str(path) for path in scripts] and errors == ""
    for n, path in zip((1, 2, 8), scripts, strict=True):
        assert f"#SBATCH --nodes={n}\n" in path.read_text() and f"h2o-{n}nodes.h5" in path.read_text()
        assert os.access(path, os.X_OK)


class Cluster:
    """A Slurm of one node, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        for name in [name for name in self.environment if name.startswith(("SLURM", "SBATCH", "SRUN", "NUMBA"))]:
            del self.environment[name]
        path = os.pathsep.join([self.environment.get("PATH", ""), "/usr/sbin", "/sbin"])
        self.environment |= {"SLURM_CONF": f"{folder}/slurm.conf", "PYTHONPATH": str(ROOT), "PATH": path}
        self.daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the daemons and wait for the node."""
        folder = self.folder
        for name in ("state", "spool"):
            (folder / name).mkdir()
        host = socket.gethostname().partition(".")[0]
        user = psutil.Process().username()
        ports = free_ports(2)
        # MPICH names shared memory after the job: not after one whose ranks were killed on this machine before
        first_job = random.SystemRandom().randrange(1, 10**7)
        values = {"host": host, "user": user, "folder": folder, "first_job": first_job}
        text = CONFIGURATION.format(**values, controller_port=ports[0], node_port=ports[1])
        (folder / "slurm.conf").write_text(text)
        (folder / "gres.conf").write_text(
            "NodeName=mi250x[1-4] Name=gpu Count=8\nNodeName=a100x[1-4] Name=gpu Count=4\n"
            f"NodeName={host} Name=gpu File=/dev/null\n"
        )
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        munge_files = [
            f"--{name}={folder}/munge.{name.partition('-')[0]}" for name in ("key-file", "pid-file", "seed-file")
        ]
        self._start("munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge_files)
        self._wait(lambda: (folder / "munge.socket").exists())
        self._start("slurmctld", "-D")
        self._start("slurmd", "-D")
        self._wait(lambda: self("sinfo", "-h", "-p", "here", "-o", "%t", check=False).strip() == "idle")

    def _start(self, program: str, *arguments: str) -> None:
        with open(self.folder / f"{program}.output", "wb") as output:
            self.daemons.append(
                subprocess.Popen(
                    [program, *arguments], env=self.environment, stdin=subprocess.DEVNULL, stdout=output,
                    stderr=subprocess.STDOUT, cwd=self.folder, preexec_fn=die_with_parent,
                )
            )  # fmt: skip

    def _wait(self, ready) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            dead = [daemon.args[0] for daemon in self.daemons if daemon.poll() is not None]
            if dead or time.monotonic() > deadline:
                texts = [path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.log")]
                texts += [path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.output")]
                pytest.fail(f"Slurm does not start here ({dead or 'too slow'}):\n" + "\n".join(texts))
            time.sleep(0.2)

    def stop(self) -> None:
        """End every job and process of this Slurm, and only of this one."""
        if self.daemons:
            self("scancel", "--me", check=False)
            deadline = time.monotonic() + 10
            while self("squeue", "-h", check=False).strip() and time.monotonic() < deadline:
                time.sleep(0.2)
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(timeout=5)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for process in self.processes():
            process.kill()

    def processes(self) -> list[psutil.Process]:
        """Processes that were started by this Slurm, known by their environment or by the daemons' arguments."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SLURM_CONF") == f"{self.folder}/slurm.conf":
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def __call__(self, *command: str, check: bool = True) -> str:
        """Output of a command of Slurm."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=120, cwd=self.folder, check=False
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + (done.stderr if check else "")

    def wait_for(self, ready, log: Path) -> None:
        """Wait for a file; fails with the log when it takes too long."""
        deadline = time.monotonic() + JOB_SECONDS
        while not ready():
            if time.monotonic() > deadline:
                text = "\n".join(path.read_text() for path in log.parent.glob("*.out"))
                pytest.fail(f"the job does not end:\n{self('squeue', check=False)}\n{text}")
            time.sleep(0.3)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


def die_with_parent() -> None:
    """Let the kernel end this process when the one that tests is killed (Linux)."""
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A running Slurm of one node."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = [program for program in SLURM_PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        pytest.skip(f"Slurm is not installed ({', '.join(missing)})")
    if not (Path(sys.executable).parent / "mpiexec.hydra").exists():
        pytest.skip("the MPI of this Python is not the wheel of MPICH, for which the generic script is set")
    # not in pytest's own folder: the names of sockets are short, and munge wants folders that all may enter
    folder = Path(tempfile.mkdtemp(prefix="sqd_mpi-slurm-"))
    folder.chmod(0o755)
    slurm = Cluster(folder)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()
        shutil.rmtree(folder, ignore_errors=True)
        assert slurm.processes() == []


@pytest.fixture(scope="module")
def jobs(cluster) -> dict[str, Path]:
    """Folders of five submitted jobs: one that is put back, one that submits its successor, one that is cancelled, one
    without a stop, and one on an emulated GPU.
    """
    labels = np.array([0, 1, 2, 3, 0, 1, 2])
    hamiltonian = make_hamiltonian(7, (3, 4), 4, labels)
    strings = all_strings(7, 3)[:33], all_strings(7, 4)[2:]
    slow_python = cluster.folder / "slow_python"
    slow_python.write_text(SLOW_PYTHON.format(python=sys.executable))
    slow_python.chmod(0o755)
    common = ["ranks_per_node=2", "cpus_per_rank=1", "threads=1", "time=01:00:00", "kernel_cache="]
    common += [f"signal_lead={SIGNAL_LEAD}", f"local_directory={cluster.folder}"]
    changes = {
        "requeue": [f"python={slow_python}"],
        "chain": [f"python={slow_python}", "on_time_limit=chain"],
        "cancel": [f"python={slow_python}"],
        "plain": [f"packed_environment={packed_environment(cluster.folder)}"],
        "gpu": [f"python={sys.executable}", "devices_per_node=1", f"setup=export SQD_MPI_GPU={SHIM}"],
    }
    folders: dict[str, Path] = {}
    numbers: dict[str, str] = {}
    for name, change in changes.items():
        folders[name] = folder = cluster.folder / name
        folder.mkdir()
        records.write_input(folder / "input.h5", hamiltonian, *strings, {"model_space": 40})
        machine = "generic-gpu" if name == "gpu" else "generic"
        settings = render.load_settings(machine, changes=[*common, *change])
        render.write_scripts(machine, settings, [job_of(folder, nodes=1)])
        numbers[name] = cluster("sbatch", "--parsable", str(folder / "job.sh")).strip()
    began = time.monotonic()
    logs = {name: folders[name] / f"job-{number}.out" for name, number in numbers.items()}
    for name in ("requeue", "chain"):
        cluster.wait_for(lambda name=name: reached_third_iteration(logs[name]), logs[name])
        set_minutes(cluster, numbers[name], math.floor((time.monotonic() - began + SIGNAL_LEAD + 30) / 60))
    cluster.wait_for(lambda: "restart 1" in logs["requeue"].read_text(), logs["requeue"])
    set_minutes(cluster, numbers["requeue"], 60)  # the limit stays with the job
    return folders


def reached_third_iteration(log: Path) -> bool:
    """Whether the solver of a job has come so far that it waits for a signal."""
    return log.exists() and re.search("^ +3 ", log.read_text(), re.MULTILINE) is not None


def set_minutes(cluster: Cluster, number: str, minutes: int) -> None:
    """Change the wall time of a job.

    So Slurm sends the signal of its time limit when a job is ready for it, however slow this machine is now. Slurm
    looks at the clocks every 30 s and sends signals up to 30 s early.
    """
    cluster("scontrol", "update", f"JobId={number}", f"TimeLimit={minutes}")


def packed_environment(folder: Path) -> Path:
    """An archive like that of conda-pack, with a Python that calls the one of these tests."""
    python = folder / "packed_python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    archive = folder / "env.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(python, "bin/python")
    return archive


def finished(cluster: Cluster, folder: Path) -> tuple[dict, str]:
    """Result and log of a job, once it is there."""
    logs = lambda: sorted(folder.glob("job-*.out"))  # noqa: E731
    cluster.wait_for(lambda: any("n_iterations" in log.read_text() for log in logs()), folder / "job.out")
    return records.read_summary(folder / "result.h5"), "\n".join(log.read_text() for log in logs())


@pytest.mark.slow
@pytest.mark.timeout(2 * JOB_SECONDS)
def test_the_generic_job_runs(cluster, jobs):
    summary, log = finished(cluster, jobs["plain"])
    assert summary["all_converged"] and summary["n_ranks"] == 2 and summary["n_threads"] == 1, log
    assert f"energy {summary['energy'][0]:.10f} hartree" in log
    assert "2 ranks x 1 threads" in log
    # the unpacked environment is removed at the end
    cluster.wait_for(lambda: not list(cluster.folder.glob("sqd_mpi-environment-*")), jobs["plain"] / "job.out")


@pytest.mark.slow
@pytest.mark.timeout(2 * JOB_SECONDS)
def test_the_example_runs(cluster, tmp_path):
    folder = cluster.folder / "example"
    script = ROOT / "examples" / "cluster" / "n2.sh"
    settings = ["--set", "kernel_cache=", "--set", f"local_directory={cluster.folder}", "--name", "job"]
    environment = cluster.environment | {"PYTHON": sys.executable}
    subprocess.run(["bash", script, folder, *settings], env=environment, check=True, timeout=120)
    cluster("sbatch", str(folder / "job.sh"))
    summary, log = finished(cluster, folder)
    assert summary["all_converged"] and summary["n_ranks"] == 2, log
    assert summary["energy"][0] == pytest.approx(-108.9605720180, abs=1e-8)  # PySCF gives the same


@pytest.mark.slow
@pytest.mark.timeout(2 * JOB_SECONDS)
def test_the_job_for_gpus_runs(cluster, jobs):
    summary, log = finished(cluster, jobs["gpu"])
    exact, _ = finished(cluster, jobs["plain"])
    assert (summary["backend"], summary["device"], summary["n_ranks"]) == ("gpu", "host shim", 2), log
    assert summary["energy"] == pytest.approx(exact["energy"], abs=1e-10)


@pytest.mark.slow
@pytest.mark.timeout(2 * JOB_SECONDS)
@pytest.mark.parametrize("machine", MACHINES)
def test_slurm_accepts_the_requests(machine, cluster, jobs, tmp_path):
    changes = [f"partition={PARTITIONS[machine]}"] if machine in PARTITIONS else []
    if machine == "generic":
        changes += ["ranks_per_node=2", "cpus_per_rank=3"]
    (tmp_path / "job.sh").write_text(
        render.render(machine, settings_of(machine, *changes), job_of(tmp_path, nodes=1 if machine == "generic" else 4))
    )
    assert "to start at" in cluster("sbatch", "--test-only", str(tmp_path / "job.sh"))


@pytest.mark.slow
@pytest.mark.timeout(2 * JOB_SECONDS)
def test_a_cancelled_job_stays_cancelled(cluster, jobs):
    (log,) = jobs["cancel"].glob("job-*.out")
    number = log.stem.partition("-")[2]
    cluster.wait_for(lambda: reached_third_iteration(log), log)
    cluster("scancel", number)
    cluster.wait_for(lambda: "JobState=CANCELLED" in cluster("scontrol", "show", "job", number), log)
    # the ranks may have had the time for a checkpoint, but the job does not go on by itself
    cluster.wait_for(lambda: not cluster("squeue", "-h", "-j", number, check=False).strip(), log)
    assert (jobs["cancel"] / "result.h5.checkpoint").exists()
    assert "restart" not in log.read_text() and list(jobs["cancel"].glob("job-*.out")) == [log]


@pytest.mark.slow
@pytest.mark.timeout(2 * JOB_SECONDS)
@pytest.mark.parametrize("name", ["chain", "requeue"])
def test_a_job_goes_on_after_its_time(cluster, jobs, name):
    exact, _ = finished(cluster, jobs["plain"])
    summary, log = finished(cluster, jobs[name])
    assert "stopped by the signal; go on with --resume" in log
    assert ("goes back into the queue (restart 1)" if name == "requeue" else "a next job goes on (restart 1)") in log
    assert re.search(r"resuming from \S*result.h5.checkpoint \(iteration [1-9]", log), log
    assert len(list(jobs[name].glob("job-*.out"))) == (1 if name == "requeue" else 2)
    assert summary["energy"] == pytest.approx(exact["energy"], abs=1e-10)
    assert summary["n_iterations"] <= exact["n_iterations"] + 2  # the count goes on where it was
    assert not (jobs[name] / "result.h5.checkpoint").exists()
