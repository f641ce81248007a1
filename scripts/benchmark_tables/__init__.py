"""Tables of the newest benchmark rows in README.md and the pages in docs/; see ``__main__``."""
