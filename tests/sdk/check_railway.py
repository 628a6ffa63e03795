"""The GraphQL client gql, with every document of our own client, each validated against the schema it asked for."""

import json
import os
import time

from gql import Client, GraphQLRequest, gql
from gql.transport.exceptions import TransportQueryError, TransportServerError
from gql.transport.httpx import HTTPXTransport
from graphql import GraphQLError

from checks import BASE, check, done, fault, raises

URL = BASE + "/railway/graphql/v2"
WORKSPACE = os.environ["RAILWAY_WORKSPACE"]
DOCUMENTS = json.loads(os.environ["DOCUMENTS"])
USED = set()


def client(token, schema=True):
    transport = HTTPXTransport(url=URL, headers={"Authorization": f"Bearer {token}"})
    return Client(transport=transport, fetch_schema_from_transport=schema, parse_results=schema)


session = client(os.environ["RAILWAY_TOKEN"]).connect_sync()
check("the schema is introspected", {"Query", "Mutation", "Project"} <= set(session.client.schema.type_map))


def ask(name, **variables):
    """The one field of one of our client's documents."""
    USED.add(name)
    answered = session.execute(GraphQLRequest(DOCUMENTS[name], variable_values=variables))
    return next(iter(answered.values()))


def message(text):
    return lambda error: text in error.errors[0]["message"] and error.errors[0]["extensions"]["code"]


def patiently(name, **variables):
    """Asks again for as long as it is throttled, up to a minute."""
    end = time.monotonic() + 60
    while True:
        try:
            return ask(name, **variables)
        except TransportQueryError as error:
            if "too quickly" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.05)


check("token names its workspace", ask("ApiToken")["workspaces"] == [{"id": WORKSPACE, "name": WORKSPACE}])
asked = {"name": "pool-one", "workspaceId": WORKSPACE, "description": "tag", "defaultEnvironmentName": "production", "isPublic": False}
project = ask("ProjectCreate", input=asked)
check("project is made", project["name"] == "pool-one" and project["workspaceId"] == WORKSPACE)
check("project has an environment", project["primaryEnvironmentId"])
twin = patiently("ProjectCreate", input=asked)
check("a name is not unique", twin["id"] != project["id"])
page = ask("ProjectsPage", workspaceId=WORKSPACE, first=1, after=None)
check("projects are newest first", [edge["node"]["id"] for edge in page["edges"]] == [twin["id"]])
check("projects go on", page["pageInfo"]["hasNextPage"])
page = ask("ProjectsPage", workspaceId=WORKSPACE, first=1, after=page["pageInfo"]["endCursor"])
check("projects end", page["edges"][0]["node"]["id"] == project["id"] and not page["pageInfo"]["hasNextPage"])
check("projects have our mark", page["edges"][0]["node"]["description"] == "tag")

environment = project["primaryEnvironmentId"]
place = {"projectId": project["id"], "environmentId": environment}
service = ask("ServiceCreate", input={**place, "name": "agent"})
check("service is made", service["name"] == "agent" and service["projectId"] == project["id"])
raises("a service's name is unique", TransportQueryError, lambda: ask("ServiceCreate", input={**place, "name": "agent"}), message("already exists in this project"))
read = ask("ProjectGet", id=project["id"])
check("project lists its service", [edge["node"]["id"] for edge in read["services"]["edges"]] == [service["id"]])
place["serviceId"] = service["id"]
volume = patiently("VolumeCreate", input={**place, "mountPath": "/data"})
check("volume is made", volume["name"].startswith("volume-"))
instances = ask("Volumes", id=environment, projectId=project["id"], first=100)["volumeInstances"]["edges"]
check("volume is of our service", [(edge["node"]["volumeId"], edge["node"]["serviceId"]) for edge in instances] == [(volume["id"], service["id"])])
domain = ask("ServiceDomainCreate", input={"environmentId": environment, "serviceId": service["id"]})
check("domain is made", domain["domain"] and domain["syncStatus"] == "ACTIVE")
domains = ask("Domains", **place)["serviceDomains"]
check("domain is found", [one["id"] for one in domains] == [domain["id"]] and domains[0]["deletedAt"] is None)
image = "ghcr.io/owner/image@sha256:" + "0" * 64
change = {"source": {"image": image}, "variables": {"KEY": {"value": "v"}}, "deploy": {"restartPolicyType": "ON_FAILURE"}}
committed = ask("EnvironmentPatchCommit", environmentId=environment, commitMessage="mark", patch={"services": {service["id"]: change}})
check("patch answers a workflow", isinstance(committed, str) and committed)
workflow = ask("WorkflowStatus", workflowId=committed)
check("the workflow of the patch has a status", workflow["status"] in ("Complete", "Running") and workflow["error"] is None)
patches = ask("EnvironmentPatches", environmentId=environment, first=20)["edges"]
check("patch is found by its message", [edge["node"]["message"] for edge in patches] == ["mark"])
listed = ask("CensusPage", workspaceId=WORKSPACE, first=10, after=None)["edges"]
shown = next(edge["node"] for edge in listed if edge["node"]["id"] == project["id"])
running = [one["node"]["source"]["image"] for env in shown["environments"]["edges"] for one in env["node"]["serviceInstances"]["edges"]]
check("a page of projects shows the images that run in each", running == [image])
check("patch is committed", patches[0]["node"]["status"] == "COMMITTED" and patches[0]["node"]["lastAppliedError"] is None)


def newest():
    return ask("Deployments", input=place, first=5, after=None)["edges"][0]["node"]


end = time.monotonic() + 60
while newest()["status"] != "SUCCESS" and time.monotonic() < end:
    time.sleep(0.05)
check("deployment succeeds", newest()["status"] == "SUCCESS" and newest()["meta"]["image"] == image)

raises("project that is not", TransportQueryError, lambda: ask("ProjectGet", id="none"), message("Project not found"))
raises("volume of no service", TransportQueryError, lambda: patiently("VolumeCreate", input={**place, "serviceId": "none", "mountPath": "/data"}), message("Service not found"))
raises("a second domain", TransportQueryError, lambda: ask("ServiceDomainCreate", input={"environmentId": environment, "serviceId": service["id"]}), lambda error: error.errors)
raises("patch of no service", TransportQueryError, lambda: ask("EnvironmentPatchCommit", environmentId=environment, patch={"services": {"none": {}}}), message("Invalid"))
stranger = client("wrong").connect_sync()
raises("a wrong token", TransportQueryError, lambda: stranger.execute(GraphQLRequest(DOCUMENTS["ApiToken"])), message("Not Authorized"))
raises("a document that its client refuses", GraphQLError, lambda: session.execute(gql("{ nothing }")))
unchecked = client(os.environ["RAILWAY_TOKEN"], schema=False).connect_sync()
raises("a document that the server refuses", (TransportQueryError, TransportServerError), lambda: unchecked.execute(gql("{ nothing }")))
for operation, name, variables in (
    ("projects", "ProjectsPage", {"workspaceId": WORKSPACE, "first": 1}),
    ("projectCreate", "ProjectCreate", {"input": asked}),
    ("projectDelete", "ProjectDelete", {"id": project["id"]}),
):
    fault("railway", operation, "rate_limited", retry_after=7)
    raises(f"{operation} too often", (TransportQueryError, TransportServerError), lambda: ask(name, **variables))
    fault("railway", operation, "error_before")
    raises(f"{operation} that breaks", (TransportQueryError, TransportServerError), lambda: ask(name, **variables))

check("project is deleted", ask("ProjectDelete", id=project["id"]) is True)
raises("delete twice", TransportQueryError, lambda: ask("ProjectDelete", id=project["id"]), message("Project not found"))
raises("a deleted project is not there", TransportQueryError, lambda: ask("ProjectGet", id=project["id"]), message("Project not found"))
listed = ask("ProjectsPage", workspaceId=WORKSPACE, first=10, after=None)["edges"]
check("a deleted project is not listed", [edge["node"]["id"] for edge in listed] == [twin["id"]])
unused = sorted(set(DOCUMENTS) - USED)
check(f"every document was sent; not these: {unused}", not unused)
done()
