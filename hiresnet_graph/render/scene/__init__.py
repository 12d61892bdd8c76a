"""Scenes: what a diagram shows, without positions."""
