//! Agreement: what each instance at rest was given, compared on both sides: in our tables and at the providers.

use std::collections::BTreeSet;

use amends_activities::pool::{Instance, PoolSettings, Seed, TemplateDefinition, Tool};
use amends_engine::store::tx::Row;
use amends_engine::store::{ResourceFilter, ResourceRow, ResourceState};
use amends_engine::{SecretRef, params};
use amends_sandbox::{Deed, TOKEN_VARIABLE};
use serde_json::{Value, json};

use crate::shop::{PREFIX, SEED, Shop};

/// Both sides of a world at rest.
struct Rest {
    holdings: Value,
    /// Every row, those that are gone too.
    ledger: Vec<ResourceRow>,
    deeds: Vec<Deed>,
    /// Every number that was ever picked.
    numbers: Vec<Row>,
    /// Instance, saga, kind, and when it began, the oldest first.
    sagas: Vec<(String, String, String, i64)>,
    /// The instances whose token is still stored.
    tokens: BTreeSet<String>,
    seed: Seed,
}

/// Whether a name is this one, or that of a later generation of it.
fn is_generation_of(name: &str, base: &str) -> bool {
    let Some(rest) = name.strip_prefix(base) else { return false };
    rest.is_empty() || rest.strip_prefix("-g").is_some_and(|number| number.parse::<u32>().is_ok())
}

fn all<'v>(holdings: &'v Value, provider: &str, kind: &str) -> impl Iterator<Item = &'v Value> {
    holdings[provider][kind].as_array().unwrap().iter()
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

impl Rest {
    async fn of(shop: &Shop) -> Self {
        let engine = &shop.running().engine;
        let filter = ResourceFilter { limit: 1000, ..ResourceFilter::default() };
        let read = async |sql: &'static str| engine.store().fetch(sql.into(), params![]).await.unwrap();
        let sagas = read("select instance, saga, kind, began_at from instance_saga order by began_at").await;
        let word = |row: &Row, name: &str| row.text(name).unwrap();
        let mut tokens = BTreeSet::new();
        for row in read("select id, token from instance").await {
            let token = SecretRef::stored(word(&row, "token"));
            if engine.store().secret(&token).await.unwrap().is_some() {
                tokens.insert(word(&row, "id"));
            }
        }
        Self {
            holdings: shop.sandbox.holdings(),
            ledger: engine.resources(filter).await.unwrap(),
            deeds: shop.sandbox.deeds(),
            numbers: read("select * from number").await,
            sagas: sagas
                .iter()
                .map(|row| {
                    let began = row.int("began_at").unwrap();
                    (word(row, "instance"), word(row, "saga"), word(row, "kind"), began)
                })
                .collect(),
            tokens,
            seed: Seed::parse(SEED).unwrap(),
        }
    }

    fn settings(&self, instance: &Instance) -> &PoolSettings {
        &self.seed.pools.iter().find(|pool| pool.id == instance.pool).unwrap().settings
    }

    fn template(&self, instance: &Instance) -> Option<&TemplateDefinition> {
        let id = instance.template_id.as_ref()?;
        Some(&self.seed.templates.iter().find(|template| template.id == *id)?.definition)
    }

    /// What an instance has of a kind.
    fn held(&self, instance: &Instance, provider: &str, kind: &str) -> Vec<&ResourceRow> {
        let is_it = |row: &&ResourceRow| {
            row.state != ResourceState::Gone
                && (row.provider.as_str(), row.kind.as_str()) == (provider, kind)
                && row.holder == instance.id
        };
        self.ledger.iter().filter(is_it).collect()
    }

    /// The ids of what was ever on the ledger for an instance under a name of its own.
    fn ever(&self, instance: &Instance, provider: &str, kind: &str) -> BTreeSet<String> {
        let rows = self.ledger.iter().filter(|row| {
            (row.provider.as_str(), row.kind.as_str()) == (provider, kind)
                && row.name.starts_with(&instance.name)
        });
        rows.filter_map(|row| row.external_id.clone()).collect()
    }

    /// The claim that an instance is, or was last, in the hand of, and since when.
    fn claim(&self, instance: &Instance) -> Option<(&str, i64)> {
        let mut of_it = self.sagas.iter().filter(|(of, _, kind, _)| *of == instance.id && kind == "claim");
        of_it.next_back().map(|(_, saga, _, began)| (saga.as_str(), *began))
    }

    /// When the calls of this kind took effect, in microseconds.
    fn all_times(&self, operation: &str, is_it: impl Fn(&Deed) -> bool) -> Vec<i64> {
        let done = self.deeds.iter().filter(|deed| deed.operation == operation && deed.done);
        done.filter(|deed| is_it(deed)).map(|deed| deed.at.as_microsecond()).collect()
    }

    /// The same without those that landed when nobody waited for them any more.
    fn times(&self, operation: &str, is_it: impl Fn(&Deed) -> bool) -> Vec<i64> {
        self.all_times(operation, |deed| !deed.late && is_it(deed))
    }
}

/// The first of these is before each of those.
fn begins_before(first: &[i64], then: &[i64]) -> bool {
    then.iter().all(|then| first.iter().any(|first| first < then))
}

/// None of these is after any of those.
fn ends_before(first: &[i64], then: &[i64]) -> bool {
    first.iter().max().zip(then.iter().min()).is_none_or(|(first, then)| first < then)
}

impl Shop {
    /// What has to be true of every instance at rest, looked at on both sides: in our tables and in its container.
    pub async fn instances_hold(&self, what: &str) {
        let rest = Rest::of(self).await;
        let instances = self.instances().await;
        orders_hold(&rest, &instances, what);
        numbers_hold(&rest, &instances, what);
        rows_hold(&rest, &instances, what);
        for instance in &instances {
            let container = self.container(instance);
            let what = format!("{} {container:#}\n{what}", instance.id);
            let is_alive = matches!(instance.state.as_str(), "idle" | "claimed");
            if is_alive {
                project_holds(&rest, instance, &what);
                key_holds(&rest, instance, &container, &what);
            }
            let remembered = self.remembered(instance);
            match instance.state.as_str() {
                "idle" => idle_holds(instance, &container, &remembered, &what),
                "claimed" => claimed_holds(&rest, instance, &container, &what),
                "gone" | "failed" => {
                    let runs = |agent: &Value| text(agent, "domain").starts_with(&instance.name);
                    assert!(!all(&rest.holdings, "runtime", "agents").any(runs), "it still runs: {what}");
                    assert!(!rest.tokens.contains(&instance.id), "its token is still stored: {what}");
                    assert!(remembered.is_empty(), "something is left of its memory: {what}");
                }
                _ => {}
            }
            // Names of projects, inboxes and orders say which instance they are of; addresses of Railway's do not.
            if instances.len() == 1 {
                order_of_making_holds(&rest, instance, &what);
            }
            order_of_removing_holds(&rest, instance, &what);
        }
    }
}

/// An order bears a reference by which it is found again: of an instance of ours, and of one of its claims.
fn orders_hold(rest: &Rest, instances: &[Instance], what: &str) {
    for order in all(&rest.holdings, "telnyx", "orders") {
        let reference = text(order, "reference");
        assert!(reference.starts_with(PREFIX), "an order that nobody finds again: {order} {what}");
        let of = instances.iter().find(|instance| reference.starts_with(&format!("{}-", instance.name)));
        let of = of.unwrap_or_else(|| panic!("an order for none of our instances: {order} {what}"));
        let number = |part: &str| part.trim_start_matches('g').parse::<i64>();
        let mut parts = reference[of.name.len() + 1..].split('-').map(number);
        let epoch = parts.next().unwrap().unwrap();
        assert!(epoch % 2 == 1 && epoch <= of.claim_epoch, "an order for no claim of it: {order} {what}");
        assert!(parts.next().is_none_or(|number| (2..=3).contains(&number.unwrap())), "{order} {what}");
        assert!(parts.next().is_none(), "{order} {what}");
    }
}

/// What we say of each number is what Telnyx says of it, and it bears the reference of the order that bought it.
fn numbers_hold(rest: &Rest, instances: &[Instance], what: &str) {
    let bought: Vec<_> = all(&rest.holdings, "telnyx", "numbers").collect();
    for number in &bought {
        let known =
            rest.numbers.iter().any(|row| row.text("phone_number").unwrap() == text(number, "phone_number"));
        assert!(known, "a number that is on no stock: {number} {what}");
        let order = all(&rest.holdings, "telnyx", "orders").find(|order| order["id"] == number["order"]);
        assert_eq!(
            number["reference"],
            order.unwrap()["reference"],
            "no sweep knows it again: {number} {what}"
        );
    }
    for row in &rest.numbers {
        let digits = row.text("phone_number").unwrap();
        let there = bought.iter().find(|number| text(number, "phone_number") == digits);
        let profile = there.and_then(|number| number["messaging_profile_id"].as_str());
        let holder = row.optional_text("instance").unwrap();
        let what = format!("{digits}: {there:?} {what}");
        match row.text("state").unwrap().as_str() {
            "assigned" => {
                let there = there.unwrap_or_else(|| panic!("a number that is not there: {what}"));
                assert!(there["reference"].is_string(), "no sweep knows it again: {what}");
                assert_eq!(
                    row.optional_text("telnyx_id").unwrap().as_deref(),
                    there["id"].as_str(),
                    "{what}"
                );
                let is_claimed = |one: &&Instance| Some(&one.id) == holder.as_ref() && one.state == "claimed";
                assert!(instances.iter().any(|one| is_claimed(&one)), "assigned to nobody: {what}");
                let named =
                    all(&rest.holdings, "telnyx", "profiles").find(|known| known["id"].as_str() == profile);
                assert_eq!(named.map(|profile| text(profile, "name")), Some(PREFIX), "{what}");
            }
            "quarantine" => {
                assert_eq!((holder, profile), (None, None), "nobody has a number that rests: {what}");
                let until = row.optional_int("quarantined_until").unwrap();
                assert!(until.unwrap() > row.int("changed_at").unwrap(), "it does not rest: {what}");
            }
            state => panic!("{state} is no state to rest in: {what}"),
        }
    }
}

/// Each row that is left is its instance's and bears its name, or is the stock of numbers'.
fn rows_hold(rest: &Rest, instances: &[Instance], what: &str) {
    for row in rest.ledger.iter().filter(|row| row.state != ResourceState::Gone) {
        let what = format!("{row:?} {what}");
        assert!(!row.holder.starts_with("sg_"), "held by a saga that has ended: {what}");
        if matches!((row.provider.as_str(), row.kind.as_str()), ("telnyx", "number" | "messaging_profile")) {
            assert_eq!(row.holder, "numbers", "{what}");
            continue;
        }
        let holder = instances.iter().find(|instance| instance.id == row.holder);
        let holder = holder.unwrap_or_else(|| panic!("held by nobody: {what}"));
        assert!(!matches!(holder.state.as_str(), "gone" | "failed"), "held by what is gone: {what}");
        let claimed = matches!(holder.state.as_str(), "claimed" | "tainted");
        let inbox = format!("{}-{}", holder.name, holder.claim_epoch);
        let fits = match (row.provider.as_str(), row.kind.as_str()) {
            ("railway", "project") | ("openrouter", "key") => is_generation_of(&row.name, &holder.name),
            ("agentmail", "inbox") => claimed && is_generation_of(&row.name, &inbox),
            ("telnyx", "assignment") => claimed,
            ("runtime", _) => claimed && Some(&row.name) == holder.domain.as_ref(),
            ("railway", _) => row.within.is_some(),
            _ => false,
        };
        assert!(fits, "it is not its holder's: {holder:?} {what}");
    }
}

/// One project with one service, on the recorded image, behind the recorded domain, with its volume.
fn project_holds(rest: &Rest, instance: &Instance, what: &str) {
    let rows = rest.held(instance, "railway", "project");
    assert_eq!(rows.len(), 1, "{what}");
    assert_eq!(rows[0].external_id, instance.railway_project_id, "{what}");
    let id = rows[0].external_id.as_deref();
    let project = all(&rest.holdings, "railway", "projects").find(|project| project["id"].as_str() == id);
    let project = project.unwrap_or_else(|| panic!("its project is not there: {what}"));
    let what = format!("{project:#} {what}");
    let settings = rest.settings(instance);
    assert_eq!(text(project, "name"), rows[0].name, "{what}");
    assert_eq!(text(project, "workspace"), settings.workspace, "{what}");
    assert!(text(project, "description").contains(rows[0].saga.as_str()), "it says who made it: {what}");
    let services = project["services"].as_array().unwrap();
    assert_eq!(services.len(), 1, "{what}");
    assert_eq!(services[0]["id"].as_str(), instance.railway_service_id.as_deref(), "{what}");
    assert_eq!(services[0]["image"].as_str(), instance.image.as_deref(), "{what}");
    assert!(instance.image.as_ref().unwrap().starts_with(&format!("{}@sha256:", settings.image)), "{what}");
    let volumes = project["volumes"].as_array().unwrap();
    let is_right = |volume: &Value| {
        volume["service"] == services[0]["id"] && volume["mount_path"] == settings.mount_path.as_str()
    };
    assert!(!volumes.is_empty() && volumes.iter().all(is_right), "what it writes is kept: {what}");
    assert_eq!(project["domains"], json!([instance.domain]), "{what}");
    assert_eq!(project["deployments"].as_array().unwrap().len(), 1, "it was deployed once: {what}");
}

/// The container pays with the instance's own key, up to the pool's limit, and was given nothing besides it but its token.
fn key_holds(rest: &Rest, instance: &Instance, container: &Value, what: &str) {
    let variables: Vec<_> = container["variables"].as_object().unwrap().keys().collect();
    assert_eq!(variables, [TOKEN_VARIABLE, "OPENROUTER_API_KEY"], "{what}");
    let rows = rest.held(instance, "openrouter", "key");
    assert_eq!(rows.len(), 1, "{what}");
    assert_eq!(container["key"].as_str(), rows[0].external_id.as_deref(), "it pays with its own key: {what}");
    let key = all(&rest.holdings, "openrouter", "keys").find(|key| key["hash"] == container["key"]).unwrap();
    assert_eq!(text(key, "name"), rows[0].name, "{what}");
    assert_eq!(key["limit"], rest.settings(instance).llm_limit_usd, "{what}");
    assert_eq!(key["disabled"], false, "{what}");
    assert_eq!(container["image"].as_str(), instance.image.as_deref(), "{what}");
    // The fake compares the token, so that an answer to it is an answer to the right one.
    assert!(rest.tokens.contains(&instance.id), "{what}");
    let domain = instance.domain.as_ref().unwrap();
    assert!(!rest.times("status", |deed| deed.of == *domain).is_empty(), "it knows its token: {what}");
}

/// Nothing of any claim is left, on either side, and the container said so last.
fn idle_holds(instance: &Instance, container: &Value, remembered: &[String], what: &str) {
    assert_eq!(container["clean"], true, "idle means clean: {what}");
    assert!(container["conversation"].is_null(), "idle means unbound: {what}");
    assert_eq!(container["pending"], false, "{what}");
    assert!(remembered.is_empty(), "idle means nothing is remembered: {what}");
    for given in ["agent_name", "instructions", "model", "tools", "provisioned_by", "bound_by", "invitation"]
    {
        assert!(container[given].is_null(), "{given} is left in it: {what}");
    }
    assert_eq!(container["epoch"], instance.claim_epoch, "it was seen clean under its last epoch: {what}");
    let ours = (&instance.template_id, &instance.owner_id, &instance.agent_name, &instance.conversation);
    assert_eq!(ours, (&None, &None, &None, &None), "{what}");
    let history = container["history"].as_array().unwrap();
    let last = history.iter().rfind(|call| call["status"] == 200);
    assert!(last.is_none_or(|call| call["operation"] == "reset"), "something came behind the reset: {what}");
}

/// It is what its template says, has the tools that were made for this claim, and is in the claim's conversation.
fn claimed_holds(rest: &Rest, instance: &Instance, container: &Value, what: &str) {
    let template = rest.template(instance).unwrap_or_else(|| panic!("of no template: {what}"));
    let claim = format!("{}/", rest.claim(instance).unwrap().0);
    assert_eq!(container["epoch"], instance.claim_epoch, "{what}");
    assert_eq!(text(container, "instructions"), template.instructions, "{what}");
    assert_eq!(container["model"].as_str(), template.model.as_deref(), "{what}");
    assert_eq!(container["agent_name"].as_str(), instance.agent_name.as_deref(), "{what}");
    assert_eq!(container["conversation"].as_str(), instance.conversation.as_deref(), "{what}");
    assert!(text(container, "provisioned_by").starts_with(&claim), "{what}");
    let converses = rest.settings(instance).conversations;
    assert_eq!(container["conversation"].is_string(), converses, "{what}");
    assert!(!converses || text(container, "bound_by").starts_with(&claim), "{what}");

    let tools = container["tools"].as_array().unwrap();
    let wanted: Vec<_> = template.tools.iter().filter(|spec| spec.is_required).collect();
    let has = |tool: Tool| tools.iter().any(|given| given["tool"] == tool.to_string());
    assert!(wanted.iter().all(|spec| has(spec.tool)) && tools.len() <= template.tools.len(), "{what}");
    for given in tools {
        let handle = text(given, "handle");
        let what = format!("{given}: {what}");
        if text(given, "tool") == "agentmail" {
            let rows = rest.held(instance, "agentmail", "inbox");
            assert_eq!(
                rows.iter().filter_map(|row| row.external_id.as_deref()).collect::<Vec<_>>(),
                [handle],
                "{what}"
            );
            let inbox =
                all(&rest.holdings, "agentmail", "inboxes").find(|inbox| text(inbox, "address") == handle);
            let inbox = inbox.unwrap_or_else(|| panic!("a tool that is not there: {what}"));
            assert_eq!(text(inbox, "client_id"), rows[0].name, "{what}");
            assert_eq!(inbox["display_name"], container["agent_name"], "{what}");
        } else {
            let rows = rest.held(instance, "telnyx", "assignment");
            assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), [handle], "{what}");
            let of = rest.numbers.iter().find(|row| row.text("phone_number").unwrap() == handle).unwrap();
            assert_eq!(of.optional_text("instance").unwrap().as_ref(), Some(&instance.id), "{what}");
        }
    }
}

/// What depends on something was asked for behind it.
fn order_of_making_holds(rest: &Rest, instance: &Instance, what: &str) {
    let of_any = |operation: &str| rest.times(operation, |_| true);
    let deployed = of_any("environmentPatchCommit");
    for first in ["createKeys", "volumeCreate", "serviceDomainCreate"] {
        let made = rest.all_times(first, |_| true);
        assert!(begins_before(&made, &deployed), "deployed before {first}: {what}");
    }
    let Some(domain) = &instance.domain else { return };
    for epoch in (1..=instance.claim_epoch).step_by(2) {
        let reference = format!("{}-{epoch}", instance.name);
        let of_claim = |deed: &Deed| {
            deed.of.starts_with(&reference) || deed.to.as_ref().is_some_and(|to| to.starts_with(&reference))
        };
        let at_container = |deed: &Deed| deed.of == *domain;
        let under =
            |deed: &Deed| at_container(deed) && deed.to.as_deref() == Some(epoch.to_string().as_str());
        let made = [rest.times("createInbox", of_claim), rest.times("createNumberOrder", of_claim)].concat();
        let told = rest.times("provision", under);
        if epoch + 2 > instance.claim_epoch {
            let began = rest.claim(instance).map_or(0, |(_, began)| began);
            let asked = rest.times("status", |deed| at_container(deed) && deed.at.as_microsecond() > began);
            assert!(begins_before(&asked, &made), "made for a container that was not asked: {what}");
        }
        assert!(told.is_empty() || ends_before(&rest.times("createInbox", of_claim), &told), "{what}");
        let joined = [rest.times("createConversation", under), rest.times("join", under)].concat();
        assert!(
            begins_before(&rest.all_times("provision", under), &joined),
            "it talks before it knows who it is: {what}"
        );
    }
}

/// What depended on something was taken away before it, and an instance is at rest only behind all of it.
fn order_of_removing_holds(rest: &Rest, instance: &Instance, what: &str) {
    let keys = rest.ever(instance, "openrouter", "key");
    let projects = rest.ever(instance, "railway", "project");
    let inboxes = rest.ever(instance, "agentmail", "inbox");
    let revoked = rest.times("deleteKeys", |deed| keys.contains(&deed.of));
    let deleted = rest.times("projectDelete", |deed| projects.contains(&deed.of));
    let emptied = rest.times("deleteInbox", |deed| inboxes.contains(&deed.of));
    let is_ours = |deed: &Deed| {
        let numbers =
            all(&rest.holdings, "telnyx", "numbers").filter(|number| number["id"] == deed.of.as_str());
        numbers.into_iter().any(|number| text(number, "reference").starts_with(&instance.name))
    };
    let unassigned =
        rest.times("updateMessagingSettings", |deed| is_ours(deed) && deed.to.as_deref() == Some(""));
    let at_rest = [instance.changed_at.0];
    match instance.state.as_str() {
        "gone" => {
            let first = rest.all_times("deleteKeys", |deed| keys.contains(&deed.of));
            let is_it =
                |(of, _, kind, _): &&(String, String, String, i64)| *of == instance.id && kind == "teardown";
            let fenced = rest.sagas.iter().find(is_it).map(|(_, _, _, began)| *began).unwrap();
            for (others, which) in [(&deleted, "project"), (&emptied, "inbox"), (&unassigned, "number")] {
                // What claims took back before that was theirs.
                let others: Vec<i64> = others.iter().copied().filter(|at| *at > fenced).collect();
                assert!(begins_before(&first, &others), "the {which} went before the key: {what}");
            }
            for done in [&revoked, &deleted, &emptied, &unassigned] {
                assert!(ends_before(done, &at_rest), "it was gone before the last of it: {what}");
            }
        }
        "idle" if instance.claim_epoch > 0 => {
            let domain = instance.domain.as_ref().unwrap();
            let at_container = |deed: &Deed| deed.of == *domain;
            let resets = rest.times("reset", at_container);
            let last = |times: &[i64]| times.iter().max().copied();
            for done in [&emptied, &unassigned, &resets] {
                assert!(ends_before(done, &at_rest), "it was idle before the last of a claim: {what}");
            }
            let seen =
                rest.times("status", |deed| at_container(deed) && deed.at.as_microsecond() < at_rest[0]);
            assert!(last(&seen) > last(&resets), "nobody looked behind the reset: {what}");
            let released = |deed: &Deed| {
                at_container(deed) && deed.to.as_deref() == Some(instance.claim_epoch.to_string().as_str())
            };
            // The tools of a claim are taken from it before anybody empties the container for the next one.
            for done in [&emptied, &unassigned] {
                assert!(
                    ends_before(done, &rest.times("reset", released)),
                    "emptied with a tool in hand: {what}"
                );
            }
        }
        _ => {}
    }
}
