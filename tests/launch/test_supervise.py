"""`apml run` keeps what `python` does: exit codes, signals, stdin, argv, cwd, -m, pdb.

A run that asks for a loss has a small parent that waits for the command; without a loss there is none. What a user
or a scheduler sees is the same.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forking import clean_environment
from launch.running import APML, LOSS, planned, run

from apml_plugin.hosts import guard
from apml_plugin.launch.supervise import failure_of

RUNS = {"no loss": "", "a loss": LOSS}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")

TRAINED = """
import torch
from apml_plugin import APML
w = torch.nn.Parameter(torch.rand(1, 8, 3))
APML()(w, torch.rand(1, 8, 3)).backward()
torch.optim.SGD([w], lr=0.1).step()
"""
"""A training with the loss, so that a run that asked for it ends well."""


CHAMFER = """\
import torch

def chamfer(pred, gt):
    d = torch.cdist(pred, gt)
    return d.min(1)[0].mean() + d.min(2)[0].mean()
pred = torch.rand(1, 8, 3, requires_grad=True)
loss = chamfer(pred, torch.rand(1, 9, 3))
loss.backward()
torch.optim.SGD([pred], 0.1).step()
"""


def start(folder: Path, text: str, *words: str, loss: str = "", **given: object) -> subprocess.Popen[str]:
    (folder / "main.py").write_text(text)
    command, environ = planned(folder, *(words or ("main.py",)), loss=loss)
    return subprocess.Popen(
        command, cwd=folder, env=environ, text=True,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **given},
    )  # type: ignore[call-overload]  # fmt: skip


def finish(process: subprocess.Popen[str], given: str | None = None) -> tuple[int, str, str]:
    out, err = process.communicate(given, timeout=120)
    return process.returncode, out, err


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("code", [0, 7])
def test_exit_codes(kind: str, code: int, tmp_path: Path) -> None:
    text = f"{TRAINED if RUNS[kind] else ''}\nimport sys\nsys.exit({code})\n"
    ended = finish(start(tmp_path, text, loss=RUNS[kind]))
    assert ended[0] == code, ended


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_child_that_dies_of_a_signal(kind: str, number: signal.Signals, tmp_path: Path) -> None:
    """The shell sees the same death, so a scheduler that looks for it (out of memory: SIGKILL) still finds it."""
    ended = finish(start(tmp_path, f"import os\nos.kill(os.getpid(), {number.value})\n", loss=RUNS[kind]))
    assert ended[0] in (-number, 128 + number), ended


WAITS = """
import os, signal, sys, time
def told(number, frame):
    os.write(1, ('got ' + signal.Signals(number).name + chr(10)).encode())
    {then}
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, told)
print('pid', os.getpid(), flush=True)
for _ in range(600):
    time.sleep(0.1)
"""


def pid_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("pid "):
            return int(line.split()[1])
    raise AssertionError(process.communicate())


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_reach_the_script(kind: str, number: signal.Signals, tmp_path: Path) -> None:
    """SLURM and Kubernetes send them to the process that they started; the script saves and picks its exit code."""
    process = start(tmp_path, WAITS.format(then="sys.exit(9)"), loss=RUNS[kind])
    pid_of(process)
    process.send_signal(number)
    code, out, err = finish(process)
    assert (code, out) == (9, f"got {number.name}\n"), err


@pytest.mark.parametrize("kind", RUNS)
def test_a_signal_without_a_handler_ends_both(kind: str, tmp_path: Path) -> None:
    text = "import os, time\nprint('pid', os.getpid(), flush=True)\ntime.sleep(60)\n"
    process = start(tmp_path, text, loss=RUNS[kind])
    child = pid_of(process)
    process.terminate()
    code, _, err = finish(process)
    assert code in (-signal.SIGTERM, 128 + signal.SIGTERM), err
    assert "Traceback" not in err
    assert gone(child)


@pytest.mark.parametrize("kind", RUNS)
def test_ctrl_c(kind: str, tmp_path: Path) -> None:
    """A terminal sends SIGINT to the whole group. The script handles it once and decides how the run ends."""
    process = start(tmp_path, WAITS.format(then="sys.exit(3)"), loss=RUNS[kind], start_new_session=True)
    pid_of(process)
    os.killpg(process.pid, signal.SIGINT)
    code, out, err = finish(process)
    assert (code, out) == (3, "got SIGINT\n"), err
    assert "Traceback" not in err


def test_ctrl_c_that_the_script_does_not_handle(tmp_path: Path) -> None:
    """Through the command itself: it leaves no process of its own behind that would print a second traceback."""
    (tmp_path / "main.py").write_text("import os, time\nprint('pid', os.getpid(), flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [*APML, "--loss", LOSS, "main.py"], cwd=tmp_path, env=clean_environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell ignores it for commands behind `&`
    )  # fmt: skip
    pid_of(process)
    os.killpg(process.pid, signal.SIGINT)
    code, _, err = finish(process)
    assert code in (-signal.SIGINT, 128 + signal.SIGINT), err
    assert err.count("KeyboardInterrupt") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
def test_a_parent_that_is_killed_takes_the_training_with_it(tmp_path: Path) -> None:
    text = "import os, time\nprint('pid', os.getpid(), flush=True)\ntime.sleep(60)\n"
    process = start(tmp_path, text, loss=LOSS)
    child = pid_of(process)
    process.kill()
    finish(process)
    assert gone(child)


def gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":  # nobody reaps it in a container without init
                    return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.1)
    return False


LOOKS = """
import json, os, sys
print(json.dumps({'stdin': sys.stdin.read(), 'argv': sys.argv, 'cwd': os.getcwd(), 'name': __name__,
                  'path': sys.path[0], 'file': __file__, 'package': __package__, 'own': WHO}))
"""


@pytest.mark.parametrize("module", [False, True])
def test_the_script_finds_what_it_would_find(module: bool, tmp_path: Path) -> None:
    """stdin, argv, cwd, sys.path, __file__, and the user's own sitecustomize: the same words under plain `python`."""
    (tmp_path / "work" / "pack").mkdir(parents=True)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import builtins\nbuiltins.WHO = 'the user'\n")
    (tmp_path / "work" / "pack" / "main.py").write_text(LOOKS)
    (tmp_path / "work" / "pack" / "__init__.py").touch()
    words = [*(["-m", "pack.main"] if module else [os.path.join("pack", "main.py")]), "--loss", "x y", "-m", ""]
    work, site = tmp_path / "work", str(tmp_path / "site")
    environ = clean_environment()
    environ["PYTHONPATH"] = os.pathsep.join([site, environ["PYTHONPATH"]])
    runs = [([sys.executable, *words], environ), *([] if module else [([*APML, *words], environ)])]
    runs += [planned(work, *words, loss=loss, path=site) for loss in RUNS.values()]
    outputs = set()
    for command, environ in runs:
        done = subprocess.run(
            command, input="line 1\nline 2\n", cwd=work, env=environ, capture_output=True, text=True, timeout=120
        )
        assert done.stdout, done.stderr
        outputs.add(done.stdout)
    assert len(outputs) == 1


@pytest.mark.parametrize("kind", RUNS)
def test_pdb(kind: str, tmp_path: Path) -> None:
    """`breakpoint()` in the script, and `-m pdb script`, with commands on stdin; lines are those of the file."""
    text = "x = 41\nbreakpoint()\nx += 1\nprint('x is', x)\n"
    _, out, err = finish(start(tmp_path, text, loss=RUNS[kind], stdin=subprocess.PIPE), "p x * 2\nnext\nc\n")
    assert "82" in out, out + err
    assert "x is 42" in out
    assert "main.py(3)<module>()" in out
    process = start(tmp_path, text[:7] + "print(x)\n", "-m", "pdb", "main.py", loss=RUNS[kind], stdin=subprocess.PIPE)
    _, out, err = finish(process, "break 2\nc\np x + 1\nq\n")
    assert "main.py:2" in out, out + err
    assert "42" in out


def test_pdb_debugs_a_script_with_its_lines(tmp_path: Path) -> None:
    """pdb reads the script that it debugs by itself; it still trains with the loss, at the lines of the file."""
    process = start(tmp_path, CHAMFER, "-m", "pdb", "main.py", loss=LOSS, stdin=subprocess.PIPE)
    _, out, err = finish(process, "break 8\nc\np loss.item() > 0\nc\nq\n")
    assert "main.py(8)<module>()\n-> loss.backward()" in out, out + err
    assert "__main__.chamfer trains with APML(" in err
    assert "stopped" not in err


def test_a_pool_of_processes(tmp_path: Path) -> None:
    """Workers of a DataLoader and of a pool carry the plugin and end well; what they print arrives."""
    text = f"""
import multiprocessing

def square(x):
    return x * x

class Numbers:
    def __len__(self):
        return 4
    def __getitem__(self, i):
        return i

if __name__ == '__main__':
    for method in ('fork', 'spawn', 'forkserver'):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(method, pool.map(square, range(3)))
    import torch
    print([batch.tolist() for batch in torch.utils.data.DataLoader(Numbers(), 2, num_workers=1)])
    exec({TRAINED!r})
"""
    code, out, err = finish(start(tmp_path, text, loss=LOSS))
    assert code == 0, err
    assert out.splitlines()[-4:] == [
        "fork [0, 1, 4]", "spawn [0, 1, 4]", "forkserver [0, 1, 4]", "[[0, 1], [2, 3]]",
    ]  # fmt: skip


def test_modules_folders_and_commands(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__main__.py").write_text("import sys; print(sys.path[0], sys.argv[1:])\n")
    done = run(tmp_path, "-m", "pack", "-m", "--no-attach")
    assert done.stdout.split() == [str(tmp_path), "['-m',", "'--no-attach']"], done.stderr
    done = run(tmp_path, "pack", "--dry-run")
    assert done.stdout.split() == [str(tmp_path / "pack"), "['--dry-run']"], done.stderr
    done = run(tmp_path, "python", "-c", "import open3d; open3d.visualization")
    assert done.returncode == 1
    assert "AttributeError: open3d.visualization is not in the stand-in for open3d" in done.stderr


def test_a_broken_plugin_does_not_break_python(tmp_path: Path) -> None:
    """Unless a loss was asked for: training would go on with another one."""
    (tmp_path / "go.py").write_text("print('ran')\n")
    command, environ = planned(tmp_path, "go.py")
    environ["APML_RUN_STANDINS"] = "{no json"
    for asked, ended in (("", (0, "ran\n")), ("APML", (1, ""))):
        done = subprocess.run(
            command, cwd=tmp_path, env={**environ, "APML_RUN_ASKED": asked}, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == ended
        assert done.stderr.startswith("[apml] running without the plugin (JSONDecodeError")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("marks", "explicit", "failure"),
    [
        ({guard.CARRIED, guard.TRAINED}, "1", ""),
        ({guard.CARRIED, guard.TRAINED, guard.STOPPED}, "1", "was stopped, see above"),
        ({guard.CARRIED}, "1", "nothing was trained with it. For an evaluation, leave out --loss"),
        ({guard.CARRIED}, "", ""),  # an evaluation with a YAML that asks for a loss
        (set(), "1", "no Python process of this run carried the plugin"),
        (set(), "", "no Python process of this run carried the plugin"),
    ],
)
def test_when_a_run_fails_although_its_command_ended_well(marks: set[str], explicit: str, failure: str) -> None:
    assert failure in failure_of(marks, explicit, {})
    assert bool(failure) == bool(failure_of(marks, explicit, {}))
