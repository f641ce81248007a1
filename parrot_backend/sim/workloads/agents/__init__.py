"""Six multi-agent workflows with the shapes of those that Helium is measured with.

Theirs are the shapes: who reads whom, how many agents, rounds, chunks and traders, and the lengths
of the instructions in its prompt files, counted in Llama tokens (mlsys-io/helium_demo at f688bf8a,
``benchmark/bench.py`` and ``benchmark/bench_programs``, Apache-2.0; arXiv 2603.16104). Ours are the
lengths of documents, questions and outputs, for their data sets are not here, and that jobs arrive
one by one: Helium runs batches.
"""
