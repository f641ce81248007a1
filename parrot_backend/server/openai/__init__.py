"""OpenAI's API as a dialect over the service: every call becomes a submit with one node per choice.

Requests are checked and converted in pure functions (``chat``, ``completions``, ``responses``),
``placing`` puts the calls into a session, replies are written from the core's answers, and
``event_stream`` sends them while they are generated. Only ``routes`` knows of HTTP.
"""
