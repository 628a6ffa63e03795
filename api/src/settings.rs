//! Settings: everything that can be set, by flag or by environment variable, with its default.

use std::net::SocketAddr;
use std::path::PathBuf;

use amends_sandbox::Pace;
use secrecy::SecretString;

/// What the server is told. Each flag has an environment variable of the same name, `AMENDS_` before it;
/// credentials are taken from the environment alone, since a command line can be read by everyone.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Where the API and the dashboard listen; only loopback addresses, since there is no authentication yet.
    #[arg(long, env = "AMENDS_LISTEN", default_value = "127.0.0.1:7300", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// The database, as sqlite://path; amends.db in the data directory if not set.
    #[arg(long, env = "AMENDS_DATABASE_URL", value_name = "URL")]
    pub database_url: Option<String>,
    /// Where the database and its key are kept.
    #[arg(long, env = "AMENDS_DATA_DIR", default_value = ".amends", value_name = "DIRECTORY")]
    pub data_dir: PathBuf,
    /// The environment's name, which is part of every name outside; sandbox if a sandbox runs.
    #[arg(long, env = "AMENDS_ENVIRONMENT", value_name = "NAME")]
    pub environment: Option<String>,
    /// Where the sandbox's providers listen.
    #[arg(long, env = "AMENDS_SANDBOX_LISTEN", default_value = "127.0.0.1:7301", value_name = "ADDRESS")]
    pub sandbox_listen: SocketAddr,
    /// Names by which other machines reach the sandbox, without a port and separated by commas; while there are none it
    /// listens only on loopback addresses. It has no authentication.
    #[arg(long, env = "AMENDS_SANDBOX_HOSTS", value_delimiter = ',', value_name = "NAMES")]
    pub sandbox_hosts: Vec<String>,
    /// How quick the sandbox's providers are: quick, or true to the times that the real ones state.
    #[arg(long, env = "AMENDS_SANDBOX_PROFILE", value_name = "NAME", default_value = "quick")]
    pub sandbox_profile: Pace,
    /// A sandbox that runs by itself (amends sandbox), instead of one of our own.
    #[arg(long, env = "AMENDS_SANDBOX_URL", value_name = "URL", conflicts_with = "railway_url")]
    pub sandbox_url: Option<String>,
    /// Pools and templates, as JSON; a sandbox has its own.
    #[arg(long, env = "AMENDS_SEED", value_name = "FILE")]
    pub seed: Option<PathBuf>,
    /// Whether the sweep removes what bears our name and no ledger row explains; it only reports otherwise.
    #[arg(long, env = "AMENDS_SWEEP_DELETES", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub sweep_deletes: bool,
    /// The database was put back from a backup: nothing is removed, and claims are refused until every provider was
    /// compared with it.
    #[arg(long, env = "AMENDS_RESTORED", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub restored: bool,
    /// Railway's GraphQL endpoint; AMENDS_RAILWAY_TOKENS goes with it, as workspace:token,….
    #[arg(long, env = "AMENDS_RAILWAY_URL", value_name = "URL")]
    pub railway_url: Option<String>,
    /// OpenRouter's base URL; AMENDS_OPENROUTER_KEY goes with it.
    #[arg(long, env = "AMENDS_OPENROUTER_URL", value_name = "URL")]
    pub openrouter_url: Option<String>,
    /// AgentMail's base URL; AMENDS_AGENTMAIL_KEY goes with it.
    #[arg(long, env = "AMENDS_AGENTMAIL_URL", value_name = "URL")]
    pub agentmail_url: Option<String>,
    /// Telnyx's base URL; AMENDS_TELNYX_KEY goes with it.
    #[arg(long, env = "AMENDS_TELNYX_URL", value_name = "URL")]
    pub telnyx_url: Option<String>,
    /// The registry of container images.
    #[arg(long, env = "AMENDS_GHCR_URL", value_name = "URL")]
    pub ghcr_url: Option<String>,
    /// Where an instance's runtime answers, with {domain} for its domain; https://{domain} if not set.
    #[arg(long, env = "AMENDS_RUNTIME_URL", value_name = "URL")]
    pub runtime_url: Option<String>,
}

/// The providers to talk to, each with its credential.
#[derive(Debug, Clone)]
pub struct Providers {
    /// Railway's endpoint.
    pub railway_url: String,
    /// Tokens, each with its workspace; several of one take turns.
    pub railway_tokens: Vec<(String, SecretString)>,
    /// OpenRouter's base URL.
    pub openrouter_url: String,
    /// Its provisioning key.
    pub openrouter_key: SecretString,
    /// AgentMail's base URL.
    pub agentmail_url: String,
    /// Its key.
    pub agentmail_key: SecretString,
    /// Telnyx's base URL.
    pub telnyx_url: String,
    /// Its key.
    pub telnyx_key: SecretString,
    /// The registry's base URL.
    pub ghcr_url: String,
    /// Where a runtime answers, with `{domain}` in it.
    pub runtime_url: String,
}

/// What is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Some providers of one's own, but not all.
    #[error(
        "{given} is set, so the providers are your own and no sandbox is started; then {} must be set too", .missing.join(", ")
    )]
    Incomplete {
        /// The first that is set.
        given: &'static str,
        /// Those that are not.
        missing: Vec<&'static str>,
    },
    /// Tokens that do not read.
    #[error("AMENDS_RAILWAY_TOKENS must be workspace:token, separated by commas; entry {0} is not")]
    Tokens(usize),
    /// A secret that no header carries.
    #[error("{0} must be visible ASCII characters, without a space or a line's end")]
    Secret(&'static str),
    /// An address that would be the same for every instance.
    #[error(
        "AMENDS_RUNTIME_URL={0} must be an http or https address with {{domain}} in it: each instance answers under its own"
    )]
    Runtime(String),
    /// A URL that is none.
    #[error("{name}={value} is not an http or https URL")]
    Url {
        /// Of which setting.
        name: &'static str,
        /// What it is.
        value: String,
    },
    /// Another database than we can open.
    #[error("AMENDS_DATABASE_URL={0} is not sqlite://path: this program keeps its sagas in SQLite")]
    Database(String),
    /// A name is part of every name outside.
    #[error("AMENDS_ENVIRONMENT must be set with providers of your own: it is part of every name they hold")]
    NoEnvironment,
    /// A name that providers would not take.
    #[error("AMENDS_ENVIRONMENT={0} must be 1 to 16 lower-case letters, digits or dashes")]
    Environment(String),
}

/// Where environment variables are looked up: the process's own, or a test's.
pub type Lookup<'l> = &'l dyn Fn(&str) -> Option<String>;

/// The environment of this process.
pub fn process(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A provider's setting with its variable's name.
type Given<'s> = (&'static str, Option<&'s String>);

impl Settings {
    /// The providers, if they are the user's own; none if the sandbox's are to be used.
    pub fn providers(&self, lookup: Lookup<'_>) -> Result<Option<Providers>, Error> {
        let urls: [Given<'_>; 5] = [
            ("AMENDS_RAILWAY_URL", self.railway_url.as_ref()),
            ("AMENDS_OPENROUTER_URL", self.openrouter_url.as_ref()),
            ("AMENDS_AGENTMAIL_URL", self.agentmail_url.as_ref()),
            ("AMENDS_TELNYX_URL", self.telnyx_url.as_ref()),
            ("AMENDS_GHCR_URL", self.ghcr_url.as_ref()),
        ];
        let Some((given, _)) = urls.iter().find(|(_, url)| url.is_some()) else { return Ok(None) };
        let names =
            ["AMENDS_RAILWAY_TOKENS", "AMENDS_OPENROUTER_KEY", "AMENDS_AGENTMAIL_KEY", "AMENDS_TELNYX_KEY"];
        let secrets = names.map(lookup);
        let no_url = urls.iter().filter(|(_, url)| url.is_none()).map(|(name, _)| *name);
        let no_secret =
            names.iter().zip(&secrets).filter(|(_, secret)| secret.is_none()).map(|(name, _)| *name);
        let missing: Vec<&'static str> = no_url.chain(no_secret).collect();
        let incomplete = || Error::Incomplete { given, missing: missing.clone() };
        let [Some(tokens), Some(openrouter_key), Some(agentmail_key), Some(telnyx_key)] = secrets else {
            return Err(incomplete());
        };
        for (name, secret) in names.iter().zip([&tokens, &openrouter_key, &agentmail_key, &telnyx_key]) {
            // Between two tokens there may be room.
            let is_sent = |byte: u8| byte.is_ascii_graphic() || *name == names[0] && byte == b' ';
            if !secret.bytes().all(is_sent) {
                return Err(Error::Secret(name));
            }
        }
        let url = |(name, value): &Given<'_>| value.map(|value| http(name, value)).ok_or_else(incomplete)?;
        let [railway, openrouter, agentmail, telnyx, ghcr] = &urls;
        Ok(Some(Providers {
            railway_url: url(railway)?,
            railway_tokens: railway_tokens(&tokens)?,
            openrouter_url: url(openrouter)?,
            openrouter_key: openrouter_key.into(),
            agentmail_url: url(agentmail)?,
            agentmail_key: agentmail_key.into(),
            telnyx_url: url(telnyx)?,
            telnyx_key: telnyx_key.into(),
            ghcr_url: url(ghcr)?,
            runtime_url: runtime(self.runtime_url.as_deref().unwrap_or("https://{domain}"))?,
        }))
    }

    /// The environment's name.
    pub fn environment(&self, own_providers: bool) -> Result<String, Error> {
        let name = match &self.environment {
            Some(name) => name.clone(),
            None if own_providers => return Err(Error::NoEnvironment),
            None => "sandbox".to_owned(),
        };
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=16).contains(&name.len()) && name.bytes().all(plain) {
            Ok(name)
        } else {
            Err(Error::Environment(name))
        }
    }

    /// The database file.
    pub fn database(&self) -> Result<PathBuf, Error> {
        let Some(url) = &self.database_url else { return Ok(self.data_dir.join("amends.db")) };
        let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
        // What stands before a question mark is the path; options are ours to choose.
        let path = path.map(|path| path.split('?').next().unwrap_or(path));
        match path {
            Some(path) if !path.is_empty() && path != ":memory:" => Ok(PathBuf::from(path)),
            // It may have a password in it.
            _ => Err(Error::Database(url.split('@').next_back().unwrap_or_default().to_owned())),
        }
    }

    /// The key that seals the database's secrets.
    pub fn key(&self) -> PathBuf {
        self.data_dir.join("key")
    }
}

fn http(name: &'static str, value: &str) -> Result<String, Error> {
    match reqwest::Url::parse(value) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            Ok(value.trim_end_matches('/').to_owned())
        }
        _ => Err(Error::Url { name, value: value.to_owned() }),
    }
}

fn runtime(template: &str) -> Result<String, Error> {
    match reqwest::Url::parse(&template.replace("{domain}", "a.example")) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && template.contains("{domain}") => {
            Ok(template.to_owned())
        }
        _ => Err(Error::Runtime(template.to_owned())),
    }
}

fn railway_tokens(text: &str) -> Result<Vec<(String, SecretString)>, Error> {
    let mut tokens = Vec::new();
    for (place, pair) in text.split(',').enumerate() {
        // Which entry it was, and never what it said.
        let wrong = || Error::Tokens(place + 1);
        let (workspace, token) = pair.trim().split_once(':').ok_or_else(wrong)?;
        if workspace.is_empty() || token.is_empty() {
            return Err(wrong());
        }
        tokens.push((workspace.to_owned(), token.into()));
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use secrecy::ExposeSecret;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn settings(args: &[&str]) -> Settings {
        Line::try_parse_from([&["amends"], args].concat()).unwrap().settings
    }

    const OWN: [&str; 5] = [
        "--railway-url=https://railway.example/graphql",
        "--openrouter-url=https://openrouter.example/",
        "--agentmail-url=https://agentmail.example",
        "--telnyx-url=https://telnyx.example",
        "--ghcr-url=https://ghcr.example",
    ];

    fn secret(name: &str) -> Option<String> {
        Some(match name {
            "AMENDS_RAILWAY_TOKENS" => "acme:t1, beta:t2:with-colon,acme:t3".into(),
            other => format!("secret-of-{other}"),
        })
    }

    #[test]
    fn without_settings_it_is_a_sandbox_on_loopback() {
        let settings = settings(&[]);
        assert!(settings.listen.ip().is_loopback() && settings.sandbox_listen.ip().is_loopback());
        assert!(settings.providers(&|_| None).unwrap().is_none());
        assert_eq!(settings.environment(false).unwrap(), "sandbox");
        assert_eq!(settings.database().unwrap(), PathBuf::from(".amends/amends.db"));
    }

    #[test]
    fn providers_of_ones_own_are_all_named_and_their_secrets_are_not_printed() {
        let settings = settings(&OWN);
        let providers = settings.providers(&secret).unwrap().unwrap();
        assert_eq!(providers.openrouter_url, "https://openrouter.example");
        let tokens = providers.railway_tokens.iter();
        let tokens: Vec<_> =
            tokens.map(|(workspace, token)| (&workspace[..], token.expose_secret())).collect();
        assert_eq!(tokens, [("acme", "t1"), ("beta", "t2:with-colon"), ("acme", "t3")]);
        assert!(!format!("{providers:?}").contains("secret-of"));
        assert_eq!(settings.environment(true), Err(Error::NoEnvironment));
    }

    #[test]
    fn what_is_missing_is_named_and_what_is_wrong_is_not_quoted_when_it_is_secret() {
        let some = settings(&OWN[..4]);
        let error = some.providers(&|_| None).unwrap_err().to_string();
        assert!(error.contains("AMENDS_GHCR_URL, AMENDS_RAILWAY_TOKENS"), "{error}");
        let ends = |name: &str| secret(name).map(|text| text + "\n");
        assert_eq!(settings(&OWN).providers(&ends).unwrap_err(), Error::Secret("AMENDS_RAILWAY_TOKENS"));
        let mut one_for_all = OWN.to_vec();
        one_for_all.push("--runtime-url=https://runtime.example");
        let error = settings(&one_for_all).providers(&secret).unwrap_err();
        assert_eq!(error, Error::Runtime("https://runtime.example".to_owned()));
        let torn = |name: &str| secret(name).map(|_| "acme:t1,hush".to_owned());
        assert_eq!(settings(&OWN).providers(&torn).unwrap_err(), Error::Tokens(2));
        let error = settings(&["--database-url=postgres://me:hush@db/amends"]).database().unwrap_err();
        assert!(!error.to_string().contains("hush"));
        assert!(settings(&["--environment=Prod!"]).environment(true).is_err());
        assert_eq!(
            settings(&["--database-url=sqlite:///var/a.db?mode=rwc"]).database().unwrap(),
            PathBuf::from("/var/a.db")
        );
    }
}
