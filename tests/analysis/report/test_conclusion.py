"""The chapter's answer follows from its tests, in both directions."""

import numpy as np
import pandas as pd
import pytest

from geodistill.analysis.report.conclusion import conclude
from geodistill.analysis.report.format import NATS
from geodistill.analysis.stats.compare import compare_family

CONTROLS = ("kd+procrustes-shuffled", "kd+spectrum", "kd+isotropy")
MARGIN = 0.05


def items(gains, noise=0.02, seeds=6, n=60):
    rng = np.random.default_rng(0)
    level = rng.standard_normal(n)
    lines = []
    for method, gain in gains.items():
        for seed in range(seeds):
            score = gain + level + noise * (rng.standard_normal() + rng.standard_normal(n))
            frame = pd.DataFrame({"item": [f"i{i}" for i in range(n)], "score": score})
            lines.append(frame.assign(method=method, seed=seed, run_id=f"{method}-{seed}"))
    return pd.concat(lines, ignore_index=True).assign(task="t0", source=lambda f: f["item"])


def concluded(ours, controls, noise=0.02):
    gains = {"kd": 0.0, "kd+procrustes": ours, "kd+gram": 0.0}
    gains |= dict(zip(CONTROLS, controls, strict=False))
    frame = items(gains, noise)
    family = compare_family(frame, [("kd+procrustes", "kd"), ("kd+gram", "kd")])
    pairs = [("kd+procrustes", c) for c in CONTROLS[: len(controls)]]
    against = compare_family(frame, pairs, correction="bh") if pairs else ()
    return conclude(family[0], family[1:], against, MARGIN, NATS)


def test_a_gain_that_no_control_brings_is_the_geometry():
    found = concluded(0.5, (0.0, 0.0, 0.0))
    assert found.gain == "Yes: KD + Procrustes is better than KD."
    assert found.geometry.startswith("Yes, as far as these controls go")
    assert found.still_open == ()
    assert len(found.evidence) == 5
    assert found.evidence[0].startswith("KD + Procrustes vs KD: +0.")
    assert found.evidence[0].endswith("**better**.")
    assert "Holm over 2" in found.evidence[1]
    assert "Benjamini–Hochberg over 3" in found.evidence[4]


def test_what_a_control_lacks_is_bounded_by_its_interval():
    gains = {"kd": 0.0, "kd+procrustes": 0.5, CONTROLS[0]: 0.5, CONTROLS[1]: 0.1}
    frame = items(gains)
    (gain,) = compare_family(frame, [("kd+procrustes", "kd")])
    against = compare_family(frame, [("kd+procrustes", c) for c in CONTROLS[:2]], correction="bh")
    found = conclude(gain, (), against, MARGIN, NATS).geometry
    most, least = against[0].high, against[1].low
    assert 0 < most < 0.1 < 0.3 < least < 0.4  # of true differences of 0 and 0.4
    told = f"is at most {most:+.3f} (*Procrustes, rows shuffled*) and at least {least:+.3f} (*spec"
    assert told in found
    assert f"Of the gain of {gain.estimate:+.3f} nats per token" in found
    assert "at most" not in concluded(0.0, (0.0, 0.0, 0.0)).geometry


def test_a_gain_that_a_control_brings_is_not():
    found = concluded(0.5, (0.5, 0.0, 0.0))
    assert found.geometry.startswith("Not by itself: *Procrustes, rows shuffled* brings as much")
    found = concluded(0.5, (0.5, 0.0, 0.9))
    assert found.geometry.startswith(
        "Not by itself: *Procrustes, rows shuffled* and *isotropy, no teacher* bring as much"
    )
    assert "against *isotropy, no teacher*: worse" in found.geometry


@pytest.mark.parametrize(
    ("ours", "noise", "said"),
    [
        (-0.5, 0.02, "No: KD + Procrustes is worse than KD."),
        (0.0, 0.02, "No: KD + Procrustes and KD differ by less than the margin, if at all."),
        (0.1, 0.6, "These rows cannot tell KD + Procrustes from KD."),
        (0.03, 0.002, "Yes: KD + Procrustes is better than KD, but by less than the margin that"),
    ],
)
def test_each_verdict_has_its_sentence(ours, noise, said):
    found = concluded(ours, (0.0, 0.0, 0.0), noise)
    assert found.gain.startswith(said)
    if found.gain.startswith("No"):
        assert found.geometry.startswith("With no gain over KD there is none to explain (against")
    if "cannot tell" in found.gain:
        assert found.geometry.startswith("A gain over KD is not shown, so whose it would be stays")
    assert any("would be settled by" in line for line in found.still_open) == (noise == 0.6)


def test_without_controls_the_second_question_is_not_answered():
    found = concluded(0.5, ())
    assert found.geometry == "Not asked: the runs of the controls are not all made."
    text = str(found)
    assert text.index("Is there a gain?") < text.index("Is it the geometry?")
    assert text.count("\n- ") == 2  # the family of two


def test_unsure_controls_leave_it_open():
    frame = items({"kd": 0.0, "kd+procrustes": 0.5, "kd+gram": 0.0})
    family = compare_family(frame, [("kd+procrustes", "kd"), ("kd+gram", "kd")])
    noisy = items({"kd+procrustes": 0.1, "kd+isotropy": 0.0}, noise=0.6)
    against = compare_family(noisy, [("kd+procrustes", "kd+isotropy")])
    found = conclude(family[0], family[1:], against, MARGIN, NATS)
    assert found.geometry.startswith("Open: *isotropy, no teacher* may bring as much")
