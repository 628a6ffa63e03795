//! The command line: the server itself, and a client of its public API in the same program.

mod act;
mod bench;
mod client;
mod exit;
mod list;
mod sandbox;
mod start;
mod table;

use std::io::Write;
use std::process::ExitCode;

use amends_engine::journal::act::ActKind;
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use client::{Client, Error};
pub use exit::Exit;

use crate::routes::gates::GateActionKind;
use crate::settings::Settings;
use crate::{program, settings};

/// Amends: durable sagas for a pool of cloud agents. Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "amends", version, args_conflicts_with_subcommands = true)]
pub struct Line {
    /// What to do; serve if nothing is said.
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

impl Line {
    /// The command line of this process; it ends the process when there is an error or help to print.
    ///
    /// A variable that is set to nothing counts as not set, so that `AMENDS_LISTEN= amends saga list` runs.
    pub fn from_process() -> Self {
        let command = without_empty_variables(Self::command(), &|name| std::env::var_os(name));
        let read = Self::from_arg_matches(&command.get_matches());
        read.unwrap_or_else(|error| error.exit())
    }
}

/// The command without those environment variables that are empty.
fn without_empty_variables(
    command: clap::Command,
    lookup: &dyn Fn(&std::ffi::OsStr) -> Option<std::ffi::OsString>,
) -> clap::Command {
    let is_empty = |arg: &Arg| arg.get_env().and_then(lookup).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|arg| if is_empty(&arg) { arg.env(None::<&str>) } else { arg });
    command.mut_subcommands(|inner| without_empty_variables(inner, lookup))
}

/// A word as a shell reads it.
pub(crate) fn shell_word(word: &str) -> String {
    let is_plain =
        |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.' | '/' | ':' | '@' | '+');
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Prints to stderr. A stderr that nobody reads any more is no error.
pub(crate) fn warn(text: std::fmt::Arguments<'_>) {
    let _ = std::io::stderr().lock().write_fmt(format_args!("{text}\n"));
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the engine, the API and the dashboard; with a sandbox, unless providers of your own are set
    Serve(Settings),
    /// Run only the sandbox's providers, for a server elsewhere
    Sandbox(sandbox::Sandbox),
    /// Look at sagas and act on them
    #[command(subcommand)]
    Saga(SagaCommand),
    /// Look at the gates of credentials; open and close them
    #[command(subcommand)]
    Gate(GateCommand),
    /// Give a waiting instance to a user
    Claim(start::Claim),
    /// Take an instance apart, and prove that nothing is left
    Teardown(start::Teardown),
    /// Look at instances
    #[command(subcommand)]
    Instance(InstanceCommand),
    /// Look at the ledger of what exists outside
    #[command(subcommand)]
    Resource(ResourceCommand),
    /// Measure the engine on this machine's disk, beside a bare loop that writes the same rows
    Bench(bench::Bench),
    /// What `bench` runs in processes of their own
    #[command(hide = true)]
    BenchErrand(bench::Errand),
}

#[derive(Debug, Subcommand)]
enum SagaCommand {
    /// A page of sagas, newest first
    List(list::Sagas),
    /// One saga with its steps and what it made outside
    Show(list::One),
    /// One saga in a few lines: what happened, what now, what you can do
    Why(list::One),
    /// Do any act: pause, settle, skip and the others that --help lists
    Act(act::Act),
    /// Try now what would be tried again later
    Retry(act::WholeAct),
    /// Stop going forward and undo; refused past the pivot
    Cancel(act::WholeAct),
}

#[derive(Debug, Subcommand)]
enum GateCommand {
    /// Every gate that was ever closed, is limited, or holds somebody up
    List(list::Gates),
    /// Let calls pass again: one first, then in growing waves
    Open(act::GateAct),
    /// Let nothing pass until it is opened
    Close(act::GateAct),
}

#[derive(Debug, Subcommand)]
enum InstanceCommand {
    /// A page of instances, newest first
    List(list::Instances),
}

#[derive(Debug, Subcommand)]
enum ResourceCommand {
    /// A page of the ledger, newest first
    List(list::Resources),
}

/// Where a client's requests go, and how it prints what comes back.
#[derive(Debug, clap::Args)]
pub struct To {
    /// The server; http:// and AMENDS_LISTEN if not set
    #[arg(long, value_name = "URL", env = "AMENDS_SERVER")]
    server: Option<String>,
    /// Print the API's answer as it is
    #[arg(long)]
    json: bool,
}

impl To {
    fn client(&self) -> Result<Client, Error> {
        let listen = || settings::process("AMENDS_LISTEN").unwrap_or_else(|| "127.0.0.1:7300".to_owned());
        let server = self.server.clone().filter(|server| !server.trim().is_empty());
        let base = server.unwrap_or_else(|| format!("http://{}", listen()));
        Client::new(&base)
    }
}

/// Runs a command line to its end.
pub async fn run(line: Line) -> ExitCode {
    match dispatch(line).await {
        Ok(exit) => exit.into(),
        Err(error) => {
            warn(format_args!("amends: {}", table::plain(&format!("{error:#}"))));
            let exit = error.downcast_ref::<Error>().map_or(Exit::Unexpected, Error::exit);
            exit.into()
        }
    }
}

async fn dispatch(line: Line) -> anyhow::Result<Exit> {
    match line.command {
        None => program::serve(line.settings).await.map(|()| Exit::Done),
        Some(Command::Serve(settings)) => program::serve(settings).await.map(|()| Exit::Done),
        Some(Command::Sandbox(sandbox)) => sandbox.run().await,
        Some(Command::Saga(SagaCommand::List(list))) => list.run().await,
        Some(Command::Saga(SagaCommand::Show(one))) => one.show().await,
        Some(Command::Saga(SagaCommand::Why(one))) => one.why().await,
        Some(Command::Saga(SagaCommand::Act(act))) => act.run().await,
        Some(Command::Saga(SagaCommand::Retry(act))) => act.run(ActKind::Retry).await,
        Some(Command::Saga(SagaCommand::Cancel(act))) => act.run(ActKind::Cancel).await,
        Some(Command::Gate(GateCommand::List(list))) => list.run().await,
        Some(Command::Gate(GateCommand::Open(act))) => act.run(GateActionKind::Open).await,
        Some(Command::Gate(GateCommand::Close(act))) => act.run(GateActionKind::Close).await,
        Some(Command::Claim(claim)) => claim.run().await,
        Some(Command::Teardown(teardown)) => teardown.run().await,
        Some(Command::Instance(InstanceCommand::List(list))) => list.run().await,
        Some(Command::Resource(ResourceCommand::List(list))) => list.run().await,
        Some(Command::Bench(bench)) => bench.run().await,
        Some(Command::BenchErrand(errand)) => errand.run().await,
    }
}

/// Prints to stdout; a reader who has seen enough (`| head`) is no error.
fn say(text: &str) -> std::io::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed_and_serves_by_default() {
        Line::command().debug_assert();
        let line = Line::try_parse_from(["amends"]).unwrap();
        assert!(line.command.is_none());
        assert!(Line::try_parse_from(["amends", "--listen", "127.0.0.1:1"]).unwrap().command.is_none());
        assert!(Line::try_parse_from(["amends", "saga", "retry", "sg_1"]).is_err(), "a reason is needed");
    }

    #[test]
    fn a_variable_that_is_empty_counts_as_not_set() {
        let command = without_empty_variables(Line::command(), &|_| Some("".into()));
        let variables = |command: &clap::Command| command.get_arguments().any(|arg| arg.get_env().is_some());
        assert!(!variables(&command), "AMENDS_LISTEN");
        assert!(!command.get_subcommands().any(variables), "AMENDS_SERVER");
        let command = without_empty_variables(Line::command(), &|_| Some("set".into()));
        assert!(variables(&command) && command.get_subcommands().any(variables));
    }
}
