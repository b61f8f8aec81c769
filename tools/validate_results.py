#!/usr/bin/env python3
"""Validates result documents against results/schema.json, independently of the C validator.

Needs: python3-jsonschema (4.0 or later, draft 2020-12).
  validate_results.py FILE...            exits 1 and names the place when a document breaks a rule
  validate_results.py --mutations FILE   applies each change of a mutation table to example.json beside it and checks that the
                                         schema accepts or refuses as the table says
"""
import copy
import json
import pathlib
import sys

import jsonschema

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Refused(Exception):
    pass


def unique(pairs):
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise Refused(f'key "{key}" stands twice in one object')
    return dict(pairs)


def no_constant(name):
    raise Refused(f"{name} is not JSON")


def parse(text):
    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        raise Refused(str(error)) from error


def check(validator, document):
    error = jsonschema.exceptions.best_match(validator.iter_errors(document))
    if error:
        raise Refused(f"{error.json_path}: {error.message[:200]}")
    ids = [case["id"] for case in document["cases"]]
    for name in ids:
        if ids.count(name) > 1:
            raise Refused(f'the id "{name}" stands twice')
    devices = [device["id"] for device in document["context"]["devices"]]
    for name in devices:
        if devices.count(name) > 1:
            raise Refused(f'the device "{name}" stands twice')
    for case in document["cases"]:
        if case.get("device") is not None and case["device"] not in devices:
            raise Refused(f'case "{case["id"]}" names a device that is not there')


def mutate(document, change):
    document = copy.deepcopy(document)
    *path, last = change["pointer"].strip("/").split("/")
    node = document
    for part in path:
        node = node[int(part) if isinstance(node, list) else part]
    if isinstance(node, list):
        last = int(last)
    if change.get("remove"):
        del node[last]
    else:
        node[last] = change["value"]
    return document


def verdict(validator, make):
    try:
        check(validator, make())
        return None
    except Refused as reason:
        return str(reason)


def run_mutations(validator, path):
    table = parse(path.read_text())
    example = parse((path.parent / "example.json").read_text())
    wrong = 0
    rows = [(c, lambda c=c: mutate(example, c)) for c in table["changes"]]
    rows += [(t, lambda t=t: parse(t["text"])) for t in table["texts"]]
    for row, make in rows:
        reason = verdict(validator, make)
        if (reason is None) != (row["error"] is None):
            wrong += 1
            print(f'{row["name"]}: {"accepted" if reason is None else "refused: " + reason}')
    print(f"{len(rows)} documents, {wrong} judged otherwise than the table says")
    return wrong


def main(arguments):
    schema = json.loads((ROOT / "results" / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    if arguments[:1] == ["--mutations"] and len(arguments) == 2:
        return 1 if run_mutations(validator, pathlib.Path(arguments[1])) else 0
    if not arguments or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    bad = 0
    for name in arguments:
        reason = verdict(validator, lambda: parse(pathlib.Path(name).read_text()))
        print(f"{name}: {reason or 'valid'}")
        bad += reason is not None
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
