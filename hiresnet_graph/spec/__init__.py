"""The spec language: what a user may write, where each value stands, and what is wrong with it."""
