"The type checker finds nothing, and would find what it is for"
import subprocess
import sys
import textwrap

from conftest import ROOT


def checked(*args, **kw): return subprocess.run([sys.executable, '-m', 'mypy', *args], capture_output=True, text=True, **kw)


def test_the_library_has_no_error_of_type():
    done = checked(cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


WRONG = """
    from xltnb.records.store import Store
    from xltnb.stats import mean_ci
    def f() -> str: return 1
    Store('results').lease
    Store('results').no_such_thing
    mean_ci([1.], levels=.9)
"""


def test_what_is_wrong_is_seen(tmp_path):
    "A return, an attribute and an argument; a method that @patch adds is there"
    (tmp_path/'wrong.py').write_text(textwrap.dedent(WRONG), encoding='utf-8')
    said = checked('--config-file', ROOT/'pyproject.toml', tmp_path/'wrong.py', cwd=ROOT).stdout.strip().split('\n')
    kinds = [s.rsplit('[', 1)[1] for s in said if 'wrong.py' in s and ' error: ' in s]
    assert kinds == ['return-value]', 'attr-defined]', 'call-arg]'], said
