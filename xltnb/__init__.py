__version__ = "0.1.0"

from xltnb.names import __dir__ as __dir__, __getattr__ as __getattr__  # by hand: the names stand in nbs/03_names.ipynb
