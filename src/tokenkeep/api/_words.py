"""One docstring for both faces."""

from __future__ import annotations

from collections.abc import Callable


def same_words[C: type](source: type) -> Callable[[C], C]:
    """Give the methods of an async face the docstrings of the sync one, which is where they are written."""

    def copy(face: C) -> C:
        for name, method in vars(face).items():
            function = getattr(method, "__func__", method)
            if callable(function) and not function.__doc__ and (words := getattr(source, name, None)):
                function.__doc__ = words.__doc__
        return face

    return copy
