"""Structure that no client declares, found in the texts of its calls.

Within one session, prompts are matched against the texts of finished calls and of earlier prompts
(:mod:`text_book`), which gives the edges and stages of a run (:mod:`structure`). A call without a
session is put into the one that it continues (:mod:`continuity`), and what runs of an application
have in common is learnt for the next one (:mod:`shape_book`).

All of it is advice: it may change when and where a call runs, never what the model reads.
"""
