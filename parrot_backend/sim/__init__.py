"""The second shell round the core: engines, clients and networks on a simulated clock."""
