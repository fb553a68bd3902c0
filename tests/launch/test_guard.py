"""The guard: where a loss was asked for, no process trains with another, however its loop is written."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from forking import Done, Forking, clean_environment
from launch.running import APML, LOSS, run

IMPORTED = ("torch", "torch._dynamo.backends.debugging", "torch._functorch.aot_autograd")

HEAD = """
import torch
from torch import nn
from apml_plugin.hooks import training_value

torch.manual_seed(0)
net = nn.Linear(3, 3)


def pair():
    return torch.rand(2, 16, 3), torch.rand(2, 24, 3)


def gap(a, b):
    return (a - b[:, :a.shape[1]]).square().mean()


def total(x, gt):
    out = net(x)
    value = gap(out, gt)
    return training_value(value, out, gt)


def save():
    torch.save(net.state_dict(), 'weights.pth')
"""
OURS = "    return training_value(value, out, gt)\n"
"""The line by hand. A host into which there is no way is the same one with `OWN` for it: its loss is no Chamfer."""
OWN = "    return value\n"

LOOPS = {
    "plain": """
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            opt.zero_grad()
            total(*pair()).backward()
            opt.step()
        save()
    """,
    "accumulation": """
        opt = torch.optim.AdamW(net.parameters(), lr=0.01)
        for i in range(6):
            (total(*pair()) / 2).backward()
            if i % 2:
                opt.step()
                opt.zero_grad(set_to_none=True)
        save()
    """,
    "several_optimisers": """
        one, two = torch.optim.SGD([net.weight], lr=0.1), torch.optim.Adam([net.bias], lr=0.1)
        for _ in range(3):
            one.zero_grad(); two.zero_grad()
            total(*pair()).backward()
            one.step(); two.step()
        save()
    """,
    "an_optimiser_that_never_steps": """
        part = nn.Linear(2, 2)
        idle, opt = torch.optim.SGD(part.parameters(), lr=0.1), torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            opt.zero_grad()
            total(*pair()).backward()
            opt.step()
        save()
    """,
    "gan": """
        critic = nn.Linear(3, 1)
        opt_d = torch.optim.Adam(critic.parameters(), lr=0.01)
        opt_g = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            x, gt = pair()
            for _ in range(2):
                opt_d.zero_grad()
                (critic(net(x).detach()).mean() - critic(gt).mean()).backward()
                opt_d.step()
            opt_g.zero_grad()
            (total(x, gt) - 0.01 * critic(net(x)).mean()).backward()
            opt_g.step()
        save()
    """,
    "grad_scaler": """
        opt, scaler = torch.optim.SGD(net.parameters(), lr=0.1), torch.amp.GradScaler('cpu', init_scale=8.0)
        for _ in range(3):
            opt.zero_grad()
            with torch.autocast('cpu', enabled=False):
                loss = total(*pair())
            scaler.scale(loss).backward()
            scaler.unscale_(opt)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(opt)
            scaler.update()
        save()
    """,
    "lbfgs": """
        opt, batch = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=3), pair()
        def closure():
            opt.zero_grad()
            loss = total(*batch)
            loss.backward()
            return loss
        for _ in range(2):
            opt.step(closure)
        save()
    """,
    "closure_by_keyword": """
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        def closure():
            opt.zero_grad()
            loss = total(*pair())
            loss.backward()
            return loss
        for _ in range(3):
            opt.step(closure=closure)
        save()
    """,
    "compiled_step": """
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        @torch.compile(backend='aot_eager')
        def forward(x, gt):
            return total(x, gt)
        for _ in range(3):
            opt.zero_grad()
            forward(*pair()).backward()
            opt.step()
        save()
    """,
    "compiled_network": """
        whole, opt = torch.compile(net, backend='eager'), torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            opt.zero_grad()
            x, gt = pair()
            out = whole(x)
            value = gap(out, gt)
            if OURS:
                value = training_value(value, out, gt)
            value.backward()
            opt.step()
        save()
    """,
    "no_optimiser": """
        for _ in range(3):
            total(*pair()).backward()
            with torch.no_grad():
                for p in net.parameters():
                    p -= 0.1 * p.grad
                    p.grad = None
        save()
    """,
    "autograd_grad": """
        for _ in range(3):
            grads = torch.autograd.grad(total(*pair()), list(net.parameters()))
            with torch.no_grad():
                for p, g in zip(net.parameters(), grads):
                    p -= 0.1 * g
        save()
    """,
    "exceptions_swallowed": """
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            try:
                opt.zero_grad()
                total(*pair()).backward()
                opt.step()
            except Exception as error:
                print('skipped a batch:', error)
        print('trained')
        save()
    """,
    "everything_swallowed": """
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            try:
                opt.zero_grad()
                total(*pair()).backward()
                opt.step()
            except:
                pass
        save()
    """,
    "in_a_thread": """
        import threading
        def work():
            opt = torch.optim.SGD(net.parameters(), lr=0.1)
            for _ in range(3):
                opt.zero_grad()
                total(*pair()).backward()
                opt.step()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        save()
    """,
    "own_optimiser_class": """
        class Mine(torch.optim.Optimizer):
            def __init__(self, params, lr):
                super().__init__(params, dict(lr=lr))
            @torch.no_grad()
            def step(self, closure=None):
                for group in self.param_groups:
                    for p in group['params']:
                        p.add_(p.grad, alpha=-group['lr'])
        opt = Mine(net.parameters(), 0.1)
        for _ in range(3):
            opt.zero_grad()
            total(*pair()).backward()
            opt.step()
        save()
    """,
    "exits_with_its_own_code_of_zero": """
        import sys
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        try:
            for _ in range(3):
                opt.zero_grad()
                total(*pair()).backward()
                opt.step()
            save()
        finally:
            sys.exit(0)
    """,
    "ends_without_exit_handlers": """
        import os
        one, two = torch.optim.SGD(net.parameters(), lr=0.1), torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
        for _ in range(3):
            one.zero_grad()
            total(*pair()).backward()
            one.step()
        save()
        os._exit(0)
    """,
    "after_an_exception_that_was_looked_at": """
        import sys
        sys.last_type, sys.last_value = RuntimeError, RuntimeError('pdb.post_mortem sets these')
        for _ in range(3):
            total(*pair()).backward()
            with torch.no_grad():
                for p in net.parameters():
                    p -= 0.1 * p.grad
                    p.grad = None
        save()
    """,
}
LATE = (
    "no_optimiser", "everything_swallowed", "in_a_thread", "an_optimiser_that_never_steps", "autograd_grad",
    "ends_without_exit_handlers", "after_an_exception_that_was_looked_at",
)  # fmt: skip
"""Loops in which three steps can be over before anything stops; what counts is that the run ends with a failure."""


def script(folder: Path, loop: str, ours: bool = True, head: str = HEAD) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = (head if ours else head.replace(OURS, OWN)) + f"\nOURS = {ours}\n" + textwrap.dedent(loop)
    (folder / "main.py").write_text(text)
    (folder / "weights.pth").unlink(missing_ok=True)
    return folder


def weights(folder: Path) -> torch.Tensor:
    state = torch.load(folder / "weights.pth", weights_only=True)
    return torch.cat([value.flatten() for value in state.values()])


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    made = Forking(tmp_path_factory.mktemp("python"), *IMPORTED)
    yield made
    made.close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    """Processes of one `apml run --loss`, forked before anything was trained."""
    under = [*APML, "--loss", LOSS]
    made = Forking(tmp_path_factory.mktemp("run"), *IMPORTED, under=under)
    yield made
    made.close()


def assert_stopped(done: Done) -> None:
    assert done.returncode not in (0, None), done.said
    assert "[apml] stopped:" in done.stderr, done.said
    assert "    from apml_plugin.hooks import training_value\n" in done.stderr, done.said
    assert "    loss = training_value(loss, pred, gt)\n" in done.stderr, done.said
    assert "Traceback" not in done.stderr or "Exception in thread" in done.stderr, done.said


TWINS = {
    "an_optimiser_that_never_steps", "closure_by_keyword", "compiled_network", "everything_swallowed",
    "own_optimiser_class", "exits_with_its_own_code_of_zero",
}  # fmt: skip
"""Loops like another one: they wait for APML_EVERY_FORM=1."""
EVERY = [pytest.param(loop, marks=pytest.mark.twin) if loop in TWINS else loop for loop in LOOPS]


@pytest.mark.parametrize("loop", EVERY)
def test_a_loop_that_trains_with_the_loss(loop: str, tmp_path: Path, python: Forking, guarded: Forking) -> None:
    folder = script(tmp_path, LOOPS[loop])
    assert python(["main.py"], folder, APML_LOSS=LOSS).returncode == 0
    wanted = weights(folder)
    assert python(["main.py"], folder).returncode == 0
    assert not torch.allclose(weights(folder), wanted, rtol=0, atol=1e-4)
    (folder / "weights.pth").unlink()
    done = guarded(["main.py"], folder)
    assert done.returncode == 0, done.said
    assert "stopped" not in done.stderr, done.said
    assert torch.equal(weights(folder), wanted)


@pytest.mark.parametrize("loop", EVERY)
def test_a_loop_that_trains_with_another(loop: str, tmp_path: Path, guarded: Forking) -> None:
    folder = script(tmp_path, LOOPS[loop], ours=False)
    done = guarded(["main.py"], folder)
    assert_stopped(done)
    assert loop in LATE or not (folder / "weights.pth").exists(), done.said


def test_the_loss_of_another_call_is_no_excuse(tmp_path: Path, guarded: Forking) -> None:
    """A value of ours that nobody differentiates does not count."""
    loop = """
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            x, gt = pair()
            out = net(x)
            training_value(out.sum(), out, gt)
            opt.zero_grad()
            gap(out, gt).backward()
            opt.step()
        save()
    """
    assert_stopped(guarded(["main.py"], script(tmp_path, loop)))


def test_a_value_of_weight_zero_is_no_excuse(tmp_path: Path, guarded: Forking) -> None:
    loop = """
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            x, gt = pair()
            out = net(x)
            opt.zero_grad()
            (gap(out, gt) + 0.0 * training_value(out.sum(), out, gt)).backward()
            opt.step()
        save()
    """
    done = guarded(["main.py"], script(tmp_path, loop))
    assert_stopped(done)
    assert "  the value of the loss: its gradient is 0, because the host multiplies it by 0\n" in done.stderr


def test_another_loss_of_ours_is_no_excuse(tmp_path: Path) -> None:
    """Not even where the path of the file that asks names it."""
    folder = script(
        tmp_path / "APML or ChamferL2",
        """
        from apml_plugin import ChamferL2
        loss_fn, opt = ChamferL2(), torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            x, gt = pair()
            opt.zero_grad()
            loss_fn(net(x), gt).backward()
            opt.step()
        save()
        """,
    )
    (folder / "my.yaml").write_text("loss: APML\n")
    assert_stopped(run(folder, "main.py", "--config", str(folder / "my.yaml")))


def test_a_loss_of_ours_in_the_hosts_own_code(tmp_path: Path, guarded: Forking) -> None:
    loop = """
        from apml_plugin import APML
        loss_fn, opt = APML(reduction='mean'), torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            x, gt = pair()
            opt.zero_grad()
            loss_fn(net(x), gt).backward()
            opt.step()
        save()
    """
    done = guarded(["main.py"], script(tmp_path, loop))
    assert done.returncode == 0, done.said


def test_a_host_that_crashes_says_so_itself(tmp_path: Path, guarded: Forking) -> None:
    done = guarded(["main.py"], script(tmp_path, "raise RuntimeError('no data')"))
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("RuntimeError: no data"), done.said


LEFT = """
        from torch.optim import optimizer
        from torch.nn.modules import module
        def left():
            return [
                len(optimizer._global_optimizer_pre_hooks), len(optimizer._global_optimizer_post_hooks),
                len(module._global_forward_hooks), torch.Tensor.backward.__qualname__,
            ]
        opt = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            opt.zero_grad()
            total(*pair()).backward()
            opt.step()
        print('left', left())
        save()
    """
"""The plain loop, and what is left of the guard after it."""


def test_the_hooks_are_gone_after_the_first_step(tmp_path: Path, guarded: Forking, python: Forking) -> None:
    folder = script(tmp_path, LEFT)
    lines = [go(["main.py"], folder).stdout.splitlines()[-1] for go in (guarded, python)]
    assert lines[0] == lines[1] == "left [0, 0, 0, 'Tensor.backward']"


WARM_UP = """
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(5):
        x, gt = pair()
        opt.zero_grad()
        loss = (net(x) - x).square().mean() if step < 2 else total(x, gt)
        loss.backward()
        opt.step()
    save()
"""


def test_a_host_that_warms_up(tmp_path: Path, guarded: Forking) -> None:
    folder = script(tmp_path, WARM_UP)
    done = guarded(["main.py"], folder)
    assert_stopped(done)
    assert "--loss-from-step" in done.stderr
    assert not (folder / "weights.pth").exists()
    done = guarded(["main.py"], folder, APML_LOSS_FROM_STEP="2")
    assert done.returncode == 0, done.said
    assert (folder / "weights.pth").exists()


def test_a_warm_up_that_never_ends(tmp_path: Path, guarded: Forking) -> None:
    folder = script(tmp_path, WARM_UP, ours=False)
    assert_stopped(guarded(["main.py"], folder, APML_LOSS_FROM_STEP="2"))
    assert not (folder / "weights.pth").exists()
    folder = script(tmp_path, WARM_UP.replace("range(5)", "range(2)"))
    done = guarded(["main.py"], folder, APML_LOSS_FROM_STEP="9")
    assert done.returncode != 0, "it never reached the loss"
    assert "[apml] stopped:" in done.stderr, done.said


EVALUATION = """
    net.eval()
    with torch.no_grad():
        x, gt = pair()
        print('val', gap(net(x), gt).item())
"""


def test_a_run_that_only_evaluates(tmp_path: Path, python: Forking) -> None:
    folder = script(tmp_path, EVALUATION)
    numbers = python(["main.py"], folder).stdout
    done = run(folder, "main.py", loss=LOSS)
    assert (done.returncode, done.stdout) == (1, numbers), done.said
    assert "[apml] stopped:" in done.stderr
    assert "Traceback" not in done.stderr


CHILDREN = """
import multiprocessing
{head}

def work(rank):
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        opt.zero_grad()
        total(*pair()).backward()
        opt.step()
    save()


if __name__ == '__main__':
    for method in ('spawn', 'forkserver', 'fork'):
        child = multiprocessing.get_context(method).Process(target=work, args=(0,))
        child.start()
        child.join()
        print(method, 'ended with', child.exitcode)
"""


@pytest.mark.parametrize("ours", [True, False])
def test_children(ours: bool, tmp_path: Path) -> None:
    """The parent, which trains nothing, ignores the exit codes of its children; the parent of the run does not."""
    (tmp_path / "main.py").write_text(CHILDREN.format(head=HEAD if ours else HEAD.replace(OURS, OWN)))
    done = run(tmp_path, "main.py", loss=LOSS)
    ended = 0 if ours else 1
    expected = [f"{method} ended with {ended}" for method in ("spawn", "forkserver", "fork")]
    assert done.stdout.splitlines() == expected, done.said
    assert done.returncode == ended, done.said
    assert (tmp_path / "weights.pth").exists() == ours
    if not ours:
        assert_stopped(done)


RANKS = """
import os
import torch.distributed as dist
{head}

dist.init_process_group('gloo')
rank = dist.get_rank()
whole = nn.parallel.DistributedDataParallel(net)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(4):
    x, gt = pair()
    out = whole(x)
    value = gap(out, gt)
    if rank == 0 or {ours}:
        value = training_value(value, out, gt)
    opt.zero_grad()
    value.backward()
    opt.step()
    print('rank', rank, 'step', step, flush=True)
torch.save(net.state_dict(), f'rank{{rank}}.pth')
dist.destroy_process_group()
"""


@pytest.mark.parametrize("ours", [True, False])
def test_ranks(ours: bool, tmp_path: Path) -> None:
    """Where one rank of two does not get the loss, both stop: its peer would wait for it for ever."""
    (tmp_path / "main.py").write_text(RANKS.format(head=HEAD, ours=ours))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "main.py"]
    start = time.monotonic()
    done = run(tmp_path, *torchrun, loss=LOSS)
    if ours:
        assert done.returncode == 0, done.said
        one, two = (torch.load(tmp_path / f"rank{rank}.pth", weights_only=True) for rank in range(2))
        assert all(torch.equal(one[key], two[key]) for key in one)
    else:
        assert done.returncode != 0, done.said
        assert "[apml] stopped:" in done.stderr, done.said
        assert "step 1" not in done.stdout, done.said
        assert not list(tmp_path.glob("rank*.pth"))
        assert time.monotonic() - start < 60, "the other rank waited for its peer"


CARRIES = "import sys; print([type(finder).__name__ for finder in sys.meta_path].count('Finder'))"
BESIDE = {
    "plain": f'python -c "{CARRIES}"\n',
    "python_e": f'python -E -c "{CARRIES}"\n',
    "pythonpath_reset": f'PYTHONPATH=. python -c "{CARRIES}"\n',
    "pythonpath_unset": f'env -u PYTHONPATH python -c "{CARRIES}"\n',
}


def test_processes_that_the_plugin_may_not_reach(tmp_path: Path) -> None:
    """Where the plugin is installed, its .pth file reaches them; elsewhere the parent of the run reports it."""
    (tmp_path / "train.sh").write_text("set -e\n" + "".join(BESIDE.values()))
    done = run(tmp_path, "bash", "train.sh")
    plain, *others = done.stdout.split()
    assert plain == "1", done.said
    assert others in (["0"] * 3, ["1"] * 3), done.said


def test_a_process_that_the_plugin_cannot_reach(tmp_path: Path) -> None:
    """Its loss is none that could be replaced: the run must not end well."""
    folder = script(tmp_path, LOOPS["plain"], ours=False)
    (folder / "main.py").write_text((folder / "main.py").read_text().replace("from apml_plugin", "# from apml_plugin"))
    (folder / "train.sh").write_text('set -e\nenv -i PATH="$PATH" python main.py\necho done\n')
    done = run(folder, "bash", "train.sh", loss=LOSS)
    assert (done.returncode, done.stdout) == (1, "done\n"), done.said
    # On Linux, the parent of the run may have seen the process itself.
    whys = ("no Python process of this run carried", "PyTorch was loaded without the plugin by: python main.py. ")
    assert any(f"[apml] stopped: a loss was asked for, but {why}" in done.stderr for why in whys), done.said


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("reaches", [True, False])
def test_a_second_stage_that_the_plugin_cannot_reach(reaches: bool, tmp_path: Path) -> None:
    """The first stage trained with the loss. That is no excuse for the second."""
    folder = script(tmp_path, LOOPS["plain"])
    (folder / "second.py").write_text(f"import sys\nsys.path += {sys.path[1:]}\nimport time, torch\ntime.sleep(2)\n")
    second = "python" if reaches else "python -I -S"
    (folder / "train.sh").write_text(f"set -e\npython main.py\n{second} second.py\necho done\n")
    done = run(folder, "bash", "train.sh", loss=LOSS)
    assert (done.returncode, done.stdout) == (int(not reaches), "done\n"), done.said
    assert ("PyTorch was loaded without the plugin by: python -I -S second.py" in done.stderr) != reaches, done.said


def test_no_loss_asked_for(tmp_path: Path, python: Forking) -> None:
    """Bit-identical training, for a host with our lines and for one without; APML_LOSS empty is no loss."""
    for ours in (True, False):
        folder = script(tmp_path / str(ours), LEFT, ours=ours)
        assert python(["main.py"], folder).returncode == 0
        wanted = weights(folder)
        (folder / "weights.pth").unlink()
        done = run(folder, "main.py", env={"APML_LOSS": ""} if ours else {})
        assert done.returncode == 0, done.said
        assert torch.equal(weights(folder), wanted)
        assert done.stdout.splitlines()[-1] == "left [0, 0, 0, 'Tensor.backward']"


def test_the_loss_may_come_from_the_environment(tmp_path: Path) -> None:
    """Through the command itself."""
    folder = script(tmp_path, LOOPS["plain"], ours=False)
    environ = clean_environment(APML_LOSS=LOSS)
    done = subprocess.run([*APML, "main.py"], cwd=folder, env=environ, capture_output=True, text=True, timeout=120)
    assert_stopped(Done(done.returncode, done.stdout, done.stderr))
    assert os.listdir(folder).count("weights.pth") == 0
