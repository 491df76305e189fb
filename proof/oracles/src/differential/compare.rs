//! Replays a case on both machines.

use super::access::Access;
use super::acknowledge;
use super::difference::{self, Moment, Values};
use super::peer::{Peer, PeerReply};
use super::script::{Query, Script};
use super::step::Step;
use anyhow::Result;
use std::fmt;

/// The first reply in which the machines differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// The protocol lines up to that reply. Replaying these lines on fresh machines reproduces the
    /// difference.
    pub script: Vec<String>,
    /// Doorbell's reply to the last line.
    pub doorbell: String,
    /// QEMU's reply.
    pub qemu: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.script.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
        write!(f, "  Doorbell: {}\n  QEMU:     {}", self.doorbell, self.qemu)
    }
}

/// Resets both machines, then plays a case on them.
pub(super) fn play(
    steps: &[Step],
    model: &mut dyn Peer,
    qemu: &mut dyn Peer,
) -> Result<Option<Mismatch>> {
    let queries = Script::of(steps);
    model.reset()?;
    qemu.reset()?;
    ask(&queries, Moment::Later, model, qemu)
}

/// Sends the same queries to both machines. Returns the first mismatch.
pub(super) fn ask(
    queries: &[Query],
    moment: Moment,
    model: &mut dyn Peer,
    qemu: &mut dyn Peer,
) -> Result<Option<Mismatch>> {
    let (ours, theirs) = (replies(queries, model)?, replies(queries, qemu)?);
    let differs = |(query, (ours, theirs)): &(&Query, (&PeerReply, &PeerReply))| {
        !agree(query, moment, ours, theirs)
    };
    let found =
        queries.iter().zip(ours.iter().zip(&theirs)).enumerate().find(|(_, pair)| differs(pair));
    Ok(found.map(|(at, (_, (ours, theirs)))| Mismatch {
        script: needed(queries.get(..=at).unwrap_or_default()),
        doorbell: told(ours, theirs),
        qemu: told(theirs, ours),
    }))
}

fn replies(queries: &[Query], peer: &mut dyn Peer) -> Result<Vec<PeerReply>> {
    let mut replies = Vec::new();
    for run in queries.split_inclusive(|query| query.access.is_acknowledgment()) {
        let accesses = run.iter().map(|query| query.access);
        replies.extend(peer.replies(&mut accesses.filter(|access| !access.is_acknowledgment()))?);
        if let Some(Query { access: Access::Acknowledge { first, end }, .. }) = run.last() {
            let acknowledged = peer.acknowledge(*first..*end)?;
            let told: Vec<_> = acknowledged.iter().map(|each| acknowledge::tell(each)).collect();
            replies.push(PeerReply { text: told.join("; "), asserted: peer.asserted() });
        }
    }
    Ok(replies)
}

fn agree(query: &Query, moment: Moment, ours: &PeerReply, theirs: &PeerReply) -> bool {
    if query.compares_inputs && ours.asserted != theirs.asserted {
        return false;
    }
    if ours.text == theirs.text {
        return true;
    }
    let Access::Load { at, width } = query.access else { return false };
    let values = number(&ours.text).zip(number(&theirs.text));
    values
        .is_some_and(|(ours, theirs)| difference::agree(at, width, moment, Values { ours, theirs }))
}

/// Returns the lines up to the last query, without the reads that have no effect.
fn needed(queries: &[Query]) -> Vec<String> {
    let last = queries.len().saturating_sub(1);
    let needed =
        queries.iter().enumerate().filter(|(at, query)| *at == last || query.access.acts());
    needed.map(|(_, query)| query.access.to_string()).collect()
}

/// Returns the part of one machine's reply that differs from the other machine's reply.
fn told(reply: &PeerReply, other: &PeerReply) -> String {
    let text = shortened(&reply.text, &other.text);
    if reply.asserted == other.asserted {
        text
    } else {
        format!("{text}, asserted: {}", reply.asserted)
    }
}

/// Returns an excerpt of a reply around the point at which it first differs from another reply.
fn shortened(reply: &str, other: &str) -> String {
    const SHOWN: usize = 64;
    let same = reply.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count();
    if reply.len() <= SHOWN || !reply.is_ascii() {
        return reply.to_owned();
    }
    let end = reply.len().min(same + SHOWN / 2);
    format!("digit {same}: …{}…", &reply[same.saturating_sub(SHOWN / 4)..end])
}

/// Parses the number in a reply.
fn number(reply: &str) -> Option<u64> {
    u64::from_str_radix(reply.strip_prefix("OK 0x")?, 16).ok()
}
