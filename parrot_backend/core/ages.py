"""The place of runs in the order of service: who began earlier is served earlier.

A session that is one run of a program, or was submitted as a graph, has one place, as in the paper
(Algorithm 1). A session that is merely all that some user does has no such place: there each call
has that of the oldest one it reads, and one that reads none begins a run. Otherwise whoever always
has a call waiting would be served before all who came later, for as long as the session lives.
"""

from __future__ import annotations

from collections.abc import Iterable

from parrot_backend.core.nodes import Node, Request
from parrot_backend.core.session import Session
from parrot_backend.core.session_book import SessionBook


def renew_place(session: Session, book: SessionBook, now_s: float, max_idle_s: float) -> None:
    """Put a session that was idle for long behind those that came meanwhile.

    Args:
        session: Something is about to be added to it.
        book: Gives places.
        now_s: The time.
        max_idle_s: Whoever waits for so long is served before all others anyway.
    """
    since_s = session.idle_since_s
    if since_s is not None and now_s - since_s > max_idle_s:
        session.order, session.began_s = book.next_order(), now_s


def give_places(session: Session, nodes: Iterable[Node], book: SessionBook, now_s: float) -> None:
    """Give new requests of a session their places; what they read of it has been found.

    Args:
        session: The session.
        nodes: Nodes of one submit, in topological order; those that read nothing begin one run.
        book: Gives places.
        now_s: The time.
    """
    if session.is_run:
        return
    begun: tuple[int, float] | None = None
    for node in nodes:
        if not isinstance(node, Request):
            continue
        found = () if node.found is None else node.found.reads
        read = session.graph.producers((*node.inputs, *found))
        places = [
            (before.session_order, before.run_began_s)
            for before in read
            if isinstance(before, Request)
        ]
        if not places:
            begun = begun or (book.next_order(), now_s)
            places.append(begun)
        # What was read may be from before the session was idle.
        place = max((session.order, session.began_s), min(places))
        node.session_order, node.run_began_s = place
