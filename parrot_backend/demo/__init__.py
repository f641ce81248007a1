"""``parrot demo``: the same programs call by call and in one submit, on one real engine.

    main.py         the command: starts the host, runs the programs, reports
    host.py         the server process: one vLLM engine behind vLLM's own server and behind Parrot
    host_process.py starts that process, resets its cache, and ends it with all its children
    document.py     the text that is summarised
    programs.py     the programs, written once for each mode
    transport.py    a connection with a round trip of its own, which it counts
    call_by_call.py the model calls of an ordinary program: vLLM's OpenAI server
    one_submit.py   the same for the native front end: Parrot
    records.py      what one run leaves: its calls, phases and token counts
    bound.py        the critical path of a run
    measure.py      interleaved repetitions
    summary.py      medians, ratios and the rows of the table
    report.py       the table, the files, what is said around them
    gantt.py        the page that shows both modes on one time axis

The benchmarks of chains and of map-reduce use the same modules.
"""
