"""Programs and arrivals: the paper's applications, agents, and recorded traffic."""
