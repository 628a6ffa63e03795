//! Seed: the pools and templates that an installation begins with, from a file.

use std::time::Duration;

use amends_engine::{Failure, Local, Tx, params};
use serde::{Deserialize, Serialize};

/// A seed file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// The stocks of instances.
    pub pools: Vec<PoolSeed>,
    /// What can be claimed.
    pub templates: Vec<TemplateSeed>,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSeed {
    /// Its id, as `default`.
    pub id: String,
    /// How many idle instances there shall be; 0 makes them on demand.
    pub min_idle: u32,
    /// How many instances there may be at most, of those that cost something.
    pub max_total: u32,
    /// What its instances are like.
    #[serde(flatten)]
    pub settings: PoolSettings,
}

/// What the instances of a pool are like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolSettings {
    /// The Railway workspace that pays.
    pub workspace: String,
    /// `ghcr.io/owner/name`.
    pub image: String,
    /// As `production`.
    pub tag: String,
    /// What to run instead of the image's own command.
    #[serde(default)]
    pub start_command: Option<String>,
    /// Where the volume is mounted.
    #[serde(default = "mount_path")]
    pub mount_path: String,
    /// The memory limit in mebibytes.
    #[serde(default = "memory_mb")]
    pub memory_mb: u32,
    /// The processor limit in thousandths of a core.
    #[serde(default = "cpu_millis")]
    pub cpu_millis: u32,
    /// What the model key of an instance may spend, in dollars.
    #[serde(default = "llm_limit_usd")]
    pub llm_limit_usd: u32,
    /// Whether agents of this kind join conversations.
    #[serde(default = "conversations")]
    pub conversations: bool,
    /// Where numbers are bought, in two letters.
    #[serde(default = "country")]
    pub country: String,
    /// How long a boot may take.
    #[serde(default = "boot_limit", with = "humantime_serde")]
    pub boot_limit: Duration,
}

fn mount_path() -> String {
    "/data".to_owned()
}
fn memory_mb() -> u32 {
    2048
}
fn cpu_millis() -> u32 {
    2000
}
fn llm_limit_usd() -> u32 {
    20
}
fn conversations() -> bool {
    true
}
fn country() -> String {
    "US".to_owned()
}
fn boot_limit() -> Duration {
    Duration::from_secs(900)
}

/// One template, as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateSeed {
    /// Its id, as `tp_demo`.
    pub id: String,
    /// For people.
    pub name: String,
    /// From which pool it is served.
    pub pool: String,
    /// What it says.
    #[serde(flatten)]
    pub definition: TemplateDefinition,
}

/// What a version of a template says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemplateDefinition {
    /// What an agent is called if the claim does not say.
    pub agent_name: String,
    /// What it is told.
    pub instructions: String,
    /// The model it thinks with; the runtime's own choice if none.
    #[serde(default)]
    pub model: Option<String>,
    /// What it is given.
    #[serde(default)]
    pub tools: Vec<ToolSpec>,
}

/// A tool of a template, in a file as `"telnyx"` or as `{"tool": "telnyx", "required": false}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ToolWords", into = "ToolWords")]
pub struct ToolSpec {
    /// Which.
    pub tool: Tool,
    /// Whether a claim fails without it; otherwise it goes on, and the agent has one tool less.
    pub is_required: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum ToolWords {
    Name(Tool),
    Spec { tool: Tool, required: bool },
}

impl From<ToolWords> for ToolSpec {
    fn from(words: ToolWords) -> Self {
        match words {
            ToolWords::Name(tool) => tool.into(),
            ToolWords::Spec { tool, required } => Self { tool, is_required: required },
        }
    }
}

impl From<ToolSpec> for ToolWords {
    fn from(spec: ToolSpec) -> Self {
        match spec {
            ToolSpec { tool, is_required: true } => Self::Name(tool),
            ToolSpec { tool, is_required: false } => Self::Spec { tool, required: false },
        }
    }
}

impl From<Tool> for ToolSpec {
    fn from(tool: Tool) -> Self {
        Self { tool, is_required: true }
    }
}

/// What an agent can be given.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumIter,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Tool {
    /// An AgentMail inbox of its own.
    Agentmail,
    /// A number of the pool of numbers.
    Telnyx,
}

/// What is wrong with a seed file.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// It is larger than a seed is.
    #[error("the seed has more than {} MiB", SEED_MAX >> 20)]
    TooLarge,
    /// It is applied in one transaction, in which nobody else writes.
    #[error("the seed has {number} {what}: at most {ENTRIES_MAX}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        number: usize,
    },
    /// It is not JSON, or has fields that it should not have.
    #[error("the seed is not one: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A template names a pool that is not there.
    #[error("template {template} is served from pool {pool}, which is not in the seed")]
    NoSuchPool {
        /// Which template.
        template: String,
        /// The pool it names.
        pool: String,
    },
    /// Two things share an id, or an id has characters it should not have.
    #[error("{0:?} is not an id: letters, digits, - and _ only, and each once")]
    Id(String),
    /// More than a claim can be made with.
    #[error("the instructions of template {0} are longer than {INSTRUCTIONS_MAX} bytes")]
    Instructions(String),
    /// An image that would be asked for at another place of the registry than it names.
    #[error("{0:?} is not an image and a tag, as in acme/agent and production")]
    Image(String),
}

/// So large a seed may be, in bytes.
pub const SEED_MAX: usize = 4 << 20;
/// So many pools, and so many templates, it may have.
const ENTRIES_MAX: usize = 1_000;

impl Seed {
    /// Reads a seed file.
    pub fn parse(text: &str) -> Result<Self, SeedError> {
        if text.len() > SEED_MAX {
            return Err(SeedError::TooLarge);
        }
        let seed: Self = serde_json::from_str(text)?;
        for (what, number) in [("pools", seed.pools.len()), ("templates", seed.templates.len())] {
            if number > ENTRIES_MAX {
                return Err(SeedError::TooMany { what, number });
            }
        }
        let mut ids = std::collections::BTreeSet::new();
        let all =
            seed.pools.iter().map(|pool| &pool.id).chain(seed.templates.iter().map(|template| &template.id));
        for id in all {
            let fits = !id.is_empty()
                && id.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter));
            if !fits || !ids.insert(id.clone()) {
                return Err(SeedError::Id(id.clone()));
            }
        }
        for settings in seed.pools.iter().map(|pool| &pool.settings) {
            let (image, tag) = (&settings.image, &settings.tag);
            if !image.split('/').all(is_part) || !is_part(tag) {
                return Err(SeedError::Image(format!("{image}:{tag}")));
            }
        }
        for template in &seed.templates {
            if template.definition.instructions.len() > INSTRUCTIONS_MAX {
                return Err(SeedError::Instructions(template.id.clone()));
            }
            if !seed.pools.iter().any(|pool| pool.id == template.pool) {
                let (template, pool) = (template.id.clone(), template.pool.clone());
                return Err(SeedError::NoSuchPool { template, pool });
            }
        }
        Ok(seed)
    }
}

/// So long a template's instructions may be, in bytes: they are in the input of a step, and in what it answers.
const INSTRUCTIONS_MAX: usize = 256 << 10;

/// Whether a text is one part of a registry's path, and a whole one.
fn is_part(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !matches!(text, "." | "..")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Brings pools and templates to what the seed says. A template that differs gets a new version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApplySeed {
    /// The seed.
    pub seed: Seed,
}

impl Local for ApplySeed {
    const NAME: &'static str = "pool.apply_seed";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        let json = |error: serde_json::Error| Failure::refused("malformed", error.to_string());
        for pool in &self.seed.pools {
            let settings = serde_json::to_string(&pool.settings).map_err(json)?;
            tx.execute(
                "insert into pool (id, settings, min_idle, max_total) values ($1, $2, $3, $4)
                 on conflict (id) do update set settings = excluded.settings, min_idle = excluded.min_idle,
                   max_total = excluded.max_total",
                params![&pool.id, settings, pool.min_idle, pool.max_total],
            )
            .await?;
        }
        for template in &self.seed.templates {
            let definition = serde_json::to_string(&template.definition).map_err(json)?;
            let now = tx.now();
            let known = tx
                .fetch(
                    "select version, definition from template_version where template = $1 order by version desc limit 1",
                    params![&template.id],
                )
                .await?;
            let version = match known.first() {
                Some(row) if row.text("definition")? == definition => row.int("version")?,
                Some(row) => row.int("version")? + 1,
                None => 1,
            };
            tx.execute(
                "insert into template (id, name, pool, current_version) values ($1, $2, $3, $4)
                 on conflict (id) do update set name = excluded.name, pool = excluded.pool,
                   current_version = excluded.current_version",
                params![&template.id, &template.name, &template.pool, version],
            )
            .await?;
            tx.execute(
                "insert into template_version (template, version, definition, created_at) values ($1, $2, $3, $4)
                 on conflict (template, version) do nothing",
                params![&template.id, version, definition, now],
            )
            .await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = r#"{"pools": [{"id": "default", "min_idle": 1, "max_total": 5, "workspace": "w",
        "image": "ghcr.io/o/i", "tag": "production", "boot_limit": "2m"}],
        "templates": [{"id": "tp_demo", "name": "Demo", "pool": "default", "agent_name": "Ada",
        "instructions": "Help.", "tools": ["agentmail"]}]}"#;

    #[test]
    fn a_seed_reads_with_durations_for_people() {
        let seed = Seed::parse(SEED).unwrap();
        assert_eq!(seed.pools[0].settings.boot_limit, Duration::from_secs(120));
        assert_eq!(seed.templates[0].definition.tools, [Tool::Agentmail.into()]);
    }

    #[test]
    fn a_seed_that_would_not_work_is_refused_with_its_reason() {
        let elsewhere = SEED.replace("\"pool\": \"default\"", "\"pool\": \"other\"");
        assert!(matches!(Seed::parse(&elsewhere), Err(SeedError::NoSuchPool { .. })));
        assert!(matches!(Seed::parse(&SEED.replace("tp_demo", "tp demo")), Err(SeedError::Id(_))));
        assert!(matches!(Seed::parse("{"), Err(SeedError::Malformed(_))));
        assert!(matches!(Seed::parse(&"x".repeat(SEED_MAX + 1)), Err(SeedError::TooLarge)));
        for (what, list, first) in [("pools", "default", 0), ("templates", "tp_demo", 1)] {
            let mut many: serde_json::Value = serde_json::from_str(SEED).unwrap();
            let copy = many[what][0].clone();
            let more = |all: &mut serde_json::Value, number: usize| {
                let mut one = copy.clone();
                one["id"] = format!("{list}-{number}").into();
                all[what].as_array_mut().unwrap().push(one);
            };
            (1..ENTRIES_MAX).for_each(|number| more(&mut many, number));
            let seed = Seed::parse(&many.to_string()).unwrap();
            assert_eq!([seed.pools.len(), seed.templates.len()][first], ENTRIES_MAX);
            more(&mut many, ENTRIES_MAX);
            let error = Seed::parse(&many.to_string()).unwrap_err();
            assert_eq!(error.to_string(), format!("the seed has 1001 {what}: at most 1000"));
        }
        let long = SEED.replace("Help.", &"x".repeat(INSTRUCTIONS_MAX + 1));
        assert!(matches!(Seed::parse(&long), Err(SeedError::Instructions(_))));
        for tag in ["x/../production", "latest?a=", "..", "", "a b", "pro\\nd"] {
            let other = SEED.replace("\"production\"", &format!("\"{tag}\""));
            assert_ne!(other, SEED);
            assert!(matches!(Seed::parse(&other), Err(SeedError::Image(_))), "{tag}");
        }
    }
}
