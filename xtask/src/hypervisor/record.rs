//! The hypervisor's records of exits and injections (`--stats`, `--trace`), held against what a
//! guest does whose every exit is known.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::costs::Costs;
use super::microbench::{EACH, Microbench};
use super::{LIMIT, Record};
use crate::process;
use crate::step::Tally;

/// Operations of each kind that `el2/microbench` does.
const TURNS: u64 = 201;
/// SGIs to a CPU that has slept for a while. Before each, the other CPU makes a hypercall and sends
/// itself an SGI.
const NAPS: u64 = 12;
/// Reasons, and how often the guest exits by them, or takes such an interrupt. In addition to its
/// operations it turns one vCPU on, asks whether that is on, and turns the machine off. The vCPU
/// that takes the last SGI never exits after that.
const COUNTS: &[(&str, u64)] = &[
    ("HVC", TURNS + NAPS + 3),
    ("system register write", TURNS + 2 * NAPS),
    ("SGI taken", TURNS + 2 * NAPS - 1),
    // By INT, and of the device.
    ("LPI taken", 2 * TURNS),
];

/// Counts and traces the guest's exits.
pub(super) fn run(microbench: &Microbench<'_>, tally: &mut Tally) -> Result<()> {
    let mut qemu = microbench.command(EACH, Record { trace: true, stats: true }, None)?;
    let (mut counts, mut traced) = (Vec::new(), BTreeMap::new());
    let mut costs = Costs::default();
    process::watch(&mut qemu, LIMIT, |line| {
        costs.line(line);
        counts.extend(Count::of(line));
        // The other vCPU may still exit when the first has turned the machine off.
        if counts.is_empty()
            && let Some(reason) = reason(line)
        {
            *traced.entry(reason).or_default() += 1;
        }
    })?;
    let name = "a guest's exits and interrupts are counted by reason";
    tally.case(name, COUNTS.iter().try_for_each(|(reason, times)| judge(&counts, reason, *times)));
    let name = "as many exits are traced as are counted";
    tally.case(name, compare(&counts, &traced));
    costs.judge_exits(tally);
    Ok(())
}

/// A line of a guest's counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) guest: usize,
    pub(super) reason: String,
    pub(super) times: u64,
    /// Nanoseconds of the longest exit, if it is one.
    pub(super) longest: Option<u64>,
}

impl Count {
    pub(super) fn of(line: &str) -> Option<Self> {
        let (guest, count) = line.trim_end().strip_prefix("stats - guest ")?.split_once(": ")?;
        let (reason, count) = count.split_once(": ")?;
        let (times, longest) = match count.split_once(" times, at most ") {
            Some((times, longest)) => (times, Some(longest.strip_suffix(" ns")?.parse().ok()?)),
            None => (count.strip_suffix(" times")?, None),
        };
        let (guest, times) = (guest.parse().ok()?, times.parse().ok()?);
        Some(Self { guest, reason: reason.into(), times, longest })
    }
}

/// The reason of an exit in a line of the trace: its words before the operands.
fn reason(line: &str) -> Option<String> {
    let (_, what) = line.trim_end().strip_prefix("trace - ")?.split_once(": exits by ")?;
    let words: Vec<_> = what.split(' ').take_while(|word| !word.starts_with("0x")).collect();
    Some(words.join(" "))
}

fn judge(counts: &[Count], reason: &str, times: u64) -> Result<()> {
    let count = counts.iter().find(|count| count.reason == reason);
    let found = count.with_context(|| format!("no {reason} is counted"))?.times;
    ensure!(found == times, "{found} times {reason}, not {times}");
    Ok(())
}

/// As many exits of each reason are traced as are counted.
fn compare(counts: &[Count], traced: &BTreeMap<String, u64>) -> Result<()> {
    ensure!(!traced.is_empty(), "nothing is traced");
    traced.iter().try_for_each(|(reason, times)| judge(counts, reason, *times))
}

#[cfg(test)]
mod test {
    use super::*;

    const WRITES: &str = "stats - guest 1: ITS write: 213 times, at most 17232 ns\r";

    #[test]
    fn counts_have_a_guest_and_a_reason() {
        let count = Count::of(WRITES).unwrap();
        let expected =
            Count { guest: 1, reason: "ITS write".into(), times: 213, longest: Some(17232) };
        assert_eq!(count, expected);
        let taken = Count::of("stats - guest 0: LPI taken: 7 times").unwrap();
        assert_eq!((taken.times, taken.longest), (7, None));
        assert_eq!(Count::of("stats - guest 0: the longest exit: 17232 ns by ITS write"), None);
    }

    #[test]
    fn traced_exits_end_before_their_operands() {
        let line = "trace - 8 guest 0 vCPU 1: exits by ITS write 0x8080088, 8 bytes = 0x3240\r";
        assert_eq!(reason(line).unwrap(), "ITS write");
        assert_eq!(reason("trace - 8 guest 0 vCPU 1: exits by WFI").unwrap(), "WFI");
        assert_eq!(reason("trace - 8 guest 0 vCPU 1: injects LPI 8192"), None);
    }

    #[test]
    fn other_numbers_than_the_guests_fail() {
        let counts = [Count::of(WRITES).unwrap()];
        assert!(judge(&counts, "ITS write", 213).is_ok());
        assert!(judge(&counts, "ITS write", 212).is_err());
        assert!(judge(&counts, "WFI", 0).is_err());
        assert!(compare(&counts, &BTreeMap::new()).is_err());
        assert!(compare(&counts, &BTreeMap::from([("ITS write".into(), 212)])).is_err());
    }
}
