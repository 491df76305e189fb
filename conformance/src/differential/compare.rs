//! One case on both machines.

use super::acknowledge;
use super::difference::{self, Moment, Values};
use super::peer::Peer;
use super::step::{Compared, Query, Script, Step};
use anyhow::Result;
use std::fmt;

/// The first reply in which the machines differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// What was said up to there, which reproduces it on fresh machines.
    pub script: Vec<String>,
    /// What Doorbell replied to the last line.
    pub doorbell: String,
    /// What QEMU did.
    pub qemu: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.script.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
        write!(f, "  Doorbell: {}\n  QEMU:     {}", self.doorbell, self.qemu)
    }
}

/// Resets both machines and plays a case on them.
pub(super) fn play(steps: &[Step], model: &mut dyn Peer, qemu: &mut dyn Peer) -> Result<Option<Mismatch>> {
    let queries = Script::of(steps);
    model.reset()?;
    qemu.reset()?;
    ask(&queries, Moment::Later, model, qemu)
}

/// Asks both machines.
pub(super) fn ask(
    queries: &[Query],
    moment: Moment,
    model: &mut dyn Peer,
    qemu: &mut dyn Peer,
) -> Result<Option<Mismatch>> {
    let (ours, theirs) = (replies(queries, model)?, replies(queries, qemu)?);
    let differs =
        |(query, (ours, theirs)): &(&Query, (&String, &String))| !agree(query.compared, moment, ours, theirs);
    let found = queries.iter().zip(ours.iter().zip(&theirs)).enumerate().find(|(_, pair)| differs(pair));
    Ok(found.map(|(at, (_, (ours, theirs)))| Mismatch {
        script: needed(queries.get(..=at).unwrap_or_default()),
        doorbell: shortened(ours, theirs),
        qemu: shortened(theirs, ours),
    }))
}

fn replies(queries: &[Query], peer: &mut dyn Peer) -> Result<Vec<String>> {
    let mut replies = Vec::new();
    for run in queries.split_inclusive(|query| query.acknowledges().is_some()) {
        let (cpu, lines) = match run.split_last() {
            Some((last, before)) if last.acknowledges().is_some() => (last.acknowledges(), before),
            _ => (None, run),
        };
        replies.extend(peer.replies(&mut lines.iter().map(|query| &*query.line))?);
        if let Some(cpu) = cpu {
            replies.push(acknowledge::tell(&peer.acknowledge(cpu)?));
        }
    }
    Ok(replies)
}

fn agree(compared: Compared, moment: Moment, ours: &str, theirs: &str) -> bool {
    if ours == theirs {
        return true;
    }
    let Compared::Register { at, width } = compared else { return false };
    let values = number(ours).zip(number(theirs));
    values.is_some_and(|(ours, theirs)| difference::agree(at, width, moment, Values { ours, theirs }))
}

/// The lines up to the last one without reads that change nothing.
fn needed(queries: &[Query]) -> Vec<String> {
    let last = queries.len().saturating_sub(1);
    let needed = queries.iter().enumerate().filter(|(at, query)| *at == last || query.acts());
    needed.map(|(_, query)| query.line.clone()).collect()
}

/// A reply around the place where it begins to differ from another one.
fn shortened(reply: &str, other: &str) -> String {
    const SHOWN: usize = 64;
    let same = reply.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count();
    if reply.len() <= SHOWN || !reply.is_ascii() {
        return reply.to_owned();
    }
    let end = reply.len().min(same + SHOWN / 2);
    format!("digit {same}: …{}…", &reply[same.saturating_sub(SHOWN / 4)..end])
}

/// The number of a reply that holds one.
fn number(reply: &str) -> Option<u64> {
    u64::from_str_radix(reply.strip_prefix("OK 0x")?, 16).ok()
}
