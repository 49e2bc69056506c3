"Requirements are written in pyproject.toml alone, and what repeats them is a copy"
import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions

import yaml
from conftest import MODULES, ROOT, settings
from packaging.requirements import Requirement

from xltnb.dev.requirements import copy_requirements, requirements


def parsed(reqs): return {r.name.lower().replace('_', '-'): str(r.specifier) for r in map(Requirement, reqs)}


@cache
def project(): return tomllib.loads((ROOT/'pyproject.toml').read_text(encoding='utf-8'))['project']


def lines(name): return [x for x in (ROOT/name).read_text(encoding='utf-8').split('\n') if x.strip()]


def test_the_command_changes_nothing(tmp_path):
    for f in ('pyproject.toml', 'settings.ini', 'environment.yml'): (tmp_path/f).write_bytes((ROOT/f).read_bytes())
    assert copy_requirements(tmp_path) == []
    (tmp_path/'pyproject.toml').write_text((ROOT/'pyproject.toml').read_text(encoding='utf-8').replace('"numpy>=2"', '"numpy>=3"'), encoding='utf-8')
    assert copy_requirements(tmp_path) == ['settings.ini', 'environment.yml'] and copy_requirements(tmp_path) == []
    assert all('numpy>=3' in (tmp_path/f).read_text(encoding='utf-8') for f in ('settings.ini', 'environment.yml'))


def test_copies_hold_what_pyproject_says():
    "Read by a parser of each file, not by the function that wrote it"
    extras = project()['optional-dependencies']
    assert set(extras) == {'lab', 'dev', 'ui', 'peers', 'cluster'} == set(requirements()) - {''}
    deps = yaml.safe_load((ROOT/'environment.yml').read_text(encoding='utf-8'))['dependencies']
    pip = next(d for d in deps if isinstance(d, dict))['pip']
    assert parsed(r for r in pip if not r.startswith('-')) == parsed(project()['dependencies'] + [r for e in extras.values() for r in e])
    assert '-e .' in pip and '-c constraints.txt' in pip and 'python=3.11' in deps and 'quarto' in deps
    assert parsed(settings()['requirements'].split()) == parsed(project()['dependencies'])
    assert parsed(settings()['dev_requirements'].split()) == parsed(extras['lab'] + extras['dev'])


def test_make_setup_installs_every_extra():
    made = re.search(r"-e '\.\[(.*)\]'", (ROOT/'Makefile').read_text(encoding='utf-8'))[1]
    assert set(made.split(',')) == set(project()['optional-dependencies'])


def test_constraints_fit_the_requirements_and_say_why():
    spec = {r.name: r.specifier for r in map(Requirement, project()['dependencies'])}
    for line in lines('constraints.txt'):
        pin, _, why = line.partition(' # ')
        name, version = pin.split('==')
        assert version in spec[name], f'constraints.txt pins {pin}, outside {name}{spec[name]}'
        assert len(why.split()) > 5, f'constraints.txt: why {pin}?'
    above, *rest = lines('overrides.txt')
    assert above.startswith('# ') and len(rest) == 1


def test_what_is_installed():
    "Published files go with the package, and an editable install is a folder on the path, which no namespace package hides"
    tool = tomllib.loads((ROOT/'pyproject.toml').read_text(encoding='utf-8'))['tool']['setuptools']
    assert {'data/**/*', 'papers/*/published.yaml'} <= set(tool['package-data']['xltnb'])
    assert tool['package-dir'] == {'': '.'} and tool['packages']['find']['exclude'] == ['xltnb.dev*']


def test_versions_agree():
    import xltnb
    assert settings()['version'] == xltnb.__version__


def brought_by(names):
    "What the named packages themselves require: numba brings llvmlite, JupyterLab brings nbformat"
    from importlib.metadata import PackageNotFoundError, requires
    for n in names:
        try: yield from parsed(r for r in requires(n) or [] if 'extra ==' not in r)
        except PackageNotFoundError: pass


def test_every_import_is_required():
    "A third-party module that a page imports is named among the requirements, or brought by one that is"
    extras, dists = project()['optional-dependencies'], packages_distributions()
    named = set(parsed(project()['dependencies'] + [r for e in extras.values() for r in e]))
    known = named | set(brought_by(named)) | {'nbformat', 'ipython'}
    for p in MODULES:
        for n in ast.walk(ast.parse(p.read_text(encoding='utf-8'))):
            mods = [n.module] if isinstance(n, ast.ImportFrom) and not n.level else [a.name for a in n.names] if isinstance(n, ast.Import) else []
            for m in {m.split('.')[0] for m in mods} - set(sys.stdlib_module_names) - {'xltnb', '__future__'}:
                assert {d.lower().replace('_', '-') for d in dists.get(m, [m])} & known, f'{p.name} imports {m}, which no requirement names'


def test_what_is_imported_at_the_top_is_no_extra():
    "The package's own requirements do for every module but the builders; a widget's import stands under `needs`"
    own, dists = set(parsed(project()['dependencies'])), packages_distributions()
    known = own | set(brought_by(own)) | set(brought_by(set(brought_by(own))))
    for p in (p for p in MODULES if p.parent.name != 'dev'):
        for n in ast.parse(p.read_text(encoding='utf-8')).body:
            mods = [n.module] if isinstance(n, ast.ImportFrom) and not n.level else [a.name for a in n.names] if isinstance(n, ast.Import) else []
            for m in {m.split('.')[0] for m in mods} - set(sys.stdlib_module_names) - {'xltnb', '__future__'}:
                assert {d.lower().replace('_', '-') for d in dists.get(m, [m])} & known, f'{p.name} imports {m}, which `pip install xltnb` does not bring'
