//! Claim: give one instance to somebody.

use amends_activities::agentmail::CreateInbox;
use amends_activities::pool::{
    ChooseNumber, ClaimRequest, EnterQueue, NoteConversation, PickNumber, Queued, RecordClaim,
    ReserveInstance, Reserved, RetireNumber, StockNumber, TakeNumberRows, Tool,
};
use amends_activities::runtime::{
    AwaitAcceptance, CheckContainer, ConfigureAgent, Held, HoldContainer, JoinConversation, Joined,
    ObserveConversation, ToolHandle, VerifyConfigured,
};
use amends_activities::telnyx::{
    AssignNumber, AwaitNumber, MarkNumber, NUMBER_GONE, NUMBER_TAKEN, ORDER_FAILED, OrderNumber,
    SearchNumbers, VoidOrder,
};
use amends_engine::{Halt, Made, Refusal, Saga, Timestamp, Workflow, saga, secs};
use serde::{Deserialize, Serialize};

use crate::profile::{messaging_profile, profile_name};
use crate::reserve::Reserve;
use crate::restock::Pick;

/// The saga that gives one instance to somebody.
pub struct Claim;

/// An instance that was claimed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claimed {
    /// Which.
    pub instance: String,
    /// Whether it is still the claimer's; not when a teardown came in between.
    pub is_claimed: bool,
    /// The conversation it is in.
    pub conversation: Option<String>,
    /// Its tools.
    pub tools: Vec<ToolHandle>,
}

impl Workflow for Claim {
    const NAME: &'static str = "claim";
    const VERSION: u32 = 1;
    type Input = ClaimRequest;
    type Output = Claimed;

    fn owner(_: &ClaimRequest, claimed: &Claimed) -> Option<String> {
        Some(claimed.instance.clone())
    }

    async fn run(&self, saga: &Saga, request: ClaimRequest) -> saga::Result<Claimed> {
        let given = give_one(saga, &request).await?;
        let record = RecordClaim {
            instance: given.instance.instance.clone(),
            epoch: given.instance.epoch,
            agent_name: given.agent_name,
            conversation: given.conversation.clone(),
        };
        let is_claimed = saga.transact("commit", record).await?.is_claimed;
        let instance = given.instance.take().instance;
        Ok(Claimed { instance, is_claimed, conversation: given.conversation, tools: given.tools })
    }
}

/// An instance that is its claimer's, and all that it got.
struct Given {
    instance: Made<Reserved>,
    agent_name: String,
    tools: Vec<ToolHandle>,
    conversation: Option<String>,
}

/// So many instances at most are tried.
const CANDIDATES: u32 = 3;
/// So many numbers at most are ordered.
const NUMBERS: u32 = 3;
/// The code of a refusal that is about the container: another instance may do.
const UNFIT: &str = "unfit_container";
/// How long configuring a container, and asking it to join, may take.
const PREPARE_LIMIT: std::time::Duration = secs(900);

/// One instance after the other, until one can be given. What was done to one is undone before the next is tried.
async fn give_one(saga: &Saga, request: &ClaimRequest) -> saga::Result<Given> {
    let mut waits_since = None;
    for candidate in 1..CANDIDATES {
        let (key, since) = (format!("candidate-{candidate}"), &mut waits_since);
        let given = saga.scope(&key, |saga| async move {
            let queued = enter(&saga, request, *since).await?;
            *since = Some(queued.since);
            give(&saga, request, &queued.pool).await
        });
        match given.await {
            Err(Halt::GaveUp(refusal)) if refusal.code == UNFIT => {}
            given => return given,
        }
    }
    // The last one's end is the claim's.
    let queued = enter(saga, request, waits_since).await?;
    give(saga, request, &queued.pool).await
}

async fn enter(saga: &Saga, request: &ClaimRequest, since: Option<Timestamp>) -> saga::Result<Made<Queued>> {
    saga.transact("queue", EnterQueue { template: request.template_id.clone(), since }).await
}

/// A refusal by a container, or its silence, says that another instance may do; what it says of the request itself
/// every other one would say too.
fn unfit(refusal: Refusal) -> Halt {
    if refusal.code == "runtime" {
        Halt::give_up(refusal.code, refusal.message)
    } else {
        Halt::give_up(UNFIT, refusal.to_string())
    }
}

fn by_container(halt: Halt) -> Halt {
    match halt {
        Halt::Refused { refusal, .. } => unfit(refusal),
        other => other,
    }
}

/// Reserves an instance, and makes it the claimer's, up to the point where there is no way back.
async fn give(saga: &Saga, request: &ClaimRequest, pool: &str) -> saga::Result<Given> {
    let reserve = ReserveInstance {
        template: request.template_id.clone(),
        pool: pool.to_owned(),
        owner: request.owner_id.clone(),
        conversation_target: request.join_url.clone(),
    };
    let instance = saga.transact("reserve", Reserve(reserve)).await?;
    let agent_name = request.name.clone().unwrap_or_else(|| instance.definition.agent_name.clone());
    let (domain, token) = (instance.domain.clone(), instance.token.clone());

    let hold = HoldContainer { instance: instance.instance.clone(), domain: domain.clone() };
    let container = saga.step("container", hold).await?;
    // Before anything is made for it: that it is idle in our tables is not its own word.
    let check = CheckContainer { domain: domain.clone(), token: token.clone() };
    saga.step("check", check).await.map_err(by_container)?;
    let tools = provide_all(saga, &instance, &agent_name).await?;
    let joined = prepare_in_time(saga, request, &instance, &container, &agent_name, &tools).await?;
    let conversation = match joined {
        Some(joined) => Some(bind(saga, &instance, joined).await?),
        None => {
            let epoch = instance.epoch;
            let configured = VerifyConfigured { domain, token, epoch };
            saga.pivot("configured", configured).await.map_err(by_container)?;
            None
        }
    };
    Ok(Given { instance, agent_name, tools, conversation })
}

/// The template's tools, side by side; one that is not required may be missing.
async fn provide_all(
    saga: &Saga,
    instance: &Made<Reserved>,
    agent_name: &str,
) -> saga::Result<Vec<ToolHandle>> {
    let specs = &instance.definition.tools;
    let tools: Vec<_> = specs.iter().map(|spec| (spec.tool.to_string(), spec.tool)).collect();
    let provided =
        saga.each_kept("tools", 0, tools, |saga, tool| provide(saga, tool, instance, agent_name)).await?;
    let mut handles = Vec::new();
    for (spec, provided) in specs.iter().zip(provided) {
        match provided {
            Ok(handle) => handles.push(handle),
            Err(Halt::Refused { .. } | Halt::GaveUp(_)) if !spec.is_required => {}
            Err(halt) => return Err(halt),
        }
    }
    Ok(handles)
}

/// What configuring and joining came to.
enum Prepared {
    Ready(Option<Made<Joined>>),
    Refused(Refusal),
    TooLate,
}

/// Configures the runtime and has it join, where its kind has conversations, within a limit: a container that neither
/// does it nor refuses must not use up the claim's time.
async fn prepare_in_time(
    saga: &Saga,
    request: &ClaimRequest,
    instance: &Made<Reserved>,
    container: &Made<Held>,
    agent_name: &str,
    tools: &[ToolHandle],
) -> saga::Result<Option<Made<Joined>>> {
    let ways = [("work", true), ("limit", false)];
    let (_, prepared) = saga
        .race("prepare", ways, |saga, works| async move {
            if !works {
                saga.sleep("limit", PREPARE_LIMIT).await?;
                return Ok(Prepared::TooLate);
            }
            match prepare(&saga, request, instance, container, agent_name, tools).await {
                Ok(joined) => Ok(Prepared::Ready(joined)),
                Err(Halt::Refused { refusal, .. }) => Ok(Prepared::Refused(refusal)),
                Err(halt) => Err(halt),
            }
        })
        .await?;
    match prepared {
        Prepared::Ready(joined) => Ok(joined),
        Prepared::Refused(refusal) => Err(unfit(refusal)),
        Prepared::TooLate => Err(Halt::give_up(UNFIT, "the container was not ready in time")),
    }
}

async fn prepare(
    saga: &Saga,
    request: &ClaimRequest,
    instance: &Reserved,
    container: &Made<Held>,
    agent_name: &str,
    tools: &[ToolHandle],
) -> saga::Result<Option<Made<Joined>>> {
    let (domain, token) = (instance.domain.clone(), instance.token.clone());
    let configure = ConfigureAgent {
        container: container.clone(),
        domain: domain.clone(),
        token: token.clone(),
        epoch: instance.epoch,
        agent_name: agent_name.to_owned(),
        instructions: instance.definition.instructions.clone(),
        model: instance.definition.model.clone(),
        tools: tools.to_vec(),
    };
    saga.step("configure", configure).await?;
    if !instance.settings.conversations {
        return Ok(None);
    }
    let join = JoinConversation {
        container: container.clone(),
        domain,
        token,
        epoch: instance.epoch,
        join_url: request.join_url.clone(),
    };
    saga.step("join", join).await.map(Some)
}

/// Waits until the runtime is in its conversation, and sees it there; the conversation.
async fn bind(saga: &Saga, instance: &Reserved, joined: Made<Joined>) -> saga::Result<String> {
    let (domain, token) = (instance.domain.clone(), instance.token.clone());
    let conversation = match &joined.conversation {
        Some(conversation) => conversation.clone(),
        None => {
            // The claim's own deadline ends the waiting.
            let wait =
                AwaitAcceptance { domain: domain.clone(), token: token.clone(), joined: joined.clone() };
            let accepted = saga.poll_until("acceptance", wait, secs(5), secs(86_400)).await;
            accepted.map_err(by_container)?.take().conversation
        }
    };
    let note = NoteConversation {
        instance: instance.instance.clone(),
        epoch: instance.epoch,
        conversation: conversation.clone(),
    };
    saga.transact("conversation", note).await?;
    let observe = ObserveConversation { domain, token, joined, conversation };
    Ok(saga.pivot("bound", observe).await.map_err(by_container)?.take().conversation)
}

/// One tool, whichever it is; its handle is what the agent gets.
async fn provide(saga: Saga, tool: Tool, instance: &Reserved, agent_name: &str) -> saga::Result<ToolHandle> {
    let handle = match tool {
        Tool::Agentmail => {
            // An instance that is claimed again gets a new one.
            let name = format!("{}-{}", instance.name, instance.epoch);
            saga.step("inbox", CreateInbox { name, display_name: agent_name.to_owned() })
                .await?
                .take()
                .address
        }
        Tool::Telnyx => number(&saga, instance).await?,
    };
    Ok(ToolHandle { tool: tool.to_string(), handle })
}

/// A number from the stock, or a new one; it is the stock's whatever becomes of the claim.
async fn number(saga: &Saga, instance: &Reserved) -> saga::Result<String> {
    let profile = messaging_profile(saga, &profile_name(&instance.name)).await?;
    for number in 1..=NUMBERS {
        let mut chosen = None;
        let picked = &mut chosen;
        let profile = profile.as_str();
        let assigned = saga
            .scope(&format!("stock-{number}"), |saga| async move {
                let choose = ChooseNumber { instance: instance.instance.clone() };
                let Some((phone_number, number_id)) = saga.transact("choose", choose).await?.take().number
                else {
                    return Ok(None);
                };
                *picked = Some(phone_number.clone());
                assign(&saga, number_id, phone_number, profile).await.map(Some)
            })
            .await;
        match (assigned, chosen) {
            (Ok(Some(phone_number)), _) => return Ok(phone_number),
            (Ok(None), _) => break,
            // It was released behind our back: nobody is given it again.
            (Err(Halt::Refused { refusal, .. }), Some(phone_number)) if refusal.code == NUMBER_GONE => {
                saga.transact(&format!("retire-{number}"), RetireNumber { phone_number }).await?;
            }
            (Err(halt), _) => return Err(halt),
        }
    }
    let (phone_number, number_id) = buy(saga, instance).await?;
    assign(saga, number_id, phone_number, &profile).await
}

async fn assign(saga: &Saga, number_id: String, phone_number: String, profile: &str) -> saga::Result<String> {
    let assign = AssignNumber { number_id, phone_number: phone_number.clone(), profile: profile.to_owned() };
    saga.step("assign", assign).await?;
    Ok(phone_number)
}

/// One number after the other, until one is bought: between search and order somebody else may take it, and an order
/// may fail.
async fn buy(saga: &Saga, instance: &Reserved) -> saga::Result<(String, String)> {
    let mut last = Halt::give_up("no_number", "no number was to be had");
    for number in 1..=NUMBERS {
        let mut ordered = None;
        let picked = &mut ordered;
        let bought = saga
            .scope(&format!("number-{number}"), |saga| async move {
                let reference = reference(instance, number);
                let candidate = pick(&saga, instance, &reference).await?;
                *picked = Some(candidate.clone());
                order(&saga, reference, candidate).await
            })
            .await;
        match bought {
            Err(Halt::Refused { refusal, step }) if refusal.code == ORDER_FAILED => {
                // The order is on the ledger as one that brings a number, and it brings none.
                if let Some(phone_number) = ordered {
                    let rows = TakeNumberRows { phone_number };
                    let rows = saga.transact(&format!("failed-{number}"), rows).await?.take();
                    let resources = rows.into_iter().map(|row| row.id).collect();
                    saga.step(&format!("void-{number}"), VoidOrder { resources }).await?;
                }
                last = Halt::Refused { refusal, step };
            }
            Err(Halt::Refused { refusal, step }) if refusal.code == NUMBER_TAKEN => {
                last = Halt::Refused { refusal, step };
            }
            bought => return bought,
        }
    }
    Err(last)
}

/// Each order has a reference of its own, by which it is found again.
fn reference(instance: &Reserved, number: u32) -> String {
    match number {
        1 => format!("{}-{}", instance.name, instance.epoch),
        number => format!("{}-{}-g{number}", instance.name, instance.epoch),
    }
}

async fn pick(saga: &Saga, instance: &Reserved, reference: &str) -> saga::Result<String> {
    let search = SearchNumbers { country: instance.settings.country.clone() };
    let found = saga.step("search", search).await?;
    let pick = PickNumber { instance: instance.instance.clone(), candidates: found.phone_numbers.clone() };
    let pick = Pick { pick, reference: reference.to_owned() };
    Ok(saga.transact("pick", pick).await?.take().phone_number)
}

async fn order(saga: &Saga, reference: String, phone_number: String) -> saga::Result<(String, String)> {
    let order = OrderNumber { phone_number: phone_number.clone(), reference: reference.clone() };
    let order = saga.step("order", order).await?.take();
    let wait = AwaitNumber { order, phone_number: phone_number.clone(), reference: reference.clone() };
    let number = saga.poll_until("await", wait, secs(3), secs(600)).await?;
    let mark = MarkNumber { number_id: number.id.clone(), phone_number: phone_number.clone(), reference };
    saga.step("mark", mark).await?;
    let stock = StockNumber { phone_number: phone_number.clone(), telnyx_id: number.id.clone() };
    saga.transact("stock", stock).await?;
    Ok((phone_number, number.id.clone()))
}
