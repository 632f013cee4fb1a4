"""`geodistill compare-layers`, and the layer map as table, figure and sentence."""

import shutil

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from safetensors.torch import load_file, save_file
from support.command_line import run, run_in_fresh_interpreter
from support.tiny_models import tiny_bert, tiny_opt
from support.tiny_tokenizers import word_tokenizer

from geodistill.analysis.figures.layer_map import (
    MEASURE_LABELS,
    SIMILARITIES,
    closest_layers,
    describe_map,
    layer_map,
)
from geodistill.cli.compare_layers import match_table, read_texts
from geodistill.errors import InputError
from geodistill.layers.moments import FORMULAS, is_similarity


def rows(values, measure="procrustes", p_search=0.01, null=1.1):
    """A layer map of these values (layers of a, layers of b)."""
    values = np.array(values, float)
    a, b = np.indices(values.shape)
    return pd.DataFrame(
        {
            "layer_a": a.ravel(),
            "layer_b": b.ravel(),
            "measure": measure,
            "value": values.ravel(),
            "null": null,
            "beyond_chance": (null - values.ravel()) / (null - (measure in SIMILARITIES)),
            "p_search": np.broadcast_to(p_search, values.shape).ravel(),
        }
    )


WORDS = [f"w{i}" for i in range(2, 100)]
TEXTS = [" ".join(WORDS[i : i + 3 + i % 6]) for i in range(0, 80, 4)]
DISTANCES = [[0.1, 0.5, 0.9], [0.8, 0.6, 0.2]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny BERT and a tiny OPT, saved with their tokenizer, and a file of texts."""
    folder = tmp_path_factory.mktemp("models")
    for name, model in (("bert", tiny_bert(1)), ("opt", tiny_opt(2, layers=1))):
        model.save_pretrained(folder / name)
        word_tokenizer(WORDS).save_pretrained(folder / name)
    (folder / "texts.txt").write_text("\n".join(TEXTS) + "\n\n", encoding="utf-8")
    return folder


def compare_layers(folder, a="bert", b="bert", *words, given="texts.txt"):
    names = [name if name == "nowhere/at-all" else folder / name for name in (a, b)]
    return run("compare-layers", *names, "--texts", folder / given, *words)


# ---- the command ----


def test_a_model_against_itself_prints_its_own_layers(folders):
    lines = compare_layers(folders).splitlines()
    found = [line.split() for line in lines if line.strip()[:1] in "012" and line.strip()]
    assert [line[:3] + line[4:] for line in found[:3]] == [
        [str(layer), str(layer), "0.000", "1.00", "1.00", "0.005", str(layer)] for layer in range(3)
    ]
    terms = [line.strip() for line in lines if line.strip().startswith("FeatureTerm")]
    assert terms == [
        f"FeatureTerm(teacher_layer={k}, student_layer={k}, loss=ProcrustesLoss())," for k in (1, 2)
    ]
    assert "mean beyond chance 1.00, p 0.005" in " ".join(lines)
    assert "20 texts" in " ".join(lines)
    assert "one per token" in " ".join(lines)


def test_what_is_written_is_what_was_found(folders, tmp_path):
    out = tmp_path / "new" / "folder"
    printed = compare_layers(
        folders, "bert", "opt", "--pooling", "text", "--measure", "cka", "--out", out
    )
    table = pd.read_csv(out / "layers.csv")
    assert len(table) == 3 * 2 * len(FORMULAS)
    assert set(table["n"]) == {20}
    best = closest_layers(table, "cka")
    assert len(best) == 3
    assert all(f"{value:.3f}" in printed for value in best["value"])
    assert (out / "layers.png").stat().st_size > 5000
    drawn = (out / "layers.svg").read_text()
    assert f"0–{best['layer_b'][0]} ({best['value'][0]:.2f})" in drawn  # its description
    assert "one per text" in " ".join(printed.split())
    assert "layer of bert (0: embeddings)" in drawn
    assert "layer of opt (0: embeddings)" in drawn


def test_absent_folders_and_devices_are_told_before_torch_is_loaded(folders):
    texts = str(folders / "texts.txt")
    done = run_in_fresh_interpreter("compare-layers", "./none", "./none", "--texts", texts)
    assert done.stderr.startswith("error: model './none': expected a folder, a hub name")
    assert done.stdout.split() == ["loaded:", "pandas", "matplotlib"]
    with pytest.raises(InputError, match="--device 'abacus'"):
        compare_layers(folders, "bert", "bert", "--device", "abacus")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"given": "none.txt"}, r"--texts .*none.txt: No such file .*one text per line"),
        ({"a": "nowhere/at-all"}, r"model 'nowhere/at-all': expected a folder, a hub name, minilm"),
        ({"b": "texts.txt"}, r"model '.*texts.txt': expected a folder"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(folders, words, message):
    with pytest.raises(InputError, match=message) as error:
        compare_layers(folders, **words)
    assert "\n" not in str(error.value)


def changed(folder, name, rename=lambda key: key, factor=1.0):
    """A copy of the BERT whose weights have other names, or are multiplied."""
    copied = folder / name
    shutil.copytree(folder / "bert", copied, dirs_exist_ok=True)
    weights = load_file(folder / "bert/model.safetensors")
    renamed = {rename(key): factor * value for key, value in weights.items()}
    save_file(renamed, copied / "model.safetensors", metadata={"format": "pt"})
    return copied


def test_models_that_are_not_what_they_seem_are_refused(folders):
    changed(folders, "compiled", lambda key: f"_orig_mod.{key}")
    with pytest.raises(InputError, match=r"37 .* missing and 41 \(_orig_mod.bert.* in .*compiled"):
        compare_layers(folders, "bert", "compiled")
    changed(folders, "nan", factor=float("nan"))
    with pytest.raises(InputError, match=r"model_b, layer 0: .* NaN or infinite hidden states"):
        compare_layers(folders, "bert", "nan")
    for path in changed(folders, "bare").glob("tokenizer*"):
        path.unlink()
    with pytest.raises(InputError, match=r"(\d+) of the \1 tokens .* unknown to tokenizer_b"):
        compare_layers(folders, "bert", "bare")
    wide = changed(folders, "wide")
    tiny_bert(1, width=48).config.save_pretrained(wide)
    with pytest.raises(InputError, match=r"model .*wide': expected a folder") as error:
        compare_layers(folders, "bert", "wide")
    assert "\n" not in str(error.value)


def test_outlier_tokens_are_reported_and_left_out_on_request(folders):
    model = tiny_opt(2, layers=1)
    count = sum(text.split().count("w10") for text in TEXTS)
    model.get_input_embeddings().weight.data[
        word_tokenizer(WORDS).convert_tokens_to_ids("w10")
    ] *= 300
    model.save_pretrained(folders / "outliers")
    word_tokenizer(WORDS).save_pretrained(folders / "outliers")
    printed = compare_layers(folders, "bert", "outliers")
    assert f"warning: model_b: in layers 0 at most {count} of" in printed
    printed = " ".join(compare_layers(folders, "bert", "outliers", "--drop-outliers").split())
    assert "warning" not in printed
    assert f"outlier tokens left out: {count} of A, {count} of B" in printed


def test_wrong_options_are_refused(folders):
    with pytest.raises(InputError, match=r"--measure 'x': expected one of procrustes, gram, cka"):
        compare_layers(folders, "bert", "bert", "--measure", "x")
    with pytest.raises(InputError, match=r"pooling is 'word': expected token or text"):
        compare_layers(folders, "bert", "bert", "--pooling", "word")


def test_texts_are_the_lines_that_hold_something(tmp_path):
    (tmp_path / "t.txt").write_bytes("é a\n\n  b \r\n".encode("utf-8-sig"))
    assert read_texts(tmp_path / "t.txt") == ["é a", "b"]
    (tmp_path / "t.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="it is not UTF-8"):
        read_texts(tmp_path / "t.txt")


# ---- table, figure, sentence ----


def test_every_measure_has_a_label_and_a_direction():
    assert list(MEASURE_LABELS) == list(FORMULAS)
    assert {name for name in FORMULAS if is_similarity(name)} == set(SIMILARITIES)


def test_a_layer_that_is_near_everything_is_not_the_closest():
    """Layer 0 of b is near in any order of the rows, and by value the closest to all."""
    chance = np.array([0.3, 1.1, 1.1, 0.3, 1.1, 1.1])
    table = rows([[0.28, 0.5, 0.9], [0.29, 0.6, 0.35]], p_search=0.01, null=chance)
    assert closest_layers(table, "procrustes", by="value")["layer_b"].tolist() == [0, 0]
    assert closest_layers(table, "procrustes")["layer_b"].tolist() == [1, 2]
    printed = match_table(table.assign(geometry_kept=0.5), "procrustes")
    assert printed["closest of B"].tolist() == [1, 2]
    assert printed["by value"].tolist() == [0, 0]
    assert printed["beyond chance"].tolist() == ["0.55", "0.68"]
    words = describe_map(table, "procrustes")
    assert "0–1 (0.50), 1–2 (0.35); 2 of 2" in words
    assert "By value alone another is closer: 0–0 (0.28), 1–0 (0.29)." in words
    ax = layer_map(table, "procrustes")
    *_, crosses = ax.collections
    assert crosses.get_offsets().tolist() == [[0, 0], [1, 0]]
    assert "closest by value, if different" in [t.get_text() for t in ax.get_legend().texts]
    plt.close(ax.figure)


def test_closest_is_the_least_distance_and_the_largest_similarity():
    assert closest_layers(rows(DISTANCES), "procrustes")["layer_b"].tolist() == [0, 2]
    assert closest_layers(rows(DISTANCES, "cka", null=0), "cka")["layer_b"].tolist() == [2, 0]
    some = closest_layers(rows([[np.nan, 0.5], [np.nan, np.nan]]), "procrustes")
    assert some[["layer_a", "layer_b"]].to_numpy().tolist() == [[0, 1]]
    with pytest.raises(InputError, match="table has no value of measure 'gram'"):
        closest_layers(rows(DISTANCES), "gram")
    with pytest.raises(InputError, match="measure is 'x': expected one of procrustes"):
        layer_map(rows(DISTANCES), "x")


def test_the_map_marks_the_closest_and_what_may_be_chance():
    ax = layer_map(rows(DISTANCES, p_search=[[0.01], [0.4]]), "procrustes")
    np.testing.assert_array_equal(ax.images[0].get_array(), np.array(DISTANCES).T)
    sure, unsure = ax.collections
    assert sure.get_offsets().tolist() == [[0, 0]]
    assert unsure.get_offsets().tolist() == [[1, 2]]
    assert tuple(sure.get_facecolors()[0]) == to_rgba("black")
    assert len(unsure.get_facecolors()) == 0
    assert "layer of A" in ax.get_xlabel()
    assert "layer of B" in ax.get_ylabel()
    assert "Procrustes distance" in {axes.get_ylabel() for axes in ax.figure.axes}
    plt.close(ax.figure)


def test_alike_is_bright_for_distances_and_similarities():
    for measure, alike in (("procrustes", 0.0), ("cka", 1.0)):
        ax = layer_map(rows([[0.0, 1.0], [0.5, 0.5]], measure), measure)
        image = ax.images[0]
        shades = [sum(image.cmap(image.norm(value))[:3]) for value in (alike, 1 - alike)]
        assert shades[0] > shades[1]
        plt.close(ax.figure)


def test_the_sentence_names_pairs_values_and_what_stands_out():
    words = describe_map(rows(DISTANCES, p_search=[[0.01], [0.4]]), "procrustes")
    assert "Procrustes distance" in words
    assert "0–0 (0.10), 1–2 (0.20); 1 of 2 are significant" in words
