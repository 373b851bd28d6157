"""Measuring each call of a function.

>>> @measured
... def load() -> bytearray:
...     return bytearray(1 << 20)
>>> data = load()
>>> load.measurement.minor
257
"""

from __future__ import annotations

import functools
import inspect
from types import MethodType
from typing import Any, Callable, Generic, TypeVar, overload

from faultprobe.measurement import Measurement

Result = TypeVar("Result")


class Measured(Generic[Result]):
    """A function each call of which is a measured block; `measurement` is that of the last call."""

    __name__: str

    def __init__(
        self,
        function: Callable[..., Result],
        name: str | None,
        this_thread: bool,
        ledger: bool,
        maps: bool,
        report: Callable[[Measurement], object] | None,
    ) -> None:
        self.measurement: Measurement | None = None
        self._function = function
        self._name = function.__qualname__ if name is None else name
        self._this_thread = this_thread
        self._ledger = ledger
        self._maps = maps
        self._report = report
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Result:
        measurement = Measurement(self._name, self._this_thread, self._ledger, self._maps)
        try:
            with measurement:
                return self._function(*args, **kwargs)
        finally:
            self.measurement = measurement
            if self._report is not None:
                self._report(measurement)

    def __get__(self, instance: object, owner: type | None = None) -> Measured[Result] | MethodType:
        return self if instance is None else MethodType(self, instance)


@overload
def measured(function: Callable[..., Result]) -> Measured[Result]: ...


@overload
def measured(
    *,
    name: str | None = ...,
    this_thread: bool = ...,
    ledger: bool = ...,
    maps: bool = ...,
    report: Callable[[Measurement], object] | None = ...,
) -> Callable[[Callable[..., Result]], Measured[Result]]: ...


def measured(
    function: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    this_thread: bool = False,
    ledger: bool = True,
    maps: bool = False,
    report: Callable[[Measurement], object] | None = None,
) -> Any:
    """Decorates a function: each call is measured as `measure` does it, with the function's name.

    `report` gets the measurement of each call that ended, e.g. `report=print`; it is also there as
    `function.measurement`. Raises TypeError for a coroutine or generator function, whose call runs nothing.
    """

    def decorate(function: Callable[..., Any]) -> Measured[Any]:
        is_lazy = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
        if any(check(function) for check in is_lazy):
            raise TypeError(
                f"{function.__qualname__} runs nothing when it is called: use measure() inside of it"
            )
        return Measured(function, name, this_thread, ledger, maps, report)

    return decorate if function is None else decorate(function)
