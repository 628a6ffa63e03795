//! Child: work in a process of its own, so that its time and memory are its own, and so that it can be killed.

use std::process::Stdio;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

use super::desk::Desk;
use super::figures::Sample;
use super::place::Place;
use super::work::Work;

/// What a process is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Errand {
    /// On which database.
    pub place: Place,
    /// What.
    pub work: Work,
}

/// What it says on its way, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// All sleepers sleep, or it is ready to go.
    Ready(Sample),
    /// It is done.
    Done(Sample),
}

/// Runs an errand in this process.
pub async fn run(errand: &str) -> anyhow::Result<()> {
    let Errand { place, work } = serde_json::from_str(errand).context("this is no errand of the bench's")?;
    let desk = Desk::open(&place).await?;
    let sample = work.perform(&desk, |ready| say(&Word::Ready(ready.clone()))).await?;
    desk.store.close().await;
    say(&Word::Done(sample));
    Ok(())
}

fn say(word: &Word) {
    use std::io::Write;
    // Whoever asked is gone if this cannot be written, and then nobody wants to know.
    if let Ok(line) = serde_json::to_string(word) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}");
        let _ = out.flush();
    }
}

/// A process that runs an errand. It is killed, as with `kill -9`, when this is dropped.
pub struct Child {
    process: tokio::process::Child,
    words: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts it.
    pub fn start(errand: &Errand) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("where this program lies is not known")?;
        let mut process = Command::new(program)
            .arg("bench-errand")
            .arg(serde_json::to_string(errand)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("a process to be measured could not be started")?;
        let Some(words) = process.stdout.take() else { bail!("the measured process has no output") };
        Ok(Self { process, words: BufReader::new(words).lines() })
    }

    async fn word(&mut self) -> anyhow::Result<Word> {
        match self.words.next_line().await? {
            Some(line) => serde_json::from_str(&line).with_context(|| line.clone()),
            None => bail!("the measured process ended early ({})", self.process.wait().await?),
        }
    }

    /// Waits until all its sleepers sleep, or it is ready to go.
    pub async fn ready(&mut self) -> anyhow::Result<Sample> {
        match self.word().await? {
            Word::Ready(sample) => Ok(sample),
            Word::Done(_) => bail!("the measured process was done before it was ready"),
        }
    }

    /// Tells it to go.
    pub async fn go(&mut self) -> anyhow::Result<()> {
        let Some(mut stdin) = self.process.stdin.take() else { bail!("it was told to go before") };
        Ok(stdin.write_all(b"go\n").await?)
    }

    /// Waits until it is done.
    pub async fn done(mut self) -> anyhow::Result<Sample> {
        loop {
            if let Word::Done(sample) = self.word().await? {
                self.process.wait().await?;
                return Ok(sample);
            }
        }
    }

    /// As `kill -9` does.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.process.kill().await?)
    }
}
