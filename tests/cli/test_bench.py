"""`apml bench`: what it prints, writes and rejects. Sizes are tiny and no measured value is checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from apml_plugin.cli import main
from apml_plugin.studies.bench import acceptance
from apml_plugin.studies.bench import run as runner
from apml_plugin.studies.bench.contestants import PEERS, Contestant

TINY = ["bench", "--device", "cpu", "--no-memory", "--sizes", "16,8"]


@pytest.fixture(autouse=True)
def _threads_stay() -> object:
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


def test_a_mistyped_loss_or_argument_is_rejected_before_anything_is_timed(capsys) -> None:
    for words, output in (
        (["--loss", "AMPL"], "did you mean 'APML'"),
        (["--loss", "{NAME: APML, pmin: 0.5}"], "did you mean 'p_min'"),
        (["--loss", "{NAME: APML"], "is not YAML"),
        (["--backend", "quick"], "--backend 'quick' must be one of native, sparse, dense"),
    ):
        assert main([*TINY, *words]) == 1
        result = capsys.readouterr()
        assert output in result.err
        assert result.out == ""


def test_a_missing_peer_is_listed_with_the_reason(monkeypatch, capsys) -> None:
    def gone() -> None:
        raise ImportError("no such thing\nat all")

    known = {peer.name: peer for peer in PEERS}
    chosen = (known["cdist Chamfer"], Contestant("nothere", gone), known["host chamfer"])
    monkeypatch.setattr(runner, "PEERS", chosen)
    assert main([*TINY, "--loss", "ChamferL1"]) == 0
    out = capsys.readouterr().out
    assert "nothere: not timed: not importable: no such thing." in out
    assert "host chamfer: not timed: runs on cuda only." in out
    assert "cdist Chamfer" in out


def test_the_table_names_machine_ratios_then_seconds(capsys) -> None:
    assert main([*TINY, "--threads", "1", "--dtype", "float64", "--cloud", "cube", "--batch", "2"]) == 0
    result = capsys.readouterr()
    lines = result.out.splitlines()
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
    assert "a search alone, no loss and no gradient" in result.out
    assert "8 points" in result.err


def test_the_json_reloads_with_every_figure_and_the_plot_is_a_png(tmp_path: Path, capsys) -> None:
    figures, picture = tmp_path / "b.json", tmp_path / "b.png"
    assert main([*TINY, "--loss", "APML", "--backend", "sparse", "--json", str(figures), "--plot", str(picture)]) == 0
    result = json.loads(figures.read_text())
    assert result["options"]["sizes"] == [8, 16]
    assert result["machine"]["torch"] == torch.__version__
    by_name = {(c["name"], c["points"]): c for c in result["cases"]}
    assert {name for name, _ in by_name} >= {"APML", "APML sparse", "cKDTree", "cdist Chamfer", "APML dense"}
    apml, tree = by_name["APML", 16], by_name["cKDTree", 16]
    assert apml["runs"] == 5
    assert min(apml["forward"], apml["backward"]) > 0
    assert apml["ours"]
    assert tree["backward"] is None
    ratio = next(r for r in result["ratios"] if (r["points"], r["ours"], r["peer"]) == (16, "APML", "cKDTree"))
    assert ratio["ratio"] == pytest.approx(apml["both"] / tree["both"])
    assert not any(r["peer"].startswith("APML sparse") for r in result["ratios"])
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("words", "output"),
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
        (["--acceptance"], "does not go with --acceptance, whose cases are fixed"),
    ],
)
def test_bad_values_give_one_line(words: list[str], output: str, capsys) -> None:
    assert main([*TINY, *words]) == 1
    result = capsys.readouterr()
    assert output in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert result.out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_rejected(capsys) -> None:
    assert main(["bench", "--device", "cuda"]) == 1
    assert "PyTorch finds no usable CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--repeats", "many"], ["--batch", "1.5"]])
def test_words_in_place_of_numbers_are_rejected(words: list[str], capsys) -> None:
    assert main(["bench", *words]) == 2
    assert "Invalid value" in capsys.readouterr().err


@pytest.mark.gpu
def test_on_a_gpu_time_and_memory_are_measured_there(capsys) -> None:
    assert main(["bench", "--device", "cuda", "--sizes", "64,3000"]) == 0
    out = capsys.readouterr().out
    assert "on cuda" in out
    assert "cKDTree: not timed: runs on cpu only." in out
    assert "failed" not in out
    assert "not measured" not in out


@pytest.mark.parametrize(("bound", "code"), [(1e9, 0), (1e-9, 1)])
def test_acceptance_exit_code_follows_the_table(bound: float, code: int, tmp_path: Path, monkeypatch, capsys) -> None:
    asked = []

    def fake_run(sizes: acceptance.Sizes, say) -> list[acceptance.Row]:
        asked.append((sizes.repeats, torch.get_num_threads()))
        return [acceptance.Row("CPU, something", bound, bound, "x", measured=1.0)]

    monkeypatch.setattr(acceptance, "run", fake_run)
    figures = tmp_path / "a.json"
    words = ["bench", "--acceptance", "--threads", "1", "--repeats", "7", "--json", str(figures)]
    assert main(words) == code
    assert asked == [(7, 1)]
    assert "CPU, something" in capsys.readouterr().out
    assert json.loads(figures.read_text())["rows"][0]["must_met"] is (code == 0)


def test_more_threads_than_cores_is_a_warning(monkeypatch, capsys) -> None:
    from apml_plugin.studies import machine

    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    assert main([*TINY, "--threads", "2", "--repeats", "1"]) == 1  # stops at the repeats, before any measuring
    assert "warning: --threads 2 on 1 core: they wait for each other" in capsys.readouterr().err


def test_help_says_what_memory_costs(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["bench", "--help"]) == 0
    assert "starts a process for each case" in " ".join(capsys.readouterr().out.split())
