"""Here are the sections of a recipe, which are pydantic models with their defaults."""
