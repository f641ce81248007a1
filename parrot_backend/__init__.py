"""The Parrot backend: a server that sees LLM programs as graphs of semantic variables.

The package has one pure core (`core`), which decides, and shells round it, which act: `server`
answers HTTP and drives real engines, `sim` drives modelled ones. `protocol` holds the wire models
and is the only module that the client side (`parrot_integrations`) may import.
"""

__version__ = "0.1.0"
