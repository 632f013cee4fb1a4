"""The grid: every run once, whatever stops it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from support.tiny_study import CONFIG, FOLDER, lines, of_other_data, run_all, run_of, tiny_study

from geodistill import paths
from geodistill.errors import InputError
from geodistill.experiments import provenance, run_store, runner
from geodistill.experiments.classification.settings import ClassificationSettings, TeacherSettings
from geodistill.experiments.run_store import finished_runs, merge_runs, write_run
from geodistill.experiments.runner import describe_plan, pending_jobs, run_study
from geodistill.experiments.settings import run_config, run_id

pytestmark = pytest.mark.usefixtures("results")
TESTS = str(Path(__file__).parents[1])


def test_every_run_is_made_once_then_none(log, results):
    study = tiny_study(log, runs=3)
    assert run_all(study) == [f"toy kd seed {i}" for i in range(3)]
    assert lines(log, "prepare") == [3]
    assert run_all(study) == []
    assert lines(log, "begin") == [0, 1, 2]
    assert lines(log, "prepare") == [3]  # nothing pending, nothing prepared
    rows = pd.read_parquet(results / "rows.parquet")
    assert Counter(rows["seed"]) == {0: 2, 1: 2, 2: 2}
    assert (rows["commit"] != "").all()


def test_only_what_is_missing_is_made(log, results):
    write_run(results, run_of(1))
    study = tiny_study(log, runs=3)
    assert [job.label for job in pending_jobs(study)] == ["toy kd seed 0", "toy kd seed 2"]
    run_all(study)
    assert lines(log, "begin") == [0, 2]
    assert set(pd.read_parquet(results / "rows.parquet")["seed"]) == {0, 1, 2}


def test_the_plan_counts_runs_and_guesses_minutes_then_measures_them(log, results):
    study = tiny_study(log, runs=4)  # a guess of 2 minutes each
    assert (
        describe_plan(study, 2)
        == f"{FOLDER}: 4 runs, 0 finished, 4 to do, about 4 minutes with 2 workers, 0.1 MB in all"
    )
    write_run(results, replace(run_of(0), wall_seconds=600.0))
    assert (
        describe_plan(study, 2)
        == f"{FOLDER}: 4 runs, 1 finished, 3 to do, about 15 minutes with 2 workers, 0.1 MB in all"
    )
    assert lines(log, "begin") == []


def breaks_at_two(log, seconds, seed):
    if seed == 2:
        raise FloatingPointError("the loss task is nan at step 7")
    return run_of(seed)


def test_a_run_that_breaks_is_named_and_the_others_are_kept(log, results):
    study = tiny_study(log, runs=4, work=breaks_at_two)
    with pytest.raises(FloatingPointError, match="toy kd seed 2: the loss task is nan at step 7"):
        run_all(study)
    assert set(pd.read_parquet(results / "rows.parquet")["seed"]) == {0, 1}
    assert len(pending_jobs(study)) == 2


@pytest.mark.parametrize("collected", [True, False])
def test_a_grid_goes_on_with_no_other_data(log, results, collected):
    write_run(results, run_of(0))
    if collected:
        merge_runs(results)
    with pytest.raises(
        InputError, match=r"first holds runs of toy on other data: .* is d, of toy-"
    ):
        run_all(tiny_study(log, runs=2, work=of_other_data))
    assert set(finished_runs(results)) == {run_of(0).run_id}


def of_another_setting(log, seconds, seed):
    return run_of(seed, config={**CONFIG, "width": 64})


def test_a_job_must_make_the_run_that_it_names(log, results):
    with pytest.raises(InputError, match=r"run toy-kd-s0-\w+ came out of the job of toy-kd-s0-"):
        run_all(tiny_study(log, runs=1, work=of_another_setting))
    assert finished_runs(results) == {}


# ---- a changed checkout ----


@pytest.fixture
def project(tmp_path, monkeypatch, results):
    """`results` is now in the project's own folder of results."""
    (tmp_path / "data").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "data" / "results").symlink_to(tmp_path / "results")
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path / "data")
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path / "data" / "results"))


@pytest.fixture
def changed(monkeypatch):
    """A function that says whether the checkout is changed."""

    def change(answer):
        monkeypatch.setattr(runner, "is_changed", lambda: answer)
        monkeypatch.setattr(run_store, "is_changed", lambda: answer)

    return change


def test_a_changed_checkout_makes_no_run_of_the_project(project, changed, log, results):
    changed(True)
    with pytest.raises(InputError, match=r"not committed .* another folder .* GEODISTILL_RESULTS$"):
        run_all(tiny_study(log))
    assert not log.exists()
    assert not (results / "runs").exists()


def test_what_is_complete_is_not_refused(project, changed, log, results):
    clean = {**provenance.provenance(), "dirty": False}
    for seed in range(2):
        write_run(results, run_of(seed, provenance=clean))
    changed(True)
    assert run_all(tiny_study(log, runs=2)) == []


def test_a_worker_with_changed_code_stores_nothing_in_the_project(project, results):
    made_by = {**provenance.provenance(), "dirty": True}
    with pytest.raises(InputError, match="has changes that are not committed"):
        write_run(results, run_of(0, provenance=made_by))
    assert not results.exists()


def test_a_run_of_changed_code_is_made_again_by_committed_code(changed, log, results):
    changed(True)
    for seed in range(3):
        made_by = {**provenance.provenance(), "dirty": seed > 0}
        write_run(results, run_of(seed, provenance=made_by))
    study = tiny_study(log, runs=3)
    assert pending_jobs(study) == []  # a trial goes on with what it has
    merge_runs(results)
    assert pending_jobs(study) == []
    changed(False)
    assert pending_jobs(study) == study.jobs[1:]
    for path in (results / "runs").iterdir():
        path.unlink()
    assert pending_jobs(study) == study.jobs[1:]
    clean = {**provenance.provenance(), "dirty": False}
    write_run(results, run_of(1, provenance=clean))
    assert pending_jobs(study) == study.jobs[2:]
    merge_runs(results)
    assert pending_jobs(study) == study.jobs[2:]


# ---- kills ----


def start(log, results_folder, runs=4, seconds=0.4):
    environment = {
        **os.environ, "PYTHONPATH": TESTS, "GEODISTILL_RESULTS": str(results_folder),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "support.tiny_study", str(log), str(runs), str(seconds)],
        env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def processes_of(session):
    """Ids of the living processes of a session, the grid's workers among them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, owner = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # it has just ended
        if int(owner) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


POINTS = {
    "while the workers start": lambda log, runs: lines(log, "prepare"),
    "before the first is stored": lambda log, runs: lines(log, "begin"),
    "in the middle": lambda log, runs: list(runs.glob("*.rows.parquet")),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_grid_goes_on_and_leaves_no_worker(tmp_path, log, results, point):
    reached = POINTS[point]
    runner = start(log, tmp_path / "results")
    wait_for(lambda: reached(log, results / "runs"))
    runner.send_signal(signal.SIGKILL)
    runner.communicate()
    wait_for(lambda: not processes_of(runner.pid))
    kept = {int(name.split("-s")[1].split("-")[0]) for name in finished_runs(results)}
    assert len(kept) < 4
    assert (point == "in the middle") == bool(kept)
    assert not (results / "rows.parquet").exists()

    begun = Counter(lines(log, "begin"))
    run_all(tiny_study(log))
    again = Counter(lines(log, "begin")) - begun
    assert set(again) == {0, 1, 2, 3} - kept
    assert set(again.values()) == {1}
    rows, items = (pd.read_parquet(results / f"{kind}.parquet") for kind in ("rows", "items"))
    assert Counter(rows["seed"]) == dict.fromkeys(range(4), 2)
    assert Counter(items["seed"]) == dict.fromkeys(range(4), 4)


def test_killed_after_the_last_run_only_the_tables_are_missing(tmp_path, log, results):
    for seed in range(4):  # as a grid leaves it that is killed before it collects
        write_run(results, run_of(seed))
    assert run_all(tiny_study(log)) == []
    assert lines(log, "begin") == lines(log, "prepare") == []
    assert set(pd.read_parquet(results / "rows.parquet")["seed"]) == {0, 1, 2, 3}


CLI = """
import sys, types
from support.tiny_study import tiny_study
from geodistill.cli.main import main
log = sys.argv.pop()
registry = types.ModuleType("registry")
registry.find_study = lambda name, section: tiny_study(log, 6, 0.4)
sys.modules["geodistill.experiments.registry"] = registry
main()
"""


def heed_ctrl_c():
    """A shell starts background jobs deaf to Ctrl-C, and what they start inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_says_that_it_goes_on_and_keeps_what_is_finished(tmp_path, log, results):
    runner = subprocess.Popen(
        [sys.executable, "-c", CLI, "experiments", "tiny", str(log)],
        env={**os.environ, "PYTHONPATH": TESTS},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    wait_for(lambda: list((results / "runs").glob("*.rows.parquet")))
    os.killpg(runner.pid, signal.SIGINT)  # as a terminal does
    out, err = runner.communicate(timeout=600)
    assert runner.returncode == 130
    assert err == "stopped; finished work is kept, the same command resumes there\n"
    assert "6 runs, 0 finished, 6 to do" in out
    done = len(finished_runs(results))
    assert 1 <= done < 6
    rows = pd.read_parquet(results / "rows.parquet")
    assert rows["run_id"].nunique() == done


def test_a_worker_that_is_killed_is_told_in_one_line_and_finished_runs_are_kept(log, results):
    study = tiny_study(log, runs=3, work=killed_at_one)
    with pytest.raises(InputError, match=r"^a worker process died .*; finished runs are kept, the"):
        run_all(study)
    assert set(finished_runs(results)) == {study.jobs[0].run_id}


def killed_at_one(log, seconds, seed):
    if seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return run_of(seed)


def test_a_folder_is_made_by_one_process_at_a_time(tmp_path, log, results):
    first = start(log, tmp_path / "results")
    wait_for(lambda: lines(log, "begin"))
    with pytest.raises(InputError, match=rf"tiny/first is in use by process {first.pid}; wait for"):
        run_all(tiny_study(log))
    os.killpg(first.pid, signal.SIGKILL)  # and its lock goes with it
    first.communicate()
    run_all(tiny_study(log))
    assert len(finished_runs(results)) == 4
    assert not (results / ".lock").exists()


@pytest.mark.parametrize("obstacle", ["a file", "a link"])
def test_a_results_folder_that_cannot_be_one_is_refused_before_any_work(
    tmp_path, log, monkeypatch, obstacle
):
    target = tmp_path / "elsewhere"
    if obstacle == "a file":
        target.write_text("")
    else:
        target.symlink_to(tmp_path / "nowhere")
    monkeypatch.setenv("GEODISTILL_RESULTS", str(target))
    with pytest.raises(InputError, match=f"GEODISTILL_RESULTS is '.*elsewhere', {obstacle}.*; exp"):
        run_all(tiny_study(log))
    assert not log.exists()


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path, log, results):
    results.parent.parent.mkdir()
    results.parent.write_text("")  # a file where the study's folder must be
    with pytest.raises(InputError, match=r"can't be written \(.*\); expected a folder of yours"):
        run_all(tiny_study(log))
    assert not log.exists()


def test_a_reader_that_stops_early_is_not_lectured(log, results, recwarn):
    runs = run_study(tiny_study(log, 6, 0.2), workers=2, progress=lambda line: None)
    next(runs)
    runs.close()
    assert not [str(w.message) for w in recwarn if "cancelled" in str(w.message)]
    assert 1 <= len(finished_runs(results)) < 6


# ---- the names of runs ----


def test_a_run_id_depends_on_every_setting():
    """Of the student and of its teacher: no two different runs may share a name."""

    def name(settings, method="kd"):
        return run_id("product", method, 0, run_config(settings, method))

    settings = ClassificationSettings("product")
    names = [name(settings), name(settings, "ce")]
    for field, value in vars(settings).items():
        if field != "teacher":
            names.append(name(replace(settings, **{field: other(value)})))
    for field, value in vars(TeacherSettings()).items():
        teacher = replace(settings.teacher, **{field: other(value)})
        names.append(name(replace(settings, teacher=teacher)))
    assert len(set(names)) == len(names) == 1 + len(vars(settings)) + len(vars(settings.teacher))


def other(value):
    return f"{value}x" if isinstance(value, str) else value + 1


# ---- a cluster ----

CLUSTER = {
    "threads_per_worker": 1, "processes": True, "dashboard_address": None, "silence_logs": 50,
}  # fmt: skip


def stuck_once(log, seconds, seed):
    """Run 1 stops its worker's process the first time, as a machine that goes away does."""
    begun = lines(log, "begin")
    with Path(log).open("a") as file:
        file.write(f"begin {seed}\n")
    if seed == 1 and 1 not in begun:
        os.kill(os.getpid(), signal.SIGKILL)
    return run_of(seed)


@pytest.mark.smoke
def test_a_cluster_makes_every_run_once_though_a_worker_dies(log, results, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setenv("PYTHONPATH", TESTS)
    with LocalCluster(n_workers=2, **CLUSTER) as cluster:
        study = tiny_study(log, runs=4, work=stuck_once)
        address = cluster.scheduler_address
        made = list(run_study(study, workers=1, progress=lambda line: None, scheduler=address))
        assert sorted(job.label for job in made) == [f"toy kd seed {i}" for i in range(4)]
        assert lines(log, "begin").count(1) == 2
        assert not list(run_study(study, workers=1, progress=print, scheduler=address))
    rows = pd.read_parquet(results / "rows.parquet")
    assert Counter(rows["seed"]) == dict.fromkeys(range(4), 2)


def ends_its_workers(log, seconds, seed):
    with Path(log).open("a") as file:
        file.write(f"begin {seed}\n")
    if seed == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return run_of(seed)


@pytest.fixture
def cluster(monkeypatch):
    """One Dask worker, which is started again when it dies; no job may end two."""
    import dask
    from distributed import LocalCluster

    monkeypatch.setenv("PYTHONPATH", TESTS)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, **CLUSTER) as made,
    ):
        yield made


def on_cluster(study, cluster):
    address = cluster.scheduler_address
    return [job.label for job in run_study(study, workers=1, progress=print, scheduler=address)]


@pytest.mark.smoke
def test_a_job_that_kills_every_worker_is_named_and_the_others_are_stored(log, results, cluster):
    """Run 1 waits on the worker that run 0 kills: suspected as well, it is made all the same."""
    study = tiny_study(log, runs=3, work=ends_its_workers)
    told = r"^toy kd seed 0: every Dask worker that was given it died .*; the other runs are stored"
    with pytest.raises(InputError, match=told) as error:
        on_cluster(study, cluster)
    assert "\n" not in str(error.value)
    assert set(pd.read_parquet(results / "rows.parquet")["seed"]) == {1, 2}
    assert sorted(lines(log, "begin")) == [0, 0, 1, 2]
    assert [job.label for job in pending_jobs(study)] == ["toy kd seed 0"]


@pytest.mark.smoke
def test_a_run_that_breaks_on_a_cluster_is_named(log, results, cluster):
    study = tiny_study(log, runs=4, work=breaks_at_two)
    with pytest.raises(FloatingPointError, match=r"^toy kd seed 2: the loss"):
        on_cluster(study, cluster)


def call_it_another_machine():
    """In the worker: as on a machine with a GPU."""
    provenance.device_name = lambda: "cuda: the worker's"
    provenance.provenance.cache_clear()


@pytest.mark.smoke
def test_rows_tell_the_machine_that_made_the_run(log, results, cluster):
    from distributed import Client

    with Client(cluster.scheduler_address) as client:
        client.run(call_it_another_machine)
    on_cluster(tiny_study(log, runs=1), cluster)
    rows = pd.read_parquet(results / "rows.parquet")
    assert set(rows["device"]) == {"cuda: the worker's"}
    assert provenance.provenance()["device"] != "cuda: the worker's"


@pytest.mark.smoke
def test_a_stored_run_is_forgotten_and_a_scheduler_that_goes_away_is_told(log, cluster):
    """What the scheduler remembers is made again when the worker that has it dies."""
    made = run_study(
        tiny_study(log, 4, 1.0), workers=1, progress=print, scheduler=cluster.scheduler_address
    )
    first = next(made)
    wait_for(lambda: first.run_id not in cluster.scheduler.tasks, seconds=90)
    cluster.close()
    with pytest.raises(InputError, match="the Dask scheduler went away; finished runs are kept"):
        list(made)


NO_SCHEDULERS = ["tcp://127.0.0.1:9", "nonsense", "foo:bar", "http://127.0.0.1:9", "tls://a:9"]


@pytest.mark.parametrize("address", NO_SCHEDULERS)
def test_no_scheduler_at_an_address_is_told_before_anything_is_prepared(log, monkeypatch, address):
    from geodistill.experiments import cluster

    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    told = f"scheduler is {address!r}; no Dask scheduler answers there, expected an address such as"
    with pytest.raises(InputError, match=re.escape(told)):
        list(run_study(tiny_study(log), workers=1, progress=print, scheduler=address))
    assert not log.exists()
