"""`apml bench`: what it reports and refuses. Sizes are tiny and no figure is judged: speed is not tested here."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from apml_plugin.bench import acceptance, memory, peers
from apml_plugin.bench import run as runner
from apml_plugin.bench.clouds import CLOUDS, clouds
from apml_plugin.bench.contestants import Contestant, contestant, our
from apml_plugin.bench.memory import ChildCase, Memory
from apml_plugin.bench.peers import Peer
from apml_plugin.bench.report import seconds, text
from apml_plugin.bench.run import Options, Report, line_up
from apml_plugin.bench.timing import Times, interleaved, timed
from apml_plugin.cli import main

TINY = ["bench", "--device", "cpu", "--no-memory", "--sizes", "16,8"]


@pytest.fixture(autouse=True)
def _threads_stay() -> object:
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


# Medians and turns


def fake(name: str, log: list[str], forwards: list[float], backward: float = 0.5):
    """A run that notes its turn and takes what it is told to; the first is the warm-up."""
    left = list(forwards)

    def run() -> Times:
        log.append(name)
        return Times(left.pop(0), backward)

    return run


def test_runs_take_turns_and_the_warm_up_does_not_count() -> None:
    log: list[str] = []
    runs = {"fast": fake("f", log, [99, 1, 5, 2, 4, 3]), "slow": fake("s", log, [99, 10, 50, 20, 40, 30], 7)}
    outcomes = interleaved(runs, 5)
    assert "".join(log) == "fs" * 6
    assert [outcomes["fast"].median(w) for w in ("forward", "backward", "both")] == [3, 0.5, 3.5]
    assert [outcomes["slow"].median(w) for w in ("forward", "backward", "both")] == [30, 7, 37]


def test_a_run_that_raises_drops_out_and_the_others_go_on() -> None:
    log: list[str] = []

    def broken() -> Times:
        if len(log) > 2:
            raise ValueError("no more\nand why")
        return Times(1, 1)

    outcomes = interleaved({"good": fake("g", log, [1.0] * 6), "broken": broken}, 5)
    assert outcomes["broken"].problem == "failed: ValueError: no more"
    assert outcomes["broken"].times == []
    assert len(outcomes["good"].times) == 5


def test_a_warm_up_that_shows_too_long_a_case_leaves_it_out() -> None:
    log: list[str] = []
    outcomes = interleaved({"slow": fake("s", log, [3.0] * 6), "fast": fake("f", log, [0.1] * 6)}, 5, max_seconds=10)
    assert log.count("s") == 1
    assert outcomes["slow"].problem == "left out: would take about 21 s, more than --max-seconds 10"
    assert outcomes["fast"].problem is None


def test_running_out_of_memory_is_said_so() -> None:
    def greedy() -> Times:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")

    assert interleaved({"greedy": greedy}, 5)["greedy"].problem == "failed: out of memory"


def test_timed_calls_forward_once_and_backward_into_pred_alone() -> None:
    seen = []

    def call(x: Tensor, y: Tensor) -> Tensor:
        seen.append((x.requires_grad, y.requires_grad))
        x.register_hook(lambda grad: seen.append(tuple(grad.shape)))
        return (x - y).square().sum(dim=(1, 2))  # (B,): as a loss with reduction none

    pred, gt = clouds("cube", 2, 4, torch.float32, "cpu")
    times = timed(call, pred, gt)
    assert seen == [(True, False), (2, 4, 3)]
    assert times.forward > 0
    assert times.backward > 0
    assert not pred.requires_grad


def test_timed_without_gradient_has_no_backward() -> None:
    pred, gt = clouds("cube", 1, 4, torch.float32, "cpu")
    assert timed(lambda x, y: None, pred, gt, gradient=False).backward == 0


# Clouds


@pytest.mark.parametrize("kind", CLOUDS)
def test_clouds_are_the_same_in_every_dtype_and_every_time(kind: str) -> None:
    wide = clouds(kind, 2, 50, torch.float64, "cpu")
    for a, b in zip(wide, clouds(kind, 2, 50, torch.float32, "cpu"), strict=True):
        assert a.shape == (2, 50, 3)
        assert torch.equal(a.float(), b)
    assert not torch.equal(*wide)


def test_clouds_are_what_they_are_called() -> None:
    pred, gt = clouds("sphere", 1, 2000, torch.float64, "cpu")
    assert torch.allclose(gt.norm(dim=-1), torch.ones(1, 2000, dtype=torch.float64))
    assert (pred - gt).std() == pytest.approx(0.02, rel=0.05)
    blob, gt = clouds("blob", 1, 2000, torch.float64, "cpu")
    assert blob.std() == pytest.approx(0.05, rel=0.05)
    assert gt.norm(dim=-1).min() > 0.99
    cube, _ = clouds("cube", 1, 2000, torch.float64, "cpu")
    assert cube.min() >= 0
    assert cube.max() <= 1


# Contestants and peers


def test_ours_give_the_losses_they_are_named_after() -> None:
    pred, gt = clouds("cube", 2, 30, torch.float64, "cpu")
    apml = our("APML").call(pred, gt)
    torch.testing.assert_close(our("APML dense").call(pred, gt), apml)
    torch.testing.assert_close(our("{NAME: APML, reduction: mean}").call(pred, gt) * 30, apml)
    assert our("ChamferL1").call(pred, gt) != our("ChamferL2").call(pred, gt)


def test_a_mistyped_loss_or_argument_is_refused_before_anything_is_timed(capsys) -> None:
    for words, said in (
        (["--loss", "AMPL"], "did you mean 'APML'"),
        (["--loss", "{NAME: APML, pmin: 0.5}"], "did you mean 'p_min'"),
        (["--loss", "{NAME: APML"], "is no YAML"),
        (["--backend", "quick"], "--backend 'quick' must be one of native, sparse, dense"),
    ):
        assert main([*TINY, *words]) == 1
        found = capsys.readouterr()
        assert said in found.err
        assert found.out == ""


def test_chamfer_peers_compute_what_ours_does() -> None:
    pred, gt = clouds("cube", 2, 40, torch.float64, "cpu")
    torch.testing.assert_close(contestant("cdist Chamfer").call(pred, gt), our("ChamferL1").call(pred, gt))


def test_a_hosts_chamfer_is_called_with_its_own_two_functions(monkeypatch) -> None:
    from apml_plugin.standins import chamfer as standin

    monkeypatch.setitem(sys.modules, "chamfer", standin)  # the extension's interface, on the CPU
    pred, gt = clouds("cube", 2, 40, torch.float64, "cpu")
    x, y = pred.clone().requires_grad_(), pred.clone().requires_grad_()
    theirs, ours = contestant("host chamfer").call(x, gt), our("ChamferL2").call(y, gt)
    torch.testing.assert_close(theirs, ours)
    theirs.backward()
    ours.backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_libraries_that_are_seldom_there_are_called_as_they_document(monkeypatch) -> None:
    def samples_loss(kind: str, backend: str):
        assert (kind, backend) == ("sinkhorn", "tensorized")
        return lambda x, y: (x - y).square().sum(dim=(1, 2))  # (B,), as theirs

    modules = {
        "geomloss": SimpleNamespace(SamplesLoss=samples_loss),
        "pykeops": None,
        "pytorch3d.loss": SimpleNamespace(chamfer_distance=lambda x, y: ((x - y).square().sum(), None)),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    pred, gt = clouds("cube", 2, 5, torch.float32, "cpu")
    for peer, scale in (("geomloss", 0.5), ("pytorch3d", 1.0)):
        torch.testing.assert_close(contestant(peer).call(pred, gt), scale * (pred - gt).square().sum())


def test_ckdtree_uses_as_many_workers_as_torch_has_threads(monkeypatch) -> None:
    asked = []

    class Tree:
        def __init__(self, points: object) -> None: ...

        def query(self, points: object, workers: int) -> None:
            asked.append(workers)

    monkeypatch.setattr("scipy.spatial.cKDTree", Tree)
    with runner.threads(1):
        contestant("cKDTree").call(*clouds("cube", 2, 5, torch.float32, "cpu"))
    assert asked == [1] * 4


def test_a_peer_that_is_not_there_is_named_with_the_reason(monkeypatch, capsys) -> None:
    def gone() -> None:
        raise ImportError("no such thing\nat all")

    monkeypatch.setattr(runner, "PEERS", (peers.CDIST, Peer("nothere", gone), peers.HOST_CHAMFER))
    assert main([*TINY, "--loss", "ChamferL1"]) == 0
    out = capsys.readouterr().out
    assert "nothere: not timed: not importable: no such thing." in out
    assert "host chamfer: not timed: runs on cuda only." in out
    assert "cdist Chamfer" in out


# The report


def test_the_table_names_machine_ratios_then_seconds(capsys) -> None:
    assert main([*TINY, "--threads", "1", "--dtype", "float64", "--cloud", "cube", "--batch", "2"]) == 0
    found = capsys.readouterr()
    lines = found.out.splitlines()
    assert lines[0].startswith("CPU: ")
    assert "1 thread used" in lines[0]
    assert lines[1].startswith("GPU: ")
    assert torch.__version__ in lines[2]
    assert "cube clouds, B = 2, float64, on cpu; medians of 5" in lines[3]
    ratios = next(k for k, line in enumerate(lines) if line.startswith("Ours / peer"))
    medians = next(k for k, line in enumerate(lines) if line.startswith("Medians"))
    assert ratios < medians
    assert lines[ratios + 1].split("  ")[0] == "points"
    assert [line.split()[:2] for line in lines[ratios + 3 : ratios + 9]] == [
        [size, name] for size in ("8", "16") for name in ("APML", "ChamferL1", "ChamferL2")
    ]
    assert "not measured" in lines[medians + 3]
    assert "a search alone, no loss and no gradient" in found.out
    assert "8 points" in found.err


def test_the_json_reloads_with_every_figure_and_the_plot_is_a_png(tmp_path: Path, capsys) -> None:
    figures, picture = tmp_path / "b.json", tmp_path / "b.png"
    assert main([*TINY, "--loss", "APML", "--backend", "sparse", "--json", str(figures), "--plot", str(picture)]) == 0
    found = json.loads(figures.read_text())
    assert found["options"]["sizes"] == [8, 16]
    assert found["machine"]["torch"] == torch.__version__
    by_name = {(c["name"], c["points"]): c for c in found["cases"]}
    assert {name for name, _ in by_name} >= {"APML", "APML sparse", "cKDTree", "cdist Chamfer", "APML dense"}
    apml, tree = by_name["APML", 16], by_name["cKDTree", 16]
    assert apml["runs"] == 5
    assert min(apml["forward"], apml["backward"]) > 0
    assert apml["ours"]
    assert tree["backward"] is None
    ratio = next(r for r in found["ratios"] if (r["points"], r["ours"], r["peer"]) == (16, "APML", "cKDTree"))
    assert ratio["ratio"] == pytest.approx(apml["both"] / tree["both"])
    assert not any(r["peer"].startswith("APML sparse") for r in found["ratios"])
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_backend_asked_for_by_name_moves_above_the_line() -> None:
    options = Options(sizes=(8,), memory=False)
    report = runner.run(line_up(["APML"], ["dense"], options), options)
    assert [c.name for c in report.cases if c.ours] == ["APML", "APML dense"]
    assert [c.name for c in report.cases].count("APML dense") == 1


def test_cases_predicted_to_be_too_long_are_left_out_and_say_so(monkeypatch) -> None:
    took = []

    def fake_timed(call, pred: Tensor, gt: Tensor, gradient: bool = True) -> Times:
        took.append(pred.shape[1])
        return Times((pred.shape[1] / 1024) ** 2, 0.0)  # a second at 1024, quadratic

    monkeypatch.setattr(runner, "timed", fake_timed)
    slow = Contestant("slow", lambda x, y: None, True, growth=2.0)
    options = Options(sizes=(16, 1024, 2048, 4096), max_seconds=30, memory=False)
    report = runner.run([slow], options, others=())
    assert [c.problem for c in report.cases] == [
        None,
        None,
        None,
        "left out: would take about 96 s, more than --max-seconds 30",
    ]
    assert max(took) == 2048
    took.clear()
    runner.run([slow], Options(sizes=(8192,), max_seconds=30, memory=False), others=())
    assert took == [64, 1024]  # never run at its size: a small one told enough
    assert "slow at 4096 points: left out" in text(report)


def test_a_loss_that_fails_at_a_size_is_reported_and_the_rest_is_measured() -> None:
    def picky(x: Tensor, y: Tensor) -> Tensor:
        if x.shape[1] > 10:
            raise ValueError("ten at most")
        return (x - y).sum()

    options = Options(sizes=(8, 16), memory=False)
    report = runner.run([Contestant("picky", picky, True)], options, others=("cdist Chamfer",))
    assert [(c.name, c.points, c.problem) for c in report.cases] == [
        ("picky", 8, None),
        ("cdist Chamfer", 8, None),
        ("picky", 16, "failed: ValueError: ten at most"),
        ("cdist Chamfer", 16, None),
    ]
    assert len(report.ratios()) == 1


def test_a_case_whose_memory_run_dies_is_not_timed(monkeypatch) -> None:
    monkeypatch.setattr(memory, "on_cpu", lambda case, timeout: Memory(None, "failed: killed by signal 9"))
    monkeypatch.setattr(runner, "interleaved", lambda runs, *rest: pytest.fail("timed") if runs else {})
    report = runner.run([our("APML")], Options(sizes=(8,)), others=())
    assert report.cases[0].problem == "failed: killed by signal 9"


def test_nothing_timed_gives_words_and_no_picture(tmp_path: Path) -> None:
    from apml_plugin.bench.plot import draw
    from apml_plugin.errors import LossValueError

    empty = Report({"cpu": "x", "cores": 1, "load": None, "threads": 1, "torch": "2", "gpu": None, "cuda": None, "python": "3",
                    "system": "s", "apml_plugin": "0"}, Options().__dict__, (), {}, {}, {})  # fmt: skip
    assert "Nothing was timed." in text(empty)
    with pytest.raises(LossValueError, match="nothing to draw"):
        draw(empty, tmp_path / "b.png")


def test_seconds_are_readable() -> None:
    assert [seconds(s) for s in (12.345, 0.0351, 2.5e-5, None)] == ["12.3 s", "35.1 ms", "25.0 µs", "-"]


# Memory


def test_a_fresh_process_measures_the_peak_of_one_call() -> None:
    dense = memory.on_cpu(ChildCase("APML dense", "sphere", 1, 1024, "float32", 1))
    assert dense.problem is None
    if sys.platform == "linux":
        assert 3 * 4 * 1024**2 < dense.peak < 30 * 4 * 1024**2  # some matrices of 4 MB each


def test_a_fresh_process_that_fails_says_why() -> None:
    assert "no loss is called 'Nonsense'" in memory.on_cpu(ChildCase("Nonsense", "cube", 1, 8, "float32", 1)).problem


def test_a_fresh_process_that_is_killed_or_late_says_so(monkeypatch) -> None:
    case = ChildCase("APML", "cube", 1, 8, "float32", 1)
    assert memory.on_cpu(case, timeout=1e-3).problem.startswith("left out: its memory run took longer")
    killed = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: killed)
    assert memory.on_cpu(case).problem == "failed: killed by signal 9, most likely out of memory"


# Bad values


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sizes", "1k"], "--sizes '1k' must be whole numbers with commas"),
        (["--sizes", "0"], "--sizes 0: every size must be 1 or more"),
        (["--sizes", ""], "--sizes '' must be whole numbers"),
        (["--batch", "0"], "--batch 0 must be 1 or more"),
        (["--threads", "0"], "--threads 0 must be 1 or more"),
        (["--repeats", "4"], "--repeats 4 must be 5 or more"),
        (["--max-seconds", "0"], "--max-seconds 0 must be more than 0"),
        (["--max-seconds", "nan"], "--max-seconds nan must be more than 0"),
        (["--dtype", "float16"], "--dtype 'float16' must be one of float32, float64"),
        (["--cloud", "torus"], "--cloud 'torus' must be one of sphere, blob, cube"),
        (["--device", "tpu"], "--device 'tpu' must be one of cpu, cuda"),
        (["--plot", "x.pdf"], "let the name end in .png"),
        (["--plot", "no/such/x.png"], "--plot no/such/x.png: not a file in a folder that exists"),
        (["--json", "no/such/x.json"], "--json no/such/x.json: not a file in a folder that exists"),
        (["--acceptance", "--plot", "x.png"], "leave one of them out"),
    ],
)
def test_bad_values_are_one_clear_line(words: list[str], said: str, capsys) -> None:
    assert main([*TINY, *words]) == 1
    found = capsys.readouterr()
    assert said in found.err
    assert len(found.err.strip().splitlines()) == 1
    assert found.out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_refused(capsys) -> None:
    assert main(["bench", "--device", "cuda"]) == 1
    assert "PyTorch finds no usable CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--repeats", "many"], ["--batch", "1.5"]])
def test_words_where_numbers_belong_are_refused(words: list[str], capsys) -> None:
    assert main(["bench", *words]) == 2
    assert "Invalid value" in capsys.readouterr().err


# The acceptance table

SMALL = acceptance.Sizes(dense=32, usual=48, large=64, huge=80)


@pytest.fixture
def rows(monkeypatch) -> list[acceptance.Row]:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(memory, "on_cpu", lambda case: Memory(150_000_000))
    return acceptance.run(SMALL)


def test_every_row_of_the_table_is_there(rows: list[acceptance.Row]) -> None:
    cpu = [row for row in rows if row.what.startswith("CPU")]
    assert [(r.must, r.aim, r.unit, r.at_least) for r in cpu] == [
        (1.5, 1.0, "x", False),
        (1.5, 1.0, "x", False),
        (150, 300, "times faster", True),
        (24, 19, "x", False),
        (400, 200, "MB", False),
        (12, 8, "x", False),
        (math.inf, 10, "s", False),
    ]
    assert all(row.measured is not None for row in cpu if "2 threads" not in row.what)
    assert cpu[4].measured == 150
    gpu = [row for row in rows if row.what.startswith("GPU")]
    assert len(gpu) == 5
    assert all(row.measured is None and row.problem and not row.broken for row in gpu)


def test_the_table_says_met_and_not_met(rows: list[acceptance.Row]) -> None:
    found = acceptance.text(rows)
    assert "against the dense backend" in found
    assert "backend auto of APML: " in found
    assert "NOT MET" in found  # 32 points are no faster than dense
    memory_line = next(line for line in found.splitlines() if "extra peak memory" in line)
    assert memory_line.endswith("met, aim met")
    assert next(line for line in found.splitlines() if "one pair of 80" in line).split("runs")[1].endswith("met")
    assert "needs a CUDA device" in found


def test_with_a_gpu_its_rows_are_measured(monkeypatch) -> None:
    """The arithmetic of the rows, with CPU clouds in place of CUDA ones."""
    from apml_plugin.standins import chamfer as standin

    peaks = {"APML": Memory(3_000_000), "APML dense": Memory(600_000_000)}
    batches = []

    def pair(kind: str, points: int, device: str = "cpu", batch: int = 1) -> tuple[Tensor, Tensor]:
        batches.append((points, batch))
        return clouds(kind, 1, points, torch.float32, "cpu")

    monkeypatch.setattr(acceptance, "_pair", pair)
    monkeypatch.setattr(memory, "on_cuda", lambda one, x, y: peaks[one.name])
    monkeypatch.setattr(acceptance, "usable_cores", lambda: 1)
    monkeypatch.setitem(sys.modules, "chamfer", standin)
    assert acceptance._cuda_memory(SMALL) == pytest.approx(0.5)
    assert acceptance._against_host(SMALL) > 0
    assert {(SMALL.dense, 8), (SMALL.usual, 32)} < set(batches)
    peaks["APML dense"] = Memory(None, "failed: out of memory")
    with pytest.raises(acceptance.PeerProblem, match="APML dense: failed: out of memory"):
        acceptance._cuda_memory(SMALL)
    peaks["APML"] = Memory(None, "failed: out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        acceptance._cuda_memory(SMALL)
    with pytest.raises(acceptance.PeerProblem, match="needs 2 cores"):
        acceptance._against_ckdtree(SMALL, 2)


@pytest.mark.gpu
def test_on_a_gpu_time_and_memory_are_measured_there(capsys) -> None:
    assert main(["bench", "--device", "cuda", "--sizes", "64,3000"]) == 0
    out = capsys.readouterr().out
    assert "on cuda" in out
    assert "cKDTree: not timed: runs on cpu only." in out
    assert "failed" not in out
    assert "not measured" not in out


@pytest.mark.parametrize(
    ("measured", "at_least", "met"),
    [(1.5, False, True), (1.6, False, False), (1.5, True, True), (1.4, True, False), (math.inf, False, False)],
)
def test_bounds(measured: float, at_least: bool, met: bool) -> None:
    assert acceptance.Row("x", 1.5, 1.0, "x", at_least, measured).broken is not met


def test_what_fails_is_broken_and_what_cannot_be_measured_is_not(monkeypatch) -> None:
    def fails(s: acceptance.Sizes, device: str = "cpu") -> float:
        raise RuntimeError("out of range")

    def open_(s: acceptance.Sizes, count: int = 1) -> float:
        raise acceptance.PeerProblem("not here")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(acceptance, "_huge", fails)
    for name in ("_against_ckdtree", "_against_dense", "_growth", "_cpu_memory", "_blob"):
        monkeypatch.setattr(acceptance, name, open_)
    rows = acceptance.run(SMALL)
    assert [row.what for row in rows if row.broken] == ["CPU, one pair of 80 points"]
    assert "out of range" in acceptance.text(rows)
    assert "not here" in acceptance.text(rows)
    assert json.loads(json.dumps(acceptance.as_json(rows)))["rows"][6]["must_met"] is False


@pytest.mark.parametrize(("bound", "code"), [(1e9, 0), (1e-9, 1)])
def test_acceptance_exit_code_follows_the_table(bound: float, code: int, tmp_path: Path, monkeypatch, capsys) -> None:
    asked = []

    def fake_run(sizes: acceptance.Sizes, say) -> list[acceptance.Row]:
        asked.append((sizes.repeats, torch.get_num_threads()))
        return [acceptance.Row("CPU, something", bound, bound, "x", measured=1.0)]

    monkeypatch.setattr(acceptance, "run", fake_run)
    figures = tmp_path / "a.json"
    words = ["bench", "--device", "cpu", "--acceptance", "--threads", "1", "--repeats", "7", "--json", str(figures)]
    assert main(words) == code
    assert asked == [(7, 1)]
    assert "CPU, something" in capsys.readouterr().out
    assert json.loads(figures.read_text())["rows"][0]["must_met"] is (code == 0)


def test_the_measuring_part_needs_torch_numpy_and_scipy_alone() -> None:
    script = """
import sys
for name in ("mmengine", "typer", "rich", "yaml", "easydict", "matplotlib"):
    sys.modules[name] = None
from apml_plugin.bench import acceptance, memory, run
options = run.Options(sizes=(8,), memory=False)
report = run.run(run.line_up((), (), options), options)
assert all(case.problem is None for case in report.cases), report.cases
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
