//! The faults that are set: which of them happens to a call, and how often each did.

use std::collections::BTreeMap;

use super::{Fault, Kind, Provider};
use crate::dice::Dice;

/// The faults that are set, and how often each happened.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    set: Vec<(Fault, Dice)>,
    fired: BTreeMap<String, u32>,
    /// What the present call names: ids, names, its credential's name.
    named: Vec<String>,
}

impl Faults {
    pub(crate) fn set(&mut self, fault: Fault) {
        let dice = Dice::new(fault.seed.unwrap_or(1));
        self.set.push((fault, dice));
    }

    pub(crate) fn clear(&mut self) {
        self.set.clear();
    }

    pub(crate) fn all(&self) -> Vec<Fault> {
        self.set.iter().map(|(fault, _)| fault.clone()).collect()
    }

    pub(crate) fn fired(&self) -> BTreeMap<String, u32> {
        self.fired.clone()
    }

    /// Begins a call that names these.
    pub(crate) fn begin(&mut self, named: Vec<String>) {
        self.named = named;
    }

    /// Whether any fault asks what a call names: otherwise nobody needs to collect it.
    pub(crate) fn ask_for_names(&self) -> bool {
        self.set.iter().any(|(fault, _)| fault.of.is_some())
    }

    /// The fault of this kind that happens to this call, if one does.
    pub(crate) fn take(&mut self, provider: Provider, operation: &str, kind: Kind) -> Option<Fault> {
        self.take_where(provider, operation, kind, |_| true)
    }

    /// The same, of those that happen before the call has done its work, or after.
    pub(crate) fn take_at(
        &mut self,
        provider: Provider,
        operation: &str,
        kind: Kind,
        acted: bool,
    ) -> Option<Fault> {
        self.take_where(provider, operation, kind, |fault| fault.acted.unwrap_or(true) == acted)
    }

    /// A fault that is consulted for every call and counts calls itself.
    pub(crate) fn quotas(&self, provider: Provider, operation: &str) -> Vec<(usize, Fault)> {
        let all = self.set.iter().enumerate();
        all.filter(|(_, (fault, _))| fault.fault == Kind::Quota && self.is_meant(fault, provider, operation))
            .map(|(index, (fault, _))| (index, fault.clone()))
            .collect()
    }

    pub(crate) fn note(&mut self, provider: Provider, operation: &str, kind: Kind) {
        *self.fired.entry(format!("{provider}.{operation}.{kind}")).or_default() += 1;
    }

    fn is_meant(&self, fault: &Fault, provider: Provider, operation: &str) -> bool {
        fault.provider == provider
            && (fault.operation == "*" || fault.operation == operation)
            && fault.of.as_ref().is_none_or(|of| self.named.contains(of))
    }

    fn take_where(
        &mut self,
        provider: Provider,
        operation: &str,
        kind: Kind,
        fits: impl Fn(&Fault) -> bool,
    ) -> Option<Fault> {
        let meant: Vec<bool> = self
            .set
            .iter()
            .map(|(fault, _)| fault.fault == kind && fits(fault) && self.is_meant(fault, provider, operation))
            .collect();
        for ((fault, dice), is_meant) in self.set.iter_mut().zip(meant) {
            if !is_meant || fault.times == Some(0) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            if fault.probability.is_some_and(|chance| dice.unit() >= chance) {
                continue;
            }
            fault.times = fault.times.map(|times| times - 1);
            let taken = fault.clone();
            self.note(provider, operation, kind);
            return Some(taken);
        }
        None
    }
}
