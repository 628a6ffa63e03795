//! The scale: where a moment stands on the paper, with long idle stretches folded away.

use std::time::Duration;

use amends_engine::Timestamp;

use crate::timeline::{Timeline, What};

/// How wide a folded stretch is drawn.
pub const FOLD: f64 = 46.0;
/// At most so many stretches are folded: the longest ones.
const FOLDS_MAX: usize = 8;
/// A stretch without any attempt is folded when it is longer than this part of all busy time.
const IDLE_PART: u32 = 10;

/// Time mapped to the width of the paper, piece by piece.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    /// From the first moment to the last, without gaps.
    pub pieces: Vec<Piece>,
}

/// A stretch of time and of paper.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Piece {
    /// Its first moment.
    pub from: Timestamp,
    /// Its last.
    pub to: Timestamp,
    /// Where it begins on the paper.
    pub left: f64,
    /// How wide it is there.
    pub width: f64,
    /// Nothing was tried in it, and it is drawn shorter than it was.
    pub folded: bool,
}

impl Scale {
    /// The scale of a whole timeline, from `left` on, `width` wide.
    pub fn of(timeline: &Timeline, now: Timestamp, left: f64, width: f64) -> Self {
        let from = timeline.began_at;
        let to = timeline.ends_at(now).max(from.plus(Duration::from_millis(1)));
        let mut busy: Vec<(Timestamp, Timestamp)> = Vec::new();
        for span in timeline.rows.iter().flat_map(|row| &row.spans) {
            if matches!(span.what, What::Attempt { .. }) {
                busy.push((span.from, span.to.unwrap_or(now).max(span.from)));
            }
        }
        busy.sort();
        Self::with(from, to, &busy, left, width)
    }

    fn with(from: Timestamp, to: Timestamp, busy: &[(Timestamp, Timestamp)], left: f64, width: f64) -> Self {
        let mut gaps = Vec::new();
        let mut total = Duration::ZERO;
        let mut reached = from;
        for &(begin, end) in busy {
            if begin > reached {
                gaps.push((reached, begin));
            }
            total += end.since(reached.max(begin));
            reached = reached.max(end);
        }
        if to > reached {
            gaps.push((reached, to));
        }
        let longest = total / IDLE_PART;
        gaps.retain(|(begin, end)| total > Duration::ZERO && end.since(*begin) > longest);
        gaps.sort_by_key(|(begin, end)| std::cmp::Reverse(end.since(*begin)));
        gaps.truncate(FOLDS_MAX);
        gaps.sort();

        let mut stretches = Vec::new();
        let mut reached = from;
        for (begin, end) in gaps {
            if begin > reached {
                stretches.push((reached, begin, false));
            }
            stretches.push((begin, end, true));
            reached = end;
        }
        if to > reached {
            stretches.push((reached, to, false));
        }
        let folds = stretches.iter().filter(|(_, _, folded)| *folded).count();
        let open: f64 = stretches
            .iter()
            .filter(|(_, _, folded)| !folded)
            .map(|(begin, end, _)| end.since(*begin).as_secs_f64())
            .sum();
        let room = (width - FOLD * u32::try_from(folds).map_or(0.0, f64::from)).max(0.0);
        // When all of it is idle the folds share the whole width.
        let fold = if open > 0.0 { FOLD } else { width / u32::try_from(folds.max(1)).map_or(1.0, f64::from) };
        let mut pieces = Vec::new();
        let mut at = left;
        for (from, to, folded) in stretches {
            let width = if folded { fold } else { to.since(from).as_secs_f64() / open.max(1e-9) * room };
            pieces.push(Piece { from, to, left: at, width, folded });
            at += width;
        }
        Self { pieces }
    }

    /// Where a moment stands; at the nearest end when it is not on the paper.
    pub fn x(&self, at: Timestamp) -> f64 {
        let Some(first) = self.pieces.first() else { return 0.0 };
        if at <= first.from {
            return first.left;
        }
        for piece in &self.pieces {
            if at <= piece.to {
                let whole = piece.to.since(piece.from).as_secs_f64().max(1e-9);
                return piece.left + piece.width * (at.since(piece.from).as_secs_f64() / whole);
            }
        }
        self.pieces.last().map_or(0.0, |last| last.left + last.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    #[test]
    fn a_long_idle_stretch_takes_little_room_and_order_is_kept() {
        let busy = [(at(0), at(10)), (at(2000), at(2010))];
        let scale = Scale::with(at(0), at(2010), &busy, 0.0, 446.0);
        assert_eq!(scale.pieces.iter().map(|piece| piece.folded).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(scale.x(at(10)), 200.0);
        assert_eq!(scale.x(at(2000)), 246.0);
        assert_eq!(scale.x(at(2005)), 346.0);
        assert_eq!(scale.x(at(9999)), 446.0);
    }

    #[test]
    fn a_saga_that_only_waits_still_has_a_width() {
        let scale = Scale::with(at(0), at(60), &[], 10.0, 100.0);
        assert_eq!((scale.x(at(0)), scale.x(at(30)), scale.x(at(60))), (10.0, 60.0, 110.0));
    }
}
