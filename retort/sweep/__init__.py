"""A small study of a route's training settings."""
