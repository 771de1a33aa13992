"""What older versions wrote, as this one does: experiments' TOML files and results.

Experiments had a table for each of three methods; now they have ``[[methods]]``. Results of schema
1 told points apart by ``alpha`` and ``units``; in schema 2 each has the setting of its method.
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["MigrationError", "as_schema_2", "with_methods"]

_OLD = ("connections", "units", "small")
_TITLES = {
    "baseline": "baseline",
    "connections": "connection pruning",
    "units": "unit pruning",
    "small": "small model",
}
_SETTINGS = {"baseline": "seed", "connections": "alpha", "units": "ratio", "small": "units"}
_CONTROLS = {"connections": "baseline", "units": "baseline", "small": "units"}


class MigrationError(ValueError):
    """What was written is of neither version."""


def with_methods(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return an experiment's fields with ``methods`` in place of a table for each method.

    Args:
        fields: As a TOML file or a result holds them, of any version.

    Raises:
        MigrationError: Both forms are there.
    """
    old = [name for name in _OLD if name in fields]
    if old and "methods" in fields:
        raise MigrationError(f"has [[methods]] and [{old[0]}]; make that a [[methods]] table too")
    if not old:
        return dict(fields)
    rest = {name: value for name, value in fields.items() if name not in _OLD}
    tables = [_table(name, fields[name]) for name in old if fields[name] is not None]
    return {**rest, "methods": tables}


def _table(kind: str, settings: object) -> object:
    return {"kind": kind, **settings} if isinstance(settings, dict) else settings


def as_schema_2(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result of schema 1 as one of schema 2; what it does not tell stays unknown.

    What is damaged is left as it is, for who reads the outcome.
    """
    settings, points = result.get("settings"), result.get("points")
    if not (isinstance(settings, dict) and isinstance(points, list)):
        return dict(result)
    ratios = _ratios(settings)
    changed = [_point(point, ratios) for point in points]
    kinds = {point["method"] for point in points if _has_known_method(point)}
    return {
        **result,
        "schema_version": 2,
        "settings": with_methods(settings),
        "methods": [_record(kind) for kind in _TITLES if kind in kinds],
        "points": changed,
    }


def _ratios(settings: Mapping[str, Any]) -> list[float]:
    """The shares of units, in the order of the result's points."""
    units = settings.get("units")
    ratios = units.get("ratios") if isinstance(units, dict) else None
    return list(reversed(ratios)) if isinstance(ratios, list) else []


def _has_known_method(point: object) -> bool:
    method = point.get("method") if isinstance(point, dict) else None
    return isinstance(method, str) and method in _TITLES


def _point(point: object, ratios: list[float]) -> object:
    if not isinstance(point, dict):
        return point
    rest = {name: value for name, value in point.items() if name != "alpha"}
    method, units, alpha = point.get("method"), point.get("units"), point.get("alpha")
    value, text = None, ""
    if alpha is not None:
        value, text = alpha, f"α = {alpha:g}" if isinstance(alpha, float) else f"α = {alpha}"
    elif isinstance(units, dict):
        text = ", ".join(f"{layer} {kept}" for layer, kept in units.items())
        value = ratios.pop() if method == "units" and ratios else None
    name = _SETTINGS.get(method, "") if isinstance(method, str) else ""
    return {**rest, "setting": {"name": name, "value": value, "text": text}}


def _record(kind: str) -> dict[str, Any]:
    return {
        "name": kind,
        "kind": kind,
        "title": _TITLES[kind],
        "setting": _SETTINGS[kind],
        "source": "the paper",
        "control": _CONTROLS.get(kind),
    }
