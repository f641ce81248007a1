"""Everything of vLLM that Parrot names, behind functions, records and hooks of our own.

Nothing else in Parrot imports vLLM, so that to support another version means to check this package:

* ``version``: which versions are supported.
* ``client``: the side that sends requests (``AsyncLLM``).
* ``sampling``: parameters in, steps out.
* ``output_parsers``, ``output_parser``: calls of tools and reasoning in an output.
* ``scheduler``: the side that runs inside vLLM's core, which the plug-in builds on.
* ``openai_app``: vLLM's own server, for comparison.

Importing the package itself does not import vLLM.
"""
