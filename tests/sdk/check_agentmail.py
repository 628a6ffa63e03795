"""AgentMail's own client, for every call that we use. It does not check its answers, so this does, by its types."""

import datetime
import os

import pydantic
from agentmail import AgentMail
from agentmail.core.api_error import ApiError
from agentmail.environment import AgentMailEnvironment
from agentmail.errors import IsTakenError, NotFoundError, ValidationError
from agentmail.inboxes.types import CreateInboxRequest, Inbox, ListInboxesResponse
from agentmail.types import ErrorResponse, ValidationErrorResponse

from checks import BASE, check, done, fault, raises

ONCE = {"max_retries": 0}


def client(key):
    http = BASE + "/agentmail"
    return AgentMail(environment=AgentMailEnvironment(http=http, websockets=http), api_key=key).inboxes


def typed(kind, value):
    """The same value, after each of its fields was checked."""
    return pydantic.TypeAdapter(kind).validate_json(value.json() if hasattr(value, "json") else value, strict=False)


inboxes = client(os.environ["AGENTMAIL_KEY"])
request = CreateInboxRequest(
    username="one", client_id="pool-one", display_name="One", metadata={"saga": "sg_1", "number": 1, "flag": True}
)
made = inboxes.create(request=request, request_options=ONCE)
check("create answers an inbox", typed(Inbox, made).inbox_id == "one@agentmail.to")
check("create keeps what it was given", (made.client_id, made.display_name) == ("pool-one", "One"))
check("create keeps metadata with its types", made.metadata == {"saga": "sg_1", "number": 1, "flag": True})
check("create answers times", isinstance(made.created_at, datetime.datetime) and made.created_at.tzinfo is not None)
check("create answers the address", made.email == made.inbox_id)
other = CreateInboxRequest(username="other", client_id="pool-one", display_name="Other")
check("a known client_id is the first inbox", inboxes.create(request=other, request_options=ONCE) == made)
plain = inboxes.create(request_options=ONCE)
check("create needs nothing", typed(Inbox, plain).client_id is None and plain.inbox_id.endswith("@agentmail.to"))

check("get answers what create did", inboxes.get(made.inbox_id, request_options=ONCE) == made)
for number in range(3):
    inboxes.create(request=CreateInboxRequest(username=f"n{number}"), request_options=ONCE)
page = inboxes.list(limit=2, request_options=ONCE)
check("list answers a page", typed(ListInboxesResponse, page).count == 2 and page.limit == 2)
check("list is newest first", [inbox.inbox_id for inbox in page.inboxes] == ["n2@agentmail.to", "n1@agentmail.to"])
seen = list(page.inboxes)
while page.next_page_token:
    page = inboxes.list(limit=2, page_token=page.next_page_token, request_options=ONCE)
    typed(ListInboxesResponse, page)
    seen += page.inboxes
check("list ends without a token", len(seen) == 5 and page.next_page_token is None)
oldest = inboxes.list(ascending=True, request_options=ONCE).inboxes[0]
check("list can be oldest first", oldest.inbox_id == made.inbox_id)

changed = inboxes.update(made.inbox_id, display_name="Two", metadata={"saga": None, "more": "x"}, request_options=ONCE)
check("update sets the name", typed(Inbox, changed).display_name == "Two")
check("update merges metadata", changed.metadata == {"number": 1, "flag": True, "more": "x"})
check("update says when", changed.updated_at >= made.updated_at and changed.created_at == made.created_at)
check("delete answers nothing", inboxes.delete(plain.inbox_id, request_options=ONCE) is None)


def said(kind, code):
    return lambda error: typed(kind, error.body).code == code


raises("get of none", NotFoundError, lambda: inboxes.get(plain.inbox_id, request_options=ONCE), said(ErrorResponse, "not_found"))
raises("delete twice", NotFoundError, lambda: inboxes.delete(plain.inbox_id, request_options=ONCE), said(ErrorResponse, "not_found"))
raises("update of none", NotFoundError, lambda: inboxes.update("x", display_name="x", request_options=ONCE), said(ErrorResponse, "not_found"))
invalid = CreateInboxRequest(client_id="not@allowed")
raises("create with a bad client_id", ValidationError, lambda: inboxes.create(request=invalid, request_options=ONCE), said(ValidationErrorResponse, "validation_error"))
raises("update of nothing", ValidationError, lambda: inboxes.update(made.inbox_id, request_options=ONCE), said(ValidationErrorResponse, "validation_error"))


def status(code, text):
    return lambda error: error.status_code == code and error.body["code"] == text


taken = CreateInboxRequest(username="one")
# The client names this error only where the specification lists it, which it does not for this call.
raises("create of a taken address", (IsTakenError, ApiError), lambda: inboxes.create(request=taken, request_options=ONCE), status(403, "resource_taken"))
bad = client("am_wrong")
CALLS = {
    "createInbox": lambda inboxes: inboxes.create(request_options=ONCE),
    "listInboxes": lambda inboxes: inboxes.list(request_options=ONCE),
    "getInbox": lambda inboxes: inboxes.get(made.inbox_id, request_options=ONCE),
    "updateInbox": lambda inboxes: inboxes.update(made.inbox_id, display_name="x", request_options=ONCE),
    "deleteInbox": lambda inboxes: inboxes.delete(made.inbox_id, request_options=ONCE),
}
for operation, call in CALLS.items():
    raises(f"a wrong key may not {operation}", ApiError, lambda: call(bad), status(401, "unknown_api_key"))
    fault("agentmail", operation, "rate_limited", retry_after=7)
    limited = status(429, "rate_limit_exceeded")
    raises(f"{operation} too often", ApiError, lambda: call(inboxes), lambda e: limited(e) and e.headers["retry-after"] == "7")
    fault("agentmail", operation, "error_before")
    raises(f"{operation} that breaks", ApiError, lambda: call(inboxes), status(500, "internal_error"))
done()
