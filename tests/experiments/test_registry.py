"""Studies by name; what their runs share is prepared once."""

from dataclasses import dataclass

import pytest

from geodistill.errors import InputError
from geodistill.experiments import registry
from geodistill.experiments.classification import setup
from geodistill.experiments.classification.settings import ClassificationSettings
from geodistill.experiments.registry import GRIDS, STUDIES, find_study


@pytest.fixture
def no_results(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "n_runs", "minutes"), [("classification", 54, 1.3), ("instruction", 18, 1.6)]
)
def test_a_section_is_a_study_with_a_job_for_each_planned_run(no_results, name, n_runs, minutes):
    study, planned = find_study(name, "kd-tuning"), GRIDS[name].runs("kd-tuning")
    assert study.folder == f"{name}/kd-tuning"
    assert [job.run_id for job in study.jobs] == [run.run_id for run in planned]
    assert len({job.run_id for job in study.jobs}) == n_runs
    assert study.jobs[0].label == f"{planned[0].settings.task} kd seed {planned[0].seed}"
    assert {job.minutes for job in study.jobs} == {minutes}


def test_a_teacher_is_prepared_once_however_many_settings_its_students_have(
    no_results, monkeypatch
):
    prepared = []
    monkeypatch.setattr(setup, "prepare_classification", lambda s, progress: prepared.append(s))
    study = find_study("classification", "kd-tuning")
    assert len({job.settings for job in study.jobs}) == 27
    study.prepare(study.jobs, print)
    assert [settings.task for settings in prepared] == ["news", "tweets", "stsb"]
    assert {settings.split for settings in prepared} == {"validation"}


def test_a_worker_makes_one_setup_for_all_runs_of_a_task(no_results, monkeypatch):
    made, used = [], []

    @dataclass
    class Setup:
        settings: ClassificationSettings

    def prepare(settings):
        made.append(settings)
        return Setup(settings)

    def run(setup, method, seed, folder):
        used.append((setup.settings, method, seed, folder))
        return (len(used), None)

    registry._setup.cache_clear()
    monkeypatch.setattr(setup, "prepare_classification", prepare)
    monkeypatch.setattr("geodistill.experiments.classification.run.run_classification", run)
    jobs = list(find_study("classification", "kd-tuning").jobs)[:12]
    assert [job.work() for job in jobs] == [*range(1, 13)]
    registry._setup.cache_clear()
    assert [settings.task for settings in made] == ["news", "tweets"]
    assert [settings for settings, *_ in used] == [job.settings for job in jobs]
    assert {words[1:] for words in used} == {("kd", 200, "classification/kd-tuning")}


@pytest.mark.parametrize(
    ("name", "section", "message"),
    [
        ("glue", "", f"study is 'glue'; expected one of {', '.join(STUDIES)}"),
        ("synthetic", "full", "section is 'full'; the study 'synthetic' has none"),
        (
            "classification",
            "",
            "is made by sections; add --section with one of baselines-validation",
        ),
        (
            "classification",
            "fulll",
            "section is 'fulll'; expected one of baselines-validation, kd-t",
        ),
        (
            "classification",
            "full",
            "section baselines-validation lacks 24 runs, and others rest on",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(no_results, name, section, message):
    with pytest.raises(InputError, match=message) as refused:
        find_study(name, section)
    assert "\n" not in str(refused.value)
