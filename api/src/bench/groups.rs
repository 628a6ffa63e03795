//! Groups: which writes share a commit.

use std::collections::{HashSet, VecDeque};

use super::rows::Write;

/// How far ahead it is looked for a saga that a commit does not have yet.
const AHEAD: usize = 4096;

/// Puts writes into commits of this many on average, none with two of one saga, and each saga's in order.
pub fn grouped(writes: Vec<Write>, size: f64) -> Vec<Vec<Write>> {
    let size = size.max(1.0);
    let mut left: VecDeque<Write> = writes.into();
    let mut groups = Vec::new();
    let mut ends = 0.0;
    let mut taken = 0.0;
    while !left.is_empty() {
        ends += size;
        let mut group = Vec::new();
        let mut met = HashSet::new();
        let mut put_off = Vec::new();
        while taken + 0.5 < ends
            && put_off.len() < AHEAD
            && let Some(write) = left.pop_front()
        {
            if met.insert(write.saga.id.clone()) {
                group.push(write);
                taken += 1.0;
            } else {
                put_off.push(write);
            }
        }
        // A group that could not be filled does not make the next one larger.
        ends = ends.min(taken + 0.5);
        put_off.into_iter().rev().for_each(|write| left.push_front(write));
        groups.push(group);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::super::record::Written;
    use super::super::rows::Part;
    use super::*;
    use amends_engine::{Env, SagaId};

    /// Gives back `sagas` sagas, `turns` times each, in turns.
    fn writes(sagas: usize, turns: usize) -> Vec<Write> {
        let env = Env::seeded(1);
        let ids: Vec<SagaId> = (0..sagas).map(|_| SagaId::from_uuid(env.uuid())).collect();
        let written: Vec<Written> =
            (0..turns).flat_map(|_| ids.iter().map(|id| Written::Release(id.clone()))).collect();
        Write::all(&written, Part::All).unwrap()
    }

    #[test]
    fn groups_have_the_size_on_average_and_lose_nothing() {
        for size in [1.0, 2.5, 7.3] {
            let groups = grouped(writes(20, 30), size);
            assert_eq!(groups.iter().map(Vec::len).sum::<usize>(), 600);
            let average = 600.0 / groups.len() as f64;
            assert!((average - size).abs() < 0.1, "{average} for {size}");
        }
    }

    #[test]
    fn no_group_has_two_writes_of_one_saga_however_large_it_may_be() {
        let groups = grouped(writes(5, 4), 100.0);
        assert_eq!(groups.len(), 4);
        for group in groups {
            let sagas: HashSet<&str> = group.iter().map(|write| write.saga.id.as_str()).collect();
            assert_eq!(sagas.len(), group.len());
        }
    }
}
