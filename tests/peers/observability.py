"""Pages of metrics, dashboards and alert rules, read by the parsers of those who will read them.

    observability.py NAMES FOLDER PAGE…

NAMES lists every metric there is; FOLDER holds dashboards and rules; each PAGE is a /metrics page.
"""

import json
import pathlib
import sys

import promql_parser
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

names, folder, *pages = sys.argv[1:]
known = {line for line in pathlib.Path(names).read_text().split() if line.startswith("exeat_")}
labels = {}
for page in pages:
    families = list(text_string_to_metric_families(pathlib.Path(page).read_text()))
    assert families, f"{page}: no metrics"
    for family in families:
        assert family.name in known, f"{page}: {family.name} has no name of ours"
        assert family.documentation, f"{page}: {family.name} says nothing"
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)


def series(expr):
    """The series an expression reads, with the labels it asks for."""
    found, stack = [], [expr]
    while stack:
        node = stack.pop()
        if isinstance(node, promql_parser.VectorSelector):
            found.append((node.name, [matcher.name for matcher in node.matchers.matchers]))
            continue
        for part in ("lhs", "rhs", "expr", "args", "vector_selector"):
            below = getattr(node, part, None)
            if below is None:
                continue
            stack.extend(below if isinstance(below, (list, tuple)) else [below])
    return found


def check(place, text):
    found = series(promql_parser.parse(text))
    assert found, f"{place}: reads nothing: {text}"
    for name, asked in found:
        stem = next(
            (name.removesuffix(end) for end in ("_total", "_bucket", "_sum", "_count", "") if name.removesuffix(end) in known),
            None,
        )
        assert stem, f"{place}: there is no {name}"
        if name in labels:
            missing = set(asked) - labels[name] - {"instance"}
            assert not missing, f"{place}: {name} has no {missing}"
    return len(found)


read = 0
for file in sorted(pathlib.Path(folder).glob("*.json")):
    board = json.loads(file.read_text())
    assert "uid" not in board, f"{file}: an id that is somebody's"
    for panel in board["panels"]:
        for target in panel["targets"]:
            read += check(f"{file}: {panel['title']}", target["expr"])
for file in sorted(pathlib.Path(folder).glob("*.rules")):
    for group in yaml.safe_load(file.read_text())["groups"]:
        for rule in group["rules"]:
            assert {"alert", "expr", "labels", "annotations"} <= set(rule), rule
            assert not set(rule) - {"alert", "expr", "for", "labels", "annotations"}, rule
            read += check(f"{file}: {rule['alert']}", rule["expr"])
assert read, f"{folder}: nothing to check"
print(f"{len(pages)} pages, {read} series read")
