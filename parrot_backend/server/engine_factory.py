"""The one place where engines are made from settings.

Each kind is imported when it is wanted, so that a server without vLLM does not need it.
"""
