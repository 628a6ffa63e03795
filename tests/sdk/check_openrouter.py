"""OpenRouter's own client, for every call that we use. It checks each answer against its types."""

import datetime
import os

from openrouter import OpenRouter, errors
from openrouter.utils import RetryConfig

from checks import BASE, check, done, fault, raises

URL = BASE + "/openrouter/api/v1"
NO_RETRY = RetryConfig("none", None, False)


def client(key):
    return OpenRouter(api_key=key, server_url=URL, retry_config=NO_RETRY)


keys = client(os.environ["OPENROUTER_KEY"]).api_keys
expires = datetime.datetime(2031, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)

made = keys.create(name="one", limit=2.5, expires_at=expires)
check("create answers the secret", made.key.startswith("sk-or-v1-"))
check("create answers the key", made.data.name == "one" and made.data.limit == 2.5 and not made.data.disabled)
check("create keeps the expiry", made.data.expires_at == expires)
check("create makes a new key of the same name", keys.create(name="one").data.hash != made.data.hash)
reset = keys.create(name="two", limit=1, limit_reset="monthly", include_byok_in_limit=True).data
check("create keeps the reset", reset.limit_reset == "monthly" and reset.include_byok_in_limit)

got = keys.get(hash=made.data.hash).data
check("get answers what create did", got.model_dump() == made.data.model_dump())
check("get has no secret", made.key not in got.model_dump_json())
check("get answers times", datetime.datetime.fromisoformat(got.created_at).tzinfo is not None)

listed = keys.list().data
check("list is newest first", [key.name for key in listed] == ["two", "one", "one"])
changed = keys.update(hash=reset.hash, disabled=True, name="three", limit=9, limit_reset=None).data
check("update sets", (changed.disabled, changed.name, changed.limit, changed.limit_reset) == (True, "three", 9, None))
check("update says when", changed.updated_at is not None)
check("list leaves out what is disabled", len(keys.list().data) == 2)
check("list shows what is disabled when asked", len(keys.list(include_disabled=True).data) == 3)
check("list has one workspace", len(keys.list(workspace_id=reset.workspace_id).data) == 2)

for number in range(100):
    keys.create(name=f"page-{number}")
first = keys.list(include_disabled=True).data
rest = keys.list(include_disabled=True, offset=100).data
check("list has 100 on a page", (len(first), len(rest)) == (100, 3))
check("list goes on at its offset", len({key.hash for key in first + rest}) == 103)

check("delete says so", keys.delete(hash=made.data.hash).DELETED is True)
raises("a deleted key is not found", errors.NotFoundResponseError, lambda: keys.get(hash=made.data.hash))
raises("delete twice is not found", errors.NotFoundResponseError, lambda: keys.delete(hash=made.data.hash))
raises("update of none is not found", errors.NotFoundResponseError, lambda: keys.update(hash="none", disabled=True))
check("list lacks what is deleted", made.data.hash not in {key.hash for key in keys.list().data})

bad = client("sk-or-wrong").api_keys
unauthorized = errors.UnauthorizedResponseError
raises("a wrong key may not create", unauthorized, lambda: bad.create(name="x"), lambda e: e.data.error.code == 401)
raises("a wrong key may not list", unauthorized, bad.list)
raises("a wrong key may not get", unauthorized, lambda: bad.get(hash=reset.hash))
raises("a wrong key may not update", unauthorized, lambda: bad.update(hash=reset.hash, disabled=False))
raises("a wrong key may not delete", unauthorized, lambda: bad.delete(hash=reset.hash))
raises("a key needs a name", errors.BadRequestResponseError, lambda: keys.create(name=""), lambda e: e.data.error.code == 400)
for operation, call in (
    ("createKeys", lambda: keys.create(name="x")),
    ("list", keys.list),
    ("getKey", lambda: keys.get(hash=reset.hash)),
    ("updateKeys", lambda: keys.update(hash=reset.hash, disabled=True)),
    ("deleteKeys", lambda: keys.delete(hash=reset.hash)),
):
    fault("openrouter", operation, "rate_limited", retry_after=7)
    raises(
        f"{operation} too often",
        errors.TooManyRequestsResponseError,
        call,
        lambda e: e.data.error.code == 429 and e.headers["retry-after"] == "7",
    )
    fault("openrouter", operation, "error_before")
    raises(f"{operation} that breaks", errors.InternalServerResponseError, call, lambda e: e.data.error.code == 500)
done()
