"""Recipes have a schema, and are read from YAML files and overrides."""
