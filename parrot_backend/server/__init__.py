"""The live shell: HTTP in, events to the core, commands out to real engines.

A request goes ``routes*`` -> ``convert`` -> ``runtime`` -> core, and comes back ``runtime`` ->
``waiting`` or ``streaming`` -> ``views``. Nothing here decides about scheduling.
"""
