"""Telnyx's own client, for every call that we use. It is told to check each answer against its types."""

import datetime
import os
import time

import telnyx
from telnyx import Telnyx

from checks import BASE, check, done, fault, raises


def client(key):
    return Telnyx(api_key=key, base_url=BASE + "/telnyx/v2", max_retries=0, _strict_response_validation=True)


def eventually(look):
    """What a look comes to, within a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.02)
    return None


account = client(os.environ["TELNYX_KEY"])
found = account.available_phone_numbers.list(filter={"country_code": "US", "features": ["sms"], "limit": 20})
check("search answers numbers", len(found.data) == 20 and all(one.phone_number.startswith("+1") for one in found.data))
check("search answers features", {"sms"} <= {feature.name for feature in found.data[0].features})
check("search answers costs", float(found.data[0].cost_information.monthly_cost) > 0)
check("search counts", found.meta.total_results == 20)
number = found.data[0].phone_number

order = account.number_orders.create(phone_numbers=[{"phone_number": number}], customer_reference="sg_1").data
check("order is pending", order.status == "pending" and order.customer_reference == "sg_1")
check("order has its number", [one.phone_number for one in order.phone_numbers] == [number])
check("order says when", isinstance(order.created_at, datetime.datetime) and order.phone_numbers_count == 1)
raises(
    "a number is sold once",
    telnyx.ConflictError,
    lambda: account.number_orders.create(phone_numbers=[{"phone_number": number}]),
    lambda error: error.body["errors"][0]["code"] == "10012",
)
listed = list(account.number_orders.list(filter={"customer_reference": "sg_1"}))
check("orders are found by reference", [one.id for one in listed] == [order.id])
check("orders of another reference are not", list(account.number_orders.list(filter={"customer_reference": "sg_2"})) == [])
filled = eventually(lambda: (got := account.number_orders.retrieve(order.id).data).status == "success" and got)
check("order succeeds", filled and filled.phone_numbers[0].status == "success")
check("order's number has an id of its own", filled.phone_numbers[0].id not in (order.id, None))

digits = number.lstrip("+")
ours = eventually(lambda: list(account.phone_numbers.list(filter={"phone_number": digits})))
check("number is found by its digits", ours and [one.phone_number for one in ours] == [number])
check("number is not found by anything else", list(account.phone_numbers.list(filter={"phone_number": number})) == [])
ours = ours[0]
check("number is active", ours.status == "active" and ours.tags == [] and not ours.deletion_lock_enabled)
check("number says when", isinstance(ours.created_at, datetime.datetime) and ours.purchased_at)
got = account.phone_numbers.retrieve(ours.id).data
check("number is retrieved", (got.id, got.phone_number) == (ours.id, number))
changed = account.phone_numbers.update(ours.id, customer_reference="pool-one", tags=["pool"]).data
check("number takes reference and tags", (changed.customer_reference, changed.tags) == ("pool-one", ["pool"]))

profile = account.messaging_profiles.create(name="pool", whitelisted_destinations=["US", "CA"]).data
check("profile is made", profile.name == "pool" and profile.whitelisted_destinations == ["US", "CA"])
check("profile says when", isinstance(profile.created_at, datetime.datetime) and profile.enabled)
named = list(account.messaging_profiles.list(filter_name_eq="pool"))
check("profile is found by its name", [one.id for one in named] == [profile.id])
check("profile of another name is not", list(account.messaging_profiles.list(filter_name_eq="pools")) == [])
settings = account.phone_numbers.messaging
check("number has no profile", settings.retrieve(ours.id).data.messaging_profile_id is None)
check("number takes a profile", settings.update(ours.id, messaging_profile_id=profile.id).data.messaging_profile_id == profile.id)
check("number keeps it", settings.retrieve(ours.id).data.messaging_profile_id == profile.id)
check("number shows it", account.phone_numbers.retrieve(ours.id).data.messaging_profile_id == profile.id)
check("number keeps it when it is not named", settings.update(ours.id).data.messaging_profile_id == profile.id)
check("number gives it back", settings.update(ours.id, messaging_profile_id="").data.messaging_profile_id is None)

for other in found.data[1:6]:
    account.number_orders.create(phone_numbers=[{"phone_number": other.phone_number}])
check("all numbers are listed over pages", eventually(lambda: len(list(account.phone_numbers.list(page_size=2))) == 6))
check("all orders are listed over pages", len(list(account.number_orders.list(page_size=4))) == 6)

error = lambda code: lambda error: error.body["errors"][0]["code"] == code and error.body["errors"][0]["title"]
raises("order of no number", telnyx.BadRequestError, account.number_orders.create, error("10015"))
raises("order of what is no number", telnyx.UnprocessableEntityError, lambda: account.number_orders.create(phone_numbers=[{"phone_number": "1312"}]), error("10016"))
raises("order that is not", telnyx.NotFoundError, lambda: account.number_orders.retrieve("none"), error("10005"))
raises("number that is not", telnyx.NotFoundError, lambda: account.phone_numbers.retrieve("1"), error("10005"))
raises("settings of none", telnyx.NotFoundError, lambda: settings.retrieve("1"), error("10005"))
raises("settings with no such profile", telnyx.NotFoundError, lambda: settings.update(ours.id, messaging_profile_id="none"), error("10005"))
raises("tag with a colon", telnyx.UnprocessableEntityError, lambda: account.phone_numbers.update(ours.id, tags=["a:b"]), error("10015"))

CALLS = {
    "listAvailablePhoneNumbers": lambda account: account.available_phone_numbers.list(filter={"limit": 1}),
    "createNumberOrder": lambda account: account.number_orders.create(phone_numbers=[{"phone_number": "+13125559999"}]),
    "listNumberOrders": lambda account: account.number_orders.list(),
    "retrieveNumberOrder": lambda account: account.number_orders.retrieve(order.id),
    "listPhoneNumbers": lambda account: account.phone_numbers.list(),
    "retrievePhoneNumber": lambda account: account.phone_numbers.retrieve(ours.id),
    "updatePhoneNumber": lambda account: account.phone_numbers.update(ours.id, customer_reference="x"),
    "deletePhoneNumber": lambda account: account.phone_numbers.delete(ours.id),
    "retrieveMessagingSettings": lambda account: account.phone_numbers.messaging.retrieve(ours.id),
    "updateMessagingSettings": lambda account: account.phone_numbers.messaging.update(ours.id, messaging_profile_id=""),
    "createMessagingProfile": lambda account: account.messaging_profiles.create(name="x", whitelisted_destinations=["US"]),
    "listMessagingProfiles": lambda account: account.messaging_profiles.list(),
}
bad = client("KEYwrong")
for operation, call in CALLS.items():
    raises(f"a wrong key may not {operation}", telnyx.AuthenticationError, lambda: call(bad), error("10009"))
    fault("telnyx", operation, "rate_limited", retry_after=7)
    limited = error("10011")
    raises(f"{operation} too often", telnyx.RateLimitError, lambda: call(account), lambda e: limited(e) and e.response.headers["retry-after"] == "7")
    fault("telnyx", operation, "error_before")
    raises(f"{operation} that breaks", telnyx.InternalServerError, lambda: call(account), error("10007"))

deleted = account.phone_numbers.delete(ours.id).data
check("delete answers the number", (deleted.id, deleted.status) == (ours.id, "deleted"))
raises("delete twice", telnyx.NotFoundError, lambda: account.phone_numbers.delete(ours.id), error("10005"))
raises("a deleted number is not there", telnyx.NotFoundError, lambda: account.phone_numbers.retrieve(ours.id), error("10005"))
done()
