//! Census: everything that a provider holds, read page by page within bounds; and how old the last one is.

use std::collections::HashSet;
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ListPage, Observed};
use crate::activity::{Cause, Failure};
use crate::env::Timestamp;

/// A name, id or cursor that is longer is none.
const TEXT_MAX: usize = 1000;

/// What is known of one provider's censuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CensusRow {
    /// Whose.
    pub provider: String,
    /// Who makes one now, and until when nobody else does.
    pub holder: Option<(String, Timestamp)>,
    /// When the last one was begun.
    pub started_at: Option<Timestamp>,
    /// When the last one that was believed ended.
    pub completed_at: Option<Timestamp>,
    /// How many pages it had.
    pub pages: i64,
    /// How many things it showed.
    pub things: i64,
    /// Why the last one was not believed, and when; nothing if it was.
    pub problem: Option<(String, Timestamp)>,
    /// How many in a row were not believed.
    pub failures: i64,
    /// A person said that all may well be absent, and why; it holds for one census.
    pub accepts_absence: Option<String>,
    /// When the next one is to be made.
    pub next_at: Timestamp,
}

impl CensusRow {
    /// How old the last census that was believed is; nothing if there never was one.
    pub fn age(&self, now: Timestamp) -> Option<Duration> {
        self.completed_at.map(|at| now.since(at))
    }
}

/// The right to make a provider's census, alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CensusClaim {
    /// Whose.
    pub provider: String,
    /// For whom.
    pub holder: String,
    /// Now.
    pub at: Timestamp,
    /// For so long.
    pub until: Timestamp,
    /// Also before it is due.
    pub now: bool,
}

/// What a census came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CensusEnd {
    /// Whose.
    pub provider: String,
    /// Who made it: it is written only for whoever still has the right to.
    pub holder: String,
    /// Now.
    pub at: Timestamp,
    /// When the next one is to be made.
    pub next_at: Timestamp,
    /// So many pages and things; or why it is not believed.
    pub outcome: Result<(usize, usize), String>,
}

/// What one census may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// So many pages.
    pub pages: usize,
    /// So many things.
    pub things: usize,
}

/// A whole list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// What is there.
    pub things: Vec<Observed>,
    /// On so many pages.
    pub pages: usize,
}

/// Reads a list to its end.
///
/// # Errors
/// A page could not be read; a cursor came again; or there is more of it than the bounds allow. A list that was not
/// read to its end is none.
pub async fn read_list<F, Fut>(bounds: Bounds, mut page: F) -> Result<Listed, Failure>
where
    F: FnMut(Option<String>) -> Fut,
    Fut: Future<Output = Result<ListPage, Failure>>,
{
    let mut listed = Listed::default();
    let mut met: HashSet<String> = HashSet::new();
    let mut cursor: Option<String> = None;
    loop {
        if listed.pages == bounds.pages {
            return Err(wrong(format!("the list does not end within {} pages", bounds.pages)));
        }
        let ListPage { mut things, next } = page(cursor.take()).await?;
        listed.pages += 1;
        let is_text = |text: &str| text.len() <= TEXT_MAX && !text.contains('\0');
        if let Some(thing) = things.iter().find(|thing| thing.external_id.is_empty()) {
            return Err(wrong(format!("the list shows a {} without an id: {:.80}", thing.kind, thing.name)));
        }
        // No row has such an id.
        things.retain(|thing| is_text(&thing.external_id));
        // No grammar of ours makes such a name; but what a row knows by its id is there, whatever it is called now.
        things.iter_mut().filter(|thing| !is_text(&thing.name)).for_each(|thing| thing.name.clear());
        listed.things.extend(things);
        if listed.things.len() > bounds.things {
            return Err(wrong(format!("the list shows more than {} things", bounds.things)));
        }
        match next {
            None => return Ok(listed),
            Some(next) if next.is_empty() || !is_text(&next) => {
                return Err(wrong("the list's cursor is none".to_owned()));
            }
            Some(next) if !met.insert(next.clone()) => {
                let pages = listed.pages;
                return Err(wrong(format!(
                    "the list's cursor came again after {pages} pages: it would never end"
                )));
            }
            Some(next) => cursor = Some(next),
        }
    }
}

fn wrong(detail: String) -> Failure {
    Failure::Unavailable { cause: Cause::Unreadable, detail, retry_after: None }
}
