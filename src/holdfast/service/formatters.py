"""Formatters of each directory, from its configuration (`formatter`). What runs them is `agent.tools.formatters`."""

from collections.abc import Mapping

from holdfast.agent.tools.formatters import is_there
from holdfast.core.config import FormatterConfig
from holdfast.core.workspace import FormatterStatus
from holdfast.service.instances import Instance, Instances


class FormatterService:
    def __init__(self, instances: Instances) -> None:
        self._instances = instances

    def configured(self, directory: str) -> Mapping[str, FormatterConfig]:
        """As the directory's configuration was last read."""
        instance = self._instances.opened(directory)
        return _wanted(instance) if instance is not None else {}

    def status(self, instance: Instance) -> tuple[FormatterStatus, ...]:
        """Of each that is not switched off; `enabled` if its program is there."""
        return tuple(
            FormatterStatus(name=name, extensions=config.extensions or (), enabled=is_there(config, instance.directory))
            for name, config in _wanted(instance).items()
        )


def _wanted(instance: Instance) -> Mapping[str, FormatterConfig]:
    formatters = instance.config.formatter
    if not isinstance(formatters, dict):
        return {}
    return {name: config for name, config in formatters.items() if not config.disabled}
