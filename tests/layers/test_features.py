"""Layer maps of arrays, files of features and image models, against measures of the same arrays."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.random_rows import normal
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTImageProcessorPil, ViTModel
from typer.testing import CliRunner

from geodistill.cli import main
from geodistill.errors import InputError
from geodistill.layers import compare_features
from geodistill.layers.features import image_features, load_features, load_images


@pytest.fixture
def pair():
    """Three layers of a, and two of b that are rotations of the first and the last."""
    a = {f"block.{k}": normal(80, 8, seed=k) for k in (2, 9, 10)}
    turn = torch.linalg.qr(normal(8, 8, seed=5))[0]
    return a, {"early": 3 * a["block.2"] @ turn + 1, "late": a["block.10"] @ turn}


def procrustes(x, y):
    """By the singular values of the cross product, in numpy."""
    x, y = (np.asarray(z) - np.asarray(z).mean(0) for z in (x, y))
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    return np.sqrt(max(0.0, 2 - 2 * np.linalg.svd(x.T @ y, compute_uv=False).sum()))


def test_values_are_those_of_the_arrays_and_names_are_kept_in_order(pair):
    result = compare_features(*pair, permutations=49)
    values = result.table.query("measure == 'procrustes'").set_index(["layer_a", "layer_b"])
    for (name_a, name_b), value in values["value"].items():
        expected = procrustes(pair[0][name_a], pair[1][name_b])
        assert value == pytest.approx(expected, abs=1e-6)
    assert set(result.table["n"]) == {80}
    assert result.table["layer_a"].unique().tolist() == ["block.2", "block.9", "block.10"]
    mapping = result.mapping.query("measure == 'procrustes'")
    pairs = mapping[["layer_a", "layer_b"]].values.tolist()
    assert pairs == [["block.2", "early"], ["block.10", "late"]]
    assert mapping["p_map"].iloc[0] == pytest.approx(1 / 50)


def test_too_few_permutations_or_rows_are_refused(pair):
    for settings in ({"permutations": 0}, {"max_permuted_rows": 2}):
        with pytest.raises(InputError, match=r"permutations is .* expected at least 1 and 4"):
            compare_features(*pair, **settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {}, "features_b is empty"),
        (lambda a: [a], "features_b is a list: expected a dict of one array"),
        (lambda a: a, "features_b is a Tensor: expected a dict"),
        (lambda a: {"x": np.array([["a"]] * 80)}, "features_b, x: a ndarray that is no array of"),
        (lambda a: {"x": "abc"}, "features_b, x: a str that is no array of numbers"),
        (lambda a: {"x": a + 1j}, "features_b, x: dtype torch.complex.*; expected real numbers"),
        (lambda a: {"x": a[:, :0]}, r"features_b, x: shape \(80, 0\); expected"),
        (lambda a: {"x": a[:40]}, "features_a has 80 rows and features_b 40: expected the same"),
        (lambda a: {"x": a.reshape(80, 4, 2)}, r"features_b, x: shape \(80, 4, 2\); expected"),
        (lambda a: {"x": a, "y": a[:9]}, "features_b, y: 9 rows, other layers have 80"),
        (lambda a: {"x": a.masked_fill(a > 2, torch.nan)}, "features_b, x: .* NaN or infinite"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(pair, change, message):
    with pytest.raises(InputError, match=message):
        compare_features(pair[0], change(pair[0]["block.2"]))


def run(*words):
    result = CliRunner().invoke(main.app, ["compare-layers", *map(str, words)])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_files_of_features_from_the_command(pair, tmp_path):
    a, b = tmp_path / "teacher.safetensors", tmp_path / "student.npy"
    save_file({name: rows.half() for name, rows in pair[0].items()}, a)
    np.save(b, pair[1]["late"].numpy())
    assert list(load_features(a)) == ["block.2", "block.9", "block.10"]  # by number
    text = run(a, b, "--out", tmp_path / "out")
    assert "80 rows." in text
    term = "FeatureTerm(teacher_layer='block.10', student_layer='student', loss=ProcrustesLoss())"
    assert term in text
    drawn = (tmp_path / "out" / "layers.svg").read_text()
    assert "layer of teacher.safetensors" in drawn
    assert "block.10" in drawn
    assert "embeddings" not in drawn
    for words, message in (
        ([a, tmp_path], "is a file of features and the other is none"),
        ([a, tmp_path / "absent.npy"], "no file or folder at"),
        ([a, b, "--texts", b], "neither for two .npy or .safetensors"),
        ([tmp_path, tmp_path], "expected --texts FILE for two language models"),
        ([a, b, "--pooling", "text"], "are for --texts; got a map by row"),
        ([a, b, "--dtype", "int8"], "--dtype 'int8': expected one of float32"),
    ):
        with pytest.raises(InputError, match=message):
            run(*words)
    for kind in (">f4", "f2", "g", "i2"):
        np.save(b, np.arange(12).reshape(4, 3).astype(kind))
        (rows,) = load_features(b).values()
        assert rows.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    np.save(b, np.array([["x", "y"]] * 4))
    with pytest.raises(InputError, match=r"student.npy holds an array of <U1; expected numbers"):
        load_features(b)
    (tmp_path / "bad.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match=r"bad.npy cannot be read"):
        run(a, tmp_path / "bad.npy")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"objects.npy cannot be read"):
        run(a, tmp_path / "objects.npy")


@pytest.fixture(scope="module")
def vision(tmp_path_factory):
    """A tiny ViT and a tiny ResNet with their processors, images in a folder and in an array."""
    folder = tmp_path_factory.mktemp("vision")
    torch.manual_seed(0)
    vit = ViTConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        image_size=16, patch_size=8,
    )  # fmt: skip
    resnet = ResNetConfig(embedding_size=4, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    for name, model in (("vit", ViTModel(vit)), ("resnet", ResNetModel(resnet))):
        model.save_pretrained(folder / name)
        ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder / name)
    pixels = np.random.default_rng(0).integers(0, 255, (24, 16, 16, 3), dtype=np.uint8)
    np.save(folder / "images.npy", pixels)
    (folder / "images").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / "images" / f"{number:02d}.png")
    return folder


def test_image_features_are_the_mean_hidden_states(vision):
    processor = ViTImageProcessorPil.from_pretrained(vision / "vit")
    images = load_images(vision / "images")
    pixels = processor(images=[Image.open(p) for p in images], return_tensors="pt")["pixel_values"]
    for kind, folder, axes in ((ViTModel, "vit", (1,)), (ResNetModel, "resnet", (2, 3))):
        model = kind.from_pretrained(vision / folder).eval()
        with torch.no_grad():
            hidden = model(pixel_values=pixels, output_hidden_states=True).hidden_states
        features = image_features(model, processor, images, batch_size=7, progress=False)
        assert list(features) == list(range(len(hidden)))
        for got, state in zip(features.values(), hidden, strict=True):
            torch.testing.assert_close(got, state.mean(axes))


def test_image_models_from_the_command(vision, tmp_path):
    options = ["--batch-size", 8, "--out", tmp_path]
    text = run(vision / "vit", vision / "resnet", "--images", vision / "images", *options)
    assert "24 images." in text
    assert "FeatureTerm(teacher_layer=1, student_layer=1, loss=ProcrustesLoss())" in text
    assert "layer of vit (0: embeddings)" in (tmp_path / "layers.svg").read_text()
    array = run(vision / "vit", vision / "resnet", "--images", vision / "images.npy", *options)
    assert array == text
    half = run(vision / "vit", vision / "vit", "--images", vision / "images", "--dtype", "bfloat16")
    assert "24 images." in half
    np.save(tmp_path / "flat.npy", np.zeros((9, 5)))
    for path, message in (
        (tmp_path / "flat.npy", r"shape \(9, 5\); expected"),
        (vision / "vit", "0 images; expected at least 4"),
        (tmp_path / "absent", "no file or folder at"),
    ):
        with pytest.raises(InputError, match=message):
            run(vision / "vit", vision / "resnet", "--images", path)
