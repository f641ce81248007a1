"""The pure core: program graphs, deduction and scheduling as one state machine.

``Coordinator.handle(event, now_s) -> list[Command]`` decides everything. The rules of the core:

1. Everything that changes the state of a session, variable, request or engine view happens here.
2. This package does not know whether time is real or simulated, nor what an engine really is.
3. Time arrives as ``now_s``, ids arrive in events or are derived from them, and there is no
   randomness: the same events give the same commands.
4. A rejected event raises :class:`~parrot_backend.errors.ParrotError` and changes nothing.
5. Results are returned, not written into arguments: deduction and placement are functions.
6. Iteration order is defined: no decision depends on the order of a set.

It imports the standard library, ``errors`` and, for linear-time regular expressions, ``re2``.
"""
