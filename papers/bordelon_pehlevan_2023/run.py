"""Measure the claims of Bordelon & Pehlevan 2023: `python -m papers.bordelon_pehlevan_2023.run --fast`."""

from papers.harness import main

from .figures import draw
from .measures import measure
from .setting import use
from .studies_fields import fields, gated_kernel
from .studies_lazy import contributions, generalisation
from .studies_rich import correlations, depths, linear
from .studies_rules import gammas, rules, widths

# in the order in which they share compiled code
STUDIES = {
    "rules": rules, "widths": widths, "gammas": gammas, "contributions": contributions, "generalisation": generalisation,
    "correlations": correlations, "linear": linear, "depths": depths, "gated_kernel": gated_kernel, "fields": fields,
}  # fmt: skip

if __name__ == "__main__":
    main(__file__, STUDIES, measure, draw, use)
