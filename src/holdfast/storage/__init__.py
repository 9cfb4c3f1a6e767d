"""Backends: adapters of the ports in `holdfast.core` to a place where records last."""
