"""Where acquired tokens come from. The providers that need a driver are imported by their own module."""

from tokenkeep.providers.function import FunctionProvider

__all__ = ["FunctionProvider"]
