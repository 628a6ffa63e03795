//! The `amends` program.

use std::process::ExitCode;

use amends_api::cli::{self, Line};

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(Line::from_process()).await
}
