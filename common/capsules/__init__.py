"""Capsule layers (Sabour, Frosst and Hinton 2017, Dynamic Routing Between Capsules)."""
