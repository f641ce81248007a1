"""A small library about an invented harbour town, and a search in it; made for these examples."""

import re

ARTICLES = (
    "The old harbour of Marrow Bay was dug by hand in four winters. Its two basins are joined by "
    "a narrow channel that larger boats may use at high water only.",
    "Ferries to the island of Skell leave the north pier every two hours from six in the morning. "
    "The last boat back is at nine in the evening, and at eleven on Saturdays.",
    "The swing bridge opens for masts higher than five metres. It turns at the full hour and "
    "stays open for ten minutes; cyclists and prams may wait in the heated shelter.",
    "The fish market is held on the quay each weekday before sunrise. Visitors are welcome in the "
    "gallery upstairs, where the harbour museum pours coffee for a small coin.",
    "A storm flag on the customs tower is read from below: one cone means a gale is expected, two "
    "cones mean that small boats must stay in, and a lamp beside them closes the ferry.",
    "The lighthouse on Tarn Rock flashes twice every fifteen seconds. It has been without a "
    "keeper since the cable was laid, but its kitchen is kept as the last keeper left it.",
    "Bread in Marrow Bay is baked with seaweed ash in place of salt. The habit began in a year "
    "without ships, and three bakeries still keep to it.",
    "The library lends tools as well as books. A saw may be kept for three days, a ladder for "
    "one, and whoever brings back something mended is let off a fine.",
    "Swimming is allowed between the bath house and the second buoy. The water is tested on "
    "Mondays, and the result hangs beside the door of the bath house.",
    "Parking along the quay costs nothing before eight and after six. In between, a disc allows "
    "one hour, and the meadow behind the station takes those who stay longer.",
    "The town band plays in the pavilion on the first Sunday of each month. When it rains, it "
    "plays in the waiting room of the ferry, which is said to have the better echo.",
    "Bicycles travel on the ferry to Skell free of charge outside July and August. In these "
    "months a place for one has to be booked at the ticket window the day before.",
)


def search(queries: list[str], num_found: int = 3) -> str:
    """Return the articles that share the most words with the queries, in order of rank."""
    wanted = [_words(query) for query in queries]
    ranked = sorted(
        ARTICLES, key=lambda article: -sum(len(words & _words(article)) for words in wanted)
    )
    return "\n\n".join(ranked[:num_found])


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) > 3}
