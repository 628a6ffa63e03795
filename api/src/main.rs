//! The `amends` program.

use std::process::ExitCode;

use amends_api::cli::{self, Line};
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(Line::parse()).await
}
