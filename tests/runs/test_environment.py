import json

from bnexp.runs.environment import describe_environment


def test_environment_names_versions_and_command():
    environment = describe_environment()
    assert environment["versions"]["torch"]
    assert environment["command"]
    json.dumps(environment)
