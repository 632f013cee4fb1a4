"""Layer maps of computed features: arrays, `.npy` and `.safetensors` files, models of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.files import first_line
from geodistill.layers.layer_map import MIN_ROWS, LayerMap, empty_moments, finish_map
from geodistill.layers.progress import progress_bar
from geodistill.layers.tokenized import in_eval

if TYPE_CHECKING:
    from numpy.typing import NDArray

Features = Mapping[Any, Any]
"""By name or index of a layer, in order of depth: features (n, d), a tensor or an array."""
ENDINGS = (".npy", ".safetensors")
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_CHUNK = 4096


def compare_features(
    features_a: Features,
    features_b: Features,
    *,
    permutations: int = 199,
    max_permuted_rows: int = 64,
    seed: int = 0,
    progress: bool = True,
    unit: str = "row",
) -> LayerMap:
    """Compare layers by features computed before; row i of every array is of the same example.

    Measures and tests are those of `compare_layers`, with one row per example; rows are taken to be
    independent.

    Args:
        features_a: by name of a layer, features (n, d); the teacher if roles matter.
        features_b: of the other model, on the same n examples.
        permutations: of rows; the smallest p is 1/(permutations + 1).
        max_permuted_rows: rows that the permutation tests use, at least 4.
        seed: of the permutations and of the rows that are permuted.
        progress: show progress bars on a terminal.
        unit: what a row is, for the column `pooling`.

    Raises:
        InputError: features that are no arrays of numbers, of another shape, with different numbers
            of rows, fewer than four, or that are not finite; too few permutations or rows.

    Example:
        >>> rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
        >>> table = compare_features({"conv": rows}, {"block": 2 * rows}).table
        >>> round(float(table.query("measure == 'cka'")["value"].item()), 6)
        1.0
    """
    if permutations < 1 or max_permuted_rows < MIN_ROWS:
        raise InputError(
            f"permutations is {permutations}, max_permuted_rows {max_permuted_rows}: expected at "
            f"least 1 and {MIN_ROWS}"
        )
    a, b = _checked("features_a", features_a), _checked("features_b", features_b)
    rows_a, rows_b = (torch.cat(list(layers.values()), 1) for layers in (a, b))
    n = len(rows_a)
    if n != len(rows_b):
        raise InputError(
            f"features_a has {n} rows and features_b {len(rows_b)}: expected the same examples in "
            "both"
        )
    if n < MIN_ROWS:
        raise InputError(f"features_a has {n} rows: expected at least {MIN_ROWS}")
    moments = empty_moments([list(a.values()), list(b.values())])
    for part in zip(torch.split(rows_a, _CHUNK), torch.split(rows_b, _CHUNK), strict=True):
        moments.update(*part)
    sampled = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:max_permuted_rows]
    sample = rows_a[sampled].double(), rows_b[sampled].double()
    names = list(a), list(b)
    return finish_map(moments, moments.layers(), sample, names, permutations, seed, progress, unit)


def _checked(name: str, features: Features) -> dict[int | str, Tensor]:
    """The layers as float32 or float64 tensors on the CPU."""
    if not isinstance(features, Mapping):
        raise InputError(
            f"{name} is a {type(features).__name__}: expected a dict of one array (rows, width) "
            "per layer, such as {'layer 1': array}"
        )
    if not features:
        raise InputError(f"{name} is empty: expected one array (rows, width) per layer")
    layers: dict[int | str, Tensor] = {}
    n = None
    for layer, values in features.items():
        try:
            rows = torch.as_tensor(values).detach().cpu()
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{name}, {layer}: a {type(values).__name__} that is no array of numbers "
                f"({first_line(error)}); expected a tensor or a NumPy array (rows, width)"
            ) from error
        if rows.is_complex():
            raise InputError(f"{name}, {layer}: dtype {rows.dtype}; expected real numbers")
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        if rows.dim() != 2 or not rows.shape[1]:
            raise InputError(
                f"{name}, {layer}: shape {tuple(rows.shape)}; expected (rows, width), one row per "
                "example: average over positions, or reshape"
            )
        n = len(rows) if n is None else n
        if len(rows) != n:
            raise InputError(f"{name}, {layer}: {len(rows)} rows, other layers have {n}")
        if bad := int((~torch.isfinite(rows)).sum()):
            raise InputError(f"{name}, {layer}: {bad} NaN or infinite of {rows.numel()} values")
        layers[layer] = rows
    return layers


def load_features(path: Path) -> dict[str, Tensor]:
    """The features in a file: one layer of a `.npy` file, one per tensor of a `.safetensors` file.

    Raises:
        InputError: a file that is not there, of another kind, or that cannot be read.
    """
    if not path.is_file():
        raise InputError(f"no file at {path}")
    if path.suffix not in ENDINGS:
        raise InputError(
            f"{path} is {path.suffix or 'without ending'}: expected .npy or .safetensors"
        )
    if path.suffix == ".npy":
        array = _load_array(path)
        if array.dtype.kind not in "fiu":
            raise InputError(f"{path} holds an array of {array.dtype}; expected numbers")
        native = np.float32 if array.dtype.kind == "f" and array.itemsize <= 4 else np.float64
        return {path.stem: torch.from_numpy(array.astype(native))}
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(sorted(load_file(path).items(), key=lambda item: _by_number(item[0])))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read: {first_line(error)}") from error


def _by_number(name: str) -> list[tuple[bool, int, str]]:
    """Sorts `layer.2` before `layer.10`: the file has no order of its own."""
    parts = name.replace("_", ".").split(".")
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _load_array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {first_line(error)}") from error
    return array


def load_images(path: Path) -> list[Any]:
    """Paths of the images in a folder, in order of their names, or the images of a `.npy` array.

    Args:
        path: a folder, or a file with an array (n, height, width, 3) or (n, 3, height, width).

    Raises:
        InputError: fewer than four images, or an array of another shape.
    """
    if path.is_dir():
        images: list[Any] = sorted(p for p in path.rglob("*") if p.suffix.lower() in _IMAGES)
    elif path.suffix == ".npy":
        array = _load_array(path) if path.is_file() else np.empty(0)
        if array.ndim != 4 or 3 not in (array.shape[1], array.shape[3]):
            raise InputError(
                f"--images {path}: shape {array.shape}; expected (n, height, width, 3) or "
                "(n, 3, height, width)"
            )
        images = list(array)
    else:
        raise InputError(f"--images {path}: expected a folder of images or a .npy file of an array")
    if len(images) < MIN_ROWS:
        raise InputError(f"--images {path}: {len(images)} images; expected at least {MIN_ROWS}")
    return images


@torch.no_grad()
def image_features(
    model: Any,
    processor: Any,
    images: Sequence[Any],
    *,
    batch_size: int = 16,
    progress: bool = True,
) -> dict[int, Tensor]:
    """Features (n, d) of each hidden state of an image model, averaged over tokens or positions.

    Args:
        model: of `transformers`, such as a ViT or a ResNet; of a model of two towers its
            `vision_model`.
        processor: its image processor.
        images: paths of files, or arrays (height, width, 3) or (3, height, width).
        batch_size: images per forward pass.
        progress: show a progress bar on a terminal.

    Returns:
        By the index in `hidden_states`, 0 for the embeddings.

    Raises:
        InputError: no hidden states, or a file that is no image.
    """
    model = getattr(model, "vision_model", model)
    parameter = next(model.parameters())
    parts: list[list[Tensor]] = []
    starts = range(0, len(images), batch_size)
    with in_eval(model):
        for start in progress_bar(starts, "batches", progress):
            batch = [_open(image) for image in images[start : start + batch_size]]
            pixels = processor(images=batch, return_tensors="pt")["pixel_values"].to(parameter)
            hidden = getattr(
                model(pixel_values=pixels, output_hidden_states=True), "hidden_states", None
            )
            if not hidden:
                raise InputError(
                    f"{type(model).__name__} returned no hidden_states: expected a model of images"
                )
            parts.append([_mean_over_positions(state) for state in hidden])
    return {at: torch.cat(states) for at, states in enumerate(zip(*parts, strict=True))}


def _mean_over_positions(state: Tensor) -> Tensor:
    """(batch, tokens, d), or (batch, d, height, width) of a convolutional model, as (batch, d)."""
    state = state.to(torch.promote_types(state.dtype, torch.float32))
    return state.flatten(2).mean(2).cpu() if state.dim() == 4 else state.mean(1).cpu()


def _open(image: Any) -> Any:
    if not isinstance(image, Path):
        return image
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(image).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{image} is no image: {first_line(error)}") from error
