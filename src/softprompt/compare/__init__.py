"""Methods compared on a user's own rows: what was measured, and how sure one may be of it."""
