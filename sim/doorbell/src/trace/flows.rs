//! Flows of messages from their devices to handler runs.

use doorbell_machine::{Cpu, Event, Occurrence, Signaled, Subject, Trace};
use std::collections::{HashMap, HashSet};

/// Flow of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flow {
    pub(super) id: u64,
    /// Start time of the handler run that found the message.
    pub(super) end: u64,
}

/// Flows of the messages whose send and handler run are both complete in the trace.
pub(super) struct Flows(HashMap<Subject, Flow>);

impl Flows {
    pub(super) fn of(trace: &Trace) -> Self {
        let mut begun = HashSet::new();
        let mut sent = HashSet::new();
        let mut taken: HashMap<Cpu, Vec<(u64, Subject, u64)>> = HashMap::new();
        let mut ends = Vec::new();
        for record in &trace.records {
            match (record.what, record.subject) {
                (Occurrence::Sends, Some(subject)) => _ = begun.insert(subject),
                (Occurrence::Answered(Signaled::Sent(_) | Signaled::Held), Some(subject))
                    if begun.remove(&subject) =>
                {
                    sent.insert(subject);
                }
                (Occurrence::Event(Event::Taken { cpu, .. }), _) => {
                    taken.insert(cpu, Vec::new());
                }
                (Occurrence::Handles { cpu, messages }, Some(last)) => {
                    taken.entry(cpu).and_modify(|runs| runs.push((record.at, last, messages)));
                }
                (Occurrence::Event(Event::Ended { cpu, .. }), _) => {
                    ends.extend(taken.remove(&cpu).into_iter().flatten());
                }
                _ => {}
            }
        }
        let ends = ends.into_iter().flat_map(|(at, last, messages)| {
            Self::found(last, messages).map(move |message| (message, at))
        });
        let ends = ends.filter(|(message, _)| sent.contains(message));
        Self(ends.zip(1..).map(|((message, end), id)| (message, Flow { id, end })).collect())
    }

    /// Returns the messages that a handler run found, given the last of them and their number.
    pub(super) fn found(last: Subject, messages: u64) -> impl Iterator<Item = Subject> {
        let first = last.message + 1 - messages;
        (first..=last.message).map(move |message| Subject { message, ..last })
    }

    pub(super) fn get(&self, message: Subject) -> Option<Flow> {
        self.0.get(&message).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
