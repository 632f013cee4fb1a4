"""The settings of a run, as they are hashed and stored: names and defaults that must not change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from geodistill.errors import InputError

T = TypeVar("T")


class RunSettings(Protocol):
    """A frozen dataclass with the settings of one run.

    Attributes:
        SETUP_FIELDS: names of the settings that the teacher, its outputs and the data depend on.
    """

    SETUP_FIELDS: ClassVar[tuple[str, ...]]

    @property
    def task(self) -> str: ...

    def __hash__(self) -> int: ...


def setting(default: T, *, stored_as: str = "", added_later: bool = False) -> T:
    """A dataclass field that keeps its stored name and its place in the hash of a run.

    Args:
        default: value of the field.
        stored_as: name under which runs store it; by default the field's own.
        added_later: whether runs were stored before the field existed: its default is then left
            out of the configuration, and those runs keep their ids.
    """
    metadata = {"stored_as": stored_as, "added_later": added_later}
    value: T = field(default=default, metadata=metadata)
    return value


def setup_settings(settings: RunSettings) -> Any:
    """The settings with every field that the setup does not depend on at its default.

    Runs for which they are equal can share a setup.

    Args:
        settings: of a run.
    """
    settings_type: Any = type(settings)
    return settings_type(**{name: getattr(settings, name) for name in settings.SETUP_FIELDS})


def run_config(settings: Any, method: str) -> dict[str, Any]:
    """Everything that a run depends on besides its seed and its data, under the stored names.

    Args:
        settings: a settings dataclass.
        method: name of the method.
    """
    return {**_stored(settings), "method": method}


def _stored(settings: Any) -> dict[str, Any]:
    config = {}
    for f in fields(settings):
        value = getattr(settings, f.name)
        if f.metadata.get("added_later") and value == f.default:
            continue
        name = f.metadata.get("stored_as") or f.name
        config[name] = _stored(value) if is_dataclass(value) else value
    return config


def from_names(settings_type: type[T], values: Mapping[str, Any], where: str) -> T:
    """Settings from a protocol's mapping of field names to values.

    Lists become tuples, and a mapping the settings dataclass that the field holds.

    Args:
        settings_type: a settings dataclass.
        values: by field name.
        where: what holds the mapping, for the message.

    Raises:
        InputError: a name that is no field, or a mapping for a field that holds a single value.
    """
    known = {f.name: f for f in fields(settings_type)}  # type: ignore[arg-type]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise InputError(
            f"{where} has the unknown setting {unknown[0]!r}; expected one of {', '.join(known)}"
        )

    def convert(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            nested: Any = known[name].default_factory
            if not (isinstance(nested, type) and is_dataclass(nested)):
                raise InputError(f"{name} of {where} is {dict(value)}; expected a single value")
            return from_names(nested, value, f"{name} of {where}")
        return tuple(value) if isinstance(value, list) else value

    return settings_type(**{name: convert(name, value) for name, value in values.items()})


def config_hash(config: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that name a configuration, whatever the order of its keys.

    Example:
        >>> config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def run_id(task: str, method: str, seed: int, config: Mapping[str, Any]) -> str:
    """The name of a run: `movie-kd+gram-s3-<hash of the configuration>`.

    Example:
        >>> run_id("movie", "kd", 3, {"epochs": 15.0})
        'movie-kd-s3-268c66a5f0b0'
    """
    return f"{task}-{method}-s{seed}-{config_hash(config)}"
