//! `amends sandbox`: the fake providers alone, with faults to begin with.

use amends_sandbox::Fault;
use amends_sandbox::fault;

use super::{Exit, say};
use crate::program;
use crate::settings::Settings;

/// The sandbox alone.
#[derive(Debug, clap::Args)]
pub struct Sandbox {
    #[command(flatten)]
    settings: Settings,
    /// A fault to begin with, as {"provider":…,"operation":…,"fault":…}; may be given again
    #[arg(long = "fault", value_name = "JSON", value_parser = read)]
    faults: Vec<Fault>,
    /// Print every fault, preset and operation there is, and end
    #[arg(long)]
    list_faults: bool,
}

impl Sandbox {
    pub async fn run(self) -> anyhow::Result<Exit> {
        if self.list_faults {
            say(&fault::page())?;
        } else {
            program::sandbox(self.settings, self.faults).await?;
        }
        Ok(Exit::Done)
    }
}

fn read(text: &str) -> Result<Fault, String> {
    let fault: Fault = serde_json::from_str(text).map_err(|error| error.to_string())?;
    fault.problem().map_or(Ok(fault), Err)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Line;

    #[test]
    fn a_fault_that_is_none_is_refused_on_the_command_line() {
        let line = |fault: &str| Line::try_parse_from(["amends", "sandbox", "--fault", fault]);
        let good = r#"{"provider":"openrouter","operation":"createKeys","fault":"spoil","preset":"request_timeout"}"#;
        assert!(line(good).is_ok());
        let wrong =
            line(r#"{"provider":"openrouter","operation":"createKey","fault":"refuse"}"#).unwrap_err();
        assert!(wrong.to_string().contains("createKeys"), "{wrong}");
        assert!(line("refuse").is_err());
    }
}
