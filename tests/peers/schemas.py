"""Every example validates against the schema the binary prints, and what is wrong does not.

Usage: schemas.py EXEAT
"""

import copy
import pathlib
import subprocess
import sys

import jsonschema
import yaml


class Plain(yaml.SafeLoader):
    """YAML with times as text, as the manifests mean them."""


Plain.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"] for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def main(exeat):
    import json

    def schema(kind):
        made = json.loads(subprocess.run([exeat, "schema", kind], check=True, capture_output=True, text=True).stdout)
        assert made["$schema"] == "http://json-schema.org/draft-07/schema#", made["$schema"]
        jsonschema.Draft7Validator.check_schema(made)
        return jsonschema.Draft7Validator(made)

    schemas = {kind: schema(kind) for kind in ("Control", "Subject", "Exception", "TierPolicy", "Domain", "Person", "Group", "Request", "Test")}
    root = pathlib.Path(__file__).resolve().parents[2]
    seen = dict.fromkeys(schemas, 0)
    for path in sorted([*root.glob("examples/policy/**/*.yaml"), *root.glob("tests/cases/*.yaml")]):
        for number, document in enumerate(yaml.load_all(path.read_text(), Plain)):
            if not isinstance(document, dict) or "settings" in path.name:
                continue
            kind = document.get("kind", "Test")
            errors = [f"{'/'.join(map(str, e.path))}: {e.message}" for e in schemas[kind].iter_errors(document)]
            assert not errors, (path, number, errors)
            wrong = copy.deepcopy(document)
            wrong["no_such_field"] = 1
            assert not schemas[kind].is_valid(wrong), (path, "unknown fields are refused")
            seen[kind] += 1
    assert all(seen[kind] for kind in ("Control", "Subject", "Exception", "TierPolicy", "Domain", "Person", "Group", "Request", "Test")), seen
    print("validated", seen)


if __name__ == "__main__":
    main(*sys.argv[1:])
