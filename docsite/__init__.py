"""The pages of the documentation site are assembled here; `make docs` builds the site from them."""
