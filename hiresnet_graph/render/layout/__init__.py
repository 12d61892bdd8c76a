"""Layouts: positions for everything in a scene."""
