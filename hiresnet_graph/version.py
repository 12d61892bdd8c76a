"""The version of the package, also where it is used from a checkout without being installed."""

__version__ = "0.1.0"
