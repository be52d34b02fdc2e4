"""Records are what trials write: their phases, their types and the folder that keeps them."""
