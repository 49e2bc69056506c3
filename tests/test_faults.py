"Each fault of the table once, at a random moment; `python tests/faults.py --tries 20` tries each 20 times"
import os
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.skipif(sys.platform != 'linux', reason='forks, signals and namespaces of Linux')
def test_no_fault_loses_doubles_or_falsifies_a_record():
    done = subprocess.run([sys.executable, 'tests/faults.py', '--tries', '1', '--seed', '1'], cwd=ROOT, capture_output=True, encoding='utf-8', timeout=500,
                          env={**os.environ, 'PYTHONWARNINGS': 'default'})
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:]+done.stderr[-3000:]
    rows = [l for l in done.stdout.splitlines() if l.split() and l.split()[-1].isdigit()]
    assert len(rows) + done.stdout.count('skipped:') == 18, done.stdout
