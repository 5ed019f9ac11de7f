"""Python runs this at its start where this folder is in PYTHONPATH: reports get no pictures."""

import sys
from types import ModuleType

pictures = ModuleType("bnexp.report.plots.pictures")
pictures.draw_pictures = lambda verdict: []
sys.modules[pictures.__name__] = pictures
