"""Engines: what runs a request.

``base`` is the seam. ``scripted``, ``openai_http`` and ``vllm`` are the ways to do it; the other
modules are what they share.
"""
