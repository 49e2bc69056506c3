__version__ = "0.1.0"

import _signal
import sys as _sys

_ours = _sys.orig_argv[1:3]==['-m','xltnb.cli'] or [*_sys.orig_argv, ''][1].rpartition('/')[2]=='xltnb'
if _ours and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler: _signal.signal(_signal.SIGINT, _signal.SIG_DFL) # until `main`

from xltnb.names import __dir__ as __dir__, __getattr__ as __getattr__  # by hand: the names stand in nbs/04_names.ipynb
