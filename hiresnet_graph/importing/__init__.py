"""Networks of other libraries as specs with weights.

`recorder` runs a module and records its calls; `primitives`, `layers` and `axes` make operations of them; `regions`,
`recognition`, `items`, `entries` and `sections` make stages and blocks of these, and `skips` and `skip_section` the
skips between them; `comparison` compares both networks.
"""

from hiresnet_graph.importing.imported import Imported, from_module

__all__ = ["Imported", "from_module"]
