"""``python -m parrot_backend``: the same as the ``parrot`` command."""

from parrot_backend.cli import app_main

if __name__ == "__main__":
    app_main()
