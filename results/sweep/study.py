"""The paper's search, run by the command `distilface sweep`; what is behind results/sweep/README.md.

Start:  python results/sweep/study.py encoder WORK             (the lower four layers of all-MiniLM-L6-v2)
        python results/sweep/study.py sweep NAME DATA WORK     (NAME of SWEEPS; --processes 2 share it)
        python results/sweep/study.py kills DATA WORK          (kill -9 at random moments: kills.csv)
        python results/sweep/study.py replay WORK              (TPE on the grid's recorded curves: replay.csv)
        python results/sweep/study.py report WORK              (trials and figures, beside this file)

A sweep that was stopped goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from distilface_st.datasets.sts import load_sts
from distilface_st.distillation.student import make_student
from distilface_st.models.save import save_model
from distilface_st.pretrained import bundled_encoder
from distilface_st.sweep import Problems, SweepPlan, read_results, read_space, write_report
from distilface_st.sweep.records import Outcome, write_trials
from distilface_st.sweep.store import SweepStore
from distilface_st.training.train import TrainingConfig

HERE = Path(__file__).parent
DEV = "STS-B-dev"

NEIGHBOURS = ["wiki/neighbours.tsv.gz", "--views", "pairs"]
SENTENCES = ["wiki/sentences.txt.gz"]
PAPER = ["--preset", "paper", "--sampler", "one-at-a-time", "--max-steps", "32", "--eval-steps", "16", "--seed", "1"]
SPACE = ["--space", str(HERE / "space.toml"), "--max-steps", "32", "--eval-steps", "8", "--seed", "1"]
SWEEPS = {
    "neighbours": [*NEIGHBOURS, *PAPER, "--seeds", "3", "--all-sets"],
    "dropout": [*SENTENCES, *PAPER],
    "grid": [*NEIGHBOURS, *SPACE, "--sampler", "grid"],
    "tpe": [*NEIGHBOURS, *SPACE, "--sampler", "tpe", "--pruner", "median", "--trials", "30"],
}
KILLED = ["--limit", "20000", "--sampler", "grid", "--max-steps", "24", "--eval-steps", "4", "--seeds", "2"]
KILLED_SPACE = "temperature = [0.01, 0.05, 0.1]\nlayers = ['last', 'first_last']\n[base]\nbatch_size = 16\n"


def command(arguments: list[str], data: Path, work: Path, output: Path) -> list[str]:
    source, *rest = arguments
    where = ["--base", str(work / "minilm-l4"), "--output", str(output)]
    if "--eval-file" not in arguments:
        where += ["--sts-dir", str(data / "sts")]
    program = [sys.executable, "-m", "distilface_st.recipes.app", "sweep"]
    return [*program, str(data / source), *rest, *where, "--device", "cpu"]


def started(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(arguments, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)


def encoder(work: Path) -> None:
    save_model(make_student(bundled_encoder(), layers="first:4", device="cpu"), work / "minilm-l4")


def sweep(name: str, data: Path, work: Path, processes: int) -> None:
    for process in [started(command(SWEEPS[name], data, work, work / name)) for _ in range(processes)]:
        if process.wait():
            raise SystemExit(f"A process ended with {process.returncode}.")


def kills(data: Path, work: Path, seed: int, most: int) -> None:
    """Kill a sweep at random moments until it is through; compare it with one that was left alone.

    It is scored on 200 pairs of STS-B dev, so that most of the moments are in the middle of training.
    """
    space, pairs = work / "killed.toml", work / "pairs.tsv"
    space.write_text(KILLED_SPACE, encoding="utf-8")
    dev = load_sts("STS-B", data / "sts", split="dev").subsets[0]
    rows = list(zip(dev.sentences1, dev.sentences2, map(str, dev.scores), strict=True))[:200]
    pairs.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    arguments = [*NEIGHBOURS, *KILLED, "--space", str(space), "--eval-file", str(pairs)]
    alone, killed = work / "alone", work / f"killed-{seed}"
    if started(command(arguments, data, work, alone)).wait():
        raise SystemExit("The sweep that is left alone failed.")
    chance, rows = random.Random(seed), []
    while True:
        process = started(command(arguments, data, work, killed))
        wait = chance.uniform(8, 20)
        try:
            if process.wait(timeout=wait if len(rows) < most else None):
                raise SystemExit(f"A process ended with {process.returncode}.")
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        finished = len(outcomes(killed)) if (killed / "trials.csv").exists() else 0
        rows.append({"seed": seed, "kill": len(rows) + 1, "seconds": round(wait, 1), "finished": finished})
        print(rows[-1], flush=True)
    same = outcomes(killed) == outcomes(alone)
    for row in rows:
        row |= {"trials": len(outcomes(alone)), "same": same}
    write(HERE / "kills.csv", rows)
    print(f"{len(rows)} kills: {'the same trials' if same else 'OTHER TRIALS'}")


def outcomes(folder: Path) -> set[tuple[str, ...]]:
    """Finished trials, without what differs from run to run."""
    with (folder / "trials.csv").open(encoding="utf-8") as file:
        return {tuple(v for k, v in row.items() if k not in ("trial", "seconds")) for row in csv.DictReader(file)}


def replay(work: Path, runs: int) -> None:
    """TPE with pruning on the curves that the grid recorded, with many seeds of the sampler."""
    results = read_results(work / "grid")
    curves = {tuple(t.configuration.values()): dict(results.curve(t)) for t in results.trials}
    best = results.configurations[0].mean
    cost = sum(results.rows_trained(trial) for trial in results.trials)
    space, *_ = read_space(HERE / "space.toml", Problems())
    base = replace(TrainingConfig(encoder="recorded"), max_steps=32, eval_steps=8, views="pairs")
    rows = []
    for seed in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            rows.append({"seed": seed, **one_replay(Path(folder), space, base, seed, curves, best, cost)})
        print(rows[-1])
    write(HERE / "replay.csv", rows)


def one_replay(folder, space, base, seed, curves, best, cost):
    evaluator = SimpleNamespace(primary_metric=f"{DEV}_spearman_cosine", greater_is_better=True, tasks=())
    data = SimpleNamespace(fingerprint="", source="recorded", dataset=())
    plan = SweepPlan(
        space, base, data, evaluator, folder, sampler="tpe", trials=30, pruner="median", seeds=(1,), sampler_seed=seed
    )
    store, spent, found, reached = SweepStore(plan), 0, 0.0, {}
    while claim := store.next():
        curve = curves[tuple(claim.trial.user_attrs["point"].values())]
        steps = [step for step in curve if step]
        outcome = None
        for step in steps:
            claim.trial.report(curve[step], step)
            if step < steps[-1] and claim.trial.should_prune():
                outcome = Outcome("pruned", curve[step], {}, step, step)
                break
        outcome = outcome or Outcome("complete", max(curve[step] for step in steps), {}, steps[-1], steps[-1])
        store.tell(claim, outcome)
        spent += outcome.steps * claim.config.batch_size
        if outcome.status == "complete":
            found = max(found, outcome.score)
        for within in (0.0, 0.1, 0.2):
            if found >= best - within:
                reached.setdefault(f"share_within_{within}", round(spent / cost, 4))
    return {"best": round(found, 4), "share": round(spent / cost, 4), **reached}


def report(work: Path) -> None:
    for name in SWEEPS:
        if not (work / name / "trials.csv").exists():
            continue
        results = read_results(work / name)
        write_trials(results.trials, work / name / "trials.csv")
        write_report(work / name)
        target = HERE / name
        target.mkdir(exist_ok=True)
        shutil.copy(work / name / "trials.csv", target)
        for figure in sorted((work / name).glob("*.png")):
            shutil.copy(figure, target)
    if (work / "tpe" / "trials.csv").exists():
        compare(work)


def compare(work: Path) -> None:
    """The best score so far by pairs trained on, of the grid and of TPE."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    grid = read_results(work / "grid")
    total = sum(grid.rows_trained(trial) for trial in grid.trials)
    for name, colour in (("grid", "steelblue"), ("tpe", "tab:orange")):
        results, spent, best, xs, ys = read_results(work / name), 0, None, [], []
        for trial in results.trials:
            spent += results.rows_trained(trial)
            if trial.score is not None:
                best = trial.score if best is None else max(best, trial.score)
                axes.plot(100 * spent / total, trial.score, ".", color=colour, alpha=0.4)
            if best is not None:
                xs.append(100 * spent / total)
                ys.append(best)
        axes.step(
            xs, ys, where="post", color=colour, linewidth=2, label={"grid": "grid", "tpe": "TPE, median pruner"}[name]
        )
    axes.axhline(grid.configurations[0].mean, color="0.4", linewidth=0.8, linestyle=":")
    axes.axvline(40, color="0.4", linewidth=0.8, linestyle=":")
    axes.set(xlabel="pairs trained on, % of the grid's", ylabel=f"best {DEV} so far")
    axes.legend(frameon=False, loc="center right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "grid-and-tpe.png", dpi=150)


def write(path: Path, rows: list[dict]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("encoder", "sweep", "kills", "replay", "report"))
    parser.add_argument("arguments", nargs="+")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=20)
    parser.add_argument("--runs", type=int, default=50)
    given = parser.parse_args()
    if given.what == "sweep":
        name, data, work = given.arguments
        return sweep(name, Path(data), Path(work), given.processes)
    paths = [Path(argument) for argument in given.arguments]
    if given.what == "kills":
        return kills(*paths, given.seed, given.most)
    if given.what == "replay":
        return replay(*paths, given.runs)
    return {"encoder": encoder, "report": report}[given.what](*paths)


if __name__ == "__main__":
    main()
